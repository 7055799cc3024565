//! Decide and convert: recipes, module selection, plans, streaming conversion.
//!
//! A [`Recipe`] is the whole decision as data. A [`QuantizePlan`] applies it to one checkpoint and
//! knows, before a single weight is read, what becomes of every tensor and how many bytes that takes.
//! [`quantize_model`] carries the plan out, one tensor at a time, and returns a [`QuantizeReport`].
//!
//! [`convert_model`] writes a model that is quantized in another layout, or as floats again.
//!
//! [`gptq`] rounds the weights of linear layers for what calibration texts show of their inputs.
//!
//! [`sensitivity`] measures what fewer bits cost layer by layer, and chooses a recipe that mixes them.
//!
//! For static quantization, [`observers`] collect what activations and weights hold and choose their ranges; a [`QConfig`]
//! says which observer and which scheme, and a [`Backend`] has the defaults.
//!
//! ```no_run
//! use fewbit_quantize::{IntegerRecipe, quantize_model};
//!
//! let recipe = IntegerRecipe::dynamic().into();
//! let report = quantize_model("models/minilm", &recipe, "models/minilm-int8", false, &mut |_, _, _| {})?;
//! println!("{:.2} times smaller", report.compression_ratio);
//! # Ok::<(), fewbit_quantize::QuantizeError>(())
//! ```
#![forbid(unsafe_code)]

pub mod calibration;
mod carry_over;
mod config_file;
mod conversion;
mod conversion_target;
pub mod convert;
mod convert_model;
pub mod default_embeddings;
pub mod error;
pub mod fake_quantize;
mod finished_shards;
mod gguf_architecture;
mod gguf_export;
mod gguf_import;
mod given_codes;
pub mod gptq;
mod loader_skip_list;
pub mod method;
pub mod method_sizes;
pub mod observers;
pub mod output_options;
mod overlap;
pub mod plan;
mod plan_row;
pub mod qconfig;
pub mod recipe;
pub mod report;
pub mod selection;
pub mod sensitivity;
mod static_input;
mod unwritten_weights;
pub mod weight_codecs;

pub use calibration::{CalibrationStatistics, Calibrator};
pub use conversion_target::{ConversionTarget, UnknownTarget};
pub use convert::{PlannedConversion, quantize_model, quantize_model_with_gptq};
pub use convert_model::{
    ConvertOptions, ConvertPlan, ConvertReport, PlannedFile, convert_model, plan_conversion,
};
pub use error::QuantizeError;
pub use fewbit_checkpoint::compressed_tensors::WeightScales;
pub use given_codes::GivenCodes;
pub use gptq::GptqCalibration;
pub use method::Method;
pub use method_sizes::{MethodSize, method_sizes};
pub use output_options::{OutputOptions, ShardSize};
pub use plan::{PartBytes, PlanRow, QuantizePlan, TensorAction};
pub use qconfig::{Backend, ObserverKind, ObserverSettings, QConfig};
pub use recipe::{
    ActivationScales, ActivationsField, BlockScales, CodeLayout, DynamicInputs, EmbeddingStorage,
    FloatDType, FourBitRecipe, GroupSize, Int4Options, IntegerInputs, IntegerRecipe, ModuleFields,
    ModuleWeights, Recipe, RecipeFields, Rounding, StaticInputs, UnknownGroupSize, WeightCodes,
    WeightsField,
};
pub use report::{ModuleReport, QuantizeReport};
pub use selection::{KeepReason, KeptModule, SelectedModule, Selection};
pub use sensitivity::{
    SensitivityGoal, SensitivityOptions, SensitivityReport, WeightChoice, WeightSensitivity,
};
pub use static_input::StaticInput;
