//! The whole decision as data.

mod file;

use std::collections::BTreeMap;

use fewbit_checkpoint::compressed_tensors::{CompressedScheme, WeightScales};
pub use file::RECIPE_KEYS;
use serde::{Deserialize, Serialize};

use crate::{Backend, Method, QuantizeError, StaticInput};

/// The recipe format that this version reads and writes.
pub const RECIPE_VERSION: u32 = 1;

/// Block size of the 4-bit methods where the recipe names none.
pub const DEFAULT_BLOCK_SIZE: usize = 64;

/// What to do to a checkpoint: the same data from the command line, from a file and from code.
///
/// A recipe is written beside the model that it made, as `recipe.toml`, and can be replayed. `docs/recipe.md` describes the file: a key
/// has the name of the flag that sets it, if there is one.
///
/// ```
/// use fewbit_quantize::{Method, Recipe};
///
/// let recipe = Recipe::new(Method::Nf4).with_double_quantization(true).with_skip(["*.output.dense"]);
/// assert_eq!(
///     recipe.to_toml(),
///     "version = 1\nmethod = \"nf4\"\nblock_size = 64\ndouble_quant = true\nskip = [\"*.output.dense\"]\n"
/// );
/// assert_eq!(Recipe::from_toml(&recipe.to_toml())?, recipe);
/// # Ok::<(), fewbit_quantize::QuantizeError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Version of the recipe format: [`RECIPE_VERSION`].
    pub version: u32,
    /// What becomes of the weights.
    pub method: Method,
    /// Elements that share one absmax, a power of two from 32 to 4096; `nf4` and `fp4` only.
    /// `None` means [`DEFAULT_BLOCK_SIZE`] there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_size: Option<usize>,
    /// Whether the absmax values are themselves quantized to 8 bits; `nf4` and `fp4` only.
    #[serde(
        rename = "double_quant",
        alias = "double_quantization",
        default,
        skip_serializing_if = "is_false"
    )]
    pub double_quantization: bool,
    /// Whether the word embedding table is stored as int8 with one scale a row; `dynamic`, `static` and
    /// `weight-only` only.
    #[serde(default, skip_serializing_if = "is_false")]
    pub quantize_embeddings: bool,
    /// What one scale of a linear layer's input at run time is for; `per-tensor` with `dynamic` only.
    #[serde(default, skip_serializing_if = "is_default")]
    pub activations: ActivationScales,
    /// Which elements of a linear layer's weight share a scale. `per-tensor` concerns the layers whose input has one scale: those of
    /// [`static_inputs`](Self::static_inputs), or all of them with `activations = "per-tensor"`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub weight_scales: WeightScales,
    /// Whether inputs with one scale are quantized to 7 bits, as PyTorch does on its backends `fbgemm` and `x86`. Never needed: the
    /// products of fewbit do not saturate.
    #[serde(default, skip_serializing_if = "is_false")]
    pub reduce_range: bool,
    /// Whether the weights of linear layers are rounded by [GPTQ](crate::gptq), which needs calibration texts beside the recipe; with
    /// the int8 methods, and a scale for each channel.
    #[serde(default, skip_serializing_if = "is_false")]
    pub gptq: bool,
    /// Whether no pair of neighbouring weights can saturate the 16 bits of `vpmaddubsw`
    /// ([`fewbit_numerics::saturation`]); with `gptq` only.
    #[serde(default, skip_serializing_if = "is_false")]
    pub saturation_proof: bool,
    /// Globs on module names that stay float, added to the defaults
    /// (see [`selection`](crate::selection)).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skip: Vec<String>,
    /// Globs on names of linear layers whose weights alone are quantized, as those of `weight-only` are; `dynamic` only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weight_only: Vec<String>,
    /// Scale and zero point of the inputs of linear layers, by module path without the model's prefix; `static` only. The input of a
    /// layer that is not named here is quantized per token at run time.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub static_inputs: BTreeMap<String, StaticInput>,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Which elements of an input share a scale that is chosen at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActivationScales {
    /// Those of a token. A result then depends on nothing but its text, and no token pays for the range of another.
    #[default]
    PerToken,
    /// All of a text, chosen by the rule of PyTorch's `quantize_dynamic`
    /// ([`fewbit_numerics::dynamic_linear`]). PyTorch takes the range of a whole batch, padding included; a text is what it sees
    /// where it runs one text at a time.
    PerTensor,
}

impl Recipe {
    /// The method with its defaults: blocks of 64 for the 4-bit methods, no double quantization,
    /// float embeddings, nothing skipped beyond the defaults.
    pub fn new(method: Method) -> Self {
        Self {
            version: RECIPE_VERSION,
            method,
            block_size: method.four_bit_type().map(|_| DEFAULT_BLOCK_SIZE),
            double_quantization: false,
            quantize_embeddings: false,
            activations: ActivationScales::PerToken,
            weight_scales: WeightScales::PerChannel,
            reduce_range: false,
            gptq: false,
            saturation_proof: false,
            skip: Vec::new(),
            weight_only: Vec::new(),
            static_inputs: BTreeMap::new(),
        }
    }

    /// Sets [`block_size`](Self::block_size).
    #[must_use]
    pub fn with_block_size(self, block_size: usize) -> Self {
        Self {
            block_size: Some(block_size),
            ..self
        }
    }

    /// Sets [`double_quantization`](Self::double_quantization).
    #[must_use]
    pub fn with_double_quantization(self, double_quantization: bool) -> Self {
        Self {
            double_quantization,
            ..self
        }
    }

    /// Sets [`quantize_embeddings`](Self::quantize_embeddings).
    #[must_use]
    pub fn with_quantize_embeddings(self, quantize_embeddings: bool) -> Self {
        Self {
            quantize_embeddings,
            ..self
        }
    }

    /// `dynamic` as PyTorch's `quantize_dynamic` does it by default on a backend: one scale for a weight, one for an input.
    ///
    /// The products of a layer are PyTorch's bit for bit on `fbgemm` and `x86`. `qnnpack` rounds a product before it adds the bias, and
    /// oneDNN adds in an order of its own, so that an output can differ in its last bits from what they give; scales, zero points and
    /// codes are theirs. `native` is `dynamic` as it is.
    ///
    /// ```
    /// use fewbit_quantize::{Backend, Recipe};
    /// assert_eq!(
    ///     Recipe::quantize_dynamic(Backend::X86).to_toml(),
    ///     "version = 1\nmethod = \"dynamic\"\nactivations = \"per-tensor\"\nweight_scales = \"per-tensor\"\nreduce_range = true\n"
    /// );
    /// ```
    pub fn quantize_dynamic(backend: Backend) -> Self {
        let recipe = Self::new(Method::Dynamic);
        if backend == Backend::Native {
            return recipe;
        }
        Self {
            activations: ActivationScales::PerTensor,
            weight_scales: WeightScales::PerTensor,
            // `_choose_qparams_per_tensor` ignores the wish on qnnpack only.
            reduce_range: backend != Backend::Qnnpack,
            ..recipe
        }
    }

    /// Sets [`weight_scales`](Self::weight_scales).
    #[must_use]
    pub fn with_weight_scales(self, weight_scales: WeightScales) -> Self {
        Self {
            weight_scales,
            ..self
        }
    }

    /// Sets [`reduce_range`](Self::reduce_range).
    #[must_use]
    pub fn with_reduce_range(self, reduce_range: bool) -> Self {
        Self {
            reduce_range,
            ..self
        }
    }

    /// Sets [`gptq`](Self::gptq).
    #[must_use]
    pub fn with_gptq(self, gptq: bool) -> Self {
        Self { gptq, ..self }
    }

    /// Sets [`saturation_proof`](Self::saturation_proof).
    #[must_use]
    pub fn with_saturation_proof(self, saturation_proof: bool) -> Self {
        Self {
            saturation_proof,
            ..self
        }
    }

    /// Adds globs to [`skip`](Self::skip).
    #[must_use]
    pub fn with_skip<S: Into<String>>(mut self, patterns: impl IntoIterator<Item = S>) -> Self {
        self.skip.extend(patterns.into_iter().map(Into::into));
        self
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

    /// Sets [`static_inputs`](Self::static_inputs).
    #[must_use]
    pub fn with_static_inputs(self, static_inputs: BTreeMap<String, StaticInput>) -> Self {
        Self {
            static_inputs,
            ..self
        }
    }

    /// Those of [`of_every_method`](Self::of_every_method) that need no calibration.
    pub fn standard() -> Vec<Self> {
        let mut recipes = Self::of_every_method();
        recipes.retain(|recipe| !recipe.method.needs_calibration());
        recipes
    }

    /// Every method with its defaults and, where there is one, its variant: int8 embeddings for the int8 methods, double quantization
    /// for the 4-bit ones. Those of `static` have no scales yet.
    pub fn of_every_method() -> Vec<Self> {
        Method::ALL
            .into_iter()
            .flat_map(|method| {
                let plain = Self::new(method);
                let variant = if method.is_int8() {
                    Some(plain.clone().with_quantize_embeddings(true))
                } else if method.four_bit_type().is_some() {
                    Some(plain.clone().with_double_quantization(true))
                } else {
                    None
                };
                [Some(plain), variant].into_iter().flatten()
            })
            .collect()
    }

    /// A short name for tables: `dynamic + int8 embeddings`, `nf4 + double quantization`,
    /// `nf4, blocks of 128`.
    pub fn label(&self) -> String {
        let mut label = self.method.name().to_owned();
        if let Some(block_size) = self.block_size
            && block_size != DEFAULT_BLOCK_SIZE
        {
            label += &format!(", blocks of {block_size}");
        }
        if self.double_quantization {
            label += " + double quantization";
        }
        if self.activations == ActivationScales::PerTensor {
            label += ", activations per text";
        }
        if self.weight_scales == WeightScales::PerTensor {
            label += ", weights per tensor";
        }
        if self.reduce_range {
            label += ", reduced range";
        }
        if !self.weight_only.is_empty() {
            label += ", some layers weight-only";
        }
        if self.gptq {
            label += " + GPTQ";
        }
        if self.saturation_proof {
            label += " + saturation-proof";
        }
        if self.quantize_embeddings {
            label += " + int8 embeddings";
        }
        label
    }

    /// How the int8 methods store the linear layer `module` (a path without the model's prefix). `weight_only` says whether a glob of
    /// [`weight_only`](Self::weight_only) matches it.
    pub(crate) fn int8_scheme(&self, module: &str, weight_only: bool) -> Option<CompressedScheme> {
        let (weights, reduce_range) = (self.weight_scales, self.reduce_range);
        if weight_only {
            return Some(CompressedScheme::WeightOnlyInt8Unpacked);
        }
        match (self.method, self.activations) {
            (Method::Dynamic, ActivationScales::PerTensor) => {
                Some(CompressedScheme::PerTensorDynamicInt8 {
                    weights,
                    reduce_range,
                })
            }
            (Method::Dynamic, ActivationScales::PerToken) => Some(CompressedScheme::DynamicInt8),
            // Without a scale of their own, inputs are quantized per token.
            (Method::Static, _) => Some(match self.static_inputs.get(module) {
                Some(input) => input.scheme(weights, reduce_range),
                None => CompressedScheme::DynamicInt8,
            }),
            (Method::WeightOnly, _) => Some(CompressedScheme::WeightOnlyInt8),
            _ => None,
        }
    }

    /// The block size of a 4-bit method.
    pub fn effective_block_size(&self) -> usize {
        self.block_size.unwrap_or(DEFAULT_BLOCK_SIZE)
    }

    /// Checks that the fields fit one another.
    ///
    /// # Errors
    /// [`QuantizeError::Recipe`] naming the field, what it holds and what it may hold.
    pub fn validate(&self) -> Result<(), QuantizeError> {
        let method = self.method;
        let four_bit = method.four_bit_type().is_some();
        let error = |field, expected: String, found: String, hint: &str| {
            Err(QuantizeError::Recipe {
                origin: "recipe".to_owned(),
                field,
                expected,
                found,
                hint: hint.to_owned(),
            })
        };
        if self.version != RECIPE_VERSION {
            return error(
                "version",
                RECIPE_VERSION.to_string(),
                self.version.to_string(),
                "the recipe was made for another version of fewbit",
            );
        }
        if let Some(block_size) = self.block_size {
            if !four_bit {
                return error(
                    "block_size",
                    format!("none with the method `{method}`"),
                    block_size.to_string(),
                    "`nf4` and `fp4` have a block size",
                );
            }
            if !block_size.is_power_of_two() || !(32..=4096).contains(&block_size) {
                return error(
                    "block_size",
                    "a power of two from 32 to 4096".to_owned(),
                    block_size.to_string(),
                    "64 is what bitsandbytes uses",
                );
            }
        }
        if self.double_quantization && !four_bit {
            return error(
                "double_quant",
                format!("false with the method `{method}`"),
                "true".to_owned(),
                "`nf4` and `fp4` have double quantization",
            );
        }
        if self.quantize_embeddings && !method.is_int8() {
            let hint = if four_bit {
                "the bitsandbytes layout has no int8 embeddings: use the method `dynamic`, `static` or `weight-only`"
            } else {
                "`dynamic`, `static` and `weight-only` have int8 embeddings"
            };
            return error(
                "quantize_embeddings",
                format!("false with the method `{method}`"),
                "true".to_owned(),
                hint,
            );
        }
        if self.activations == ActivationScales::PerTensor && method != Method::Dynamic {
            return error(
                "activations",
                format!("`per-token` with the method `{method}`"),
                "`per-tensor`".to_owned(),
                "`dynamic` has scales per tensor at run time, to give PyTorch's; `static` has stored ones",
            );
        }
        let one_scale = match method {
            Method::Dynamic => self.activations == ActivationScales::PerTensor,
            _ => method == Method::Static,
        };
        if self.weight_scales == WeightScales::PerTensor && !one_scale {
            return error(
                "weight_scales",
                format!("`per-channel` with the method `{method}`"),
                "`per-tensor`".to_owned(),
                "`static`, and `dynamic` with activations per tensor, have such weights, to give PyTorch's",
            );
        }
        if self.reduce_range && !one_scale {
            return error(
                "reduce_range",
                format!("false with the method `{method}`"),
                "true".to_owned(),
                "`static`, and `dynamic` with activations per tensor, have a reduced range, to give PyTorch's; no product here needs it",
            );
        }
        if !self.weight_only.is_empty() && method != Method::Dynamic {
            let hint = match method {
                Method::WeightOnly => "all layers are: leave the patterns out",
                Method::Static => {
                    "a layer that is not static is quantized per token there; use `dynamic` for layers of both kinds"
                }
                _ => "`dynamic` has layers whose weights alone are quantized",
            };
            return error(
                "weight_only",
                format!("no patterns with the method `{method}`"),
                format!("{:?}", self.weight_only),
                hint,
            );
        }
        self.validate_gptq()?;
        self.validate_static_inputs()?;
        if !self.skip.is_empty() && method.float_dtype().is_some() {
            return error(
                "skip",
                format!(
                    "no patterns with the method `{method}`, which converts every float tensor"
                ),
                format!("{:?}", self.skip),
                "a checkpoint of mixed dtypes is loaded as one dtype: leave the patterns out",
            );
        }
        Ok(())
    }

    fn validate_gptq(&self) -> Result<(), QuantizeError> {
        let method = self.method;
        let error = |field, expected: String, found: &str, hint: &str| {
            Err(QuantizeError::Recipe {
                origin: "recipe".to_owned(),
                field,
                expected,
                found: found.to_owned(),
                hint: hint.to_owned(),
            })
        };
        if self.gptq && !method.is_int8() {
            let hint = if method.four_bit_type().is_some() {
                "GPTQ rounds int8 weights, and no 4-bit ones yet: use `dynamic`, `static` or `weight-only`"
            } else {
                "GPTQ rounds int8 weights: use `dynamic`, `static` or `weight-only`"
            };
            return error(
                "gptq",
                format!("false with the method `{method}`"),
                "true",
                hint,
            );
        }
        if self.gptq && self.weight_scales == WeightScales::PerTensor {
            return error(
                "weight_scales",
                "`per-channel` with `gptq`".to_owned(),
                "`per-tensor`",
                "PyTorch's backends qnnpack, fbgemm and x86 may have one scale for a weight: leave out the backend, or GPTQ",
            );
        }
        if self.saturation_proof && !self.gptq {
            return error(
                "saturation_proof",
                "false without `gptq`".to_owned(),
                "true",
                "the steps of such weights are half as wide again, which only GPTQ makes up for: set `gptq`, too",
            );
        }
        Ok(())
    }

    fn validate_static_inputs(&self) -> Result<(), QuantizeError> {
        let method = self.method;
        let error = |expected: String, found: String, hint: &str| {
            Err(QuantizeError::Recipe {
                origin: "recipe".to_owned(),
                field: "static_inputs",
                expected,
                found,
                hint: hint.to_owned(),
            })
        };
        if !method.needs_calibration() {
            return match self.static_inputs.keys().next() {
                None => Ok(()),
                Some(module) => error(
                    format!("none with the method `{method}`"),
                    format!("`{module}`"),
                    "`static` has scales of inputs",
                ),
            };
        }
        if self.static_inputs.is_empty() {
            return error(
                "the scale of at least one layer's input with the method `static`".to_owned(),
                "none".to_owned(),
                "calibrate() must run before convert(): give calibration texts, or a recipe that was calibrated; `dynamic` needs neither",
            );
        }
        for (module, StaticInput { scale, zero_point }) in &self.static_inputs {
            if self.reduce_range && !(-64..=63).contains(zero_point) {
                return error(
                    format!("a zero point of `{module}` in -64..=63, the codes of a reduced range"),
                    zero_point.to_string(),
                    "the scales were calibrated for 8 bits: leave out `reduce_range`, or calibrate again with --backend x86",
                );
            }
            // Of a denormal scale the reciprocal, by which inputs are multiplied, can be infinite.
            if !(f32::MIN_POSITIVE..=f32::MAX).contains(scale) {
                return error(
                    format!("a finite positive scale of `{module}`"),
                    scale.to_string(),
                    "calibrate again, or leave the module out, so that its input is quantized per token",
                );
            }
        }
        Ok(())
    }
}
