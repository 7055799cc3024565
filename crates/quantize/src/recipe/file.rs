//! Recipes as TOML and JSON.

use std::path::Path;

use serde_json::Value;

use super::{RECIPE_KEYS, Recipe, RecipeFields};
use crate::QuantizeError;

/// Flags of `fewbit quantize` that say how scales are found, not what they are.
const CALIBRATION_FLAGS: [&str; 14] = [
    "calibration",
    "stats",
    "min_sqnr",
    "samples",
    "batches",
    "batch_size",
    "seed",
    "field",
    "input_ids_column",
    "attention_mask_column",
    "observer",
    "backend",
    "sensitivity",
    "qconfig",
];

/// Old names of keys, which are still read.
const OLD_KEYS: [&str; 2] = ["double_quantization", "quantize_embeddings"];

/// A name with as many different letters is taken for a slip.
const MOST_SLIPS: usize = 4;

/// What to say of the first key that a recipe cannot have; none if it has no such key.
fn unknown_key_hint(fields: &Value) -> Option<String> {
    let is_known = |key: &str| RECIPE_KEYS.contains(&key) || OLD_KEYS.contains(&key);
    let key = fields.as_object()?.keys().find(|key| !is_known(key))?;
    let plain = key.replace('-', "_").to_lowercase();
    if CALIBRATION_FLAGS.contains(&plain.as_str()) {
        return Some(format!(
            "`{key}` belongs to calibration: a recipe holds what came of it, in `static_inputs`; give the flag to `fewbit quantize --method static`"
        ));
    }
    let near = RECIPE_KEYS
        .into_iter()
        .map(|known| (strsim::levenshtein(&plain, known), known))
        .min()
        .filter(|&(slips, known)| slips <= MOST_SLIPS && slips < known.len());
    Some(match near {
        Some((_, known)) => format!("did you mean `{known}`?"),
        None => "docs/recipe.md describes every key".to_owned(),
    })
}

impl Recipe {
    /// Parses and validates TOML.
    ///
    /// # Errors
    /// [`QuantizeError::RecipeSyntax`], [`QuantizeError::RecipeKey`] or [`QuantizeError::Recipe`].
    pub fn from_toml(text: &str) -> Result<Self, QuantizeError> {
        Self::of_fields(RecipeFields::parse_toml(text, "recipe")?, "recipe")
    }

    /// Parses and validates JSON.
    ///
    /// # Errors
    /// [`QuantizeError::RecipeSyntax`], [`QuantizeError::RecipeKey`] or [`QuantizeError::Recipe`].
    pub fn from_json(text: &str) -> Result<Self, QuantizeError> {
        Self::of_fields(RecipeFields::parse_json(text, "recipe")?, "recipe")
    }

    /// Reads a recipe file: JSON where the name ends in `.json`, TOML otherwise.
    ///
    /// # Errors
    /// [`QuantizeError::Io`], and those of [`from_toml`](Self::from_toml).
    pub fn read(path: impl AsRef<Path>) -> Result<Self, QuantizeError> {
        let path = path.as_ref();
        let fields = RecipeFields::read(path)?;
        Self::of_fields(fields, &path.display().to_string())
    }

    /// The recipe as TOML; keys that hold their default are left out.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a struct of numbers, strings and lists is valid TOML")
    }

    /// The recipe as JSON; keys that hold their default are left out.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a struct with string keys is valid JSON")
    }

    fn of_fields(fields: RecipeFields, origin: &str) -> Result<Self, QuantizeError> {
        let recipe = Self::try_from(fields);
        let valid = recipe.and_then(|recipe| recipe.validate().map(|()| recipe));
        valid.map_err(|error| error.in_recipe(origin))
    }
}

impl RecipeFields {
    /// Reads the keys of a recipe file: JSON where the name ends in `.json`, TOML otherwise.
    ///
    /// # Errors
    /// [`QuantizeError::Io`] or [`QuantizeError::RecipeSyntax`]. Whether the keys go together is for [`Recipe::try_from`] to say.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, QuantizeError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|source| QuantizeError::Io {
            path: path.to_owned(),
            source,
        })?;
        let origin = path.display().to_string();
        let is_json = path.extension().is_some_and(|name| name == "json");
        if is_json {
            Self::parse_json(&text, &origin)
        } else {
            Self::parse_toml(&text, &origin)
        }
    }

    fn parse_toml(text: &str, origin: &str) -> Result<Self, QuantizeError> {
        toml::from_str(text).map_err(|error| {
            let message = error.to_string().trim_end().to_owned();
            no_recipe(origin, message, toml::from_str(text).ok().as_ref())
        })
    }

    fn parse_json(text: &str, origin: &str) -> Result<Self, QuantizeError> {
        serde_json::from_str(text).map_err(|error| {
            let values = serde_json::from_str(text).ok();
            no_recipe(origin, error.to_string(), values.as_ref())
        })
    }
}

/// `values` is the same text as names and values, if it is that at least.
fn no_recipe(origin: &str, message: String, values: Option<&Value>) -> QuantizeError {
    QuantizeError::RecipeSyntax {
        origin: origin.to_owned(),
        message,
        hint: values.and_then(unknown_key_hint).unwrap_or_else(|| {
            "a recipe.toml stands beside every model that fewbit quantized; docs/recipe.md describes it"
                .to_owned()
        }),
    }
}
