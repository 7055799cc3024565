//! Methods as they are typed in a list, and those of a comparison that is told none.

use crate::Error;
use fewbit_model::open_checkpoint;
use fewbit_quantize::shared_embeddings::needs_shared_embeddings;
use fewbit_quantize::{Int8Recipe, Method, Recipe, Rounding};
use std::path::Path;

/// What a comparison goes through unless told otherwise: every method, `dynamic` also with int8 embeddings, `nf4` also
/// with double quantization.
pub fn default_recipes() -> Vec<Recipe> {
    let wanted = |recipe: &Recipe| match recipe.method() {
        Method::WeightOnly => !recipe.quantize_embeddings(),
        Method::Fp4 => !has_double_quantization(recipe),
        _ => true,
    };
    Recipe::standard().into_iter().filter(wanted).collect()
}

/// Those of `recipes` that go with the model in `source`: int8 embeddings do not where a head shares their table.
///
/// # Errors
/// The source is not a readable checkpoint.
pub fn without_shared_embeddings(
    source: impl AsRef<Path>,
    mut recipes: Vec<Recipe>,
) -> Result<Vec<Recipe>, Error> {
    let checkpoint = open_checkpoint(source)?;
    recipes.retain(|recipe| !needs_shared_embeddings(&checkpoint, recipe));
    Ok(recipes)
}

/// A method as it is typed in a list: `nf4`, `nf4+double`, `dynamic+embeddings`.
pub fn method_name(recipe: &Recipe) -> String {
    let mut name = recipe.method().name().to_owned();
    if let Some(Rounding::Gptq { saturation_proof }) = recipe.int8().map(|int8| int8.rounding) {
        name += "+gptq";
        if saturation_proof {
            name += "+saturation-proof";
        }
    }
    if recipe.quantize_embeddings() {
        name += "+embeddings";
    }
    if has_double_quantization(recipe) {
        name += "+double";
    }
    name
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
        "qat" => Some("not there yet; `dynamic` needs neither calibration nor training"),
        _ => None,
    }
}

/// Reads a method as it is typed in a list: a method's name, after it `+embeddings` (int8 word embeddings) or `+double`
/// (double quantization), `+gptq` or `+gptq+saturation-proof`; or a recipe's label, as tables show it. A recipe of `static` has no scales yet:
/// [`static_recipe`](fewbit_quantize::calibration::static_recipe) gives it those that calibration chose.
///
/// # Errors
/// An unknown method, or an addition that the method does not have; the text lists all names.
///
/// ```
/// use fewbit::{FourBitRecipe, Recipe, compare::parse_method};
///
/// let recipe = Recipe::from(FourBitRecipe::nf4().with_double_quantization(true));
/// assert_eq!(parse_method("nf4+double")?, recipe);
/// assert_eq!(parse_method(&recipe.label())?, recipe);
/// assert!(parse_method("nf4+embeddings").is_err());
/// # Ok::<(), fewbit::Error>(())
/// ```
pub fn parse_method(text: &str) -> Result<Recipe, Error> {
    let words: Vec<&str> = text
        .split('+')
        .map(|word| match word.trim() {
            "int4" => "nf4",
            "int8 embeddings" | "int8 embed." => "embeddings",
            "double quantization" | "double quant." => "double",
            "GPTQ" => "gptq",
            word => word,
        })
        .collect();
    // A label and a name may have the additions in different orders.
    let sorted = |words: &[&str]| {
        let mut words = words.to_vec();
        words[1..].sort_unstable();
        words.join("+")
    };
    let wanted = sorted(&words);
    let known = Recipe::of_every_method();
    let names: Vec<String> = known.iter().map(method_name).collect();
    let found = known.into_iter().flat_map(with_gptq).find(|recipe| {
        let name = method_name(recipe);
        sorted(&name.split('+').collect::<Vec<_>>()) == wanted
    });
    found.ok_or_else(|| {
        let hint =
            method_hint(words[0]).map_or_else(String::new, |hint| format!("\n  hint: {hint}"));
        Error::Compare(format!(
            "unknown method `{text}`: expected one of {}, int4 (the same as nf4), or an int8 method with +gptq or +gptq+saturation-proof{hint}",
            names.join(", ")
        ))
    })
}

/// A recipe, and what GPTQ makes of it if its method has int8 weights.
fn with_gptq(recipe: Recipe) -> Vec<Recipe> {
    let rounded = |options: &Int8Recipe, saturation_proof| {
        let rounding = Rounding::Gptq { saturation_proof };
        Recipe::from(options.clone().with_rounding(rounding))
    };
    let gptq: Vec<Recipe> = match recipe.int8() {
        Some(options) => vec![rounded(options, false), rounded(options, true)],
        None => Vec::new(),
    };
    [recipe].into_iter().chain(gptq).collect()
}

/// Reads a list of methods, each as [`parse_method`] does.
///
/// # Errors
/// As [`parse_method`], or a method that is named twice.
pub fn parse_methods<S: AsRef<str>>(texts: &[S]) -> Result<Vec<Recipe>, Error> {
    let recipes = texts.iter().map(|text| parse_method(text.as_ref()));
    let recipes = recipes.collect::<Result<Vec<_>, _>>()?;
    refuse_duplicates(&recipes)?;
    Ok(recipes)
}

/// Errors if two recipes have one label: their models would have one name and one directory.
pub(super) fn refuse_duplicates(recipes: &[Recipe]) -> Result<(), Error> {
    let labels: Vec<String> = recipes.iter().map(Recipe::label).collect();
    for (index, label) in labels.iter().enumerate() {
        if labels[..index].contains(label) {
            return Err(Error::Compare(format!(
                "expected each method once, found `{label}` twice\n  hint: `int4` is another name of `nf4`"
            )));
        }
    }
    Ok(())
}
