//! Where in a model directory the encoder's config.json and weights are.
//!
//! A directory of sentence-transformers may keep them in a folder of its own (`0_Transformer`, the layout before version 2), which
//! modules.json names. Whoever opens the model directory means that folder.
use crate::shards::read_json;
use crate::{CheckpointError, CheckpointErrorKind};
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
    (!folder.is_empty() && inside && kind.rsplit('.').next().is_some_and(is_transformer))
        .then_some(folder)
}

/// Whether the class of this name is the encoder. (MLMTransformer keeps the head of a masked language model.)
fn is_transformer(class: &str) -> bool {
    ["Transformer", "MLMTransformer"].contains(&class)
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

/// The names that the file with the modules of a Router has had.
const ROUTER_FILES: [&str; 2] = ["router_config.json", "config.json"];

/// Errors over a model whose first module is a Router (once Asym) of sentence-transformers: the encoders are in folders of its routes.
pub(crate) fn refuse_router(directory: &Path) -> Result<(), CheckpointError> {
    let Some(folders) = router_encoders(directory) else {
        return Ok(());
    };
    let names: Vec<_> = folders.iter().map(|name| format!("`{name}`")).collect();
    let found = match names.as_slice() {
        [] => "none in its routes".to_owned(),
        names => format!("those of its routes in {}", names.join(", ")),
    };
    let error = CheckpointError::new(
        CheckpointErrorKind::NotFound,
        format!("expected one encoder, found a Router of sentence-transformers with {found}"),
    )
    .in_file(directory);
    Err(match folders.first() {
        None => error,
        Some(first) => error.hint(format!(
            "`embed` runs the model as it is; anything else takes the folder of one encoder, such as {}, and what is made of it can stand in its place",
            directory.join(first).display()
        )),
    })
}

/// Whether a path cannot leave the directory that it is joined to.
fn stays_inside(path: &str) -> bool {
    let mut components = Path::new(path).components();
    components.all(|component| matches!(component, Component::Normal(_)))
}

/// The folders of the encoders of a model whose first module is a Router. None for another model, and for files that cannot be read.
fn router_encoders(directory: &Path) -> Option<Vec<String>> {
    let modules = read_json(&directory.join(MODULES_FILE)).ok()?;
    let first = modules.as_array()?.first()?;
    let class = first.get("type")?.as_str()?.rsplit('.').next()?;
    let folder = first.get("path")?.as_str()?.trim_end_matches('/');
    if !["Router", "Asym"].contains(&class) || !stays_inside(folder) {
        return None;
    }
    let files = ROUTER_FILES.map(|name| directory.join(folder).join(name));
    let router = files.iter().find_map(|file| read_json(file).ok())?;
    let types = router.get("types")?.as_object()?;
    let encoders = types.iter().filter(|(_, class)| {
        let class = class.as_str().and_then(|class| class.rsplit('.').next());
        class.is_some_and(is_transformer)
    });
    let encoders = encoders.filter(|(id, _)| stays_inside(id));
    let inside = encoders.map(|(id, _)| match folder {
        "" => id.clone(),
        folder => format!("{folder}/{id}"),
    });
    Some(inside.collect())
}

#[cfg(test)]
mod tests {
    use super::{refuse_router, transformer_folder};
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

    #[test]
    fn a_router_has_encoders_in_the_folders_of_its_routes() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, value: serde_json::Value| {
            std::fs::write(directory.path().join(name), value.to_string()).unwrap();
        };
        assert!(refuse_router(directory.path()).is_ok());
        let router = "sentence_transformers.base.modules.router.Router";
        write("modules.json", json!([{"path": "", "type": router}]));
        write(
            "router_config.json",
            json!({"types": {
                "query_0_StaticEmbedding": "sentence_transformers.models.StaticEmbedding",
                "document_0_Transformer": "sentence_transformers.models.Transformer",
            }}),
        );
        let error = refuse_router(directory.path()).unwrap_err().to_string();
        let error = error.replace(&directory.path().display().to_string(), "DIR");
        insta::assert_snapshot!(error, @r"
        DIR: expected one encoder, found a Router of sentence-transformers with those of its routes in `document_0_Transformer`
          hint: `embed` runs the model as it is; anything else takes the folder of one encoder, such as DIR/document_0_Transformer, and what is made of it can stand in its place
        ");
    }
}
