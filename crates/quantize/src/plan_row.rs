//! What will be done to one tensor.

use std::collections::{HashMap, HashSet};
use std::fmt;

use fewbit_checkpoint::bitsandbytes::{EightBitLayer, EightBitTable, FourBitLayout};
use fewbit_checkpoint::compressed_tensors::{
    CompressedScheme, FloatActivations, FloatScheme, WeightScales,
};
use fewbit_checkpoint::small_floats::SmallFloatType;
use fewbit_checkpoint::stored_weight::Int8Activations;
use fewbit_checkpoint::{
    CheckpointError, CheckpointErrorKind, GroupLayout, TensorInfo, TensorPlan, WeightLayout,
};
use fewbit_model::{Catalogue, Module, ModuleKind, Role};
use fewbit_numerics::activation::MAX_INT8_COLUMNS;
use fewbit_numerics::dtype::DType;
use fewbit_numerics::four_bit::FourBitType;
use serde::{Serialize, Serializer};

use crate::config_file::transformers_name;
use crate::{
    BlockScales, CodeLayout, EmbeddingStorage, QuantizeError, Recipe, Rounding, SelectedModule,
    Selection, WeightCodes,
};

/// The scheme whose tensors an int8 embedding table has: `weight` I8 and `weight_scale`. Loaders have
/// no packed form of embeddings; what is done to activations does not concern a lookup.
pub(crate) const EMBEDDING_SCHEME: CompressedScheme = CompressedScheme::DynamicInt8;

/// What becomes of one tensor.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum TensorAction {
    /// Written as it is, byte for byte.
    Keep,
    /// Rounded to another float dtype.
    ConvertFloat(DType),
    /// Weight of a linear layer: int8 codes with one scale an output channel, or one at all, in a compressed-tensors
    /// layout.
    Int8Linear(CompressedScheme),
    /// Weight of a linear layer: int4 codes with a scale for each group of columns.
    Int4Linear {
        /// The layout, and how inputs are quantized.
        layout: GroupLayout,
        /// How their scales are chosen.
        scales: BlockScales,
        /// Whether codes are rounded by [GPTQ](crate::gptq), and not to the nearest.
        gptq: bool,
    },
    /// Weight of a linear layer: floats of 8 or 4 bits, in a compressed-tensors layout.
    FloatLinear(FloatScheme),
    /// Weight of a linear layer: int8 codes with one scale an output channel or a group of its columns, rounded by [GPTQ](crate::gptq), in a
    /// compressed-tensors layout.
    Int8LinearGptq {
        /// The layout, and how inputs are quantized.
        scheme: CompressedScheme,
        /// Whether no pair of codes can saturate 16 bits ([`fewbit_numerics::saturation`]).
        saturation_proof: bool,
    },
    /// Weight of a linear layer: int8 codes with one absmax an output channel, as LLM.int8 of bitsandbytes stores them.
    EightBitLinear {
        /// Whether codes are rounded by [GPTQ](crate::gptq), and if, whether no pair of them can saturate 16 bits.
        rounding: Rounding,
    },
    /// Embedding table: int8 codes with one scale a row, in the compressed-tensors layout
    /// int-quantized.
    Int8Embedding,
    /// Embedding table: int8 codes with one absmax a row, as bitsandbytes has them in layers of 8 bits, beside layers of 4 bits.
    EightBitEmbedding,
    /// 4-bit codes with one absmax a block, in the bitsandbytes layout.
    FourBitBlocks {
        /// How they are written.
        layout: FourBitLayout,
        /// How their scales are chosen.
        scales: BlockScales,
        /// Whether codes are rounded by [GPTQ](crate::gptq), and not to the nearest.
        gptq: bool,
        /// Whether the source keeps the weight as (in, out), and the codes are of its transpose.
        transposed: bool,
    },
}

impl TensorAction {
    /// Whether the weight is rounded for what calibration shows of its inputs.
    pub(crate) fn needs_calibration(&self) -> bool {
        match self {
            TensorAction::Int8LinearGptq { .. } => true,
            TensorAction::EightBitLinear { rounding } => *rounding != Rounding::Nearest,
            TensorAction::FourBitBlocks { scales, gptq, .. }
            | TensorAction::Int4Linear { scales, gptq, .. } => {
                *gptq || *scales == BlockScales::ActivationWeighted
            }
            _ => false,
        }
    }

    /// How the weight is written, if it is quantized.
    pub(crate) fn layout(&self) -> Option<&dyn WeightLayout> {
        Some(match self {
            TensorAction::Keep | TensorAction::ConvertFloat(_) => return None,
            TensorAction::Int8Linear(scheme) | TensorAction::Int8LinearGptq { scheme, .. } => {
                scheme
            }
            TensorAction::Int4Linear { layout, .. } => layout,
            TensorAction::FloatLinear(scheme) => scheme,
            TensorAction::EightBitLinear { .. } => &EightBitLayer,
            TensorAction::Int8Embedding => &EMBEDDING_SCHEME,
            TensorAction::EightBitEmbedding => &EightBitTable,
            TensorAction::FourBitBlocks { layout, .. } => layout,
        })
    }
}

impl fmt::Display for TensorAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TensorAction::Keep => f.write_str("keep"),
            TensorAction::ConvertFloat(dtype) => {
                write!(f, "convert to {}", transformers_name(*dtype))
            }
            TensorAction::Int8Linear(scheme) => {
                match (scheme, scheme.weight_scales()) {
                    (CompressedScheme::WeightOnlyInt8Groups { group_size, .. }, _) => {
                        write!(f, "quantize to int8, groups of {group_size}")?;
                    }
                    (_, WeightScales::PerChannel) => f.write_str("quantize to int8 per channel")?,
                    (_, WeightScales::PerTensor) => f.write_str("quantize to int8 per tensor")?,
                }
                f.write_str(of_inputs(scheme.activations()))
            }
            TensorAction::Int4Linear {
                layout,
                scales,
                gptq,
            } => {
                let by_gptq = if *gptq { " by GPTQ" } else { "" };
                match layout.group_size() {
                    None => write!(f, "quantize to int4 per channel{by_gptq}")?,
                    Some(columns) => {
                        write!(f, "quantize to int4{by_gptq}, groups of {columns}")?;
                    }
                }
                if layout.is_asymmetric() {
                    f.write_str(", asymmetric")?;
                }
                if let Some(label) = scales.label() {
                    write!(f, ", {label}")?;
                }
                f.write_str(of_inputs(layout.activations()))
            }
            TensorAction::FloatLinear(scheme) => {
                write!(f, "quantize to {}", scheme.kind)?;
                match (scheme.kind.group_size(), scheme.weights) {
                    (Some(size), _) => write!(f, ", groups of {size}")?,
                    (None, WeightScales::PerChannel) => f.write_str(" per channel")?,
                    (None, WeightScales::PerTensor) => f.write_str(" per tensor")?,
                }
                f.write_str(match scheme.activations {
                    Some(FloatActivations::PerToken) => ", activations per token",
                    Some(FloatActivations::Static { .. }) => ", static activations",
                    None => ", weight-only",
                })
            }
            TensorAction::Int8LinearGptq {
                scheme,
                saturation_proof,
            } => {
                match scheme {
                    CompressedScheme::WeightOnlyInt8Groups { group_size, .. } => {
                        write!(f, "quantize to int8 by GPTQ, groups of {group_size}")?;
                    }
                    _ => f.write_str("quantize to int8 per channel by GPTQ")?,
                }
                if *saturation_proof {
                    f.write_str(", saturation-proof")?;
                }
                f.write_str(of_inputs(scheme.activations()))
            }
            TensorAction::EightBitLinear { rounding } => {
                f.write_str("quantize to int8 per channel")?;
                f.write_str(match rounding {
                    Rounding::Nearest => ", LLM.int8",
                    Rounding::Gptq {
                        saturation_proof: false,
                    } => " by GPTQ, LLM.int8",
                    Rounding::Gptq {
                        saturation_proof: true,
                    } => " by GPTQ, saturation-proof, LLM.int8",
                })
            }
            TensorAction::Int8Embedding | TensorAction::EightBitEmbedding => {
                f.write_str("quantize to int8 per row")
            }
            TensorAction::FourBitBlocks {
                layout,
                scales,
                gptq,
                transposed,
            } => {
                let by_gptq = if *gptq { " by GPTQ" } else { "" };
                write!(
                    f,
                    "quantize to {}{by_gptq}, blocks of {}",
                    layout.kind.name(),
                    layout.block_size
                )?;
                if layout.double_quantization {
                    f.write_str(", double quantization")?;
                }
                if *transposed {
                    f.write_str(", transposed")?;
                }
                match scales.label() {
                    Some(label) => write!(f, ", {label}"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// What is said of a layer's inputs.
fn of_inputs(activations: Option<Int8Activations>) -> &'static str {
    match activations {
        Some(Int8Activations::Dynamic(_)) => ", activations per token",
        Some(Int8Activations::DynamicPerTensor { .. }) => ", activations per text",
        Some(Int8Activations::Static { .. }) => ", static activations",
        None => ", weight-only",
    }
}

impl Serialize for TensorAction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One source tensor, what becomes of it, and what it takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlanRow {
    /// Name in the source.
    pub tensor: String,
    /// Module path, for the weight of a linear layer of the encoder or of the word embeddings.
    pub module: Option<String>,
    /// Part of the model: "embeddings", "attention", "feed-forward", "normalization", "pooler",
    /// "head", "other".
    pub part: &'static str,
    /// Element type in the source, as safetensors names it.
    pub dtype: &'static str,
    /// Shape in the source.
    pub shape: Vec<usize>,
    /// What becomes of it.
    pub action: TensorAction,
    /// Bytes in the source.
    pub source_bytes: usize,
    /// Bytes of everything that is written for it: codes, scales, quantization state.
    pub output_bytes: usize,
    /// The tensors that are written for it.
    #[serde(serialize_with = "serialize_tensor_plans")]
    pub outputs: Vec<TensorPlan>,
}

impl PlanRow {
    /// Whether the encoder computes with the tensor. Poolers, heads and what the architecture does not name are carried along.
    pub(crate) fn is_of_the_encoder(&self) -> bool {
        self.module.is_some() || !["pooler", "head", "other"].contains(&self.part)
    }

    /// Whether the tensor is stored with fewer bits than a float dtype.
    pub fn is_quantized(&self) -> bool {
        !matches!(
            self.action,
            TensorAction::Keep | TensorAction::ConvertFloat(_)
        )
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Plans the tensors of one checkpoint.
pub(crate) struct RowPlanner<'a> {
    recipe: &'a Recipe,
    catalogue: &'a Catalogue,
    /// Modules that are quantized, by path.
    quantized: HashMap<&'a str, &'a SelectedModule>,
    /// Paths of the linear layers of the encoder and of the word embeddings.
    modules: HashSet<&'a str>,
}

impl<'a> RowPlanner<'a> {
    pub(crate) fn new(
        catalogue: &'a Catalogue,
        recipe: &'a Recipe,
        selection: &'a Selection,
    ) -> Self {
        let modules = catalogue
            .linear_modules()
            .chain(catalogue.word_embeddings());
        let modules = modules.map(|module| module.name.as_str()).collect();
        Self {
            recipe,
            catalogue,
            quantized: selection
                .quantized
                .iter()
                .map(|selected| (selected.module.name.as_str(), selected))
                .collect(),
            modules,
        }
    }

    /// What becomes of the tensor `info`, and the tensors that are written for it.
    pub(crate) fn row(&self, info: &TensorInfo) -> Result<PlanRow, QuantizeError> {
        let module = info.name.strip_suffix(".weight");
        let selected = module.and_then(|module| self.quantized.get(module));
        let action = match selected {
            Some(selected) => self.quantized_weight(info, selected)?,
            None => self.float_tensor(info)?,
        };
        let outputs = match (&action, selected) {
            (TensorAction::ConvertFloat(dtype), _) => {
                vec![TensorPlan::new(&info.name, *dtype, info.shape.clone())]
            }
            (action, Some(SelectedModule { module, .. })) if let Some(layout) = action.layout() => {
                layout.plan(&module.name, module.shape)
            }
            _ => vec![TensorPlan::new(&info.name, info.dtype, info.shape.clone())],
        };
        Ok(PlanRow {
            tensor: info.name.clone(),
            module: module
                .filter(|module| self.modules.contains(*module))
                .map(str::to_owned),
            part: self.catalogue.part_of(&info.name),
            dtype: info.dtype.name(),
            shape: info.shape.clone(),
            action,
            source_bytes: info.byte_len,
            output_bytes: outputs.iter().map(TensorPlan::byte_len).sum(),
            outputs,
        })
    }

    fn quantized_weight(
        &self,
        info: &TensorInfo,
        selected: &SelectedModule,
    ) -> Result<TensorAction, QuantizeError> {
        expect_readable_float(info)?;
        let Module { name, shape, .. } = &selected.module;
        Ok(match self.recipe {
            // They select no module.
            Recipe::F32 | Recipe::Fp16 | Recipe::Bf16 => self.float_tensor(info)?,
            Recipe::FourBit(options) => {
                let is_table = selected.module.kind() == ModuleKind::Table;
                let kind = match options.embeddings {
                    EmbeddingStorage::Int8 if is_table => {
                        return Ok(TensorAction::EightBitEmbedding);
                    }
                    EmbeddingStorage::Nf4 if is_table => FourBitType::Nf4,
                    _ => options.data_type,
                };
                // What weights dequantize to; no loader makes F64 of them.
                let dtype = self.recipe.float_dtype().unwrap_or(narrowed(info.dtype));
                let layout = FourBitLayout {
                    kind,
                    block_size: options.block_size,
                    double_quantization: options.double_quantization,
                    dtype: transformers_name(dtype).to_owned(),
                };
                TensorAction::FourBitBlocks {
                    layout,
                    // A table has no inputs.
                    scales: match options.scales {
                        BlockScales::ActivationWeighted if is_table => BlockScales::Mse,
                        scales => scales,
                    },
                    gptq: options.gptq && !is_table,
                    transposed: selected.module.role == Role::OtherTransposedLinear,
                }
            }
            Recipe::Integer(_) if selected.module.kind() == ModuleKind::Table => {
                TensorAction::Int8Embedding
            }
            Recipe::Integer(options) => {
                let path = self.catalogue.without_prefix(name);
                if let Some(scheme) = options.float_scheme(path) {
                    expect_whole_float_groups(info, name, scheme.kind, shape[1])?;
                    return Ok(TensorAction::FloatLinear(scheme));
                }
                let scheme = options.int8_scheme(path, selected.weight_only);
                if scheme.quantizes_activations() && shape[1] > MAX_INT8_COLUMNS {
                    return Err(QuantizeError::TooManyColumns {
                        file: info.file.clone(),
                        tensor: info.name.clone(),
                        limit: MAX_INT8_COLUMNS,
                        found: shape[1],
                    });
                }
                if options.weights == WeightCodes::LlmInt8 {
                    return Ok(TensorAction::EightBitLinear {
                        rounding: options.rounding,
                    });
                }
                if let CompressedScheme::WeightOnlyInt8Groups { group_size, .. } = scheme {
                    expect_whole_groups(info, name, Some(group_size), shape[1])?;
                }
                let layout = options.group_layout(path, selected);
                if let (Some(layout), Some(int4)) = (layout, selected.weights.int4()) {
                    expect_whole_groups(info, name, layout.group_size(), shape[1])?;
                    expect_whole_words(info, name, layout, int4.layout, *shape)?;
                    return Ok(TensorAction::Int4Linear {
                        layout,
                        scales: int4.scales,
                        gptq: options.rounding != Rounding::Nearest,
                    });
                }
                match options.rounding {
                    Rounding::Nearest => TensorAction::Int8Linear(scheme),
                    Rounding::Gptq { saturation_proof } => TensorAction::Int8LinearGptq {
                        scheme,
                        saturation_proof,
                    },
                }
            }
        })
    }

    /// The dtype that the recipe asks for; none: that of the source. Beside int8 weights the 8 bits that bfloat16 has for digits cost next to
    /// nothing but in the scales of normalizations, of which there are few: they stay as they are. Beside 4-bit ones everything has one dtype, as
    /// transformers leaves every tensor in its own there and its layers do not run on a mixture.
    fn float_dtype_of(&self, info: &TensorInfo) -> Option<DType> {
        let is_int8 = self.recipe.integer().is_some();
        let is_of_a_norm = self.catalogue.part_of(&info.name) == "normalization";
        if is_int8 && is_of_a_norm && self.recipe.float_dtype() == Some(DType::BF16) {
            return None;
        }
        let table = self.catalogue.word_embeddings();
        let is_of_the_table =
            table.is_some_and(|table| info.name.strip_suffix(".weight") == Some(&table.name));
        let of_the_table = match is_of_the_table {
            true => self.recipe.embeddings().float_dtype(),
            false => None,
        };
        of_the_table.or(self.recipe.float_dtype())
    }

    fn float_tensor(&self, info: &TensorInfo) -> Result<TensorAction, QuantizeError> {
        let dtype = match self.float_dtype_of(info) {
            Some(dtype) if info.dtype.is_float() && info.dtype != dtype => {
                expect_readable_float(info)?;
                dtype
            }
            // Where nothing is said, a loader has no use for F64, and fewbit computes in f32.
            None => narrowed(info.dtype),
            Some(_) => info.dtype,
        };
        Ok(match dtype == info.dtype {
            true => TensorAction::Keep,
            false => TensorAction::ConvertFloat(dtype),
        })
    }
}

/// Errors if the groups do not divide the columns of a weight.
fn expect_whole_groups(
    info: &TensorInfo,
    module: &str,
    group_size: Option<usize>,
    columns: usize,
) -> Result<(), QuantizeError> {
    let Some(size) = group_size.filter(|size| !columns.is_multiple_of(*size)) else {
        return Ok(());
    };
    let divisors = (8..=256).filter(|size| columns.is_multiple_of(*size));
    let divisors: Vec<String> = divisors.map(|size| size.to_string()).collect();
    let instead = match divisors.is_empty() {
        true => "`channel`".to_owned(),
        false => format!("{}, or `channel`", divisors.join(", ")),
    };
    Err(QuantizeError::Recipe {
        origin: "recipe".to_owned(),
        field: "group_size",
        expected: format!(
            "a divisor of the {columns} columns of `{}` in {}",
            info.name,
            info.file.display()
        ),
        found: size.to_string(),
        hint: format!("{instead} would do; or leave the layer in floats (skip `{module}`)"),
    })
}

/// Errors if the groups of small floats do not divide the columns of a weight.
fn expect_whole_float_groups(
    info: &TensorInfo,
    module: &str,
    kind: SmallFloatType,
    columns: usize,
) -> Result<(), QuantizeError> {
    let Some(size) = kind
        .group_size()
        .filter(|size| !columns.is_multiple_of(*size))
    else {
        return Ok(());
    };
    Err(QuantizeError::Recipe {
        origin: "recipe".to_owned(),
        field: "weights",
        expected: format!(
            "codes that the {columns} columns of `{}` in {} can have",
            info.name,
            info.file.display()
        ),
        found: format!("`{kind}`, of which {size} columns share a scale"),
        hint: format!("`fp8` and `int8` would do; or leave the layer in floats (skip `{module}`)"),
    })
}

/// Errors if the layout has words of codes that a weight of `shape` does not fill.
fn expect_whole_words(
    info: &TensorInfo,
    module: &str,
    layout: GroupLayout,
    name: CodeLayout,
    shape: [usize; 2],
) -> Result<(), QuantizeError> {
    let multiple = layout.multiple();
    let Some(size) = shape.iter().find(|size| !size.is_multiple_of(multiple)) else {
        return Ok(());
    };
    Err(QuantizeError::Recipe {
        origin: "recipe".to_owned(),
        field: "layout",
        expected: format!(
            "one that holds the shape {shape:?} of `{}` in {}",
            info.name,
            info.file.display()
        ),
        found: format!(
            "`{name}`, whose outputs and inputs are multiples of {multiple}, not {size}"
        ),
        hint: format!("`pack-quantized` would do; or leave the layer in floats (skip `{module}`)"),
    })
}

/// F32 for F64, the same for every other dtype.
fn narrowed(dtype: DType) -> DType {
    if dtype == DType::F64 {
        DType::F32
    } else {
        dtype
    }
}

fn expect_readable_float(info: &TensorInfo) -> Result<(), CheckpointError> {
    if info.is_readable_float() {
        return Ok(());
    }
    Err(CheckpointError::new(
        CheckpointErrorKind::WrongDType,
        format!(
            "expected F32, F16, BF16 or F64 elements, found {}",
            info.dtype.name()
        ),
    )
    .in_file(&info.file)
    .at_tensor(&info.name)
    .hint("convert the checkpoint to one of these dtypes first"))
}

fn serialize_tensor_plans<S: Serializer>(
    plans: &[TensorPlan],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Output<'a> {
        tensor: &'a str,
        dtype: &'static str,
        shape: &'a [usize],
        bytes: usize,
    }
    serializer.collect_seq(plans.iter().map(|plan| Output {
        tensor: &plan.name,
        dtype: plan.dtype.name(),
        shape: &plan.shape,
        bytes: plan.byte_len(),
    }))
}
