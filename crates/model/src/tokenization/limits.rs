//! Where texts are cut (`model_max_length`, `truncation_side`), and how they are shown.

use super::settings::Settings;
use crate::ModelError;
use serde_json::Value;
use tokenizers::utils::truncation::TruncationDirection;

/// `model_max_length`, or the older `max_len` where that key is absent; null and huge numbers, which transformers writes,
/// mean "no limit".
pub(super) fn model_max_length(settings: &Settings) -> Result<Option<usize>, ModelError> {
    const NO_LIMIT: usize = 1 << 24;
    let is_set = |field: &str| settings.of(field).get(field).is_some();
    let field = match !is_set("model_max_length") && is_set("max_len") {
        true => "max_len",
        false => "model_max_length",
    };
    let fields = settings.of(field);
    match fields.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(number)
            if number
                .as_f64()
                .is_some_and(|number| number >= NO_LIMIT as f64) =>
        {
            Ok(None)
        }
        Some(_) => fields.size(field, 0, 1, NO_LIMIT - 1).map(Some),
    }
}

/// `truncation_side`, else the direction of tokenizer.json's own truncation.
pub(super) fn truncation_side(
    settings: &Settings,
    stored: Option<TruncationDirection>,
) -> Result<TruncationDirection, ModelError> {
    match side(settings, "truncation_side")? {
        Some(side) => Ok(side),
        None => Ok(stored.unwrap_or(TruncationDirection::Right)),
    }
}

/// Errors if `padding_side` makes no sense; nothing is padded here, so that either side gives the same.
pub(super) fn check_padding_side(settings: &Settings) -> Result<(), ModelError> {
    side(settings, "padding_side").map(|_| ())
}

/// Whether text that is made of tokens loses the spaces before marks.
pub(super) fn cleans_up_spaces(settings: &Settings) -> Result<bool, ModelError> {
    const FIELD: &str = "clean_up_tokenization_spaces";
    let fields = settings.of(FIELD);
    match fields.get(FIELD) {
        Some(Value::Bool(cleans_up)) => Ok(*cleans_up),
        // Python's truth: no text that is tokenized depends on it.
        None | Some(Value::Null) => Ok(false),
        Some(value) => Ok(!matches!(value.as_f64(), Some(0.0))
            && *value != ""
            && *value != Value::Array(Vec::new())),
    }
}

fn side(settings: &Settings, field: &str) -> Result<Option<TruncationDirection>, ModelError> {
    let fields = settings.of(field);
    match fields.get(field) {
        None => Ok(None),
        Some(side) if side == "right" => Ok(Some(TruncationDirection::Right)),
        Some(side) if side == "left" => Ok(Some(TruncationDirection::Left)),
        Some(side) => Err(fields.invalid(field, "expected \"left\" or \"right\"", side)),
    }
}
