//! Checkpoints under the names that transformers gives their modules.
//!
//! transformers renames tensors of some families as it loads them, and cuts fused ones into their parts: files say `attn.Wqkv`, and the
//! model has `self_attn.q_proj`, `k_proj` and `v_proj`. It does so with floats and not with scales, so that what is written quantized must
//! have the names of modules. Whatever runs, calibrates and converts a model opens it here, and so all of them speak of the same modules.

use crate::architectures::{has_code_of_its_own, is_known};
use crate::catalogue::is_inside;
use crate::spec::{EncoderSpec, NameTable};
use crate::{ModelError, Role};
use fewbit_checkpoint::{Checkpoint, RenamedTensor};
use std::path::Path;

/// Opens the checkpoint in `directory`, as [`Checkpoint::open`] does, with tensors under the names that their modules have in transformers.
/// A quantized checkpoint, whose tensors have no other names in transformers, and a model that is loaded by code of its own are shown as
/// they are.
///
/// # Errors
/// Those of [`Checkpoint::open`]; of a family whose files have other names, those of [`EncoderSpec::from_checkpoint`], and a fused tensor
/// that is no equal parts.
///
/// ```
/// # let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/architectures/nomic-bert");
/// let checkpoint = fewbit_model::open_checkpoint(directory)?;
/// assert!(checkpoint.contains("layers.0.self_attn.q_proj.weight"));
/// # Ok::<(), fewbit_model::ModelError>(())
/// ```
pub fn open_checkpoint(directory: impl AsRef<Path>) -> Result<Checkpoint, ModelError> {
    Checkpoint::open_renamed(directory, names_of_modules)
}

/// Names for those tensors whose modules transformers calls something else.
fn names_of_modules(checkpoint: &Checkpoint) -> Result<Vec<RenamedTensor>, ModelError> {
    let config = checkpoint.config();
    if checkpoint.quantization().is_quantized() || !is_known(config) || has_code_of_its_own(config)
    {
        return Ok(Vec::new());
    }
    let spec = EncoderSpec::from_config(config, &checkpoint.config_file())?;
    if spec.names.otherwise.is_none() {
        return Ok(Vec::new());
    }
    let spec = EncoderSpec::with_any_prefix(checkpoint)?;
    let Some(modules) = spec.names.otherwise else {
        // The files have them already.
        return Ok(Vec::new());
    };
    // transformers takes away the prefix of GTE's own code.
    let prefix = match spec.prefix.as_str() {
        "new." => "",
        prefix => prefix,
    };
    let renamed = checkpoint.tensors().filter_map(|tensor| {
        let path = tensor.name.strip_prefix(&spec.prefix)?;
        let names = new_paths(path, &spec.names, modules)?.into_iter();
        let names: Vec<String> = names.map(|path| format!("{prefix}{path}")).collect();
        (names != [tensor.name.as_str()]).then(|| RenamedTensor {
            stored: tensor.name.clone(),
            names,
        })
    });
    Ok(renamed.collect())
}

/// What a tensor's path in `files` is among `modules`: more than one path for a fused one; none for a tensor of no module of the encoder.
fn new_paths(path: &str, files: &NameTable, modules: &NameTable) -> Option<Vec<String>> {
    let Some((layer, inside)) = split_layer(path, files.layers) else {
        return new_names(path, false, files, modules);
    };
    // The layer's number is part of the new path also where the model has no module for the tensor.
    let names = new_names(inside, true, files, modules);
    let names = names.unwrap_or_else(|| vec![inside.to_owned()]);
    let with_layer = |name| format!("{}.{layer}.{name}", modules.layers);
    Some(names.into_iter().map(with_layer).collect())
}

/// [`new_paths`] of a path inside a layer, or outside of layers.
fn new_names(
    path: &str,
    in_layer: bool,
    files: &NameTable,
    modules: &NameTable,
) -> Option<Vec<String>> {
    let (role, module) = files
        .modules
        .iter()
        .find(|(role, module)| role.is_of_a_layer() == in_layer && is_inside(path, module))?;
    let tensor = &path[module.len()..];
    let new_name = |role: Role| {
        let named = modules.modules.iter().find(|(known, _)| *known == role);
        named.map(|(_, module)| format!("{module}{tensor}"))
    };
    role.parts().into_iter().map(new_name).collect()
}

/// Splits `encoder.layers.7.norm1.weight` into ("7", "norm1.weight").
fn split_layer<'p>(path: &'p str, layers: &str) -> Option<(&'p str, &'p str)> {
    let (number, inside) = path
        .strip_prefix(layers)?
        .strip_prefix('.')?
        .split_once('.')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some((number, inside))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architectures::MODEL_TYPES;
    use serde_json::json;

    /// The families whose files have other names than their modules.
    fn families() -> Vec<(NameTable, &'static NameTable)> {
        let specs = MODEL_TYPES.iter().map(|model_type| {
            let config = json!({"model_type": model_type});
            EncoderSpec::from_config(&config, Path::new("config.json")).unwrap()
        });
        specs
            .filter_map(|spec| Some((spec.names, spec.names.otherwise?)))
            .collect()
    }

    #[test]
    fn both_tables_of_a_family_have_the_same_layers() {
        let families = families();
        assert!(families.len() >= 3);
        for (files, modules) in families {
            let mut parts: Vec<Role> = files
                .modules
                .iter()
                .flat_map(|(role, _)| role.parts())
                .collect();
            let mut roles: Vec<Role> = modules.modules.iter().map(|(role, _)| *role).collect();
            let by_name = |role: &Role| format!("{role:?}");
            parts.sort_by_key(by_name);
            roles.sort_by_key(by_name);
            assert_eq!(parts, roles, "{}", files.layers);
        }
    }

    #[test]
    fn a_path_is_renamed_whole_or_not_at_all() {
        let of = |model_type: &str, path: &str| {
            let config = json!({"model_type": model_type});
            let names = EncoderSpec::from_config(&config, Path::new("config.json"))
                .unwrap()
                .names;
            new_paths(path, &names, names.otherwise.unwrap())
        };
        let named = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(
            of("gte", "encoder.layer.11.mlp.up_gate_proj.weight"),
            named(&[
                "layers.11.mlp.up_proj.weight",
                "layers.11.mlp.gate_proj.weight"
            ])
        );
        assert_eq!(
            of("jina_embeddings_v3", "encoder.layers.0.mixer.Wqkv.bias"),
            named(&[
                "layers.0.self_attn.q_proj.bias",
                "layers.0.self_attn.k_proj.bias",
                "layers.0.self_attn.v_proj.bias"
            ])
        );
        assert_eq!(
            of("nomic_bert", "emb_ln.bias"),
            named(&["embeddings.LayerNorm.bias"])
        );
        // As transformers does it: in the list of layers, and no module of them.
        assert_eq!(
            of("nomic_bert", "encoder.layers.3.attn.rotary_emb.inv_freq"),
            named(&["layers.3.attn.rotary_emb.inv_freq"])
        );
        assert_eq!(of("nomic_bert", "emb_ln_of_another.bias"), None);
        assert_eq!(of("nomic_bert", "encoder.layers.norm1.bias"), None);
        assert_eq!(of("nomic_bert", "cls.predictions.decoder.weight"), None);
    }
}
