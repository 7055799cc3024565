//! What a benchmark says about a model besides its speed.

use super::host::{Memory, OpenFacts};
use super::options::BenchModel;
use super::report::StartupTime;
use crate::Error;
use crate::size::ModelSize;
use fewbit_checkpoint::Checkpoint;
use fewbit_kernels::peak::Arithmetic;
use fewbit_model::EncoderSpec;
use fewbit_quantize::Recipe;
use serde::Serialize;
use std::path::PathBuf;

/// A model of a benchmark.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchedModel {
    /// What it is called in the report.
    pub name: String,
    /// Model directory.
    pub directory: PathBuf,
    /// config.json `model_type`.
    pub model_type: String,
    /// The recipe that made it, where fewbit did: `dynamic`, `nf4 + double quantization` …
    pub method: Option<String>,
    /// How its weights are stored: the dtype of most bytes (`F32`), or the quantization that config.json names.
    pub stored_as: String,
    /// Arithmetic of most linear layers, see [`arithmetic_name`].
    pub arithmetic: String,
    /// Positions that the model has, which bound the tokens of a sequence.
    pub max_tokens: usize,
    /// The most that one thread reached in that arithmetic, from registers alone, in units of 10^9 multiply-adds a second.
    pub peak_gmacs_per_second: f64,
    /// The way to the first embedding.
    pub startup: StartupTime,
    /// After all shapes, in the process that ran this model.
    #[serde(flatten)]
    pub memory: Memory,
}

/// `int8` or `f32`.
pub fn arithmetic_name(arithmetic: Arithmetic) -> &'static str {
    match arithmetic {
        Arithmetic::Int8 => "int8",
        Arithmetic::F32 => "f32",
    }
}

/// What is known of a model before it is measured.
pub(super) struct ModelFacts {
    pub(super) name: String,
    pub(super) spec: EncoderSpec,
    method: Option<String>,
    stored_as: String,
    arithmetic: String,
}

impl ModelFacts {
    pub(super) fn of(name: &str, open: &OpenFacts) -> Result<Self, Error> {
        let directory = &open.checkpoint_directory;
        let checkpoint = Checkpoint::open(directory)?;
        let quantization = checkpoint.quantization();
        let stored_as = if quantization.is_quantized() {
            quantization.to_string()
        } else {
            let size = ModelSize::of(directory)?;
            size.by_dtype
                .first()
                .map_or("no weights", |dtype| dtype.name)
                .to_owned()
        };
        Ok(ModelFacts {
            name: name.to_owned(),
            spec: EncoderSpec::from_checkpoint(&checkpoint)?,
            // The model runs without the file: one that is no recipe of this version only tells nothing.
            method: Recipe::read(directory.join("recipe.toml"))
                .ok()
                .map(|recipe| recipe.label()),
            stored_as,
            arithmetic: open.arithmetic.clone(),
        })
    }

    pub(super) fn benched(
        &self,
        model: &BenchModel,
        startup: StartupTime,
        memory: Memory,
        peak: f64,
    ) -> BenchedModel {
        BenchedModel {
            name: model.name.clone(),
            directory: model.directory.clone(),
            model_type: self.spec.model_type.clone(),
            method: self.method.clone(),
            stored_as: self.stored_as.clone(),
            arithmetic: self.arithmetic.clone(),
            max_tokens: self.spec.positions.max_tokens(),
            peak_gmacs_per_second: peak / 1e9,
            startup,
            memory,
        }
    }
}
