//! The list of a model's modules, `modules.json`, in which a Router stands for the modules of its chosen route.

use super::router;
use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::json_file::type_name;
use serde_json::Value;
use std::path::{Component, Path, PathBuf};

/// The classes of sentence-transformers that fewbit knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ModuleClass {
    Transformer,
    /// A Transformer with the head of a masked language model.
    MlmTransformer,
    Pooling,
    SpladePooling,
    Dense,
    LayerNorm,
    Normalize,
    Dropout,
    Router,
}

impl ModuleClass {
    const ALL: [Self; 9] = [
        Self::Transformer,
        Self::MlmTransformer,
        Self::Pooling,
        Self::SpladePooling,
        Self::Dense,
        Self::LayerNorm,
        Self::Normalize,
        Self::Dropout,
        Self::Router,
    ];

    /// Its name without its package.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Transformer => "Transformer",
            Self::MlmTransformer => "MLMTransformer",
            Self::Pooling => "Pooling",
            Self::SpladePooling => "SpladePooling",
            Self::Dense => "Dense",
            Self::LayerNorm => "LayerNorm",
            Self::Normalize => "Normalize",
            Self::Dropout => "Dropout",
            Self::Router => "Router",
        }
    }

    /// The class of this name, with its package; none for a class of another package, whatever its name. (Asym is the name that
    /// Router had.)
    fn of_type(name: &str) -> Option<Self> {
        let ours = name.starts_with("sentence_transformers.");
        let class = name.rsplit('.').next().filter(|_| ours)?;
        let class = if class == "Asym" { "Router" } else { class };
        Self::ALL.into_iter().find(|known| known.name() == class)
    }
}

/// A module as a list names it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NamedModule {
    pub(super) class: ModuleClass,
    /// Of its files.
    pub(super) folder: PathBuf,
    /// The file with the list.
    list: PathBuf,
    /// The field of that file with its class, and that with its folder.
    fields: [String; 2],
}

const HINT: &str = "fewbit runs Transformer, Pooling, SpladePooling, Dense, LayerNorm, Normalize and Router; leaving a module out would give other embeddings";

/// An error about the list of modules that `file` holds.
pub(super) fn list_error(file: &Path, field: impl Into<String>, message: String) -> ModelError {
    ModelError::Config {
        file: file.to_owned(),
        field: field.into(),
        message,
        hint: HINT.to_owned(),
    }
}

impl NamedModule {
    /// The module whose class `kind` and folder are in `fields` of `list`; `expected` says which classes may stand there.
    pub(super) fn new(
        list: &Path,
        fields: [String; 2],
        kind: &Value,
        folder: PathBuf,
        expected: &str,
    ) -> Result<Self, ModelError> {
        let name = kind.as_str().unwrap_or_default();
        let Some(class) = ModuleClass::of_type(name) else {
            let message =
                format!("expected a module of sentence-transformers, {expected}, found `{name}`");
            return Err(list_error(list, &fields[0], message));
        };
        Ok(Self {
            class,
            folder,
            list: list.to_owned(),
            fields,
        })
    }

    /// The error of a module that does not belong at its place in the list.
    pub(super) fn error_of_place(&self, expected: &str) -> ModelError {
        let name = self.class.name();
        let message = format!("expected {expected}, found {name}");
        list_error(&self.list, &self.fields[0], message)
    }

    /// An error about its folder.
    pub(super) fn error_of_folder(&self, message: String) -> ModelError {
        list_error(&self.list, &self.fields[1], message)
    }
}

/// What may stand after the encoder.
pub(super) const AFTER_THE_ENCODER: &str =
    "Pooling, Dense, LayerNorm, Normalize, Dropout or Router";

/// The modules of `list`, which is in `file` of the model `directory`, as they run for `task`; and whether a Router was among them.
pub(super) fn read_list(
    directory: &Path,
    file: &Path,
    list: &Value,
    task: Option<&str>,
) -> Result<(Vec<NamedModule>, bool), ModelError> {
    let Some(entries) = list.as_array() else {
        let message = format!("expected a list of modules, found {}", type_name(list));
        return Err(list_error(file, "modules", message));
    };
    let mut modules = Vec::new();
    let mut routed = false;
    for (index, entry) in entries.iter().enumerate() {
        refuse_shared_name(file, entries, index)?;
        let fields = [format!("{index}.type"), format!("{index}.path")];
        let folder = directory.join(module_path(file, list, index)?);
        let expected = match index {
            0 => "Transformer or Router",
            _ => AFTER_THE_ENCODER,
        };
        let module = NamedModule::new(file, fields, &entry["type"], folder, expected)?;
        if module.class == ModuleClass::Router {
            routed = true;
            modules.extend(router::chosen_modules(&module, task)?);
        } else {
            modules.push(module);
        }
    }
    Ok((modules, routed))
}

/// Modules are kept by name: of two with one name, the second would take the place of the first.
fn refuse_shared_name(file: &Path, entries: &[Value], index: usize) -> Result<(), ModelError> {
    let name = &entries[index]["name"];
    let mut before = entries[..index].iter();
    if name.is_null() || !before.any(|other| other["name"] == *name) {
        return Ok(());
    }
    let message = format!("expected a name of its own for each module, found {name} before");
    Err(list_error(file, format!("{index}.name"), message))
}

/// The folder of module `index`, inside the model directory.
fn module_path<'l>(file: &Path, list: &'l Value, index: usize) -> Result<&'l Path, ModelError> {
    let found = &list[index]["path"];
    inner_path(found).ok_or_else(|| {
        let expected = "expected \"\" or the path of a folder inside the model directory";
        ConfigFields::new(file, list).invalid(&format!("{index}.path"), expected, found)
    })
}

/// A path that cannot leave the directory it is joined to (but through a symbolic link inside): a model directory may come
/// from anybody.
pub(super) fn inner_path(value: &Value) -> Option<&Path> {
    let path = Path::new(value.as_str()?);
    let stays = path
        .components()
        .all(|component| matches!(component, Component::Normal(_)));
    stays.then_some(path)
}
