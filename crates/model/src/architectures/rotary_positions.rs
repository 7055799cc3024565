//! Bases of rotary positions in config.json: `rope_parameters`, or the fields that older files have.

use crate::ModelError;
use crate::config_fields::ConfigFields;

/// The base for layers of one of the `layer_types`: from `rope_parameters`, or from the field `old` of older files.
///
/// # Errors
/// A rotation that is scaled, or that turns a part of the features only.
pub(super) fn base(
    fields: &ConfigFields<'_>,
    layer_type: &str,
    old: &str,
    default: f32,
) -> Result<f32, ModelError> {
    let old = fields.positive(old, default)?;
    let scaling = fields.get("rope_scaling").filter(|value| !value.is_null());
    if let Some(found) = scaling {
        return Err(fields.unsupported("rope_scaling", "none", found, HINT));
    }
    let of_type = fields.get("rope_parameters").map(|all| &all[layer_type]);
    let Some(parameters) = of_type.filter(|parameters| !parameters.is_null()) else {
        return Ok(old);
    };
    let rope_type = &parameters["rope_type"];
    if !rope_type.is_null() && rope_type != "default" {
        let field = format!("rope_parameters.{layer_type}.rope_type");
        return Err(fields.unsupported(&field, "\"default\"", rope_type, HINT));
    }
    let part = &parameters["partial_rotary_factor"];
    if !part.is_null() && part != 1.0 {
        let field = format!("rope_parameters.{layer_type}.partial_rotary_factor");
        return Err(fields.unsupported(&field, "1", part, HINT));
    }
    ConfigFields::new(fields.file(), parameters).positive("rope_theta", old)
}

const HINT: &str = "other rotations give other hidden states, so there is no substitute";
