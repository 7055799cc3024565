//! Metadata other than the tokenizer: the sizes of the model.

use fewbit_checkpoint::gguf::{MetadataValue, TensorType};
use fewbit_model::EncoderSpec;
use fewbit_model::pooling::PoolingMode;
use fewbit_model::spec::{Llama3Rotation, RotaryRule};
use fewbit_numerics::ggml_blocks::BlockType;

use crate::gguf_architecture::GgufArchitecture;

/// Number of what most tensors of a file are (`general.file_type`).
fn file_type(kind: TensorType) -> u32 {
    match kind {
        TensorType::F32 => 0,
        TensorType::F16 => 1,
        TensorType::Blocks(BlockType::Q4_0) => 2,
        TensorType::Blocks(BlockType::Q4_1) => 3,
        TensorType::Blocks(BlockType::Q8_0) => 7,
        TensorType::Blocks(BlockType::Q5_0) => 8,
        TensorType::Blocks(BlockType::Q5_1) => 9,
        TensorType::Blocks(BlockType::Q4_K) => 14,
        TensorType::Blocks(BlockType::Q5_K) => 16,
        TensorType::Blocks(BlockType::Q6_K) => 18,
        TensorType::Bf16 => 32,
    }
}

/// A size as files have it.
pub(super) fn size(size: usize) -> MetadataValue {
    MetadataValue::U32(u32::try_from(size).unwrap_or(u32::MAX))
}

/// A number of positions, which config.json may have as a float.
fn positions(positions: f32) -> MetadataValue {
    MetadataValue::U32(positions as u32)
}

/// By what llama.cpp divides each plain frequency (`rope_freqs.weight`), where the rotations of the model are stretched so.
pub(super) fn frequency_divisors(spec: &EncoderSpec) -> Option<Vec<f32>> {
    let rotation = &spec.rotary.as_ref()?.global;
    let RotaryRule::Llama3(rule) = rotation.rule else {
        return None;
    };
    let divisors = rule.divisors(rotation.frequencies.len());
    Some(divisors.map(|divisor| divisor as f32).collect())
}

/// Tokens of the longest text of which llama.cpp computes what the model does: it has no windows in these architectures and ignores their key.
pub(super) fn max_tokens(spec: &EncoderSpec) -> usize {
    let positions = spec.positions.max_tokens();
    let local = spec.local_attention.as_ref();
    let window = local.filter(|local| local.layers.contains(&true));
    window.map_or(positions, |window| positions.min(window.distance + 1))
}

/// What the model is called, how large it is, and how its hidden states become one vector.
pub(super) fn entries(
    architecture: GgufArchitecture,
    name: &str,
    spec: &EncoderSpec,
    pooling: PoolingMode,
    kind: TensorType,
) -> Vec<(String, MetadataValue)> {
    use MetadataValue::{Bool, F32, String as Text, U32};
    let pooling = match pooling {
        PoolingMode::Cls => 2,
        PoolingMode::LastToken => 3,
        _ => 1,
    };
    let text = |text: &str| Text(text.to_owned());
    let mut entries = vec![
        ("general.architecture".to_owned(), text(architecture.name())),
        ("general.type".to_owned(), text("model")),
        ("general.name".to_owned(), text(name)),
        ("general.file_type".to_owned(), U32(file_type(kind))),
        ("general.quantization_version".to_owned(), U32(2)),
    ];
    let mut add = |key: &str, value| entries.push((architecture.key(key), value));
    add("block_count", size(spec.layers));
    add("context_length", size(max_tokens(spec)));
    add("embedding_length", size(spec.hidden_size));
    add("feed_forward_length", size(spec.intermediate_size));
    add("attention.head_count", size(spec.heads));
    let epsilon = F32(spec.norm.epsilon);
    if architecture.is_causal() {
        add("attention.head_count_kv", size(spec.key_value_heads));
        add("attention.key_length", size(spec.head_size));
        add("attention.value_length", size(spec.head_size));
        add("attention.layer_norm_rms_epsilon", epsilon);
        add("vocab_size", size(spec.vocab_size));
    } else {
        add("attention.layer_norm_epsilon", epsilon);
        add("attention.causal", Bool(false));
    }
    let rule = spec.rotary.as_ref().map(|rotary| rotary.global.rule);
    let base = match rule {
        None | Some(RotaryRule::Scaled) => None,
        Some(
            RotaryRule::Plain { base, .. }
            | RotaryRule::Llama3(Llama3Rotation { base, .. })
            | RotaryRule::Yarn { base, .. },
        ) => Some(base),
    };
    if let Some(base) = base {
        add("rope.dimension_count", size(spec.head_size));
        add("rope.freq_base", F32(base));
    }
    match rule {
        Some(RotaryRule::Plain { divisor, .. }) if divisor != 1.0 => {
            add("rope.scaling.type", text("linear"));
            add("rope.scaling.factor", F32(divisor));
        }
        // The tensor `rope_freqs.weight` says the rest; llama.cpp does not look at this here.
        Some(RotaryRule::Llama3(Llama3Rotation { original, .. })) => {
            add("rope.scaling.original_context_length", positions(original));
        }
        Some(RotaryRule::Yarn {
            factor, original, ..
        }) => {
            add("rope.scaling.type", text("yarn"));
            add("rope.scaling.factor", F32(factor));
            add("rope.scaling.original_context_length", positions(original));
        }
        Some(RotaryRule::Plain { .. } | RotaryRule::Scaled) | None => {}
    }
    add("pooling_type", U32(pooling));
    if !architecture.is_causal() {
        let types = (
            "tokenizer.ggml.token_type_count".to_owned(),
            size(spec.token_types),
        );
        entries.push(types);
    }
    entries
}
