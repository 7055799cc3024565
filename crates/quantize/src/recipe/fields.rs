//! A recipe as a flat list of keys, as files and command lines spell it.

use std::collections::BTreeMap;

use fewbit_checkpoint::compressed_tensors::WeightScales;
use fewbit_checkpoint::small_floats::SmallFloatType;
use fewbit_numerics::four_bit::FourBitType;
use serde::{Deserialize, Serialize};

use super::{
    ActivationScales, BlockScales, CodeLayout, DEFAULT_BLOCK_SIZE, DynamicInputs, EmbeddingStorage,
    FloatDType, FourBitRecipe, GroupSize, IntegerInputs, IntegerRecipe, ModuleFields,
    RECIPE_VERSION, Recipe, Rounding, StaticInputs, WeightCodes, error,
};
use crate::{Backend, Method, QuantizeError, StaticInput};

/// Every key of a recipe, as it is written.
pub const RECIPE_KEYS: [&str; 21] = [
    "version",
    "method",
    "weights",
    "group_size",
    "asymmetric",
    "layout",
    "block_size",
    "double_quant",
    "scales",
    "embeddings",
    "float_dtype",
    "activations",
    "weight_scales",
    "reduce_range",
    "gptq",
    "saturation_proof",
    "qat",
    "skip",
    "weight_only",
    "modules",
    "static_inputs",
];

/// The keys of a recipe file: those of all methods. [`Recipe::try_from`] refuses what the method does not have.
///
/// ```
/// use fewbit_quantize::{Method, Recipe, RecipeFields};
///
/// let fields = RecipeFields { gptq: true, ..RecipeFields::new(Method::Dynamic) };
/// assert_eq!(Recipe::try_from(fields)?.label(), "dynamic + GPTQ");
/// let fields = RecipeFields { gptq: true, ..RecipeFields::new(Method::Fp16) };
/// assert!(Recipe::try_from(fields).is_err());
/// # Ok::<(), fewbit_quantize::QuantizeError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeFields {
    /// Version of the recipe format: [`RECIPE_VERSION`].
    pub version: u32,
    /// The method.
    pub method: Method,
    /// The bits of [`IntegerRecipe::weights`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub weights: WeightsField,
    /// [`Int4Options::group_size`](super::Int4Options::group_size); its default where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_size: Option<GroupSize>,
    /// [`Int4Options::asymmetric`](super::Int4Options::asymmetric)
    #[serde(default, skip_serializing_if = "is_false")]
    pub asymmetric: bool,
    /// [`Int4Options::layout`](super::Int4Options::layout)
    #[serde(default, skip_serializing_if = "is_default")]
    pub layout: CodeLayout,
    /// [`FourBitRecipe::block_size`]; [`DEFAULT_BLOCK_SIZE`] where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_size: Option<usize>,
    /// [`FourBitRecipe::double_quantization`]
    #[serde(
        rename = "double_quant",
        alias = "double_quantization",
        default,
        skip_serializing_if = "is_false"
    )]
    pub double_quantization: bool,
    /// [`FourBitRecipe::scales`] and [`Int4Options::scales`](super::Int4Options::scales); their defaults where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scales: Option<BlockScales>,
    /// [`Recipe::embeddings`]. A file without the key keeps the table, as one of an older version meant.
    #[serde(default = "keep", skip_serializing_if = "is_keep")]
    pub embeddings: EmbeddingStorage,
    /// The old key of int8 embeddings, read and never written: [`EmbeddingStorage::Int8`] if true, and [`EmbeddingStorage::Keep`] if not.
    #[serde(default, skip_serializing)]
    pub quantize_embeddings: Option<bool>,
    /// The dtype of what is not quantized; that of the source where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub float_dtype: Option<FloatDType>,
    /// Which [`ActivationScales`] the method `dynamic` has.
    #[serde(default, skip_serializing_if = "is_default")]
    pub activations: ActivationsField,
    /// Which elements of a linear layer's weight share a scale, where its input has one scale, or where weights are FP8.
    #[serde(default, skip_serializing_if = "is_default")]
    pub weight_scales: WeightScales,
    /// Whether inputs with one scale are quantized to 7 bits.
    #[serde(default, skip_serializing_if = "is_false")]
    pub reduce_range: bool,
    /// Whether weights are rounded by GPTQ: [`Rounding::Gptq`], or [`FourBitRecipe::gptq`].
    #[serde(default, skip_serializing_if = "is_false")]
    pub gptq: bool,
    /// Whether it is saturation-proof.
    #[serde(default, skip_serializing_if = "is_false")]
    pub saturation_proof: bool,
    /// Whether weights are trained: [`IntegerRecipe::trained`], or [`FourBitRecipe::trained`].
    #[serde(rename = "qat", default, skip_serializing_if = "is_false")]
    pub trained: bool,
    /// [`Recipe::skip`]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skip: Vec<String>,
    /// [`DynamicInputs::weight_only`]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weight_only: Vec<String>,
    /// [`IntegerRecipe::modules`]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub modules: BTreeMap<String, ModuleFields>,
    /// [`StaticInputs::scales`]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub static_inputs: BTreeMap<String, StaticInput>,
}

/// What a recipe file says of the codes of integer weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightsField {
    /// [`WeightCodes::Int8`](super::WeightCodes::Int8)
    #[default]
    Int8,
    /// [`WeightCodes::Int4`](super::WeightCodes::Int4)
    Int4,
    /// [`WeightCodes::Floats`](super::WeightCodes::Floats) of FP8.
    Fp8,
    /// [`WeightCodes::Floats`](super::WeightCodes::Floats) of NVFP4.
    Nvfp4,
    /// [`WeightCodes::Floats`](super::WeightCodes::Floats) of MXFP4.
    Mxfp4,
}

impl WeightsField {
    /// As recipes and command lines spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::Int4 => "int4",
            Self::Fp8 => SmallFloatType::Fp8.name(),
            Self::Nvfp4 => SmallFloatType::Nvfp4.name(),
            Self::Mxfp4 => SmallFloatType::Mxfp4.name(),
        }
    }
}

/// What a recipe file says of the scales of inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActivationsField {
    /// [`ActivationScales::PerToken`]
    #[default]
    PerToken,
    /// [`ActivationScales::PerTensor`]
    PerTensor,
}

pub(super) fn is_false(value: &bool) -> bool {
    !value
}

fn keep() -> EmbeddingStorage {
    EmbeddingStorage::Keep
}

fn is_keep(embeddings: &EmbeddingStorage) -> bool {
    *embeddings == EmbeddingStorage::Keep
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl RecipeFields {
    /// A method with its defaults: those of [`Recipe::new`].
    pub fn new(method: Method) -> Self {
        Self {
            version: RECIPE_VERSION,
            method,
            weights: WeightsField::Int8,
            group_size: None,
            asymmetric: false,
            layout: CodeLayout::default(),
            block_size: None,
            double_quantization: false,
            scales: None,
            embeddings: match method.is_integer() {
                true => EmbeddingStorage::Auto,
                false => EmbeddingStorage::Keep,
            },
            quantize_embeddings: None,
            float_dtype: None,
            activations: ActivationsField::PerToken,
            weight_scales: WeightScales::PerChannel,
            reduce_range: false,
            gptq: false,
            saturation_proof: false,
            trained: false,
            skip: Vec::new(),
            weight_only: Vec::new(),
            modules: BTreeMap::new(),
            static_inputs: BTreeMap::new(),
        }
    }
}

impl RecipeFields {
    /// These, with one scale for an input at run time, as PyTorch's `quantize_dynamic` has it on `backend`, and with its float embeddings unless
    /// others are asked for.
    #[must_use]
    pub fn with_scales_of_quantize_dynamic(self, backend: Backend) -> Self {
        let torch = Self::from(Recipe::quantize_dynamic(backend));
        Self {
            activations: torch.activations,
            weight_scales: torch.weight_scales,
            reduce_range: torch.reduce_range,
            embeddings: match self.embeddings {
                EmbeddingStorage::Auto => torch.embeddings,
                asked_for => asked_for,
            },
            ..self
        }
    }
}

impl From<Recipe> for RecipeFields {
    fn from(recipe: Recipe) -> Self {
        let fields = Self::new(recipe.method());
        let options = match recipe {
            Recipe::F32 | Recipe::Fp16 | Recipe::Bf16 => return fields,
            Recipe::FourBit(options) => {
                return Self {
                    block_size: Some(options.block_size),
                    double_quantization: options.double_quantization,
                    scales: (options.scales != BlockScales::default()).then_some(options.scales),
                    gptq: options.gptq,
                    trained: options.trained,
                    embeddings: options.embeddings,
                    float_dtype: options.float_dtype,
                    skip: options.skip,
                    ..fields
                };
            }
            Recipe::Integer(options) => options,
        };
        let (gptq, saturation_proof) = match options.rounding {
            Rounding::Nearest => (false, false),
            Rounding::Gptq { saturation_proof } => (true, saturation_proof),
        };
        let scales_of_floats = match options.weights {
            WeightCodes::Floats { scales, .. } => scales,
            _ => WeightScales::default(),
        };
        let ModuleFields {
            weights,
            group_size,
            asymmetric,
            layout,
            scales,
        } = options.weights.into();
        let modules = options.modules.into_iter();
        let fields = Self {
            weights,
            weight_scales: scales_of_floats,
            group_size,
            asymmetric,
            layout,
            scales,
            modules: modules
                .map(|(pattern, codes)| (pattern, codes.into()))
                .collect(),
            embeddings: options.embeddings,
            float_dtype: options.float_dtype,
            gptq,
            saturation_proof,
            trained: options.trained,
            skip: options.skip,
            ..fields
        };
        match options.inputs {
            IntegerInputs::WeightOnly => fields,
            IntegerInputs::Static(inputs) => Self {
                weight_scales: match options.weights {
                    WeightCodes::Floats { .. } => scales_of_floats,
                    _ => inputs.weight_scales,
                },
                reduce_range: inputs.reduce_range,
                static_inputs: inputs.scales,
                ..fields
            },
            IntegerInputs::Dynamic(inputs) => {
                let fields = Self {
                    weight_only: inputs.weight_only,
                    ..fields
                };
                match inputs.activations {
                    ActivationScales::PerToken => fields,
                    ActivationScales::PerTensor {
                        weight_scales,
                        reduce_range,
                    } => Self {
                        activations: ActivationsField::PerTensor,
                        weight_scales,
                        reduce_range,
                        ..fields
                    },
                }
            }
        }
    }
}

impl TryFrom<RecipeFields> for Recipe {
    type Error = QuantizeError;

    /// # Errors
    /// [`QuantizeError::RecipeKey`] for a key that does not go with the method, [`QuantizeError::Recipe`] for keys that do not go with each other or
    /// with this version. Values are checked by [`Recipe::validate`].
    fn try_from(fields: RecipeFields) -> Result<Self, QuantizeError> {
        let fields = fields.with_new_keys()?;
        fields.expect_keys_of_the_method()?;
        let four_bit = |data_type, fields: RecipeFields| FourBitRecipe {
            data_type,
            block_size: fields.block_size.unwrap_or(DEFAULT_BLOCK_SIZE),
            double_quantization: fields.double_quantization,
            scales: fields.scales.unwrap_or_default(),
            gptq: fields.gptq,
            trained: fields.trained,
            // There is nothing to choose: no loader takes another form.
            embeddings: match fields.embeddings {
                EmbeddingStorage::Auto => EmbeddingStorage::Keep,
                asked_for => asked_for,
            },
            float_dtype: fields.float_dtype,
            skip: fields.skip,
        };
        let (weights, weight_scales) = match fields.weights_of_all().into() {
            // What the key says of layers whose input has one scale, it says of all of these.
            WeightCodes::Floats { kind, .. } => {
                let scales = fields.weight_scales;
                (
                    WeightCodes::Floats { kind, scales },
                    WeightScales::default(),
                )
            }
            weights => (weights, fields.weight_scales),
        };
        let of_single_layers = fields.modules.iter();
        let modules = of_single_layers.map(|(pattern, module)| (pattern.clone(), (*module).into()));
        let modules = modules.collect();
        let inputs = match fields.method {
            Method::F32 => return Ok(Recipe::F32),
            Method::Fp16 => return Ok(Recipe::Fp16),
            Method::Bf16 => return Ok(Recipe::Bf16),
            Method::Nf4 => return Ok(four_bit(FourBitType::Nf4, fields).into()),
            Method::Fp4 => return Ok(four_bit(FourBitType::Fp4, fields).into()),
            Method::WeightOnly => IntegerInputs::WeightOnly,
            Method::Static => IntegerInputs::Static(StaticInputs {
                scales: fields.static_inputs,
                weight_scales,
                reduce_range: fields.reduce_range,
            }),
            Method::Dynamic => IntegerInputs::Dynamic(DynamicInputs {
                activations: match fields.activations {
                    ActivationsField::PerToken => ActivationScales::PerToken,
                    ActivationsField::PerTensor => ActivationScales::PerTensor {
                        weight_scales,
                        reduce_range: fields.reduce_range,
                    },
                },
                weight_only: fields.weight_only,
            }),
        };
        Ok(Recipe::Integer(IntegerRecipe {
            inputs,
            weights,
            modules,
            rounding: match fields.gptq {
                false => Rounding::Nearest,
                true => Rounding::Gptq {
                    saturation_proof: fields.saturation_proof,
                },
            },
            trained: fields.trained,
            embeddings: fields.embeddings,
            float_dtype: fields.float_dtype,
            skip: fields.skip,
        }))
    }
}

impl RecipeFields {
    /// These, with `embeddings` for what the old key says.
    fn with_new_keys(self) -> Result<Self, QuantizeError> {
        let old = match self.quantize_embeddings {
            None => return Ok(self),
            Some(true) => EmbeddingStorage::Int8,
            Some(false) => EmbeddingStorage::Keep,
        };
        if old == EmbeddingStorage::Int8 && !self.method.is_integer() {
            let hint = match self.method.four_bit_type() {
                Some(_) => {
                    "no other loader reads int8 embeddings in the bitsandbytes layout: if fewbit alone is to read them, `embeddings = \"int8\"` writes them"
                }
                None => "`dynamic`, `static` and `weight-only` have int8 embeddings",
            };
            self.of_other_methods("quantize_embeddings", "false", "true", hint)?;
        }
        let is_said = !matches!(
            self.embeddings,
            EmbeddingStorage::Auto | EmbeddingStorage::Keep
        );
        if is_said && self.embeddings != old {
            return error(
                "quantize_embeddings",
                format!("nothing beside `embeddings = \"{}\"`", self.embeddings),
                (old == EmbeddingStorage::Int8).to_string(),
                "`embeddings` is the new name of the key: leave the old one out",
            );
        }
        Ok(Self {
            embeddings: old,
            quantize_embeddings: None,
            ..self
        })
    }

    /// Errors for the first key that the method does not have.
    fn expect_keys_of_the_method(&self) -> Result<(), QuantizeError> {
        if self.version != RECIPE_VERSION {
            return error(
                "version",
                RECIPE_VERSION.to_string(),
                self.version.to_string(),
                "the recipe was made for another version of fewbit",
            );
        }
        let method = self.method;
        self.expect_floats_of_the_method()?;
        if method.four_bit_type().is_none() {
            self.expect_no_keys_of_four_bits()?;
        }
        if !method.is_integer() {
            self.expect_no_keys_of_int8()?;
        }
        self.expect_keys_of_groups()?;
        self.expect_keys_of_modules()?;
        self.expect_keys_of_one_scale()?;
        if !self.weight_only.is_empty() && method != Method::Dynamic {
            let hint = match method {
                Method::WeightOnly => "all layers are: leave the patterns out",
                Method::Static => {
                    "a layer that is not static is quantized per token there; use `dynamic` for layers of both kinds"
                }
                _ => "`dynamic` has layers whose weights alone are quantized",
            };
            return self.of_other_methods(
                "weight_only",
                "no patterns",
                format!("{:?}", self.weight_only),
                hint,
            );
        }
        if self.saturation_proof && !self.gptq {
            return error(
                "saturation_proof",
                "false without `gptq`",
                "true",
                "the steps of such weights are half as wide again, which only GPTQ makes up for: set `gptq`, too",
            );
        }
        if let Some(module) = self.static_inputs.keys().next()
            && method != Method::Static
        {
            return self.of_other_methods(
                "static_inputs",
                "none",
                format!("`{module}`"),
                "`static` has scales of inputs",
            );
        }
        if !self.skip.is_empty() && method.float_dtype().is_some() {
            return self.of_other_methods(
                "skip",
                "no patterns",
                format!("{:?}", self.skip),
                "a checkpoint of mixed dtypes is loaded as one dtype: leave the patterns out",
            );
        }
        Ok(())
    }

    fn of_other_methods(
        &self,
        field: &'static str,
        expected: &'static str,
        found: impl Into<String>,
        hint: &'static str,
    ) -> Result<(), QuantizeError> {
        Err(QuantizeError::RecipeKey {
            origin: "recipe".to_owned(),
            field,
            method: self.method,
            expected,
            found: found.into(),
            hint,
        })
    }

    /// `fp16` and `bf16` are the dtype of everything.
    fn expect_floats_of_the_method(&self) -> Result<(), QuantizeError> {
        let Some(everything) = self.method.float_dtype() else {
            return Ok(());
        };
        if !matches!(
            self.embeddings,
            EmbeddingStorage::Keep | EmbeddingStorage::Auto
        ) {
            return self.of_other_methods(
                "embeddings",
                "`keep`",
                format!("`{}`", self.embeddings),
                "`fp16` and `bf16` are the dtype of every tensor; the other methods have embeddings of a form of their own",
            );
        }
        match self.float_dtype {
            Some(dtype) if dtype.dtype() != everything => self.of_other_methods(
                "float_dtype",
                "none",
                format!("`{dtype}`"),
                "`fp16` and `bf16` are the dtype of every tensor: leave it out",
            ),
            _ => Ok(()),
        }
    }

    /// Of a method other than `nf4` and `fp4`.
    fn expect_no_keys_of_four_bits(&self) -> Result<(), QuantizeError> {
        if let Some(block_size) = self.block_size {
            return self.of_other_methods(
                "block_size",
                "none",
                block_size.to_string(),
                "`nf4` and `fp4` have a block size",
            );
        }
        if self.double_quantization {
            return self.of_other_methods(
                "double_quant",
                "false",
                "true",
                "`nf4` and `fp4` have double quantization",
            );
        }
        match self.scales {
            Some(scales) if scales != BlockScales::Absmax && self.weights != WeightsField::Int4 => {
                self.of_other_methods(
                    "scales",
                    "`absmax`",
                    format!("`{scales}`"),
                    "`nf4`, `fp4` and int4 weights choose the scales of their blocks and groups",
                )
            }
            _ => Ok(()),
        }
    }

    /// Of a method other than `dynamic`, `static` and `weight-only`.
    fn expect_no_keys_of_int8(&self) -> Result<(), QuantizeError> {
        let method = self.method;
        let four_bit = method.four_bit_type().is_some();
        if self.weights != WeightsField::Int8 {
            return self.of_other_methods(
                "weights",
                "none",
                format!("`{}`", self.weights.name()),
                "`dynamic`, `static` and `weight-only` have integer weights; `nf4` is what other tools call int4",
            );
        }
        if self.gptq && !four_bit {
            return self.of_other_methods(
                "gptq",
                "false",
                "true",
                "GPTQ rounds codes of 8 and of 4 bits: use any method but `fp16` and `bf16`",
            );
        }
        if self.trained && !four_bit {
            return self.of_other_methods(
                "qat",
                "false",
                "true",
                "training makes up for what codes lose: use any method but `fp16` and `bf16`",
            );
        }
        if self.saturation_proof {
            return self.of_other_methods(
                "saturation_proof",
                "false",
                "true",
                "pairs of int8 weights can saturate: use `dynamic`, `static` or `weight-only`",
            );
        }
        Ok(())
    }

    /// Keys of groups and layouts: int4 weights have all of them, int8 ones of `weight-only` a group size and three of the layouts.
    fn expect_keys_of_groups(&self) -> Result<(), QuantizeError> {
        if self.weights == WeightsField::Int4 {
            if self.layout == CodeLayout::Bitsandbytes {
                return error(
                    "layout",
                    "a layout of int4 codes",
                    "`bitsandbytes`",
                    "bitsandbytes has int8 codes there; its codes of 4 bits are those of the methods `nf4` and `fp4`",
                );
            }
            return Ok(());
        }
        let is_weight_only_int8 =
            self.method == Method::WeightOnly && self.weights == WeightsField::Int8;
        if is_weight_only_int8 && !self.asymmetric {
            return self.expect_layout_of_int8();
        }
        self.weights_of_all().expect_keys_of_int4()
    }

    /// What is said of the weights of all layers.
    fn weights_of_all(&self) -> ModuleFields {
        ModuleFields {
            weights: self.weights,
            group_size: self.group_size,
            asymmetric: self.asymmetric,
            layout: self.layout,
            scales: self.scales,
        }
    }

    /// Of weights of single layers.
    fn expect_keys_of_modules(&self) -> Result<(), QuantizeError> {
        match self.modules.keys().next() {
            Some(pattern) if !self.method.is_integer() => self.of_other_methods(
                "modules",
                "none",
                format!("`{pattern}`"),
                "`dynamic`, `static` and `weight-only` have layers of int8 and of int4 weights",
            ),
            _ => {
                let mut modules = self.modules.values();
                modules.try_for_each(ModuleFields::expect_keys_of_a_module)
            }
        }
    }

    /// Of int8 weights of `weight-only`.
    fn expect_layout_of_int8(&self) -> Result<(), QuantizeError> {
        let has_groups = matches!(self.group_size, Some(GroupSize::Columns(_)));
        match (self.layout, has_groups) {
            (CodeLayout::PackQuantized, _) | (CodeLayout::IntQuantized, true) => Ok(()),
            (CodeLayout::Bitsandbytes, false) if self.group_size.is_none() => Ok(()),
            (CodeLayout::Bitsandbytes, _) => error(
                "group_size",
                "none with `layout = \"bitsandbytes\"`",
                self.group_size
                    .map_or(String::new(), |size| size.to_string()),
                "LLM.int8 has one scale for each output channel: leave it out",
            ),
            (CodeLayout::IntQuantized, false) => error(
                "layout",
                "none beside int8 weights without groups",
                "`int-quantized`",
                "beside int8 embeddings it is what is written: leave it out",
            ),
            (layout, _) => error(
                "layout",
                "`pack-quantized`, `int-quantized` with groups, or `bitsandbytes` for int8 weights",
                format!("`{layout}`"),
                "int4 weights have it: `weights = \"int4\"`, on the command line --weights int4",
            ),
        }
    }

    /// Keys that concern layers whose input has one scale: of `static`, and of `dynamic` with activations per tensor.
    fn expect_keys_of_one_scale(&self) -> Result<(), QuantizeError> {
        let method = self.method;
        let per_tensor = self.activations == ActivationsField::PerTensor;
        if per_tensor && method != Method::Dynamic {
            return self.of_other_methods(
                "activations",
                "`per-token`",
                "`per-tensor`",
                "`dynamic` has scales per tensor at run time, to give PyTorch's; `static` has stored ones",
            );
        }
        if per_tensor || method == Method::Static {
            return Ok(());
        }
        let has_scales = self.weights == WeightsField::Fp8;
        if self.weight_scales == WeightScales::PerTensor && !has_scales {
            return self.of_other_methods(
                "weight_scales",
                "`per-channel`",
                "`per-tensor`",
                "`static`, and `dynamic` with activations per tensor, have such weights, to give PyTorch's; so has `weights = \"fp8\"` with any of these methods",
            );
        }
        if self.reduce_range {
            return self.of_other_methods(
                "reduce_range",
                "false",
                "true",
                "`static`, and `dynamic` with activations per tensor, have a reduced range, to give PyTorch's; no product here needs it",
            );
        }
        Ok(())
    }
}
