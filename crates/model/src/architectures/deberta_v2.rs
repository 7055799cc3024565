//! DeBERTa-v2 and DeBERTa-v3: `model_type` "deberta-v2".
//!
//! Disentangled attention, whose relative positions share rows where they are far, are normalized, and are projected as tokens are, each as
//! config.json says; and the convolution beside the first layer of the largest ones.

use super::disentangled_fields::{self, max_relative_positions, size_or_none};
use super::shared_fields::{MAX_WIDTH, Sizes, activation_or};
use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::role::Role;
use crate::spec::{Convolution, DisentangledAttention, EncoderSpec, NameTable};
use serde_json::Value;

const NAMES: NameTable = NameTable {
    base_prefix: "deberta.",
    layers: "encoder.layer",
    modules: &[
        (Role::PositionEmbeddings, "embeddings.position_embeddings"),
        (Role::WordEmbeddings, "embeddings.word_embeddings"),
        (
            Role::TokenTypeEmbeddings,
            "embeddings.token_type_embeddings",
        ),
        (Role::EmbeddingsProjection, "embeddings.embed_proj"),
        (Role::EmbeddingsNorm, "embeddings.LayerNorm"),
        (Role::RelativePositions, "encoder.rel_embeddings"),
        (Role::RelativePositionsNorm, "encoder.LayerNorm"),
        (Role::Query, "attention.self.query_proj"),
        (Role::Key, "attention.self.key_proj"),
        (Role::Value, "attention.self.value_proj"),
        (Role::PositionKey, "attention.self.pos_key_proj"),
        (Role::PositionQuery, "attention.self.pos_query_proj"),
        (Role::AttentionOutput, "attention.output.dense"),
        (Role::AttentionNorm, "attention.output.LayerNorm"),
        (Role::Intermediate, "intermediate.dense"),
        (Role::Output, "output.dense"),
        (Role::FeedForwardNorm, "output.LayerNorm"),
        (Role::Convolution, "encoder.conv.conv"),
        (Role::ConvolutionNorm, "encoder.conv.LayerNorm"),
    ],
    otherwise: None,
};

/// transformers' defaults are those of xlarge.
const SIZES: Sizes = Sizes {
    vocab_size: 128_100,
    hidden_size: 1536,
    layers: 24,
    heads: 24,
    intermediate_size: 6144,
    positions: 512,
};

pub(super) fn read(fields: &ConfigFields<'_>) -> Result<EncoderSpec, ModelError> {
    let (spec, scores) = disentangled_fields::read(fields, NAMES, SIZES)?;
    let max_distance = max_relative_positions(fields, &spec)?;
    let buckets = size_or_none(fields, "position_buckets")?;
    let disentangled = DisentangledAttention {
        span: buckets.unwrap_or(max_distance),
        max_distance: buckets.map(|_| max_distance),
        normalized: is_normalized(fields)?,
        content_to_position: scores.content_to_position,
        position_to_content: scores.position_to_content,
        shared_projections: fields.flag("share_att_key", false)?,
    };
    if let Some(buckets) = buckets
        && (buckets < 2 || max_distance - 1 <= buckets / 2)
    {
        return Err(fields.error(
            "position_buckets",
            format!(
                "expected 2 or more, half of which are less than the largest distance {}, found {buckets}",
                max_distance - 1
            ),
            "distances beyond half of the buckets share the other half of them, up to `max_relative_positions` - 1",
        ));
    }
    Ok(EncoderSpec {
        disentangled: scores.are_there(fields)?.then_some(disentangled),
        convolution: convolution(fields, spec.hidden_size)?,
        ..spec
    })
}

/// Whether `norm_rel_ebd` has a normalization.
fn is_normalized(fields: &ConfigFields<'_>) -> Result<bool, ModelError> {
    let listed = fields.string("norm_rel_ebd", "none")?.to_lowercase();
    let mut kinds = listed.split('|').map(str::trim);
    if !kinds
        .clone()
        .all(|kind| ["none", "layer_norm"].contains(&kind))
    {
        let hint = "another normalization gives other positions";
        let supported = "\"none\" or \"layer_norm\"";
        let found = Value::from(listed.as_str());
        return Err(fields.unsupported("norm_rel_ebd", supported, &found, hint));
    }
    Ok(kinds.any(|kind| kind == "layer_norm"))
}

fn convolution(
    fields: &ConfigFields<'_>,
    hidden_size: usize,
) -> Result<Option<Convolution>, ModelError> {
    let Some(size) = size_or_none(fields, "conv_kernel_size")? else {
        return Ok(None);
    };
    let wrong = |field, expected: &str, found: usize| {
        let message = format!("expected {expected}, found {found}");
        Err(fields.error(field, message, "correct config.json or fetch it again"))
    };
    if size.is_multiple_of(2) || size > MAX_WIDTH {
        return wrong("conv_kernel_size", "an odd number of tokens", size);
    }
    let groups = fields.size("conv_groups", 1, 1, MAX_WIDTH)?;
    if !hidden_size.is_multiple_of(groups) {
        let expected = format!("a divisor of `hidden_size` {hidden_size}");
        return wrong("conv_groups", &expected, groups);
    }
    Ok(Some(Convolution {
        size,
        groups,
        activation: activation_or(fields, "conv_act", "tanh")?,
    }))
}
