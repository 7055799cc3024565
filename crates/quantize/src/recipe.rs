//! The whole decision as data.

mod block_scales;
mod embeddings;
mod fields;
mod file;
mod four_bit;
mod integer;
mod module_weights;
mod weight_codes;

use std::collections::BTreeMap;

use fewbit_numerics::dtype::DType;
use fewbit_numerics::four_bit::FourBitType;
use serde::Serialize;

use crate::{Backend, Method, QuantizeError, StaticInput};
pub use block_scales::BlockScales;
pub use embeddings::{EmbeddingStorage, FloatDType, UnknownEmbeddingStorage};
pub use fields::{ActivationsField, RECIPE_KEYS, RecipeFields, WeightsField};
pub use four_bit::{DEFAULT_BLOCK_SIZE, FourBitRecipe};
pub use integer::{
    ActivationScales, DynamicInputs, IntegerInputs, IntegerRecipe, Rounding, StaticInputs,
};
pub use module_weights::{ModuleFields, ModuleWeights, modules_name};
pub use weight_codes::{CodeLayout, GroupSize, Int4Options, UnknownGroupSize, WeightCodes};

/// The recipe format that this version reads and writes.
pub const RECIPE_VERSION: u32 = 1;

/// What to do to a checkpoint: a method with the options that it has.
///
/// A recipe is written beside the model that it made, as `recipe.toml`, and can be replayed. `docs/recipe.md` describes the file, whose
/// keys are those of [`RecipeFields`]: a key has the name of the flag that sets it, if there is one.
///
/// ```
/// use fewbit_quantize::{FourBitRecipe, Recipe};
///
/// let recipe: Recipe = FourBitRecipe::nf4().with_double_quantization(true).with_skip(["*.output.dense"]).into();
/// assert_eq!(
///     recipe.to_toml(),
///     "version = 1\nmethod = \"nf4\"\nblock_size = 64\ndouble_quant = true\nskip = [\"*.output.dense\"]\n"
/// );
/// assert_eq!(Recipe::from_toml(&recipe.to_toml())?, recipe);
/// # Ok::<(), fewbit_quantize::QuantizeError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(into = "RecipeFields")]
pub enum Recipe {
    /// `f32`: every float tensor as IEEE single precision.
    F32,
    /// `fp16`: every float tensor as IEEE half precision.
    Fp16,
    /// `bf16`: every float tensor as bfloat16.
    Bf16,
    /// `dynamic`, `static` and `weight-only`: int8 or int4 weights.
    Integer(IntegerRecipe),
    /// `nf4` and `fp4`: 4-bit weights in blocks.
    FourBit(FourBitRecipe),
}

impl From<IntegerRecipe> for Recipe {
    fn from(recipe: IntegerRecipe) -> Self {
        Recipe::Integer(recipe)
    }
}

impl From<FourBitRecipe> for Recipe {
    fn from(recipe: FourBitRecipe) -> Self {
        Recipe::FourBit(recipe)
    }
}

impl Recipe {
    /// The method with its defaults: blocks of 64 for the 4-bit methods, no double quantization; int8 embeddings for the int8 methods where
    /// loaders take them ([`EmbeddingStorage::Auto`]), other floats as they are; weights rounded to the nearest code, nothing skipped beyond the
    /// defaults. `static` has no scales yet, and is no valid recipe before it has some.
    pub fn new(method: Method) -> Self {
        match method {
            Method::F32 => Recipe::F32,
            Method::Fp16 => Recipe::Fp16,
            Method::Bf16 => Recipe::Bf16,
            Method::Dynamic => IntegerRecipe::dynamic().into(),
            Method::Static => IntegerRecipe::from(StaticInputs::default()).into(),
            Method::WeightOnly => IntegerRecipe::weight_only().into(),
            Method::Nf4 => FourBitRecipe::nf4().into(),
            Method::Fp4 => FourBitRecipe::fp4().into(),
        }
    }

    /// `dynamic` as PyTorch's `quantize_dynamic` does it by default on a backend: one scale for a weight, one for an input, float embeddings.
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
        let activations = ActivationScales::of_quantize_dynamic(backend);
        let inputs = DynamicInputs::default().with_activations(activations);
        let recipe = IntegerRecipe::from(inputs);
        match activations {
            ActivationScales::PerToken => recipe.into(),
            ActivationScales::PerTensor { .. } => {
                recipe.with_embeddings(EmbeddingStorage::Keep).into()
            }
        }
    }

    /// The method.
    pub fn method(&self) -> Method {
        match self {
            Recipe::F32 => Method::F32,
            Recipe::Fp16 => Method::Fp16,
            Recipe::Bf16 => Method::Bf16,
            Recipe::Integer(recipe) => recipe.method(),
            Recipe::FourBit(recipe) => match recipe.data_type {
                FourBitType::Nf4 => Method::Nf4,
                FourBitType::Fp4 => Method::Fp4,
            },
        }
    }

    /// The dtype of what is not quantized: everything, of the methods that only convert. None: that of the source.
    pub fn float_dtype(&self) -> Option<DType> {
        let chosen = match self {
            Recipe::F32 | Recipe::Fp16 | Recipe::Bf16 => return self.method().float_dtype(),
            Recipe::Integer(recipe) => recipe.float_dtype,
            Recipe::FourBit(recipe) => recipe.float_dtype,
        };
        chosen.map(FloatDType::dtype)
    }

    /// The options of int8 weights, of the methods that have them.
    pub fn integer(&self) -> Option<&IntegerRecipe> {
        match self {
            Recipe::Integer(recipe) => Some(recipe),
            _ => None,
        }
    }

    /// The options of 4-bit weights, of the methods that have them.
    pub fn four_bit(&self) -> Option<&FourBitRecipe> {
        match self {
            Recipe::FourBit(recipe) => Some(recipe),
            _ => None,
        }
    }

    /// Globs on module names that stay float, added to the defaults (see [`selection`](crate::selection)). The methods that convert every
    /// float tensor have none.
    pub fn skip(&self) -> &[String] {
        match self {
            Recipe::F32 | Recipe::Fp16 | Recipe::Bf16 => &[],
            Recipe::Integer(recipe) => &recipe.skip,
            Recipe::FourBit(recipe) => &recipe.skip,
        }
    }

    /// Globs on names of linear layers whose weights alone are quantized beside others.
    pub fn weight_only(&self) -> &[String] {
        match self.integer().map(|recipe| &recipe.inputs) {
            Some(IntegerInputs::Dynamic(inputs)) => &inputs.weight_only,
            _ => &[],
        }
    }

    /// How the word embedding table is stored; as other floats, of the methods that only convert.
    pub fn embeddings(&self) -> EmbeddingStorage {
        match self {
            Recipe::F32 | Recipe::Fp16 | Recipe::Bf16 => EmbeddingStorage::Keep,
            Recipe::Integer(recipe) => recipe.embeddings,
            Recipe::FourBit(recipe) => recipe.embeddings,
        }
    }

    /// The recipe with another form of embeddings; the methods that only convert have none.
    pub(crate) fn with_embeddings(self, embeddings: EmbeddingStorage) -> Self {
        match self {
            Recipe::F32 | Recipe::Fp16 | Recipe::Bf16 => self,
            Recipe::Integer(recipe) => recipe.with_embeddings(embeddings).into(),
            Recipe::FourBit(recipe) => recipe.with_embeddings(embeddings).into(),
        }
    }

    /// Whether weights are rounded by [GPTQ](crate::gptq).
    pub fn needs_gptq(&self) -> bool {
        match self {
            Recipe::F32 | Recipe::Fp16 | Recipe::Bf16 => false,
            Recipe::Integer(recipe) => recipe.rounding != Rounding::Nearest,
            Recipe::FourBit(recipe) => recipe.gptq,
        }
    }

    /// Whether weights are trained before they are written.
    pub fn is_trained(&self) -> bool {
        match self {
            Recipe::F32 | Recipe::Fp16 | Recipe::Bf16 => false,
            Recipe::Integer(recipe) => recipe.trained,
            Recipe::FourBit(recipe) => recipe.trained,
        }
    }

    /// Whether calibration samples are needed beside the recipe whenever it is carried out: for GPTQ, or for scales that are weighted by activations.
    pub fn needs_samples(&self) -> bool {
        let is_weighted = |scales| scales == BlockScales::ActivationWeighted;
        let has_weighted_scales = match self {
            Recipe::F32 | Recipe::Fp16 | Recipe::Bf16 => false,
            Recipe::Integer(recipe) => recipe.int4_weights().any(|int4| is_weighted(int4.scales)),
            Recipe::FourBit(recipe) => is_weighted(recipe.scales),
        };
        self.needs_gptq() || has_weighted_scales
    }

    /// Scale and zero point of inputs, by layer; none of methods other than `static`.
    pub fn static_inputs(&self) -> Option<&BTreeMap<String, StaticInput>> {
        match &self.integer()?.inputs {
            IntegerInputs::Static(inputs) => Some(&inputs.scales),
            _ => None,
        }
    }

    /// Those of [`of_every_method`](Self::of_every_method) that need no calibration.
    pub fn standard() -> Vec<Self> {
        let mut recipes = Self::of_every_method();
        recipes.retain(|recipe| !recipe.method().needs_calibration());
        recipes
    }

    /// Every method with its defaults and, where there is one, its variant: float embeddings for the int8 methods, double quantization
    /// for the 4-bit ones. Those of `static` have no scales yet.
    pub fn of_every_method() -> Vec<Self> {
        let with_variant = |method| {
            let plain = Self::new(method);
            let variant = match plain.clone() {
                Recipe::F32 | Recipe::Fp16 | Recipe::Bf16 => None,
                Recipe::Integer(recipe) => {
                    Some(recipe.with_embeddings(EmbeddingStorage::Keep).into())
                }
                Recipe::FourBit(recipe) => Some(recipe.with_double_quantization(true).into()),
            };
            [Some(plain), variant].into_iter().flatten()
        };
        Method::ALL.into_iter().flat_map(with_variant).collect()
    }

    /// A short name for tables: `dynamic + float embeddings`, `nf4 + double quantization`,
    /// `nf4, blocks of 128`, `weight-only + fp16 floats`.
    pub fn label(&self) -> String {
        let mut label = self.method().name().to_owned();
        match self {
            Recipe::F32 | Recipe::Fp16 | Recipe::Bf16 => {}
            Recipe::Integer(recipe) => label += &recipe.label_of_options(),
            Recipe::FourBit(recipe) => label += &recipe.label_of_options(),
        }
        label
    }

    /// Checks the values of the options: block sizes, scales, zero points.
    ///
    /// # Errors
    /// [`QuantizeError::Recipe`] naming the field, what it holds and what it may hold.
    pub fn validate(&self) -> Result<(), QuantizeError> {
        match self {
            Recipe::F32 | Recipe::Fp16 | Recipe::Bf16 => Ok(()),
            Recipe::Integer(recipe) => recipe.validate(),
            Recipe::FourBit(recipe) => recipe.validate(),
        }
    }
}

/// The error of a recipe that came from no file.
fn error<T>(
    field: &'static str,
    expected: impl Into<String>,
    found: impl Into<String>,
    hint: impl Into<String>,
) -> Result<T, QuantizeError> {
    Err(QuantizeError::Recipe {
        origin: "recipe".to_owned(),
        field,
        expected: expected.into(),
        found: found.into(),
        hint: hint.into(),
    })
}
