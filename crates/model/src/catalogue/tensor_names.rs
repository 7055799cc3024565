//! The modules of a model that fewbit does not run, by the names and shapes of its tensors.

use super::{Catalogue, Module, Role};
use crate::heads::is_head;
use fewbit_checkpoint::{Checkpoint, CheckpointError};
use std::collections::HashSet;

/// Every matrix `NAME.weight` is a linear layer, or a table where its name says so, in whatever form it is stored. Heads and poolers are left
/// out, as they stay float, and so are experts and what chooses between them, which transformers has no linear layers for.
///
/// # Errors
/// What says the shape of a packed weight is malformed or missing.
pub(super) fn catalogue(checkpoint: &Checkpoint) -> Result<Catalogue, CheckpointError> {
    let model_type = checkpoint.config()["model_type"].as_str();
    let transposed = model_type.is_some_and(|model_type| TRANSPOSED.contains(&model_type));
    let mixtures: HashSet<&str> = checkpoint
        .tensors()
        .filter_map(|info| info.name.split_once(EXPERTS).map(|(mixture, _)| mixture))
        .collect();
    let mut modules = Vec::new();
    for info in checkpoint.tensors() {
        // What is packed is a weight only where config.json says how.
        let packed = checkpoint.quantization().is_quantized();
        let packed = info.name.strip_suffix(".weight_packed").filter(|_| packed);
        let Some(name) = info.name.strip_suffix(".weight").or(packed) else {
            continue;
        };
        let Some(&[mut rows, mut columns]) = checkpoint.weight_shape(name)?.as_deref() else {
            continue;
        };
        let part = part_of(&info.name);
        let last = name.rsplit('.').next().unwrap_or_default();
        let stays_float = ["head", "pooler"].contains(&part)
            || experts_of(name).is_some()
            || is_router(name)
                && name
                    .rsplit_once('.')
                    .is_some_and(|(parent, _)| mixtures.contains(parent));
        let role = match () {
            () if part == "embeddings" || is_bias_table(name) => Role::OtherTable,
            () if stays_float => continue,
            () if transposed && (last.starts_with("c_") || last == "q_attn") => {
                if info.dtype.is_float() {
                    (rows, columns) = (columns, rows);
                }
                Role::OtherTransposedLinear
            }
            () => Role::OtherLinear,
        };
        modules.push(Module {
            role,
            layer: None,
            name: name.to_owned(),
            shape: [rows, columns],
            bias: checkpoint.contains(&format!("{name}.bias")),
            sites: Vec::new(),
            input_site: None,
        });
    }
    Ok(Catalogue {
        prefix: String::new(),
        model_type: model_type.unwrap_or("unknown").to_owned(),
        modules,
        layers: None,
        inner_layers: None,
    })
}

/// Types of models whose `c_*` layers, and those of queries for another sequence, are transformers' `Conv1D`: they keep their weights as (in, out).
const TRANSPOSED: [&str; 6] = [
    "gpt2",
    "imagegpt",
    "decision_transformer",
    "openai-gpt",
    "clvp",
    "clvp_decoder",
];

/// What the paths of experts have between that of their mixture and their own.
const EXPERTS: &str = ".experts.";

/// The path of the experts that a module is one of, or a part of one: `model.layers.0.mlp.experts` of `model.layers.0.mlp.experts.7.up_proj`.
/// transformers stacks them into one tensor.
pub fn experts_of(module: &str) -> Option<&str> {
    let end = module.find(EXPERTS)? + EXPERTS.len() - 1;
    Some(&module[..end])
}

/// Whether the module has the name of one that chooses between experts, where it lies beside some.
pub fn is_router(module: &str) -> bool {
    [".gate", ".router"]
        .iter()
        .any(|name| module.ends_with(name))
}

/// A table of T5's kind, which holds a bias for each distance between tokens.
fn is_bias_table(name: &str) -> bool {
    name.ends_with("relative_attention_bias")
}

/// Part of the model that a tensor seems to belong to.
pub(super) fn part_of(tensor: &str) -> &'static str {
    let lower = tensor.to_ascii_lowercase();
    let components: Vec<&str> = lower.split('.').collect();
    let any = |names: &[&str]| components.iter().any(|component| names.contains(component));
    let any_with = |parts: &[&str]| {
        let mut components = components.iter();
        components.any(|component| parts.iter().any(|part| component.contains(part)))
    };
    if components.iter().any(|component| is_head(component, false)) {
        "head"
    } else if any(&["pooler"]) {
        "pooler"
    } else if any_with(&["norm"]) || any(&["ln_1", "ln_2", "ln_f", "ln"]) {
        "normalization"
    } else if any_with(&["embed"]) || any(&["wte", "wpe", "shared"]) {
        "embeddings"
    } else if any_with(&["attn", "attention"]) || any(&["q_proj", "k_proj", "v_proj", "o_proj"]) {
        "attention"
    } else if any_with(&[
        "mlp",
        "ffn",
        "feed_forward",
        "denserelu",
        "intermediate",
        "experts",
    ]) || any(&["fc1", "fc2", "output"])
    {
        "feed-forward"
    } else {
        "other"
    }
}

#[cfg(test)]
mod tests {
    use super::part_of;

    #[test]
    fn parts_of_well_known_models() {
        for (tensor, part) in [
            ("model.embed_tokens.weight", "embeddings"),
            ("model.layers.0.self_attn.q_proj.weight", "attention"),
            ("model.layers.0.mlp.gate_proj.weight", "feed-forward"),
            (
                "model.layers.0.post_attention_layernorm.weight",
                "normalization",
            ),
            ("model.norm.weight", "normalization"),
            ("lm_head.weight", "head"),
            ("shared.weight", "embeddings"),
            (
                "encoder.block.0.layer.0.SelfAttention.q.weight",
                "attention",
            ),
            (
                "encoder.block.0.layer.1.DenseReluDense.wi_0.weight",
                "feed-forward",
            ),
            (
                "decoder.block.0.layer.1.EncDecAttention.o.weight",
                "attention",
            ),
            (
                "model.decoder.layers.0.encoder_attn.k_proj.weight",
                "attention",
            ),
            ("model.encoder.layers.0.fc1.weight", "feed-forward"),
            ("vit.embeddings.cls_token", "embeddings"),
            (
                "vit.encoder.layer.0.attention.attention.query.weight",
                "attention",
            ),
            ("vit.encoder.layer.0.output.dense.weight", "feed-forward"),
            ("vit.pooler.dense.weight", "pooler"),
            ("transformer.h.0.ln_1.weight", "normalization"),
            ("transformer.wpe.weight", "embeddings"),
            ("proj.weight", "other"),
        ] {
            assert_eq!(part_of(tensor), part, "{tensor}");
        }
    }
}
