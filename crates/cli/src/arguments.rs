//! The types of arguments. Files and other facts of the machine are not read or checked here.

mod convert;
mod predict;
mod sensitivity;
mod training;

pub(crate) use crate::method_argument::MethodArgument;
use crate::method_argument::MethodParser;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
pub(crate) use convert::ConvertArguments;
use fewbit::GroupSize;
use fewbit::calibration::DEFAULT_SAMPLES;
use fewbit::model::WeightOnlyArithmetic;
use fewbit::quantize::ShardSize;
use fewbit::quantize::calibration::texts::SampleSize;
use fewbit::threads;
pub(crate) use predict::PredictArguments;
pub(crate) use sensitivity::{SensitivityArguments, SensitivityMethod};
use std::ops::RangeInclusive;
use std::path::PathBuf;
pub(crate) use training::TrainingArguments;

const AFTER_HELP: &str = "\
MODEL is a directory with config.json and weights (safetensors files, or where there are none
pytorch_model.bin), or a Hugging Face Hub id (owner/name, optionally followed by @revision),
which is downloaded into the Hugging Face cache.
HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE are honoured.

Data goes to standard output, everything else to standard error.
Exit codes:
  0    done
  1    failed; of `compare` also: a method did, and its row says so
  2    wrong usage
  3    a quality gate (--max-drop) was missed
  130  ended by Ctrl-C; 143 by SIGTERM, 129 by SIGHUP";

/// Heading of the flags of calibration in the help of commands that do more than that.
const CALIBRATION: &str = "Calibration (for the method static, GPTQ and weighted scales)";

/// Quantize Hugging Face encoders to few bits, and run them fast on a CPU.
#[derive(Debug, Parser)]
#[command(name = "fewbit", version, after_help = AFTER_HELP, propagate_version = true, max_term_width = 110)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: GlobalArguments,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Arguments {
    /// Every command with its flags. What `quantize` trains on is its `--data`, which is read as `--calibration` is.
    pub(crate) fn program() -> clap::Command {
        Self::command().mut_subcommands(|command| match command.get_name() {
            "quantize" => command.mut_arg("calibration", |file| file.visible_alias("data")),
            _ => command,
        })
    }

    /// Those of this process; ends it where they are wrong.
    pub(crate) fn read() -> Self {
        let matches = Self::program().get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// Flags that every command takes.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct GlobalArguments {
    /// Print the result as JSON
    #[arg(long, global = true, display_order = 900)]
    pub(crate) json: bool,
    /// Log what is being done to standard error (-v steps, -vv details); RUST_LOG takes precedence
    #[arg(short, long, global = true, display_order = 901, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// No progress and no notes on standard error; warnings and errors stay
    #[arg(
        short,
        long,
        global = true,
        display_order = 902,
        conflicts_with = "verbose"
    )]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Inspect(InspectArguments),
    Quantize(QuantizeArguments),
    Convert(ConvertArguments),
    Calibrate(CalibrateArguments),
    Sensitivity(SensitivityArguments),
    Embed(EmbedArguments),
    Predict(PredictArguments),
    Compare(CompareArguments),
    Bench(BenchArguments),
    Kernels(KernelsArguments),
    /// Show what fewbit finds on this machine: CPU, instruction set, threads, cache
    Doctor(ThreadsArgument),
    Completions(CompletionsArguments),
    Man(ManArguments),
}

/// Show which instruction sets the kernels have and this CPU supports, and which is used
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct KernelsArguments {
    /// List every routine, too
    #[arg(long)]
    pub(crate) all: bool,
}

/// Print a script that completes commands and flags in a shell
#[derive(Debug, Clone, Copy, Args)]
#[command(after_help = "\
bash        fewbit completions bash > ~/.local/share/bash-completion/completions/fewbit
zsh         fewbit completions zsh > DIR/_fewbit, where DIR is in $fpath
fish        fewbit completions fish > ~/.config/fish/completions/fewbit.fish
powershell  fewbit completions powershell >> $PROFILE
elvish      fewbit completions elvish >> ~/.config/elvish/rc.elv")]
pub(crate) struct CompletionsArguments {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// Print the manual page, or write one for every command
#[derive(Debug, Args)]
pub(crate) struct ManArguments {
    /// Directory to write fewbit.1, fewbit-quantize.1 and so on to, for instance ~/.local/share/man/man1
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}

/// Show parameters, bytes and dtypes of a model, and the size that each method would give
#[derive(Debug, Args)]
pub(crate) struct InspectArguments {
    /// Model directory, Hub id or GGUF file
    pub(crate) model: String,
    /// List every tensor, too
    #[arg(long)]
    pub(crate) tensors: bool,
}

/// Quantize a model and write it as a standard checkpoint directory
///
/// The directory loads in Hugging Face transformers unchanged (int8: with compressed-tensors, nf4 and fp4: with
/// bitsandbytes installed) and in fewbit. Nothing is left at OUT unless it is whole.
#[derive(Debug, Args)]
#[command(
    after_help = "Task heads, poolers and normalizations stay float, in the dtype of --float-dtype. Layers that --skip names stay float, too."
)]
pub(crate) struct QuantizeArguments {
    /// Model directory or Hub id
    pub(crate) model: String,
    /// Directory to write; must be absent or empty, unless --force is given
    #[arg(short, long, value_name = "OUT", required_unless_present = "dry_run")]
    pub(crate) output: Option<PathBuf>,
    /// What becomes of the weights; start with dynamic, which needs no calibration
    #[arg(long, value_parser = MethodParser, required_unless_present = "recipe")]
    pub(crate) method: Option<MethodArgument>,
    /// Recipe file (TOML or JSON, as recipe.toml beside every model that fewbit wrote) instead of --method; flags beside it must
    /// not contradict it
    #[arg(long, value_name = "FILE")]
    pub(crate) recipe: Option<PathBuf>,
    /// dynamic, static, weight-only and qat: the codes of weights [default: int8]
    #[arg(long, value_enum, value_name = "CODES")]
    pub(crate) weights: Option<WeightsArgument>,
    /// With --weights int4, or int8 with weight-only: neighbouring weights of a row that share a scale, or `channel` for all of a row [default: 64, int8: channel]
    #[arg(long, value_name = "N")]
    pub(crate) group_size: Option<GroupSize>,
    /// With --weights int4: groups have zero points, too; transformers loads them with `dequantize=True` alone
    #[arg(long)]
    pub(crate) asymmetric: bool,
    /// With --weights int4, or int8 with weight-only: which layout is written [default: pack-quantized]
    #[arg(long, value_enum, value_name = "LAYOUT")]
    pub(crate) layout: Option<LayoutArgument>,
    /// With --weights fp8: which weights share a scale [default: per-channel]
    #[arg(long, value_enum, value_name = "SCALES")]
    pub(crate) weight_scales: Option<WeightScalesArgument>,
    /// nf4 and fp4: quantize the scales, too (about 0.37 bits a weight less on large models)
    #[arg(long)]
    pub(crate) double_quant: bool,
    /// nf4 and fp4: weights that share one scale [default: 64]
    #[arg(long, value_name = "N")]
    pub(crate) block_size: Option<usize>,
    /// nf4, fp4 and --weights int4: how the scale of a block or group is chosen [default: absmax; of int4 mse]
    #[arg(long, value_enum, value_name = "CHOICE")]
    pub(crate) scales: Option<ScalesArgument>,
    /// How the word embedding table is stored [default: int8 for dynamic, static and weight-only unless a head shares the table; else
    /// keep, as other floats]
    #[arg(long, value_enum, value_name = "FORM")]
    pub(crate) embeddings: Option<EmbeddingsArgument>,
    /// The same as --embeddings keep
    #[arg(long, conflicts_with = "embeddings")]
    pub(crate) keep_embeddings: bool,
    /// The same as --embeddings int8: the old name
    #[arg(long, hide = true, conflicts_with_all = ["embeddings", "keep_embeddings"])]
    pub(crate) quantize_embeddings: bool,
    /// The dtype of what is not quantized: biases, normalizations, heads, position tables, and embeddings that are kept [default: that of
    /// the source]
    #[arg(long, value_enum, value_name = "DTYPE")]
    pub(crate) float_dtype: Option<FloatDTypeArgument>,
    /// Leave modules whose name matches this glob in float (may be repeated; adds to the defaults)
    #[arg(long, value_name = "GLOB")]
    pub(crate) skip: Vec<String>,
    /// dynamic: quantize only the weights of layers whose name matches this glob, as weight-only does: nearer to the float model, a
    /// little slower (may be repeated)
    #[arg(long, value_name = "GLOB")]
    pub(crate) weight_only: Vec<String>,
    /// dynamic: what shares one scale of an input; per-tensor is PyTorch's quantize_dynamic, and needs a --backend of PyTorch
    /// [default: per-token]; qat: how inputs are quantized [default: dynamic with int8 weights, else none]
    #[arg(long, value_enum, value_name = "SCALES")]
    pub(crate) activations: Option<ActivationsArgument>,
    /// Show what would be done to every module and the size it gives; write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Replace OUT if it exists
    #[arg(long)]
    pub(crate) force: bool,
    /// Weights of more than SIZE are written as several files with an index; no tensor is cut (5GB, 500MB, 2GiB)
    #[arg(long, value_name = "SIZE", default_value_t)]
    pub(crate) max_shard_size: ShardSize,
    /// Go on where the same command was interrupted; the result is that of one run. Files of weights that are whole, and with --gptq layers,
    /// are kept beside OUT, in OUT.partial, until OUT is there; a single file is begun anew
    #[arg(long, requires = "output")]
    pub(crate) resume: bool,
    /// Worker threads, without any effect on the result [default: FEWBIT_NUM_THREADS, RAYON_NUM_THREADS,
    /// OMP_NUM_THREADS, else the CPUs available]
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        value_parser = number_of_threads
    )]
    pub(crate) threads: Option<usize>,
    #[command(flatten, next_help_heading = CALIBRATION)]
    pub(crate) calibration: CalibrationArguments,
    /// What the table of inputs shows of a range's cost; which inputs are dynamic is decided by sqnr [default: sqnr]
    #[arg(
        long,
        value_enum,
        value_name = "MEASURE",
        requires = "calibration",
        help_heading = CALIBRATION
    )]
    pub(crate) sensitivity: Option<SensitivityArgument>,
    /// Round int8 and 4-bit weights so that the layers' outputs on the texts of --calibration change least (GPTQ)
    #[arg(long, help_heading = CALIBRATION)]
    pub(crate) gptq: bool,
    /// With --gptq: no two neighbouring weights can saturate the 16-bit sums of vpmaddubsw (AVX2 without VNNI)
    #[arg(long, help_heading = CALIBRATION)]
    pub(crate) saturation_proof: bool,
    #[command(flatten, next_help_heading = "Training")]
    pub(crate) training: TrainingArguments,
}

/// Where the scales of activations come from.
#[derive(Debug, Args)]
pub(crate) struct CalibrationArguments {
    /// Texts like those that the model will see: one a line, *.jsonl, *.csv, *.tsv or *.parquet; or token ids
    #[arg(long, value_name = "FILE")]
    pub(crate) calibration: Option<PathBuf>,
    /// Statistics that `fewbit calibrate` wrote (may be repeated: they are merged)
    #[arg(long, value_name = "FILE")]
    pub(crate) stats: Vec<PathBuf>,
    /// Inputs whose signal to noise ratio with one range is lower become dynamic per token, in dB [default: 30 with the backend
    /// native; with PyTorch's every input is static]
    #[arg(long, value_name = "DB", allow_hyphen_values = true)]
    pub(crate) min_sqnr: Option<f64>,
    #[command(flatten)]
    pub(crate) texts: CalibrationTexts,
}

/// Which texts are observed, and how.
#[derive(Debug, Args)]
pub(crate) struct CalibrationTexts {
    /// Texts, or rows of token ids, to draw from the calibration file
    /// [default: 256, or all of a file that has fewer; qat: all of a file, 100000 at most]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = number_of_samples)]
    pub(crate) samples: Option<usize>,
    /// As many batches of --batch-size, in place of --samples
    #[arg(long, value_name = "N", requires = "calibration", conflicts_with = "samples", allow_negative_numbers = true, value_parser = number_of_batches)]
    pub(crate) batches: Option<usize>,
    /// Samples run together; the ranges of moving-average and histogram depend on it [default: 32, qat: 16 a step]
    #[arg(long, value_name = "N", requires = "calibration", allow_negative_numbers = true, value_parser = batch_size)]
    pub(crate) batch_size: Option<usize>,
    /// Seed of the random draw of texts
    #[arg(
        long,
        value_name = "SEED",
        default_value_t = 0,
        requires = "calibration"
    )]
    pub(crate) seed: u64,
    /// Column (JSON: field) that holds a text, of every file of texts (may be repeated: each is a text of its own) [default: text]
    #[arg(long, value_name = "NAME")]
    pub(crate) field: Vec<String>,
    /// Column of token ids, of JSONL or Parquet rows that are tokenized already [default: input_ids in a file with this
    /// column and none named text]
    #[arg(
        long,
        value_name = "NAME",
        requires = "calibration",
        conflicts_with = "field"
    )]
    pub(crate) input_ids_column: Option<String>,
    /// Column with 1 for each token and 0 for padding [default: named as the ids with attention_mask for input_ids,
    /// where the file has it]
    #[arg(
        long,
        value_name = "NAME",
        requires = "calibration",
        conflicts_with = "field"
    )]
    pub(crate) attention_mask_column: Option<String>,
    /// How ranges are chosen [default: that of the backend, mse for native]
    #[arg(long, value_enum)]
    pub(crate) observer: Option<ObserverArgument>,
    /// Whose defaults to start from: fewbit's own, or those of a PyTorch backend, which give PyTorch's scales [default: native]
    #[arg(long, value_enum)]
    pub(crate) backend: Option<BackendArgument>,
}

impl CalibrationTexts {
    /// Texts or rows to draw. A number that nobody asked for is no demand.
    pub(crate) fn sample_size(&self) -> SampleSize {
        match (self.batches, self.samples) {
            (Some(batches), _) => SampleSize::Exactly(batches.saturating_mul(self.batch_size())),
            (None, Some(samples)) => SampleSize::Exactly(samples),
            (None, None) => SampleSize::UpTo(DEFAULT_SAMPLES),
        }
    }

    /// Samples that are observed together.
    pub(crate) fn batch_size(&self) -> usize {
        self.batch_size.unwrap_or(32)
    }

    /// Whether no flag says how to observe.
    pub(crate) fn is_default(&self) -> bool {
        self.observer.is_none() && self.backend.is_none()
    }
}

/// Observers of activations, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ObserverArgument {
    /// Least and greatest value
    MinMax,
    /// Moving averages of both
    MovingAverage,
    /// PyTorch's histogram
    Histogram,
    /// All but one in 10000 values
    Percentile,
    /// Least squared error
    Mse,
    /// Least Kullback-Leibler divergence
    Entropy,
}

/// Scales of activations at run time, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ActivationsArgument {
    /// A scale for each token
    PerToken,
    /// A scale for a whole text, by the rule of PyTorch's quantize_dynamic
    PerTensor,
    /// qat: a scale for each token
    Dynamic,
    /// qat: one scale for each layer's input, chosen by calibration on some of the texts
    Static,
    /// qat: inputs are floats
    None,
}

/// Codes of the weights of integer methods, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WeightsArgument {
    /// 8 bits, one scale for each output channel
    Int8,
    /// 4 bits, a scale for each group of columns
    Int4,
    /// qat: 4-bit NormalFloat codes in blocks
    Nf4,
    /// Floats of 8 bits (E4M3), scales as --weight-scales says (weight-only, dynamic, static)
    Fp8,
    /// Floats of 4 bits (E2M1), an FP8 scale for each 16 columns (weight-only)
    Nvfp4,
    /// Floats of 4 bits (E2M1), a power of two for each 32 columns (weight-only)
    Mxfp4,
}

/// Which FP8 weights share a scale, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WeightScalesArgument {
    /// Those of an output channel
    PerChannel,
    /// All of a layer
    PerTensor,
}

/// Layouts of codes, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LayoutArgument {
    /// compressed-tensors, eight codes in a word
    PackQuantized,
    /// compressed-tensors, a code a byte
    IntQuantized,
    /// GPTQ, zero points stored less one (weight-only)
    Gptq,
    /// GPTQ, zero points stored as they are (weight-only)
    #[value(name = "gptq_v2")]
    GptqV2,
    /// AWQ, version gemm (weight-only)
    Awq,
    /// bitsandbytes, LLM.int8: int8 weights (weight-only)
    Bitsandbytes,
}

/// Choices of the scales of 4-bit blocks and groups, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScalesArgument {
    /// The largest magnitude, as bitsandbytes has it; of asymmetric groups minimum and maximum
    Absmax,
    /// The least squared error: more accurate, read by the same loaders, slower to find
    Mse,
    /// The same, where the error of a weight counts as much as the mean square of its input over the texts of --calibration
    ActivationWeighted,
}

/// Forms of the word embedding table, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EmbeddingsArgument {
    /// As other floats
    Keep,
    /// int8 codes, one scale a row (with nf4 and fp4 no other loader than fewbit reads them)
    Int8,
    /// nf4 and fp4: NF4 codes in blocks; no other loader than fewbit reads them
    Nf4,
    /// IEEE half precision
    #[value(alias = "float16")]
    Fp16,
    /// bfloat16
    #[value(alias = "bfloat16")]
    Bf16,
}

/// Dtypes of what is not quantized, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FloatDTypeArgument {
    /// IEEE single precision
    #[value(aliases = ["fp32", "float32"])]
    F32,
    /// IEEE half precision
    #[value(aliases = ["f16", "float16"])]
    Fp16,
    /// bfloat16
    #[value(alias = "bfloat16")]
    Bf16,
}

/// Measures of what one range costs, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SensitivityArgument {
    /// Signal to noise ratio of the input
    Sqnr,
    /// And what each input alone does to the embeddings (a pass over 32 texts for each)
    Output,
}

/// Backends, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendArgument {
    /// fewbit's own, the most accurate
    Native,
    /// PyTorch on servers, the older name of x86
    Fbgemm,
    /// PyTorch on servers: activations in 7 bits
    X86,
    /// PyTorch on ARM: one scale for a whole weight
    Qnnpack,
    /// PyTorch with oneDNN
    Onednn,
}

/// Observe a float model's activations on texts and save the statistics for `quantize --method static`
///
/// What has been observed is saved every ten seconds beside OUT, as OUT.partial, until OUT is there.
#[derive(Debug, Args)]
pub(crate) struct CalibrateArguments {
    /// Model directory or Hub id
    pub(crate) model: String,
    /// Texts like those that the model will see: one a line, *.jsonl, *.csv, *.tsv or *.parquet; or token ids
    #[arg(long, value_name = "FILE")]
    pub(crate) calibration: PathBuf,
    /// File to write the statistics to; must not exist
    #[arg(long, value_name = "OUT")]
    pub(crate) stats: PathBuf,
    /// Go on where the same command was interrupted; the result is that of one run
    #[arg(long)]
    pub(crate) resume: bool,
    #[command(flatten)]
    pub(crate) texts: CalibrationTexts,
}

/// Turn texts into embeddings
///
/// Texts come one a line (an empty line is an empty text), as JSONL (one JSON string or object a line), as CSV with a
/// header, or from a column of a Parquet file. Line ends may be LF or CRLF, the encoding is UTF-8. Standard input is
/// read to its end.
#[derive(Debug, Args)]
#[command(after_help = "\
Output, chosen by the extension of -o:
  .npy          float32 array (texts, dimension), C order
  .safetensors  tensor `embeddings`, F32 (texts, dimension)
  .jsonl        one object a line: {\"embedding\": [...]}, with \"truncated\": true where the text was cut
                sparse embeddings of SPLADE models, always JSONL: {\"indices\": [...], \"values\": [...]}
Without -o the JSONL goes to standard output, with --json or without it; with -o, --json prints a summary.
A file appears only when it is whole.")]
pub(crate) struct EmbedArguments {
    /// Model directory or Hub id
    pub(crate) model: String,
    /// File of texts, or - for standard input
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub(crate) input: PathBuf,
    /// File of embeddings to write, *.npy, *.safetensors or *.jsonl; - for JSONL on standard output [default: -]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Replace the output file if it exists
    #[arg(long, requires = "output")]
    pub(crate) force: bool,
    /// How the texts are written [default: what the name says: *.jsonl, *.ndjson, *.json, *.csv, *.tsv, *.parquet; else jsonl
    /// when --field is given, or lines]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) input_format: Option<TextFormat>,
    /// Field of a JSON object, or column, that holds the text (may be repeated: each is a text of its own) [default: text]
    #[arg(long, value_name = "NAME")]
    pub(crate) field: Vec<String>,
    /// How the hidden states of a text become one vector [default: what the model's files say, else mean]
    #[arg(long, value_enum, value_name = "MODE")]
    pub(crate) pooling: Option<PoolingArgument>,
    /// Give every embedding length 1 [default: what the model's files say]
    #[arg(long, conflicts_with = "no_normalize")]
    pub(crate) normalize: bool,
    /// Leave embeddings at the length that they have
    #[arg(long)]
    pub(crate) no_normalize: bool,
    /// Cut texts at so many tokens, special tokens included [default: the model's limit]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = sequence_length)]
    pub(crate) max_tokens: Option<usize>,
    /// Put this before every text, in place of the model's default prompt
    #[arg(
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        conflicts_with = "prompt_name"
    )]
    pub(crate) prompt: Option<String>,
    /// Put the model's prompt of this name before every text (of config_sentence_transformers.json)
    #[arg(long, value_name = "NAME")]
    pub(crate) prompt_name: Option<String>,
    /// What the embeddings are for: query or document, with the model's prompt of that name unless another is given; or the name
    /// of another route of a model with a Router [default: the route that the model's files say]
    #[arg(long, value_name = "NAME")]
    pub(crate) task: Option<String>,
    /// Texts run together; bounds memory, never changes a result
    #[arg(long, value_name = "N", default_value_t = 32, allow_negative_numbers = true, value_parser = batch_size)]
    pub(crate) batch_size: usize,
    #[command(flatten)]
    pub(crate) threads: ThreadsArgument,
    #[command(flatten)]
    pub(crate) weight_only: WeightOnlyArgument,
}

/// Ways to pool, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PoolingArgument {
    /// The mean of all tokens
    Mean,
    /// The first token
    Cls,
    /// The largest value of each column
    Max,
    /// The last token
    Last,
}

/// How a file of texts is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TextFormat {
    /// One text a line
    Lines,
    /// One JSON string or object a line
    Jsonl,
    /// One JSON array of strings or objects
    Json,
    /// Comma-separated values with a header
    Csv,
    /// Values separated by tabs, with a header; quotation marks are part of the text
    Tsv,
    /// Apache Parquet
    Parquet,
}

/// Run a model under several methods and print one table of what each costs
///
/// Every model is measured in a process of its own, so that peak memory is its own; latency is taken in rounds that
/// visit every model in turn, so that a drifting machine disturbs all alike. A model that classifies texts is compared by its
/// logits, any other by its embeddings.
#[derive(Debug, Args)]
#[command(after_help = "\
Methods: fp16, bf16, dynamic, static, weight-only, nf4, fp4 (int4 is read as nf4).
  dynamic+embeddings, static+embeddings, weight-only+embeddings
                                               int8 codes for the word embeddings, too
  nf4+double, fp4+double                       double quantization
  nf4+mse, fp4+mse                             scales with the least squared error
  nf4+activation-weighted, and so on           and weighted by the inputs on the texts of --calibration
  dynamic+gptq, nf4+gptq, and so on            weights rounded for the texts of --calibration (GPTQ)
  dynamic+gptq+saturation-proof, and so on     and such that no pair of int8 weights can saturate 16 bits
The names that tables print (`nf4 + double quantization`) are read, too.
GPTQ and activation-weighted scales need --calibration FILE, static that or --stats FILE; static takes part by itself where one is given.
A method that fails has a row that says so, and the others are measured. The exit code is 1 then, whatever
--max-drop finds.")]
pub(crate) struct CompareArguments {
    /// Model directory or Hub id
    pub(crate) model: String,
    /// Methods to compare, separated by commas [default: fp16, bf16, dynamic, dynamic+float-embeddings, weight-only, nf4,
    /// nf4+double, fp4] and static, where there is something to calibrate with. Others add +fp16 or +bf16, the dtype of what is not
    /// quantized, +int8-embeddings, +gptq; a recipe file (*.toml, *.json) is a method, too
    #[arg(long, value_delimiter = ',', value_name = "A,B,C")]
    pub(crate) methods: Vec<String>,
    /// Compare this model, too, which is quantized already: one that was trained (--method qat), for example (may be repeated)
    #[arg(long, value_name = "DIR")]
    pub(crate) quantized: Vec<PathBuf>,
    /// Sentence pairs with scores (fields or columns sentence1, sentence2, score of *.jsonl, *.json, *.csv, *.tsv or *.parquet): adds
    /// the Spearman correlation
    #[arg(long, value_name = "FILE", conflicts_with = "texts")]
    pub(crate) data: Option<PathBuf>,
    /// The fields or columns of --data, if they have other names: of the first and the second sentence and of the score
    #[arg(
        long,
        value_name = "FIRST,SECOND,SCORE",
        value_delimiter = ',',
        requires = "data"
    )]
    pub(crate) data_fields: Vec<String>,
    /// Texts to compare embeddings on: one a line, or the field or column `text` (or --field) of *.jsonl, *.json, *.csv, *.tsv
    /// or *.parquet
    #[arg(long, value_name = "FILE")]
    pub(crate) texts: Option<PathBuf>,
    /// Column (JSON: field) of --texts that holds the right label, by name or number, of a model that classifies texts: adds accuracy
    /// and macro F1
    #[arg(long, value_name = "NAME", requires = "texts")]
    pub(crate) label_column: Option<String>,
    /// Column (JSON: field) of --texts that holds a second text, to be classified with the first
    #[arg(long, value_name = "NAME", requires = "texts")]
    pub(crate) pair_column: Option<String>,
    /// Keep the quantized models in this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
    /// Exit with 3 if a method loses more than X: points of Spearman x 100 with --data, else 100 x (1 - mean cosine); of models that
    /// classify texts points of accuracy x 100 with --label-column, else 100 x (share of texts with another label)
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) max_drop: Option<f64>,
    #[command(flatten)]
    pub(crate) threads: ThreadsArgument,
    #[command(flatten)]
    pub(crate) weight_only: WeightOnlyArgument,
    #[command(flatten, next_help_heading = CALIBRATION)]
    pub(crate) calibration: CalibrationArguments,
    /// Instead of methods, compare `static` calibrated on so many texts, for instance 1,4,16,64,256,1024: each number is drawn
    /// with three seeds, from --seed on
    #[arg(
        long,
        value_name = "N,N",
        value_delimiter = ',',
        allow_negative_numbers = true,
        value_parser = number_of_samples,
        help_heading = CALIBRATION,
        requires = "calibration",
        conflicts_with_all = ["methods", "stats", "samples", "batches", "keep", "max_drop", "weight_only_in", "label_column", "pair_column"]
    )]
    pub(crate) calibration_sweep: Vec<usize>,
}

/// Measure how fast models are, at fixed shapes and on texts
///
/// Every model is opened in a process of its own, so that peak memory is its own; times are taken in rounds that visit every
/// model in turn, so that a drifting machine disturbs all alike. Ratios are to the first model.
#[derive(Debug, Args)]
#[command(after_help = "\
A shape is a batch of sequences of as many tokens each, run through the network alone, without
tokenization and pooling: every --batch with every --tokens and every --threads.
Multiply-adds (MAC) are those of the matrix products; for a sequence of t tokens:
  t x sum over linear layers of (out x in)  +  layers x 2 x t x t x hidden size
The peak is what one thread reaches from registers alone, with the multiply-add instruction that the
model's linear layers use, times the threads.")]
pub(crate) struct BenchArguments {
    /// Model directories or Hub ids; the first is the one that the others are compared with
    #[arg(required = true, value_name = "MODEL")]
    pub(crate) models: Vec<String>,
    /// Sequences in a batch, separated by commas
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "1,8,32", allow_negative_numbers = true, value_parser = batch_size)]
    pub(crate) batch: Vec<usize>,
    /// Tokens of every sequence, special tokens included, separated by commas
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "16,128", allow_negative_numbers = true, value_parser = sequence_length)]
    pub(crate) tokens: Vec<usize>,
    /// Worker threads, separated by commas [default: FEWBIT_NUM_THREADS, RAYON_NUM_THREADS, OMP_NUM_THREADS, else the
    /// CPUs available]
    #[arg(long, value_name = "N,N", value_delimiter = ',', allow_negative_numbers = true, value_parser = number_of_threads)]
    pub(crate) threads: Vec<usize>,
    /// Embed these texts, too (one a line, or the field or column `text` of *.jsonl, *.json, *.csv, *.tsv or *.parquet),
    /// tokenization included, in batches of --batch: as they come in the file, and sorted by length
    #[arg(long, value_name = "FILE")]
    pub(crate) texts: Option<PathBuf>,
    /// Field or column of --texts that holds a text (may be repeated: each is a text of its own) [default: text]
    #[arg(long, value_name = "NAME", requires = "texts")]
    pub(crate) field: Vec<String>,
    /// Measure the stages of the network, too: a table for each model and shape, on one thread
    #[arg(long)]
    pub(crate) profile: bool,
    /// Seconds for which every model is timed at every shape, in all rounds together, and again with --profile
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Rounds over the models; in each of them a shape runs at least once, all texts once, and every model is opened anew
    /// once, for the time to the first embedding
    #[arg(long, value_name = "N", default_value_t = 5, allow_negative_numbers = true, value_parser = rounds)]
    pub(crate) rounds: usize,
    #[command(flatten)]
    pub(crate) weight_only: WeightOnlyArgument,
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct WeightOnlyArgument {
    /// What layers compute in whose weights alone are int8 [default: FEWBIT_WEIGHT_ONLY, else integers]
    #[arg(long, value_enum, value_name = "NUMBERS")]
    weight_only_in: Option<NumbersArgument>,
}

impl WeightOnlyArgument {
    /// The arithmetic that was typed, if any.
    pub(crate) fn arithmetic(self) -> Option<WeightOnlyArithmetic> {
        self.weight_only_in.map(|numbers| match numbers {
            NumbersArgument::Integers => WeightOnlyArithmetic::Integers,
            NumbersArgument::Floats => WeightOnlyArithmetic::Floats,
        })
    }
}

/// Numbers that layers compute in, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum NumbersArgument {
    /// Exact integers, with activations rounded to 12 bits
    Integers,
    /// Floats, with weights dequantized for every product: slower
    Floats,
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ThreadsArgument {
    /// Worker threads [default: FEWBIT_NUM_THREADS, RAYON_NUM_THREADS, OMP_NUM_THREADS, else the CPUs available]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = number_of_threads)]
    pub(crate) threads: Option<usize>,
}

fn number_of_threads(text: &str) -> Result<usize, String> {
    number_in(text, 1..=threads::MAXIMUM)
}

fn number_of_samples(text: &str) -> Result<usize, String> {
    let number = text.trim().parse().ok().filter(|&number| number > 0);
    number.ok_or_else(|| "expected a number of texts, 1 or more".to_owned())
}

fn batch_size(text: &str) -> Result<usize, String> {
    number_in(text, 1..=65536)
}

fn number_of_batches(text: &str) -> Result<usize, String> {
    number_in(text, 1..=1_000_000_000)
}

fn sequence_length(text: &str) -> Result<usize, String> {
    number_in(text, 1..=65536)
}

fn rounds(text: &str) -> Result<usize, String> {
    number_in(text, 1..=1000)
}

fn seconds(text: &str) -> Result<f64, String> {
    const MOST: f64 = 600.0;
    text.parse()
        .ok()
        .filter(|&seconds| 0.0 < seconds && seconds <= MOST)
        .ok_or_else(|| format!("expected a number above 0, at most {MOST}"))
}

fn number_in(text: &str, range: RangeInclusive<usize>) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("expected {} to {}", range.start(), range.end()))
}
