//! Quantize Hugging Face encoders to few bits, and run them fast on a CPU.
//!
//! A model is a standard checkpoint directory: `config.json`, files of weights, tokenizer files. [`quantize_model`]
//! makes a smaller one of it, in a format that Hugging Face transformers loads unchanged; [`Encoder`] runs either for embeddings,
//! [`Predictor`] for what a task head says of texts;
//! [`compare`](compare::compare) says what each method costs; [`bench`](bench::bench()) how fast models are; [`inspect()`]
//! looks without running anything; [`sensitivity`](sensitivity::sensitivity()) says which layers need 8 bits, and which do with 4; [`convert_model`] gives floats, or codes of another layout, for a model that is quantized.
//!
//! ```no_run
//! use fewbit::{EncodeOptions, Encoder, IntegerRecipe, quantize_model};
//!
//! let recipe = IntegerRecipe::dynamic().into();
//! let report = quantize_model("models/all-MiniLM-L6-v2", &recipe, "models/minilm-int8", false, &mut |_, _, _| {})?;
//! println!("{:.2} times smaller", report.compression_ratio);
//!
//! let encoder = Encoder::open("models/minilm-int8")?;
//! let embeddings = encoder.encode(&["A first text.", "A second one."], &EncodeOptions::default())?;
//! assert_eq!(embeddings.rows, 2);
//! # Ok::<(), fewbit::Error>(())
//! ```
//!
//! ```no_run
//! use fewbit::model::prediction::{Aggregation, AnswerOptions};
//! use fewbit::{EncodeOptions, Predictor};
//!
//! let options = EncodeOptions::default();
//! let reranker = Predictor::open("models/reranker-int8")?;
//! let found = reranker.classify(&[("where is the cat?", "The cat sat on the mat.")], &options)?;
//! println!("{:.3}", found[0].labels[0].score);
//!
//! let tagger = Predictor::open("models/tagger-int8")?;
//! for entity in &tagger.tag(&["Ann lives in Köln."], Aggregation::Simple, &options)?[0].entities {
//!     println!("{:?} at {}..{}: {}", entity.entity_group, entity.start, entity.end, entity.word);
//! }
//!
//! let reader = Predictor::open("models/reader-int8")?;
//! let question = ("Where does Ann live?", "Ann lives in Köln.");
//! let answers = reader.answer(&[question], AnswerOptions::default(), &options)?;
//! println!("{}", answers[0][0].answer);
//! # Ok::<(), fewbit::Error>(())
//! ```
//!
//! Those who come from PyTorch scripts find the names they know on [`QuantizationManager`].
#![forbid(unsafe_code)]

pub mod bench;
pub mod calibration;
pub mod compare;
pub mod error;
pub mod inspect;
pub mod inspect_gguf;
pub mod manager;
pub mod measure;
pub mod repetition;
pub mod sensitivity;
pub mod size;
pub mod threads;

pub use compare::{ComparedModel, Comparison};
pub use error::Error;
pub use fewbit_checkpoint as checkpoint;
pub use fewbit_checkpoint::{Checkpoint, CheckpointError, CheckpointErrorKind};
pub use fewbit_data as data;
pub use fewbit_evaluate as evaluate;
pub use fewbit_kernels as kernels;
pub use fewbit_model as model;
pub use fewbit_model::{
    Catalogue, Embeddings, EncodeOptions, Encoder, EncoderSpec, LoadLedger, ModelError, Predictor,
    open_checkpoint,
};
pub use fewbit_numerics as numerics;
pub use fewbit_quantize as quantize;
pub use fewbit_quantize::{
    BlockScales, CodeLayout, ConversionTarget, ConvertOptions, ConvertPlan, ConvertReport,
    EmbeddingStorage, FloatDType, FourBitRecipe, GroupSize, Int4Options, IntegerRecipe, KeptModule,
    Method, MethodSize, ModuleReport, ModuleWeights, PartBytes, QuantizeError, QuantizePlan,
    QuantizeReport, Recipe, RecipeFields, TensorAction, UnknownTarget, WeightCodes, WeightsField,
    convert_model, plan_conversion, quantize_model, quantize_model_with_gptq,
};
pub use fewbit_train as train;
pub use inspect::{Inspection, inspect};
pub use inspect_gguf::{GgufInspection, inspect_gguf};
pub use manager::QuantizationManager;
pub use size::ModelSize;

/// Name of the instruction set that kernels use in this process: `scalar`, `avx2` …
///
/// # Errors
/// The environment variable `FEWBIT_ISA` names an unknown set or one that this CPU lacks.
pub fn isa() -> Result<&'static str, Error> {
    Ok(fewbit_kernels::Isa::from_environment()?.name())
}
