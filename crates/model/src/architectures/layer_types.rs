//! Which layers attend to near tokens only: `layer_types` of config.json, or the fields that older files have.

use crate::ModelError;
use crate::config_fields::ConfigFields;
use serde_json::Value;

/// A layer whose tokens attend to all.
pub(super) const GLOBAL: &str = "full_attention";
/// A layer whose tokens attend to near ones.
pub(super) const LOCAL: &str = "sliding_attention";

/// Whether each of `layers` is local: from `layer_types`, or, in older files, as `is_local` says.
pub(super) fn local_layers(
    fields: &ConfigFields<'_>,
    layers: usize,
    is_local: impl Fn(usize) -> bool,
) -> Result<Vec<bool>, ModelError> {
    let Some(types) = fields.get("layer_types").filter(|types| !types.is_null()) else {
        return Ok((0..layers).map(is_local).collect());
    };
    let types = types.as_array().filter(|types| types.len() == layers);
    let is_local = |kind: &Value| match kind.as_str() {
        Some(GLOBAL) => Some(false),
        Some(LOCAL) => Some(true),
        _ => None,
    };
    types
        .and_then(|types| types.iter().map(is_local).collect())
        .ok_or_else(|| {
            fields.error(
                "layer_types",
                format!("expected \"{GLOBAL}\" or \"{LOCAL}\" for each of {layers} layers"),
                "correct the value or fetch the file again",
            )
        })
}
