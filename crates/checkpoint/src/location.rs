//! Where in a model directory the encoder's config.json and weights are.
//!
//! A directory of sentence-transformers may keep them in a folder of its own (`0_Transformer`, the layout before version 2), which
//! modules.json names. Whoever opens the model directory means that folder.
use crate::shards::read_json;
use serde_json::Value;
use std::path::{Component, Path, PathBuf};

/// Lists the modules of a sentence-transformers model.
pub const MODULES_FILE: &str = "modules.json";

/// The folder of the first module, if that is a Transformer with a folder of its own inside the directory.
pub(crate) fn transformer_folder(modules: &Value) -> Option<&str> {
    let first = modules.as_array()?.first()?;
    let kind = first.get("type")?.as_str()?;
    let folder = first.get("path")?.as_str()?.trim_end_matches('/');
    let inside = Path::new(folder)
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    (!folder.is_empty() && inside && kind.rsplit('.').next() == Some("Transformer"))
        .then_some(folder)
}

/// The encoder's folder in `directory`, which is `directory` itself unless modules.json names another. A modules.json that cannot
/// be read names none: whoever needs it says what is wrong with it.
pub(crate) fn transformer_directory(directory: &Path) -> (PathBuf, Option<String>) {
    let folder = read_json(&directory.join(MODULES_FILE))
        .ok()
        .and_then(|modules| transformer_folder(&modules).map(str::to_owned));
    match folder {
        Some(folder) if directory.join(&folder).is_dir() => (directory.join(&folder), Some(folder)),
        _ => (directory.to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::transformer_folder;
    use serde_json::json;

    #[test]
    fn only_a_transformer_that_comes_first_and_stays_inside_has_a_folder() {
        let folder = |kind: &str, path: &str| {
            let modules = json!([{"idx": 0, "name": "0", "path": path, "type": kind}]);
            transformer_folder(&modules).map(str::to_owned)
        };
        let transformer = "sentence_transformers.models.Transformer";
        assert_eq!(
            folder(transformer, "0_Transformer").as_deref(),
            Some("0_Transformer")
        );
        assert_eq!(
            folder(transformer, "0_Transformer/").as_deref(),
            Some("0_Transformer")
        );
        for path in ["", "/etc", "../x", "a/../x", "."] {
            assert_eq!(folder(transformer, path), None, "{path}");
        }
        assert_eq!(folder("sentence_transformers.models.BoW", "0_BoW"), None);
        assert_eq!(transformer_folder(&json!({"path": "0_Transformer"})), None);
    }
}
