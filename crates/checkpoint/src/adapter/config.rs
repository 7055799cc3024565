//! adapter_config.json: what the update is multiplied with, and everything that would make it another update.
use crate::adapter::MERGE_WITH_PEFT;
use crate::shards::read_json;
use crate::{CheckpointError, CheckpointErrorKind};
use regex::Regex;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Fields that say how the adapter was trained or found, and nothing about what it computes. Which modules are updated is
/// said by the tensors.
const WITHOUT_EFFECT: &[&str] = &[
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "exclude_modules",
    // Of linear layers, which is what the encoders have, PEFT resets it.
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "runtime_config",
    "target_modules",
    "task_type",
    "use_dora",
    "use_rslora",
];

/// Ways to initialize that leave the base as it is. Others (PiSSA, OLoRA, LoftQ …) change it each time the adapter is loaded.
const HARMLESS_INITIALIZATIONS: &[&str] = &["gaussian", "eva", "orthogonal"];

/// A LoRA configuration that can be merged.
#[derive(Debug)]
pub(super) struct AdapterConfig {
    file: PathBuf,
    rank: u64,
    alpha: f64,
    rank_pattern: Vec<(Regex, u64)>,
    alpha_pattern: Vec<(Regex, f64)>,
    /// Divide by the square root of the rank.
    rank_stabilized: bool,
    /// DoRA: the rows of the sum are scaled to stored lengths.
    pub(super) uses_magnitude: bool,
    /// Modules that the adapter holds whole.
    pub(super) modules_to_save: Vec<String>,
}

/// The scale of a module's update, and the rank that its factors must have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    pub(super) factor: f64,
    pub(super) rank: u64,
}

impl AdapterConfig {
    pub(super) fn read(file: &Path) -> Result<Self, CheckpointError> {
        let value = read_json(file)?;
        let Some(fields) = value.as_object() else {
            return Err(CheckpointError::new(
                CheckpointErrorKind::Malformed,
                "expected a JSON object, found another value",
            )
            .in_file(file));
        };
        let reader = Reader { file, fields };
        reader.refuse_other_methods()?;
        Ok(Self {
            file: file.to_owned(),
            rank: reader.rank("r", reader.get("r"))?,
            alpha: reader.alpha("lora_alpha", reader.get("lora_alpha"))?,
            rank_pattern: reader.pattern("rank_pattern", Reader::rank)?,
            alpha_pattern: reader.pattern("alpha_pattern", Reader::alpha)?,
            rank_stabilized: reader.flag("use_rslora")?,
            uses_magnitude: reader.flag("use_dora")?,
            modules_to_save: reader.names("modules_to_save")?,
        })
    }

    /// As PEFT computes it: alpha / r, or alpha / sqrt(r) if it is rank-stabilized; of several patterns the first that matches.
    pub(super) fn scale(&self, module: &str) -> Scale {
        let rank = first_match(&self.rank_pattern, module).unwrap_or(self.rank);
        let alpha = first_match(&self.alpha_pattern, module).unwrap_or(self.alpha);
        let divisor = if self.rank_stabilized {
            (rank as f64).sqrt()
        } else {
            rank as f64
        };
        Scale {
            factor: alpha / divisor,
            rank,
        }
    }

    /// Whether `modules_to_save` names the module or one that it lies in.
    pub(super) fn saves(&self, module: &str) -> bool {
        let ends = |path: &str| {
            self.modules_to_save.iter().any(|saved| {
                path.strip_suffix(saved.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            })
        };
        ends(module)
            || module
                .match_indices('.')
                .any(|(dot, _)| ends(&module[..dot]))
    }

    /// An error about the configuration.
    pub(super) fn error(&self, message: String) -> CheckpointError {
        CheckpointError::new(CheckpointErrorKind::UnsupportedAdapter, message)
            .in_file(&self.file)
            .hint(MERGE_WITH_PEFT)
    }
}

fn first_match<T: Copy>(patterns: &[(Regex, T)], module: &str) -> Option<T> {
    let found = patterns
        .iter()
        .find(|(pattern, _)| pattern.is_match(module));
    found.map(|(_, value)| *value)
}

struct Reader<'a> {
    file: &'a Path,
    fields: &'a Map<String, Value>,
}

impl Reader<'_> {
    fn get(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    fn refuse_other_methods(&self) -> Result<(), CheckpointError> {
        let kind = self.get("peft_type").unwrap_or(&Value::Null);
        if kind != "LORA" {
            return Err(self.unsupported("peft_type", "\"LORA\"", kind));
        }
        if let Some(bias) = self.get("bias").filter(|bias| *bias != "none") {
            return Err(self.unsupported("bias", "\"none\"", bias));
        }
        if let Some(initialization) = self.get("init_lora_weights") {
            let harmless = initialization.is_boolean()
                || HARMLESS_INITIALIZATIONS
                    .iter()
                    .any(|name| initialization == name);
            if !harmless {
                let supported = "true, false, \"gaussian\", \"eva\" or \"orthogonal\", which leave the base as it is";
                return Err(self.unsupported("init_lora_weights", supported, initialization));
            }
        }
        let other = self
            .fields
            .iter()
            .find(|(field, value)| !WITHOUT_EFFECT.contains(&field.as_str()) && !is_empty(value));
        match other {
            None => Ok(()),
            Some((field, value)) => {
                Err(self.unsupported(field, "no such field, null or false", value))
            }
        }
    }

    fn rank(&self, field: &str, value: Option<&Value>) -> Result<u64, CheckpointError> {
        let Some(value) = value else { return Ok(8) };
        match value.as_u64() {
            Some(rank) if (1..=1 << 20).contains(&rank) => Ok(rank),
            _ => Err(self.invalid(field, "a whole number of at least 1", value)),
        }
    }

    fn alpha(&self, field: &str, value: Option<&Value>) -> Result<f64, CheckpointError> {
        let Some(value) = value else { return Ok(8.0) };
        value
            .as_f64()
            .filter(|alpha| alpha.is_finite())
            .ok_or_else(|| self.invalid(field, "a number", value))
    }

    /// Names or regular expressions of modules, which match whole or after a dot.
    fn pattern<T>(
        &self,
        field: &str,
        read: impl Fn(&Self, &str, Option<&Value>) -> Result<T, CheckpointError>,
    ) -> Result<Vec<(Regex, T)>, CheckpointError> {
        let patterns = match self.get(field) {
            None => return Ok(Vec::new()),
            Some(Value::Object(patterns)) => patterns,
            Some(other) => return Err(self.invalid(field, "an object", other)),
        };
        patterns
            .iter()
            .map(|(pattern, value)| {
                let field = format!("{field}.{pattern}");
                let regex = Regex::new(&format!(r"^(?:.*\.)?(?:{pattern})$")).map_err(|error| {
                    self.invalid(
                        &field,
                        "a regular expression without look-around",
                        &Value::from(pattern.as_str()),
                    )
                    .caused_by(error)
                })?;
                Ok((regex, read(self, &field, Some(value))?))
            })
            .collect()
    }

    fn flag(&self, field: &str) -> Result<bool, CheckpointError> {
        match self.get(field) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.invalid(field, "true or false", other)),
        }
    }

    fn names(&self, field: &str) -> Result<Vec<String>, CheckpointError> {
        let Some(value) = self.get(field) else {
            return Ok(Vec::new());
        };
        let names: Option<Vec<String>> = value.as_array().and_then(|names| {
            names
                .iter()
                .map(|name| name.as_str().map(str::to_owned))
                .collect()
        });
        names.ok_or_else(|| self.invalid(field, "a list of names", value))
    }

    fn unsupported(&self, field: &str, supported: &str, found: &Value) -> CheckpointError {
        CheckpointError::new(
            CheckpointErrorKind::UnsupportedAdapter,
            format!("`{field}`: supported is {supported}, found {found}"),
        )
        .in_file(self.file)
        .hint(MERGE_WITH_PEFT)
    }

    fn invalid(&self, field: &str, expected: &str, found: &Value) -> CheckpointError {
        CheckpointError::new(
            CheckpointErrorKind::Malformed,
            format!("`{field}`: expected {expected}, found {found}"),
        )
        .in_file(self.file)
        .hint("correct the value or fetch the file again")
    }
}

/// What a field holds that is not used.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}
