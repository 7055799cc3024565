//! What can go wrong between a recipe and a written checkpoint.

use std::path::PathBuf;

use fewbit_checkpoint::CheckpointError;
use fewbit_data::DataError;
use fewbit_kernels::IsaError;
use fewbit_model::ModelError;

use crate::Method;
use crate::observers::ObserverError;

/// An error of planning or converting. The text names where, what was expected and what was found,
/// and gives a hint on a line of its own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// Reading the source or writing the result: also NaN and infinity in a weight, wrong shapes,
    /// missing tensors, a full disk.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// config.json does not describe an encoder that fewbit knows.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// What cannot be read from a file of texts or token ids.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The instruction set that `FEWBIT_ISA` names is unknown, or this CPU lacks it.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// What an observer refuses: settings that do not fit, values that are not finite, damaged statistics.
    #[error(transparent)]
    Observer(#[from] ObserverError),
    /// Texts or statistics that a model cannot be calibrated with.
    #[error("{place}: expected {expected}, found {found}\n  hint: {hint}")]
    Calibration {
        /// File and line, or what is calibrated.
        place: String,
        /// What there should be.
        expected: String,
        /// What there is.
        found: String,
        /// What to do about it.
        hint: String,
    },
    /// A field of the recipe has a value that does not fit the others.
    #[error("{origin}: `{field}`: expected {expected}, found {found}\n  hint: {hint}")]
    Recipe {
        /// File name, or `recipe` for one that came from elsewhere.
        origin: String,
        /// Key of a recipe file, as [`RecipeFields`](crate::RecipeFields) has it.
        field: &'static str,
        /// What the field may hold.
        expected: String,
        /// What it holds.
        found: String,
        /// What to do about it.
        hint: String,
    },
    /// A key of the recipe does not go with its method, or with the activations that it says.
    #[error(
        "{origin}: `{field}`: expected {expected} with the method `{method}`, found {found}\n  hint: {hint}"
    )]
    RecipeKey {
        /// File name, or `recipe` for one that came from elsewhere.
        origin: String,
        /// Key of a recipe file, as [`RecipeFields`](crate::RecipeFields) has it.
        field: &'static str,
        /// The method of the recipe.
        method: Method,
        /// What the key holds where it says nothing.
        expected: &'static str,
        /// What it holds.
        found: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// The recipe is not valid TOML or JSON, or has unknown or missing fields.
    #[error("{origin}: not a recipe: {message}\n  hint: {hint}")]
    RecipeSyntax {
        /// File name, or `recipe` for text that came from elsewhere.
        origin: String,
        /// The parser's message, with the position.
        message: String,
        /// What may be meant.
        hint: String,
    },
    /// A glob is malformed or matches no module that it could concern.
    #[error("{origin}: `{field}`: pattern `{pattern}` {problem}\n  hint: {hint}")]
    Pattern {
        /// File name, or `recipe` for one that came from elsewhere.
        origin: String,
        /// Key of a recipe file, as [`RecipeFields`](crate::RecipeFields) has it.
        field: &'static str,
        /// The glob.
        pattern: String,
        /// What is wrong with it.
        problem: String,
        /// What to write instead.
        hint: String,
    },
    /// The source checkpoint is quantized already.
    #[error(
        "{file}: `quantization_config`: expected a float checkpoint, found one quantized with {method}\n  hint: start from the float checkpoint that it was made from; where that is lost, `fewbit convert` gives floats again (--to f32)"
    )]
    AlreadyQuantized {
        /// config.json of the source.
        file: PathBuf,
        /// Quantization method and format of the source.
        method: String,
    },
    /// The source is quantized, the target is, too, and that was not asked for.
    #[error(
        "{file}: `quantization_config`: expected floats to make {target} of, found codes ({method})\n  hint: what both lose adds up: start from the float checkpoint, or say that it may (--allow-requantize; `allow_requantize` in Rust and Python)"
    )]
    Requantizes {
        /// config.json of the source.
        file: PathBuf,
        /// Quantization method and format of the source.
        method: String,
        /// What it was to be converted to.
        target: String,
    },
    /// The model has no GGUF form that fewbit writes.
    #[error(
        "{file}: expected a BERT, Nomic BERT, Llama, Mistral, Qwen2 or Qwen3 as llama.cpp computes it, of which fewbit writes GGUF files, found {found}\n  hint: convert other models to a directory (--to f32), and that with llama.cpp's convert_hf_to_gguf.py"
    )]
    NoGguf {
        /// config.json of the source.
        file: PathBuf,
        /// What is another.
        found: String,
    },
    /// int8 word embeddings were asked for, and a language modelling head shares their table.
    #[error(
        "{file}: tensor `{tensor}`: expected no head that shares the word embeddings, which are to be int8, found one\n  hint: transformers cannot run such a head on int8 codes: leave the embeddings float, or save the encoder without its head first (AutoModel.from_pretrained(MODEL).save_pretrained(OUT))"
    )]
    TiedEmbeddings {
        /// File that holds the head.
        file: PathBuf,
        /// A tensor of the head.
        tensor: String,
    },
    /// Nothing in the checkpoint is a linear layer whose weight could be quantized.
    #[error(
        "{}: expected at least one linear layer to quantize, found none: {kept} matrices stay float\n  hint: `--method fp16` or `bf16` converts every tensor; `fewbit inspect --tensors` shows what there is",
        file.display()
    )]
    NoLinearLayer {
        /// The checkpoint directory.
        file: PathBuf,
        /// Matrices that stay float.
        kept: usize,
    },
    /// The output directory would be the source, lie in it or contain it.
    #[error(
        "{output}: expected an output directory apart from the source {source_directory}, found one that {relation}\n  hint: write to a directory beside it"
    )]
    OutputOverlapsSource {
        /// Output directory as given.
        output: PathBuf,
        /// Source directory.
        source_directory: PathBuf,
        /// "is the source", "lies in it" or "contains it".
        relation: &'static str,
    },
    /// A finite value that would become infinite in the dtype it is converted to.
    #[error(
        "{file}: tensor `{tensor}`: expected values in the range of {dtype}, found {value:?} at {index:?}\n  hint: {hint}"
    )]
    Overflow {
        /// File that holds the tensor.
        file: PathBuf,
        /// Tensor name.
        tensor: String,
        /// `float16` or `bfloat16`.
        dtype: &'static str,
        /// Index of the first such value, one number a dimension.
        index: Vec<usize>,
        /// The value.
        value: f32,
        /// What to use instead.
        hint: &'static str,
    },
    /// The weight of a linear layer has too many columns for exact products of 8-bit integers.
    #[error(
        "{file}: tensor `{tensor}`: columns: expected at most {limit} where activations are quantized, found {found}\n  hint: sums of more products of 8-bit integers can overflow 32 bits: name the layer in `weight_only`, use the method `weight-only`, or skip the layer"
    )]
    TooManyColumns {
        /// File that holds the tensor.
        file: PathBuf,
        /// Tensor name.
        tensor: String,
        /// The most columns, [`MAX_INT8_COLUMNS`](fewbit_numerics::activation::MAX_INT8_COLUMNS).
        limit: usize,
        /// Columns of the weight.
        found: usize,
    },
    /// A folder of the source directory is a symbolic link, which may lead anywhere, in circles too.
    #[error(
        "{path}: expected a folder, found a symbolic link to one\n  hint: files may be links, folders may not: put a copy of the folder in its place, or remove the link"
    )]
    LinkedFolder {
        /// The link.
        path: PathBuf,
    },
    /// A file of the source directory could not be listed or read.
    #[error("{path}: {source}\n  hint: check the path, and that you may read it")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
}

impl QuantizeError {
    /// The error of a recipe that was read from `origin`; others as they are.
    pub fn in_recipe(mut self, new_origin: &str) -> Self {
        if let Self::Recipe { origin, .. }
        | Self::RecipeKey { origin, .. }
        | Self::Pattern { origin, .. } = &mut self
        {
            *origin = new_origin.to_owned();
        }
        self
    }
}
