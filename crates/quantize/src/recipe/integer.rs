//! The options of `dynamic`, `static` and `weight-only`.

use std::collections::BTreeMap;

use fewbit_checkpoint::GroupLayout;
use fewbit_checkpoint::compressed_tensors::{
    CompressedScheme, FloatActivations, FloatScheme, WeightScales,
};
use fewbit_checkpoint::small_floats::SmallFloatType;

use super::module_weights::modules_name;
use super::{
    BlockScales, CodeLayout, EmbeddingStorage, FloatDType, GroupSize, Int4Options, ModuleWeights,
    WeightCodes, error,
};
use crate::{Backend, Method, QuantizeError, SelectedModule, StaticInput};

/// Weights of few bits with scales: integers, or small floats.
#[derive(Debug, Clone, PartialEq)]
pub struct IntegerRecipe {
    /// How the inputs of linear layers are quantized: what the methods differ in.
    pub inputs: IntegerInputs,
    /// What the codes of weights are.
    pub weights: WeightCodes,
    /// What they are of single layers instead. Two globs that match one layer must say the same of it.
    pub modules: ModuleWeights,
    /// How weights become codes.
    pub rounding: Rounding,
    /// Whether weights and scales are trained before they are written: quantization-aware training, which needs texts beside the recipe.
    pub trained: bool,
    /// How the word embedding table is stored.
    pub embeddings: EmbeddingStorage,
    /// The dtype of what is not quantized; none: that of the source, in F32 for F64.
    pub float_dtype: Option<FloatDType>,
    /// Globs on module names that stay float, added to the defaults (see [`selection`](crate::selection)).
    pub skip: Vec<String>,
}

/// How the inputs of linear layers are quantized.
#[derive(Debug, Clone, PartialEq)]
pub enum IntegerInputs {
    /// `dynamic`: with scales that are chosen at run time.
    Dynamic(DynamicInputs),
    /// `static`: with stored scales, which calibration chose.
    Static(StaticInputs),
    /// `weight-only`: not as far as the layout goes; fewbit gives them 12 bits per token at run time.
    WeightOnly,
}

/// The options of `dynamic`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DynamicInputs {
    /// Which elements of an input share a scale.
    pub activations: ActivationScales,
    /// Globs on names of linear layers whose weights alone are quantized, as those of `weight-only` are.
    pub weight_only: Vec<String>,
}

/// Which elements of an input share a scale that is chosen at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ActivationScales {
    /// Those of a token. A result then depends on nothing but its text, and no token pays for the range of another.
    #[default]
    PerToken,
    /// All of a text, chosen by the rule of PyTorch's `quantize_dynamic`
    /// ([`fewbit_numerics::dynamic_linear`]). PyTorch takes the range of a whole batch, padding included; a text is what it sees
    /// where it runs one text at a time.
    PerTensor {
        /// Which elements of a weight share a scale.
        weight_scales: WeightScales,
        /// Whether inputs are quantized to 7 bits, as PyTorch does on its backends `fbgemm` and `x86`. Never needed: the products of
        /// fewbit do not saturate.
        reduce_range: bool,
    },
}

impl ActivationScales {
    /// Those of PyTorch's `quantize_dynamic` by default on a backend; of `native`, per token.
    pub fn of_quantize_dynamic(backend: Backend) -> Self {
        if backend == Backend::Native {
            return Self::PerToken;
        }
        Self::PerTensor {
            weight_scales: WeightScales::PerTensor,
            // `_choose_qparams_per_tensor` ignores the wish on qnnpack only.
            reduce_range: backend != Backend::Qnnpack,
        }
    }
}

/// The options of `static`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StaticInputs {
    /// Scale and zero point of the inputs of linear layers, by module path without the model's prefix. The input of a layer that is not
    /// named here is quantized per token at run time.
    pub scales: BTreeMap<String, StaticInput>,
    /// Which elements of the weight of such a layer share a scale.
    pub weight_scales: WeightScales,
    /// Whether inputs are quantized to 7 bits, as PyTorch does on its backends `fbgemm` and `x86`.
    pub reduce_range: bool,
}

/// How weights become codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rounding {
    /// The nearest code.
    #[default]
    Nearest,
    /// By [GPTQ](crate::gptq), which needs calibration texts beside the recipe, and a scale for each channel.
    Gptq {
        /// Whether no pair of neighbouring weights can saturate the 16 bits of `vpmaddubsw`
        /// ([`fewbit_numerics::saturation`]).
        saturation_proof: bool,
    },
}

impl From<DynamicInputs> for IntegerRecipe {
    fn from(inputs: DynamicInputs) -> Self {
        Self::new(IntegerInputs::Dynamic(inputs))
    }
}

impl From<StaticInputs> for IntegerRecipe {
    fn from(inputs: StaticInputs) -> Self {
        Self::new(IntegerInputs::Static(inputs))
    }
}

impl IntegerRecipe {
    /// `dynamic`: inputs are quantized per token at run time.
    pub fn dynamic() -> Self {
        DynamicInputs::default().into()
    }

    /// `weight-only`
    pub fn weight_only() -> Self {
        Self::new(IntegerInputs::WeightOnly)
    }

    /// Weights rounded to the nearest code, int8 embeddings where loaders take them, other floats as they are, nothing skipped beyond the
    /// defaults.
    pub fn new(inputs: IntegerInputs) -> Self {
        Self {
            inputs,
            weights: WeightCodes::Int8,
            modules: ModuleWeights::new(),
            rounding: Rounding::Nearest,
            trained: false,
            embeddings: EmbeddingStorage::Auto,
            float_dtype: None,
            skip: Vec::new(),
        }
    }

    /// The method that the inputs make it.
    pub fn method(&self) -> Method {
        match self.inputs {
            IntegerInputs::Dynamic(_) => Method::Dynamic,
            IntegerInputs::Static(_) => Method::Static,
            IntegerInputs::WeightOnly => Method::WeightOnly,
        }
    }

    /// Sets [`weights`](Self::weights).
    #[must_use]
    pub fn with_weights(self, weights: WeightCodes) -> Self {
        Self { weights, ..self }
    }

    /// Adds to [`modules`](Self::modules).
    #[must_use]
    pub fn with_modules<S: Into<String>>(
        mut self,
        modules: impl IntoIterator<Item = (S, WeightCodes)>,
    ) -> Self {
        let modules = modules.into_iter();
        self.modules
            .extend(modules.map(|(pattern, codes)| (pattern.into(), codes)));
        self
    }

    /// Sets [`rounding`](Self::rounding).
    #[must_use]
    pub fn with_rounding(self, rounding: Rounding) -> Self {
        Self { rounding, ..self }
    }

    /// Sets [`trained`](Self::trained).
    #[must_use]
    pub fn with_training(self, trained: bool) -> Self {
        Self { trained, ..self }
    }

    /// Sets [`embeddings`](Self::embeddings).
    #[must_use]
    pub fn with_embeddings(self, embeddings: EmbeddingStorage) -> Self {
        Self { embeddings, ..self }
    }

    /// Sets [`float_dtype`](Self::float_dtype).
    #[must_use]
    pub fn with_float_dtype(self, dtype: FloatDType) -> Self {
        Self {
            float_dtype: Some(dtype),
            ..self
        }
    }

    /// Adds globs to [`skip`](Self::skip).
    #[must_use]
    pub fn with_skip<S: Into<String>>(mut self, patterns: impl IntoIterator<Item = S>) -> Self {
        self.skip.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// How int4 codes are made, wherever the recipe has some.
    pub(crate) fn int4_weights(&self) -> impl Iterator<Item = Int4Options> {
        let weights = std::iter::once(&self.weights).chain(self.modules.values());
        weights.filter_map(|codes| codes.int4())
    }

    /// The recipe with unpacked in place of packed int4 codes.
    pub(crate) fn without_packed_int4(mut self) -> Self {
        for codes in std::iter::once(&mut self.weights).chain(self.modules.values_mut()) {
            if let WeightCodes::Int4(options) = codes
                && options.layout == CodeLayout::PackQuantized
            {
                options.layout = CodeLayout::IntQuantized;
            }
        }
        self
    }

    /// Whether inputs have PyTorch's scales at run time.
    pub(crate) fn has_one_scale_at_run_time(&self) -> bool {
        matches!(
            &self.inputs,
            IntegerInputs::Dynamic(DynamicInputs {
                activations: ActivationScales::PerTensor { .. },
                ..
            })
        )
    }

    /// Whether [`EmbeddingStorage::Auto`] keeps the table whatever the model: where PyTorch has its scales, in a layout that holds no table, and beside packed asymmetric codes. These load in
    /// transformers with `dequantize=True` alone, which cannot be said of a checkpoint of two compressed-tensors formats.
    pub(crate) fn keeps_embeddings_by_default(&self) -> bool {
        let needs_one_format = |options: Int4Options| {
            !options.layout.is_of_compressed_tensors()
                || options.layout == CodeLayout::PackQuantized && options.asymmetric
        };
        self.has_one_scale_at_run_time()
            || self.weights.floats().is_some()
            || self.weights == WeightCodes::LlmInt8
            || self.int4_weights().any(needs_one_format)
    }

    /// Which elements of the weight of a layer whose input has one scale share a scale.
    fn weight_scales(&self) -> WeightScales {
        match &self.inputs {
            IntegerInputs::Dynamic(DynamicInputs {
                activations: ActivationScales::PerTensor { weight_scales, .. },
                ..
            }) => *weight_scales,
            IntegerInputs::Static(inputs) => inputs.weight_scales,
            IntegerInputs::Dynamic(_) | IntegerInputs::WeightOnly => WeightScales::PerChannel,
        }
    }

    /// How the linear layer `module` (a path without the model's prefix) that was `selected` is stored, if its weight is int4.
    pub(crate) fn group_layout(
        &self,
        module: &str,
        selected: &SelectedModule,
    ) -> Option<GroupLayout> {
        let activations = self.int8_scheme(module, selected.weight_only).activations();
        Some(selected.weights.int4()?.group_layout(activations))
    }

    /// How the linear layer `module` (a path without the model's prefix) that was `selected` is stored, if that is in a layout of compressed-tensors.
    pub(crate) fn scheme(
        &self,
        module: &str,
        selected: &SelectedModule,
    ) -> Option<CompressedScheme> {
        if let Some(scheme) = self.float_scheme(module) {
            return Some(CompressedScheme::Float(scheme));
        }
        match self.group_layout(module, selected) {
            None => Some(self.int8_scheme(module, selected.weight_only)),
            Some(GroupLayout::CompressedTensors(scheme)) => Some(scheme.into()),
            Some(_) => None,
        }
    }

    /// How the linear layer `module` (a path without the model's prefix) is stored, if its weight is of small floats.
    pub(crate) fn float_scheme(&self, module: &str) -> Option<FloatScheme> {
        let WeightCodes::Floats { kind, scales } = self.weights else {
            return None;
        };
        let static_input = |inputs: &StaticInputs| {
            let StaticInput { scale, .. } = *inputs.scales.get(module)?;
            Some(FloatActivations::Static { scale })
        };
        Some(FloatScheme {
            kind,
            weights: scales,
            activations: match &self.inputs {
                IntegerInputs::WeightOnly => None,
                IntegerInputs::Dynamic(_) => Some(FloatActivations::PerToken),
                // Without a scale of their own, inputs are quantized per token.
                IntegerInputs::Static(inputs) => {
                    static_input(inputs).or(Some(FloatActivations::PerToken))
                }
            },
        })
    }

    /// [`scheme`](Self::scheme) of an int8 weight.
    pub(crate) fn int8_scheme(&self, module: &str, weight_only: bool) -> CompressedScheme {
        if let WeightCodes::Int8Groups { columns, layout } = self.weights {
            return CompressedScheme::WeightOnlyInt8Groups {
                group_size: columns,
                packed: layout == CodeLayout::PackQuantized && !weight_only,
            };
        }
        if weight_only {
            return CompressedScheme::WeightOnlyInt8Unpacked;
        }
        match &self.inputs {
            IntegerInputs::WeightOnly => CompressedScheme::WeightOnlyInt8,
            IntegerInputs::Dynamic(inputs) => match inputs.activations {
                ActivationScales::PerToken => CompressedScheme::DynamicInt8,
                ActivationScales::PerTensor {
                    weight_scales,
                    reduce_range,
                } => CompressedScheme::PerTensorDynamicInt8 {
                    weights: weight_scales,
                    reduce_range,
                },
            },
            IntegerInputs::Static(inputs) => match inputs.scales.get(module) {
                Some(&StaticInput { scale, zero_point }) => CompressedScheme::StaticInt8 {
                    scale,
                    zero_point,
                    weights: inputs.weight_scales,
                    reduce_range: inputs.reduce_range,
                },
                // Without a scale of their own, inputs are quantized per token.
                None => CompressedScheme::DynamicInt8,
            },
        }
    }

    pub(super) fn label_of_options(&self) -> String {
        let mut label = String::new();
        match self.weights {
            WeightCodes::Floats { kind, scales } => {
                label += &format!(" + {kind}");
                if scales == WeightScales::PerTensor {
                    label += " + per tensor";
                }
            }
            WeightCodes::LlmInt8 => label += " + bitsandbytes layout",
            WeightCodes::Int8Groups { columns, layout } => {
                label += &format!(" + groups of {columns}");
                if layout != CodeLayout::default() {
                    label += &format!(" + {layout}");
                }
            }
            WeightCodes::Int8 | WeightCodes::Int4(_) => {}
        }
        if let WeightCodes::Int4(options) = self.weights {
            label += " + int4";
            match options.group_size {
                size if size == GroupSize::default() => {}
                GroupSize::Columns(columns) => label += &format!(" + groups of {columns}"),
                GroupSize::Channel => label += " + per channel",
            }
            if options.asymmetric {
                label += " + asymmetric";
            }
            label += match options.scales {
                BlockScales::Absmax => " + absmax scales",
                BlockScales::Mse => "",
                BlockScales::ActivationWeighted => " + activation-weighted scales",
            };
            label += &match options.layout {
                CodeLayout::PackQuantized => String::new(),
                CodeLayout::IntQuantized => format!(" + {}", options.layout),
                // Not to be taken for GPTQ's rounding.
                layout => format!(" + {layout} layout"),
            };
        }
        if !self.modules.is_empty() {
            label += &format!(", mixed weights {}", modules_name(&self.modules));
        }
        match &self.inputs {
            IntegerInputs::Dynamic(inputs) => {
                if let ActivationScales::PerTensor {
                    weight_scales,
                    reduce_range,
                } = inputs.activations
                {
                    label += ", activations per text";
                    label += &label_of_one_scale(weight_scales, reduce_range);
                }
                if !inputs.weight_only.is_empty() {
                    label += ", some layers weight-only";
                }
            }
            IntegerInputs::Static(inputs) => {
                label += &label_of_one_scale(inputs.weight_scales, inputs.reduce_range);
            }
            IntegerInputs::WeightOnly => {}
        }
        label += match self.rounding {
            Rounding::Nearest => "",
            Rounding::Gptq {
                saturation_proof: false,
            } => " + GPTQ",
            Rounding::Gptq {
                saturation_proof: true,
            } => " + GPTQ + saturation-proof",
        };
        if self.trained {
            label += " + QAT";
        }
        label += &self
            .embeddings
            .label(match self.keeps_embeddings_by_default() {
                true => EmbeddingStorage::Keep,
                false => EmbeddingStorage::Auto,
            });
        label += &FloatDType::label(self.float_dtype);
        label
    }

    fn validate_int4(&self, options: Int4Options) -> Result<(), QuantizeError> {
        if self.has_one_scale_at_run_time() || self.weight_scales() == WeightScales::PerTensor {
            return error(
                "weights",
                "`int8` with the scales of PyTorch's backends",
                "`int4`",
                "PyTorch's dynamic and static layers have int8 weights: leave out the backend, or int4",
            );
        }
        if options.group_size == GroupSize::Columns(0) {
            let hint = "`channel` gives all weights of an output one scale";
            return error("group_size", "at least 1, or `channel`", "0", hint);
        }
        if !options.layout.is_of_compressed_tensors() {
            self.validate_weights_alone(options.layout)?;
        }
        let is_proof = Rounding::Gptq {
            saturation_proof: true,
        };
        if self.rounding == is_proof && self.weights.int4().is_some() {
            return error(
                "saturation_proof",
                "false with `weights = \"int4\"`",
                "true",
                "no two int4 weights can saturate 16 bits: leave it out",
            );
        }
        Ok(())
    }

    /// For int8 weights in groups or in the layout of LLM.int8.
    fn validate_int8_alone(&self, layout: CodeLayout) -> Result<(), QuantizeError> {
        if let WeightCodes::Int8Groups { columns: 0, .. } = self.weights {
            let hint = "`channel` gives all weights of an output one scale";
            return error("group_size", "at least 1, or `channel`", "0", hint);
        }
        let is_groups = layout != CodeLayout::Bitsandbytes;
        let is_proof = Rounding::Gptq {
            saturation_proof: true,
        };
        if self.rounding == is_proof && is_groups {
            return error(
                "saturation_proof",
                "false with int8 weights in groups",
                "true",
                "their products are those of floats, which cannot saturate: leave it out",
            );
        }
        if is_groups {
            return Ok(());
        }
        self.validate_weights_alone(layout)
    }

    /// Layers differ where there are groups of them in `quantization_config`.
    fn validate_modules(&self) -> Result<(), QuantizeError> {
        if self.modules.is_empty() {
            return Ok(());
        }
        let mut codes = std::iter::once(&self.weights).chain(self.modules.values());
        let other = codes.find(|codes| match codes {
            WeightCodes::Int8 => false,
            WeightCodes::Int4(options) => !options.layout.is_of_compressed_tensors(),
            _ => true,
        });
        match other {
            None => Ok(()),
            Some(other) => error(
                "modules",
                "int8 weights without groups, and int4 weights in a layout of compressed-tensors",
                format!("`{other}`"),
                "other weights are those of all layers: leave out `modules`",
            ),
        }
    }

    fn validate_floats(
        &self,
        kind: SmallFloatType,
        scales: WeightScales,
    ) -> Result<(), QuantizeError> {
        if kind != SmallFloatType::Fp8 && scales == WeightScales::PerTensor {
            return error(
                "weight_scales",
                format!("none with `weights = \"{kind}\"`"),
                "`per-tensor`",
                "the type has groups of its own: leave it out",
            );
        }
        let goes_with_it = match (&self.inputs, kind) {
            (IntegerInputs::WeightOnly, _) => true,
            (IntegerInputs::Dynamic(inputs), SmallFloatType::Fp8) => {
                *inputs == DynamicInputs::default()
            }
            (IntegerInputs::Static(inputs), SmallFloatType::Fp8) => {
                // The scales of weights are those of the codes.
                inputs.weight_scales == WeightScales::PerChannel && !inputs.reduce_range
            }
            _ => false,
        };
        if !goes_with_it {
            return error(
                "weights",
                format!("`int8` or `int4` with these inputs of `{}`", self.method()),
                format!("`{kind}`"),
                "`weight-only` has weights of floats, and of `fp8` also `dynamic` with a scale for each token of every layer, and `static` without a backend of PyTorch",
            );
        }
        if self.rounding != Rounding::Nearest {
            return error(
                "gptq",
                format!("false with `weights = \"{kind}\"`"),
                "true",
                "GPTQ rounds codes of integers, `nf4` and `fp4`",
            );
        }
        if self.embeddings == EmbeddingStorage::Int8 {
            return error(
                "embeddings",
                format!("`auto`, `keep`, `fp16` or `bf16` with `weights = \"{kind}\"`"),
                "`int8`",
                "codes of integers and of floats are two formats, which loaders do not dequantize in one checkpoint",
            );
        }
        Ok(())
    }

    /// For a layout that holds weights of linear layers and nothing else.
    fn validate_weights_alone(&self, layout: CodeLayout) -> Result<(), QuantizeError> {
        if self.method() != Method::WeightOnly {
            return error(
                "layout",
                format!(
                    "`pack-quantized` or `int-quantized` with `{}`",
                    self.method()
                ),
                format!("`{layout}`"),
                "the layout says nothing of activations: use the method `weight-only`",
            );
        }
        if self.embeddings == EmbeddingStorage::Int8 {
            return error(
                "embeddings",
                format!("`auto`, `keep`, `fp16` or `bf16` with the layout `{layout}`"),
                "`int8`",
                "the layout has no codes of embedding tables: `pack-quantized` and `int-quantized` have",
            );
        }
        Ok(())
    }

    pub(super) fn validate(&self) -> Result<(), QuantizeError> {
        if self.embeddings == EmbeddingStorage::Nf4 {
            return error(
                "embeddings",
                "`auto`, `keep`, `int8`, `fp16` or `bf16` with integer weights",
                "`nf4`",
                "the compressed-tensors layout has no NF4 codes: use `int8`, or the method `nf4`",
            );
        }
        for options in self.int4_weights() {
            self.validate_int4(options)?;
        }
        self.validate_modules()?;
        match self.weights {
            WeightCodes::Floats { kind, scales } => self.validate_floats(kind, scales)?,
            WeightCodes::Int8Groups { layout, .. } => self.validate_int8_alone(layout)?,
            WeightCodes::LlmInt8 => self.validate_int8_alone(CodeLayout::Bitsandbytes)?,
            WeightCodes::Int8 | WeightCodes::Int4(_) => {}
        }
        if self.rounding != Rounding::Nearest && self.weight_scales() == WeightScales::PerTensor {
            return error(
                "weight_scales",
                "`per-channel` with `gptq`",
                "`per-tensor`",
                "PyTorch's backends qnnpack, fbgemm and x86 may have one scale for a weight: leave out the backend, or GPTQ",
            );
        }
        match &self.inputs {
            IntegerInputs::Static(inputs) => inputs.validate(self.weights.floats().is_some()),
            IntegerInputs::Dynamic(_) | IntegerInputs::WeightOnly => Ok(()),
        }
    }
}

/// What PyTorch's layers have where an input has one scale, as far as it is not fewbit's default.
fn label_of_one_scale(weight_scales: WeightScales, reduce_range: bool) -> String {
    let mut label = String::new();
    if weight_scales == WeightScales::PerTensor {
        label += ", weights per tensor";
    }
    if reduce_range {
        label += ", reduced range";
    }
    label
}

impl DynamicInputs {
    /// Sets [`activations`](Self::activations).
    #[must_use]
    pub fn with_activations(self, activations: ActivationScales) -> Self {
        Self {
            activations,
            ..self
        }
    }

    /// Adds globs to [`weight_only`](Self::weight_only).
    #[must_use]
    pub fn with_weight_only<S: Into<String>>(
        mut self,
        patterns: impl IntoIterator<Item = S>,
    ) -> Self {
        self.weight_only
            .extend(patterns.into_iter().map(Into::into));
        self
    }
}

impl StaticInputs {
    /// Scales of 8 bits, and weights with a scale for each channel.
    pub fn new(scales: BTreeMap<String, StaticInput>) -> Self {
        Self {
            scales,
            ..Self::default()
        }
    }

    fn validate(&self, are_floats: bool) -> Result<(), QuantizeError> {
        if self.scales.is_empty() {
            return error(
                "static_inputs",
                "the scale of at least one layer's input with the method `static`",
                "none",
                "calibrate() must run before convert(): give calibration texts, or a recipe that was calibrated; `dynamic` needs neither",
            );
        }
        for (module, StaticInput { scale, zero_point }) in &self.scales {
            if are_floats && *zero_point != 0 {
                return error(
                    "static_inputs",
                    format!("the zero point 0 of `{module}`, as floats have no other"),
                    zero_point.to_string(),
                    "the scales were calibrated for int8: calibrate again with --weights fp8",
                );
            }
            if self.reduce_range && !(-64..=63).contains(zero_point) {
                return error(
                    "static_inputs",
                    format!("a zero point of `{module}` in -64..=63, the codes of a reduced range"),
                    zero_point.to_string(),
                    "the scales were calibrated for 8 bits: leave out `reduce_range`, or calibrate again with --backend x86",
                );
            }
            // Of a denormal scale the reciprocal, by which inputs are multiplied, can be infinite.
            if !(f32::MIN_POSITIVE..=f32::MAX).contains(scale) {
                return error(
                    "static_inputs",
                    format!("a finite positive scale of `{module}`"),
                    scale.to_string(),
                    "calibrate again, or leave the module out, so that its input is quantized per token",
                );
            }
        }
        Ok(())
    }
}
