//! The fields of config.json that DeBERTa and DeBERTa-v2 share.

use super::shared_fields::{
    MAX_POSITIONS, MAX_VOCABULARY, MAX_WIDTH, Sizes, activation, score_scale,
};
use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::role::Role;
use crate::spec::{EmbeddingsProjection, EncoderSpec, NameTable, NormSpec};
use serde_json::Value;

/// What scores are made of beside contents (`pos_att_type`).
pub(super) struct PositionScores {
    /// Queries of tokens with keys of positions.
    pub(super) content_to_position: bool,
    /// Keys of tokens with queries of positions.
    pub(super) position_to_content: bool,
    /// How many are listed, repetitions included.
    listed: usize,
}

impl PositionScores {
    fn read(fields: &ConfigFields<'_>) -> Result<Self, ModelError> {
        let field = "pos_att_type";
        let wrong = |found| fields.invalid(field, "expected a list of strings or null", found);
        let kinds: Vec<&str> = match fields.get(field) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(kinds)) => kinds.split('|').map(str::trim).collect(),
            Some(list @ Value::Array(kinds)) => {
                let kinds = kinds.iter().map(Value::as_str);
                kinds.collect::<Option<_>>().ok_or_else(|| wrong(list))?
            }
            Some(other) => return Err(wrong(other)),
        };
        if let Some(unknown) = kinds.iter().find(|kind| !["c2p", "p2c"].contains(kind)) {
            let hint = "scores between two positions are not implemented";
            let unknown = Value::from(*unknown);
            return Err(fields.unsupported(field, "\"c2p\", \"p2c\"", &unknown, hint));
        }
        Ok(Self {
            content_to_position: kinds.contains(&"c2p"),
            position_to_content: kinds.contains(&"p2c"),
            listed: kinds.len(),
        })
    }

    /// Kinds of scores beside that of contents.
    pub(super) fn kinds(&self) -> usize {
        usize::from(self.content_to_position) + usize::from(self.position_to_content)
    }

    /// Whether there are any.
    pub(super) fn are_there(&self, fields: &ConfigFields<'_>) -> Result<bool, ModelError> {
        Ok(fields.flag("relative_attention", false)? && self.kinds() > 0)
    }
}

/// All but the relative positions themselves, which the families have each in its own way. Of `names`, which begin with the table of positions,
/// a model without positions in its embeddings has the others.
pub(super) fn read(
    fields: &ConfigFields<'_>,
    names: NameTable,
    sizes: Sizes,
) -> Result<(EncoderSpec, PositionScores), ModelError> {
    refuse_other_heads(fields)?;
    let scores = PositionScores::read(fields)?;
    let has_positions = fields.flag("position_biased_input", true)?;
    let names = match names.modules {
        [(Role::PositionEmbeddings, _), modules @ ..] if !has_positions => {
            NameTable { modules, ..names }
        }
        _ => names,
    };
    let norm = NormSpec::layer(fields.fraction("layer_norm_eps", 1e-7)?);
    let spec = sizes
        .read(fields)?
        .spec(fields, names, activation(fields, "hidden_act")?, norm)?;
    // DeBERTa counts what is listed, DeBERTa-v2 what there is: the same unless something is listed twice.
    let kinds = match spec.model_type.as_str() {
        "deberta" => scores.listed,
        _ => scores.kinds(),
    };
    let spec = EncoderSpec {
        embedding_size: fields.size("embedding_size", spec.hidden_size, 1, MAX_WIDTH)?,
        embeddings_projection: EmbeddingsProjection::BeforeNormIfNarrower,
        token_types: fields.size("type_vocab_size", 0, 0, MAX_VOCABULARY)?,
        score_scale: score_scale(spec.head_size * (1 + kinds)),
        ..spec
    };
    Ok((spec, scores))
}

/// Distances to one side that have a row of their own (`max_relative_positions`).
pub(super) fn max_relative_positions(
    fields: &ConfigFields<'_>,
    spec: &EncoderSpec,
) -> Result<usize, ModelError> {
    let found = size_or_none(fields, "max_relative_positions")?;
    Ok(found.unwrap_or(spec.positions.count))
}

/// A whole number; none where it is absent or below 1.
pub(super) fn size_or_none(
    fields: &ConfigFields<'_>,
    field: &str,
) -> Result<Option<usize>, ModelError> {
    match fields.get(field) {
        Some(value) if value.as_i64().is_some_and(|number| number < 1) => Ok(None),
        None => Ok(None),
        Some(_) => fields.size(field, 1, 1, MAX_POSITIONS).map(Some),
    }
}

/// Fields of the original implementation, and those that change what a head is.
fn refuse_other_heads(fields: &ConfigFields<'_>) -> Result<(), ModelError> {
    if fields.flag("talking_head", false)? {
        let hint = "heads whose scores and weights are mixed are not implemented";
        return Err(fields.unsupported("talking_head", "false", &Value::Bool(true), hint));
    }
    if let Some(found) = fields.get("z_steps")
        && found.as_f64().is_none_or(|steps| steps > 1.0)
    {
        let hint = "repetitions of the last layer, of pretraining, are not implemented";
        return Err(fields.unsupported("z_steps", "0 or 1", found, hint));
    }
    let hidden_size = fields.get("hidden_size").and_then(Value::as_u64);
    let heads = fields.get("num_attention_heads").and_then(Value::as_u64);
    if let (Some(hidden_size), Some(heads), Some(found)) =
        (hidden_size, heads, fields.get("attention_head_size"))
        && found.as_u64() != hidden_size.checked_div(heads)
    {
        let hint = "heads of another size than their part of the width are not implemented";
        let supported = "hidden_size / num_attention_heads";
        return Err(fields.unsupported("attention_head_size", supported, found, hint));
    }
    Ok(())
}
