//! Arguments of `fewbit sensitivity`.

use super::{EmbeddingsArgument, FloatDTypeArgument};
use clap::{ArgGroup, Args, ValueEnum};
use fewbit::GroupSize;
use fewbit::quantize::ShardSize;
use fewbit::sensitivity::WeightChoice;
use std::path::PathBuf;

/// Measure what int4 weights cost at each layer, and choose int8 or int4 for each under a limit
///
/// Each choice is measured by what it does, at layers that read the same rows and nowhere else, to the embeddings of the texts. The mixture with the
/// least loss for its bytes is found exactly, measured, and written as a recipe for `fewbit quantize --recipe`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("goal").required(true))]
pub(crate) struct SensitivityArguments {
    /// Model directory or Hub id
    pub(crate) model: String,
    /// Texts like those that the model will see: one a line, *.jsonl, *.csv, *.tsv or *.parquet
    #[arg(long, value_name = "FILE")]
    pub(crate) calibration: PathBuf,
    /// Least loss in a file of weights of at most SIZE (20MB, 15.5MB, 12MiB)
    #[arg(long, value_name = "SIZE", group = "goal")]
    pub(crate) max_bytes: Option<ShardSize>,
    /// Fewest bytes with at least this mean cosine to the float model's embeddings, on the texts
    #[arg(
        long,
        value_name = "COSINE",
        group = "goal",
        allow_negative_numbers = true
    )]
    pub(crate) min_cosine: Option<f64>,
    /// Recipe file to write (JSON where the name ends in .json, else TOML)
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Replace the recipe file if it exists
    #[arg(long)]
    pub(crate) force: bool,
    /// What becomes of the inputs of layers
    #[arg(long, value_enum, default_value_t = SensitivityMethod::WeightOnly)]
    pub(crate) method: SensitivityMethod,
    /// The weights to choose from: int8, int4, with options int4+group-128, int4+group-32+asymmetric, and float for layers that stay as they are
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "int8,int4",
        value_parser = weights
    )]
    pub(crate) weights: Vec<WeightChoice>,
    /// Group size of int4 where the list says none [default: 64]
    #[arg(long, value_name = "N")]
    pub(crate) group_size: Option<GroupSize>,
    /// Round weights by GPTQ, for the same texts
    #[arg(long)]
    pub(crate) gptq: bool,
    /// How the word embedding table is stored [default: as of `fewbit quantize`]
    #[arg(long, value_enum, value_name = "FORM")]
    pub(crate) embeddings: Option<EmbeddingsArgument>,
    /// The dtype of what is not quantized [default: that of the source]
    #[arg(long, value_enum, value_name = "DTYPE")]
    pub(crate) float_dtype: Option<FloatDTypeArgument>,
    /// Leave modules whose name matches this glob in float (may be repeated; adds to the defaults)
    #[arg(long, value_name = "GLOB")]
    pub(crate) skip: Vec<String>,
    /// Texts to draw from the file [default: 256, or all of a file that has fewer]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = super::number_of_samples)]
    pub(crate) samples: Option<usize>,
    /// Seed of the random draw of texts
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Column (JSON: field) that holds a text (may be repeated: each is a text of its own) [default: text]
    #[arg(long, value_name = "NAME")]
    pub(crate) field: Vec<String>,
    /// Worker threads, without any effect on the result [default: FEWBIT_NUM_THREADS, RAYON_NUM_THREADS,
    /// OMP_NUM_THREADS, else the CPUs available]
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        value_parser = super::number_of_threads
    )]
    pub(crate) threads: Option<usize>,
}

/// Methods whose weights can be mixed, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SensitivityMethod {
    /// Inputs have 8 bits per token
    Dynamic,
    /// Inputs have 12 bits per token here, and are floats in other programs
    WeightOnly,
    /// Inputs have 8 bits and stored ranges, which are calibrated with the same texts first
    Static,
}

fn weights(text: &str) -> Result<WeightChoice, fewbit::Error> {
    fewbit::compare::parse_weight_choice(text.trim())
}
