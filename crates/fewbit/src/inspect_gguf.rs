//! What a GGUF file consists of. Reads its header alone.

use crate::Error;
use fewbit_checkpoint::gguf::{GgufFile, MetadataValue, NumberArray};
use serde::Serialize;
use serde_json::{Number, Value, json};
use std::path::{Path, PathBuf};

/// Everything that `fewbit inspect FILE.gguf` shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GgufInspection {
    /// The file.
    pub file: PathBuf,
    /// Version of the format.
    pub version: u32,
    /// `general.architecture`, where the file says it.
    pub architecture: Option<String>,
    /// `general.name`, where the file says it.
    pub name: Option<String>,
    /// Elements of all tensors.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub tensor_bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// `8 * tensor_bytes / parameters`; 0 for a file without tensors.
    pub bits_per_parameter: f64,
    /// Sums by type, most bytes first.
    pub by_type: Vec<GgufTypeSize>,
    /// Every entry, in file order; of a long array its length and its first elements.
    pub metadata: Vec<GgufEntry>,
    /// Every tensor, in file order.
    pub tensors: Vec<GgufTensorSize>,
}

/// Sum over the tensors of one type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GgufTypeSize {
    /// ggml's type, in small letters: `q4_k`.
    pub name: &'static str,
    /// Whether `convert` reads it.
    pub is_read: bool,
    /// How many tensors.
    pub tensors: usize,
    /// Their elements.
    pub parameters: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// An entry of the metadata.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GgufEntry {
    /// Its key.
    pub key: String,
    /// Its value; of an array of more than [`GgufEntry::SHOWN`] elements an object with `count` and `first`.
    pub value: Value,
}

impl GgufEntry {
    /// Elements of a long array that are shown.
    pub const SHOWN: usize = 8;
}

/// A tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GgufTensorSize {
    /// Its name in the file.
    pub name: String,
    /// ggml's type, in small letters.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Elements.
    pub parameters: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Describes the GGUF file `path`.
///
/// # Errors
/// It cannot be read, or is malformed.
///
/// ```no_run
/// let inspection = fewbit::inspect_gguf("model.gguf")?;
/// for kind in &inspection.by_type {
///     println!("{}: {} tensors, {} bytes", kind.name, kind.tensors, kind.bytes);
/// }
/// # Ok::<(), fewbit::Error>(())
/// ```
pub fn inspect_gguf(path: impl AsRef<Path>) -> Result<GgufInspection, Error> {
    let file = GgufFile::open(path)?;
    let metadata = file.metadata();
    let text = |key: &str| metadata.text(key).map(|text| text.map(str::to_owned));
    let mut by_type: Vec<GgufTypeSize> = Vec::new();
    let mut tensors = Vec::with_capacity(file.tensors().len());
    for tensor in file.tensors() {
        let size = GgufTensorSize {
            name: tensor.name.clone(),
            kind: tensor.kind.name(),
            shape: tensor.shape.clone(),
            parameters: tensor.element_count() as u64,
            bytes: tensor.byte_len() as u64,
        };
        match by_type.iter_mut().find(|known| known.name == size.kind) {
            Some(known) => {
                known.tensors += 1;
                known.parameters += size.parameters;
                known.bytes += size.bytes;
            }
            None => by_type.push(GgufTypeSize {
                name: size.kind,
                is_read: tensor.kind.readable().is_some(),
                tensors: 1,
                parameters: size.parameters,
                bytes: size.bytes,
            }),
        }
        tensors.push(size);
    }
    by_type.sort_by(|a, b| b.bytes.cmp(&a.bytes).then(a.name.cmp(b.name)));
    let parameters = tensors.iter().map(|tensor| tensor.parameters).sum();
    let tensor_bytes = tensors.iter().map(|tensor| tensor.bytes).sum();
    let entries = metadata.entries().iter().map(|(key, value)| GgufEntry {
        key: key.clone(),
        value: json(value),
    });
    Ok(GgufInspection {
        file: file.path().to_owned(),
        version: file.version(),
        architecture: text("general.architecture")?,
        name: text("general.name")?,
        parameters,
        tensor_bytes,
        file_bytes: file.file_bytes(),
        bits_per_parameter: match parameters {
            0 => 0.0,
            parameters => 8.0 * tensor_bytes as f64 / parameters as f64,
        },
        by_type,
        metadata: entries.collect(),
        tensors,
    })
}

fn json(value: &MetadataValue) -> Value {
    let float = |text: String| match text.parse().ok().and_then(Number::from_f64) {
        Some(number) => Value::Number(number),
        // JSON has no numbers that are not finite.
        None => Value::String(text),
    };
    match value {
        MetadataValue::Bool(flag) => Value::Bool(*flag),
        MetadataValue::String(text) => Value::String(text.clone()),
        // The shortest number that stands for it.
        MetadataValue::F32(number) => float(number.to_string()),
        MetadataValue::F64(number) => float(number.to_string()),
        MetadataValue::U64(number) => (*number).into(),
        MetadataValue::Strings(strings) => array(
            strings.len(),
            strings.iter().map(|text| Value::from(text.as_str())),
        ),
        MetadataValue::Numbers(numbers) => numbers_json(numbers),
        other => {
            let integer = other
                .as_integer()
                .and_then(|number| i64::try_from(number).ok());
            integer.map_or(Value::Null, Value::from)
        }
    }
}

fn numbers_json(numbers: &NumberArray) -> Value {
    array(numbers.len(), numbers.values().map(|number| json(&number)))
}

fn array(count: usize, elements: impl Iterator<Item = Value>) -> Value {
    if count <= GgufEntry::SHOWN {
        return Value::Array(elements.collect());
    }
    let first: Vec<Value> = elements.take(GgufEntry::SHOWN).collect();
    json!({"count": count, "first": first})
}
