//! Names and metadata of llama.cpp's architecture `bert`.

use std::path::Path;

use fewbit_checkpoint::Checkpoint;
use fewbit_checkpoint::gguf::{MetadataValue, TensorType};
use fewbit_kernels::Activation;
use fewbit_model::pooling::PoolingMode;
use fewbit_model::{EncoderSpec, WordPiecePipeline};
use fewbit_numerics::ggml_blocks::BlockType;

use crate::QuantizeError;

/// Errors unless llama.cpp's `bert` is the model that `spec` describes.
pub(super) fn refuse_others(
    spec: &EncoderSpec,
    checkpoint: &Checkpoint,
) -> Result<(), QuantizeError> {
    let wrong = match () {
        () if spec.model_type != "bert" => format!("`model_type` {}", spec.model_type),
        () if !matches!(spec.activation, Activation::Gelu | Activation::GeluTanh) => {
            format!("the activation {:?}", spec.activation)
        }
        () if spec.has_embeddings_projection() => "a projection of embeddings".to_owned(),
        () if spec.causal => "a decoder".to_owned(),
        () => return Ok(()),
    };
    Err(QuantizeError::NoGguf {
        file: checkpoint.config_file(),
        found: wrong,
    })
}

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
        TensorType::Blocks(BlockType::Q6_K) => 18,
        TensorType::Bf16 => 32,
    }
}

/// Everything but the tensors: the sizes of the model, and its vocabulary as llama.cpp's converter writes it: `▁` before what begins a word
/// and nothing before what continues one.
pub(super) fn metadata(
    source: &Path,
    spec: &EncoderSpec,
    pipeline: &WordPiecePipeline,
    kind: TensorType,
) -> Vec<(String, MetadataValue)> {
    use MetadataValue::{Bool, F32, String, Strings, U32};
    let size = |size: usize| U32(u32::try_from(size).unwrap_or(u32::MAX));
    let name = source.file_name().map(|name| name.to_string_lossy());
    let name = name.unwrap_or_default().into_owned();
    let pooling = match pipeline.pooling {
        PoolingMode::Cls => 2,
        PoolingMode::LastToken => 3,
        _ => 1,
    };
    let mut entries: Vec<(&str, MetadataValue)> = vec![
        ("general.architecture", String("bert".to_owned())),
        ("general.type", String("model".to_owned())),
        ("general.name", String(name)),
        ("general.file_type", U32(file_type(kind))),
        ("general.quantization_version", U32(2)),
        ("bert.block_count", size(spec.layers)),
        ("bert.context_length", size(spec.positions.max_tokens())),
        ("bert.embedding_length", size(spec.hidden_size)),
        ("bert.feed_forward_length", size(spec.intermediate_size)),
        ("bert.attention.head_count", size(spec.heads)),
        ("bert.attention.layer_norm_epsilon", F32(spec.norm.epsilon)),
        ("bert.attention.causal", Bool(false)),
        ("bert.pooling_type", U32(pooling)),
        ("tokenizer.ggml.token_type_count", size(spec.token_types)),
        ("tokenizer.ggml.model", String("bert".to_owned())),
        ("tokenizer.ggml.pre", String("default".to_owned())),
    ];
    let (tokens, types) = vocabulary(pipeline);
    entries.extend([
        ("tokenizer.ggml.tokens", Strings(tokens)),
        ("tokenizer.ggml.token_type", MetadataValue::i32s(&types)),
        ("tokenizer.ggml.bos_token_id", U32(pipeline.cls)),
        ("tokenizer.ggml.cls_token_id", U32(pipeline.cls)),
        ("tokenizer.ggml.seperator_token_id", U32(pipeline.sep)),
    ]);
    let others = [
        ("tokenizer.ggml.unknown_token_id", pipeline.unknown),
        ("tokenizer.ggml.padding_token_id", pipeline.padding),
        ("tokenizer.ggml.mask_token_id", pipeline.mask),
    ];
    entries.extend(
        others
            .into_iter()
            .filter_map(|(key, id)| Some((key, U32(id?)))),
    );
    entries.extend([
        (
            "tokenizer.ggml.normalizer.lowercase",
            Bool(pipeline.lowercase),
        ),
        (
            "tokenizer.ggml.normalizer.strip_accents",
            Bool(pipeline.strip_accents),
        ),
    ]);
    entries
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

/// Tokens by id, and their types: 1 normal, 3 special, 5 of an id that no token has.
fn vocabulary(pipeline: &WordPiecePipeline) -> (Vec<String>, Vec<i32>) {
    let ids = pipeline.tokens.iter().zip(&pipeline.special).enumerate();
    ids.map(|(id, (token, special))| match (token, special) {
        (None, _) => (format!("[PAD{id}]"), 5),
        (Some(token), true) => (token.clone(), 3),
        (Some(token), false) => match token.strip_prefix("##") {
            Some(rest) => (rest.to_owned(), 1),
            None => (format!("\u{2581}{token}"), 1),
        },
    })
    .unzip()
}
