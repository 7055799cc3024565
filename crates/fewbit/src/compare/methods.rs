//! Methods as they are typed in a list, and those of a comparison that is told none.

use super::contender::quantized_name;
use crate::Error;
use fewbit_model::{Catalogue, open_checkpoint};
use fewbit_quantize::default_embeddings::is_another_name_of_the_default;
use fewbit_quantize::recipe::modules_name;
use fewbit_quantize::{
    BlockScales, CodeLayout, EmbeddingStorage, FloatDType, GroupSize, IntegerRecipe, Method,
    Recipe, RecipeFields, Rounding, WeightChoice, WeightCodes, WeightScales, WeightsField,
};
use std::path::{Path, PathBuf};

/// What a comparison goes through unless told otherwise: every method, `dynamic` also with float embeddings, `nf4` also
/// with double quantization.
pub fn default_recipes() -> Vec<Recipe> {
    let wanted = |recipe: &Recipe| match recipe.method() {
        Method::WeightOnly => recipe.embeddings() == EmbeddingStorage::Auto,
        Method::Fp4 => !has_double_quantization(recipe),
        _ => true,
    };
    Recipe::standard().into_iter().filter(wanted).collect()
}

/// `recipes` without those of float embeddings whose method has no others by default with the model in `source`, as a head shares their table.
///
/// # Errors
/// The source is not a readable checkpoint.
pub fn without_other_names_of_defaults(
    source: impl AsRef<Path>,
    mut recipes: Vec<Recipe>,
) -> Result<Vec<Recipe>, Error> {
    let checkpoint = open_checkpoint(source)?;
    let catalogue = Catalogue::of_checkpoint(&checkpoint)?;
    recipes.retain(|recipe| !is_another_name_of_the_default(&checkpoint, &catalogue, recipe));
    Ok(recipes)
}

/// A method as it is typed in a list: `nf4`, `nf4+double+fp16`, `dynamic+float-embeddings`.
pub fn method_name(recipe: &Recipe) -> String {
    let mut name = recipe.method().name().to_owned();
    if let Some(options) = recipe.integer() {
        if options.weights != WeightCodes::Int8 {
            name += &format!("+{}", options.weights.addition());
        }
        if !options.modules.is_empty() {
            name += &format!("+mixed-{}", modules_name(&options.modules));
        }
    }
    if recipe.needs_gptq() {
        name += "+gptq";
    }
    let is_proof = Rounding::Gptq {
        saturation_proof: true,
    };
    if recipe
        .integer()
        .is_some_and(|options| options.rounding == is_proof)
    {
        name += "+saturation-proof";
    }
    if has_double_quantization(recipe) {
        name += "+double";
    }
    if let Some(options) = recipe.four_bit()
        && options.scales != BlockScales::Absmax
    {
        name += &format!("+{}", options.scales);
    }
    match (recipe.integer(), recipe.embeddings()) {
        (_, EmbeddingStorage::Auto) | (None, EmbeddingStorage::Keep) => {}
        (Some(_), EmbeddingStorage::Keep) => name += "+float-embeddings",
        (Some(_), EmbeddingStorage::Int8) => name += "+embeddings",
        (_, form) => name += &format!("+{form}-embeddings"),
    }
    if let Some(dtype) = chosen_float_dtype(recipe) {
        name += &format!("+{dtype}");
    }
    name
}

fn chosen_float_dtype(recipe: &Recipe) -> Option<FloatDType> {
    match recipe {
        Recipe::Integer(options) => options.float_dtype,
        Recipe::FourBit(options) => options.float_dtype,
        Recipe::F32 | Recipe::Fp16 | Recipe::Bf16 => None,
    }
}

fn has_double_quantization(recipe: &Recipe) -> bool {
    recipe
        .four_bit()
        .is_some_and(|options| options.double_quantization)
}

/// What to type for a name from elsewhere that is no method of fewbit.
pub fn method_hint(name: &str) -> Option<&'static str> {
    match name {
        "int8" => Some(
            "`dynamic` computes with int8 activations, `weight-only` with activations of 12 bits",
        ),
        "qat" => Some(
            "`fewbit quantize --method qat` trains a model, and `--quantized DIR` compares it here",
        ),
        _ => None,
    }
}

/// Reads a method as it is typed in a list: a method's name, after it what it adds; or a recipe's label, as tables show it. There are
/// `+int8-embeddings` (of int8 methods also `+embeddings`), `+float-embeddings`, `+fp16-embeddings`, `+bf16-embeddings` and `+nf4-embeddings` for the word embedding table;
/// `+f32`, `+fp16` and `+bf16` for the dtype of what is not quantized; `+double` (double quantization); `+mse`, `+activation-weighted` and `+absmax` (scales of 4-bit methods); `+int4`
/// (int4 weights of integer methods) and with it `+group-32` (of `weight-only` also without `+int4`) or `+channel`, `+asymmetric`, `+int-quantized`, `+gptq-layout`, `+gptq_v2-layout`, `+awq-layout`; `+fp8`, `+nvfp4` and `+mxfp4` (weights of small floats), after the first `+per-tensor`; `+bitsandbytes-layout` (LLM.int8); `+gptq` or, of int8 weights, `+gptq+saturation-proof`. A recipe of
/// `static` has no scales yet: [`static_recipe`](fewbit_quantize::calibration::static_recipe) gives it those that calibration chose. A name that ends in `.toml` or `.json` is a recipe
/// file: of layers with weights of their own there is no other name.
///
/// # Errors
/// An unknown method, or an addition that the method does not have; the text lists names. A recipe file that cannot be read, or is one of `static`, whose scales are
/// chosen anew where methods are compared.
///
/// ```
/// use fewbit::{FourBitRecipe, Recipe, compare::parse_method};
///
/// let recipe = Recipe::from(FourBitRecipe::nf4().with_double_quantization(true));
/// assert_eq!(parse_method("nf4+double")?, recipe);
/// assert_eq!(parse_method(&recipe.label())?, recipe);
/// assert_eq!(parse_method("weight-only+fp16")?.label(), "weight-only + fp16 floats");
/// assert_eq!(parse_method("nf4+double+mse")?.label(), "nf4 + double quantization + MSE scales");
/// assert_eq!(parse_method("dynamic+int4+group-32")?.label(), "dynamic + int4 + groups of 32");
/// assert_eq!(parse_method("static+fp8+per-tensor")?.label(), "static + fp8 + per tensor");
/// assert_eq!(parse_method("nf4+gptq")?.label(), "nf4 + GPTQ");
/// assert!(parse_method("nf4+embeddings").is_err());
/// # Ok::<(), fewbit::Error>(())
/// ```
pub fn parse_method(text: &str) -> Result<Recipe, Error> {
    if [".toml", ".json"].iter().any(|end| text.ends_with(end)) {
        let recipe = Recipe::read(text)?;
        return match recipe.method() {
            Method::Static => Err(Error::Compare(format!(
                "{text}: expected a recipe of another method than `static`, whose scales are chosen anew here\n  hint: name `static` itself"
            ))),
            _ => Ok(recipe),
        };
    }
    let mut words = text.split('+').map(str::trim);
    let name = words.next().unwrap_or_default();
    let unknown = || {
        let names: Vec<String> = Recipe::of_every_method().iter().map(method_name).collect();
        let hint = method_hint(name).map_or_else(String::new, |hint| format!("\n  hint: {hint}"));
        Error::Compare(format!(
            "unknown method `{text}`: expected one of {}, int4 (the same as nf4), an integer method with +int4, any but fp16 and bf16 with +gptq, int8 weights with +gptq+saturation-proof, or any but fp16 and bf16 with +fp16 or +bf16, the dtype of what is not quantized{hint}",
            names.join(", ")
        ))
    };
    let Ok(method) = name.parse::<Method>() else {
        return Err(unknown());
    };
    let mut fields = RecipeFields::new(method);
    let mut seen = Vec::new();
    for word in words {
        let kind = add(word, &mut fields).ok_or_else(unknown)?;
        if seen.contains(&kind) {
            return Err(unknown());
        }
        seen.push(kind);
    }
    let recipe = Recipe::try_from(fields).map_err(|_| unknown())?;
    if recipe.method() != Method::Static {
        recipe.validate().map_err(|_| unknown())?;
    }
    Ok(recipe)
}

/// Reads the weights of a layer as they are typed: `int8`, or `int4` and after it what a list of methods has, `int4+group-128+asymmetric`.
///
/// # Errors
/// Other words.
///
/// ```
/// use fewbit::compare::parse_weights;
///
/// assert_eq!(parse_weights("int4+group-128")?.to_string(), "int4+group-128");
/// assert!(parse_weights("int8+group-128").is_err());
/// # Ok::<(), fewbit::Error>(())
/// ```
pub fn parse_weights(text: &str) -> Result<WeightCodes, Error> {
    let alone = |weights| Recipe::from(IntegerRecipe::weight_only().with_weights(weights));
    let weights = match text.split('+').next() {
        Some("int8") if text == "int8" => Some(WeightCodes::Int8),
        Some("int4") => {
            let recipe = parse_method(&format!("weight-only+{text}")).ok();
            let weights = recipe.as_ref().and_then(Recipe::integer);
            let weights = weights.map(|options| options.weights);
            // Words that are not about weights make another recipe.
            weights.filter(|weights| recipe == Some(alone(*weights)))
        }
        _ => None,
    };
    weights.ok_or_else(|| {
        Error::Compare(format!(
            "unknown weights `{text}`: expected int8, or int4 and after it +group-N or +channel, +asymmetric, +absmax or +activation-weighted, +int-quantized"
        ))
    })
}

/// Reads a choice of weights for [`sensitivity`](crate::sensitivity::sensitivity()): `float`, or codes as [`parse_weights`] does.
///
/// # Errors
/// As [`parse_weights`].
pub fn parse_weight_choice(text: &str) -> Result<WeightChoice, Error> {
    match text {
        "float" => Ok(WeightChoice::Float),
        codes => parse_weights(codes).map(WeightChoice::Codes),
    }
}

/// Adds to `fields` what `word` says, and gives the name of what that is about; none for a word that says nothing.
fn add(word: &str, fields: &mut RecipeFields) -> Option<&'static str> {
    let float_dtype = match word.trim_end_matches(" floats") {
        "f32" => Some(FloatDType::F32),
        "fp16" => Some(FloatDType::Fp16),
        "bf16" => Some(FloatDType::Bf16),
        _ => None,
    };
    if float_dtype.is_some() && fields.method.float_dtype().is_none() {
        fields.float_dtype = float_dtype;
        return Some("floats");
    }
    let form = ["embeddings", "embed."]
        .iter()
        .find_map(|end| word.strip_suffix(end));
    if let Some(form) = form {
        fields.embeddings = match form.trim_end_matches(['-', ' ']) {
            // The old name, of a time when other methods had none.
            "" if fields.method.is_integer() => EmbeddingStorage::Int8,
            "float" => EmbeddingStorage::Keep,
            form => form.parse().ok()?,
        };
        return (fields.embeddings != EmbeddingStorage::Auto).then_some("embeddings");
    }
    let group_size = ["group-", "groups of "]
        .iter()
        .find_map(|begin| word.strip_prefix(begin));
    if let Some(group_size) = group_size {
        fields.group_size = Some(group_size.parse().ok()?);
        return Some("group size");
    }
    match word {
        "double" | "double quantization" | "double quant." => {
            fields.double_quantization = true;
            Some("double")
        }
        "mse" | "MSE scales" => {
            fields.scales = Some(BlockScales::Mse);
            Some("scales")
        }
        "absmax" | "absmax scales" => {
            fields.scales = Some(BlockScales::Absmax);
            Some("scales")
        }
        "int4" => {
            fields.weights = WeightsField::Int4;
            Some("weights")
        }
        "fp8" => {
            fields.weights = WeightsField::Fp8;
            Some("weights")
        }
        "nvfp4" => {
            fields.weights = WeightsField::Nvfp4;
            Some("weights")
        }
        "mxfp4" => {
            fields.weights = WeightsField::Mxfp4;
            Some("weights")
        }
        "per-tensor" | "per tensor" if fields.weights == WeightsField::Fp8 => {
            fields.weight_scales = WeightScales::PerTensor;
            Some("weight scales")
        }
        "channel" | "per channel" => {
            fields.group_size = Some(GroupSize::Channel);
            Some("group size")
        }
        "asymmetric" => {
            fields.asymmetric = true;
            Some("asymmetric")
        }
        "int-quantized" => {
            fields.layout = CodeLayout::IntQuantized;
            Some("layout")
        }
        "gptq-layout" | "gptq layout" => {
            fields.layout = CodeLayout::Gptq;
            Some("layout")
        }
        "gptq_v2-layout" | "gptq_v2 layout" => {
            fields.layout = CodeLayout::GptqV2;
            Some("layout")
        }
        "bitsandbytes-layout" | "bitsandbytes layout" => {
            fields.layout = CodeLayout::Bitsandbytes;
            Some("layout")
        }
        "awq-layout" | "awq layout" => {
            fields.layout = CodeLayout::Awq;
            Some("layout")
        }
        "activation-weighted" | "activation-weighted scales" => {
            fields.scales = Some(BlockScales::ActivationWeighted);
            Some("scales")
        }
        "gptq" | "GPTQ" => {
            fields.gptq = true;
            Some("gptq")
        }
        "saturation-proof" => {
            fields.saturation_proof = true;
            Some("saturation-proof")
        }
        _ => None,
    }
}

/// Reads a list of methods, each as [`parse_method`] does.
///
/// # Errors
/// As [`parse_method`], or a method that is named twice.
pub fn parse_methods<S: AsRef<str>>(texts: &[S]) -> Result<Vec<Recipe>, Error> {
    let recipes = texts.iter().map(|text| parse_method(text.as_ref()));
    let recipes = recipes.collect::<Result<Vec<_>, _>>()?;
    refuse_duplicates(&recipes, &[])?;
    Ok(recipes)
}

/// Errors if two recipes have one label, or two models that are `quantized` already one name: their rows could not be told apart.
pub(super) fn refuse_duplicates(recipes: &[Recipe], quantized: &[PathBuf]) -> Result<(), Error> {
    let names = quantized.iter().map(|directory| quantized_name(directory));
    let labels: Vec<String> = recipes.iter().map(Recipe::label).chain(names).collect();
    for (index, label) in labels.iter().enumerate() {
        if labels[..index].contains(label) {
            return Err(Error::Compare(format!(
                "expected each method once, found `{label}` twice\n  hint: `int4` is another name of `nf4`"
            )));
        }
    }
    Ok(())
}
