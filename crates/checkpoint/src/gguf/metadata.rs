//! Entries of metadata.
use crate::{CheckpointError, CheckpointErrorKind};
use std::path::{Path, PathBuf};

/// A type of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named by what they are")]
pub enum NumberKind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    /// One byte, 0 or 1.
    Bool,
    U64,
    I64,
    F64,
}

impl NumberKind {
    const ALL: [(u32, Self, usize); 11] = [
        (0, Self::U8, 1),
        (1, Self::I8, 1),
        (2, Self::U16, 2),
        (3, Self::I16, 2),
        (4, Self::U32, 4),
        (5, Self::I32, 4),
        (6, Self::F32, 4),
        (7, Self::Bool, 1),
        (10, Self::U64, 8),
        (11, Self::I64, 8),
        (12, Self::F64, 8),
    ];

    /// The type of this number in files.
    pub(super) fn of_number(number: u32) -> Option<Self> {
        let known = Self::ALL.iter().find(|known| known.0 == number);
        known.map(|known| known.1)
    }

    fn row(self) -> (u32, usize) {
        let known = Self::ALL.iter().find(|known| known.1 == self);
        known.map_or((0, 1), |known| (known.0, known.2))
    }

    /// Its number in files.
    pub(super) fn number(self) -> u32 {
        self.row().0
    }

    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        self.row().1
    }

    /// The number that little-endian bytes, as many as it has, hold.
    pub(super) fn read(self, bytes: &[u8]) -> MetadataValue {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        let bits = u64::from_le_bytes(wide);
        match self {
            Self::U8 => MetadataValue::U8(bits as u8),
            Self::I8 => MetadataValue::I8(bits as i8),
            Self::U16 => MetadataValue::U16(bits as u16),
            Self::I16 => MetadataValue::I16(bits as i16),
            Self::U32 => MetadataValue::U32(bits as u32),
            Self::I32 => MetadataValue::I32(bits as i32),
            Self::F32 => MetadataValue::F32(f32::from_bits(bits as u32)),
            Self::Bool => MetadataValue::Bool(bits != 0),
            Self::U64 => MetadataValue::U64(bits),
            Self::I64 => MetadataValue::I64(bits as i64),
            Self::F64 => MetadataValue::F64(f64::from_bits(bits)),
        }
    }
}

/// Numbers of one type, as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberArray {
    kind: NumberKind,
    bytes: Vec<u8>,
}

impl NumberArray {
    pub(super) fn new(kind: NumberKind, bytes: Vec<u8>) -> Self {
        Self { kind, bytes }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.kind.bytes()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Their type.
    pub fn kind(&self) -> NumberKind {
        self.kind
    }

    /// One after the other.
    pub fn values(&self) -> impl Iterator<Item = MetadataValue> {
        let numbers = self.bytes.chunks_exact(self.kind.bytes());
        numbers.map(|bytes| self.kind.read(bytes))
    }
}

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "named by what they are")]
pub enum MetadataValue {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    U64(u64),
    I64(i64),
    F64(f64),
    Strings(Vec<String>),
    Numbers(NumberArray),
}

/// The number of an array's type in files.
pub(super) const ARRAY: u32 = 9;
/// That of a string.
pub(super) const STRING: u32 = 8;

impl MetadataValue {
    /// An array of I32.
    pub fn i32s(values: &[i32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        Self::Numbers(NumberArray::new(NumberKind::I32, bytes.collect()))
    }

    /// An array of F32.
    pub fn f32s(values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        Self::Numbers(NumberArray::new(NumberKind::F32, bytes.collect()))
    }

    /// A whole number of any type; none of another value.
    pub fn as_integer(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(value) => value.into(),
            Self::I8(value) => value.into(),
            Self::U16(value) => value.into(),
            Self::I16(value) => value.into(),
            Self::U32(value) => value.into(),
            Self::I32(value) => value.into(),
            Self::U64(value) => value.into(),
            Self::I64(value) => value.into(),
            _ => return None,
        })
    }

    /// What it is, with an article.
    fn what(&self) -> &'static str {
        match self {
            Self::F32(_) | Self::F64(_) => "a float",
            Self::Bool(_) => "a truth value",
            Self::String(_) => "a string",
            Self::Strings(_) => "an array of strings",
            Self::Numbers(_) => "an array of numbers",
            _ => "an integer",
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut number = |kind: NumberKind, bytes: &[u8]| {
            out.extend(kind.number().to_le_bytes());
            out.extend(bytes);
        };
        match self {
            Self::U8(value) => number(NumberKind::U8, &value.to_le_bytes()),
            Self::I8(value) => number(NumberKind::I8, &value.to_le_bytes()),
            Self::U16(value) => number(NumberKind::U16, &value.to_le_bytes()),
            Self::I16(value) => number(NumberKind::I16, &value.to_le_bytes()),
            Self::U32(value) => number(NumberKind::U32, &value.to_le_bytes()),
            Self::I32(value) => number(NumberKind::I32, &value.to_le_bytes()),
            Self::F32(value) => number(NumberKind::F32, &value.to_le_bytes()),
            Self::Bool(value) => number(NumberKind::Bool, &[u8::from(*value)]),
            Self::U64(value) => number(NumberKind::U64, &value.to_le_bytes()),
            Self::I64(value) => number(NumberKind::I64, &value.to_le_bytes()),
            Self::F64(value) => number(NumberKind::F64, &value.to_le_bytes()),
            Self::String(value) => {
                out.extend(STRING.to_le_bytes());
                write_string(value, out);
            }
            Self::Strings(values) => {
                out.extend(ARRAY.to_le_bytes());
                out.extend(STRING.to_le_bytes());
                out.extend((values.len() as u64).to_le_bytes());
                values.iter().for_each(|value| write_string(value, out));
            }
            Self::Numbers(array) => {
                out.extend(ARRAY.to_le_bytes());
                out.extend(array.kind.number().to_le_bytes());
                out.extend((array.len() as u64).to_le_bytes());
                out.extend(&array.bytes);
            }
        }
    }
}

pub(super) fn write_string(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// The metadata of a file, in its order.
#[derive(Debug, Clone, PartialEq)]
pub struct Metadata {
    file: PathBuf,
    entries: Vec<(String, MetadataValue)>,
}

impl Metadata {
    /// `entries` of `file`, which errors name.
    pub(super) fn new(file: &Path, entries: Vec<(String, MetadataValue)>) -> Self {
        let file = file.to_owned();
        Self { file, entries }
    }

    /// All entries.
    pub fn entries(&self) -> &[(String, MetadataValue)] {
        &self.entries
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&MetadataValue> {
        let entry = self.entries.iter().find(|(known, _)| known == key);
        entry.map(|(_, value)| value)
    }

    /// The value of a key as `read` takes it, which gets none that it does not take.
    fn read<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a MetadataValue) -> Option<T>,
    ) -> Result<Option<T>, CheckpointError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match read(value) {
            Some(read) => Ok(Some(read)),
            None => Err(self.error(key, format!("expected {expected}, found {}", value.what()))),
        }
    }

    /// A string, if there is this key.
    ///
    /// # Errors
    /// Its value is another.
    pub fn text(&self, key: &str) -> Result<Option<&str>, CheckpointError> {
        self.read(key, "a string", |value| match value {
            MetadataValue::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A whole number from 0 to 2^32 - 1, of any integer type, if there is this key.
    ///
    /// # Errors
    /// Its value is another.
    pub fn size(&self, key: &str) -> Result<Option<u32>, CheckpointError> {
        self.read(key, "an integer from 0 to 4294967295", |value| {
            u32::try_from(value.as_integer()?).ok()
        })
    }

    /// A finite float, if there is this key.
    ///
    /// # Errors
    /// Its value is another.
    pub fn float(&self, key: &str) -> Result<Option<f32>, CheckpointError> {
        self.read(key, "a finite float", |value| match value {
            MetadataValue::F32(float) => float.is_finite().then_some(*float),
            MetadataValue::F64(float) => Some(*float as f32).filter(|float| float.is_finite()),
            _ => None,
        })
    }

    /// A truth value, if there is this key.
    ///
    /// # Errors
    /// Its value is another.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, CheckpointError> {
        self.read(key, "a truth value", |value| match value {
            MetadataValue::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    /// An array of strings, if there is this key.
    ///
    /// # Errors
    /// Its value is another.
    pub fn strings(&self, key: &str) -> Result<Option<&[String]>, CheckpointError> {
        self.read(key, "an array of strings", |value| match value {
            MetadataValue::Strings(strings) => Some(strings.as_slice()),
            _ => None,
        })
    }

    /// An array of integers that an i32 holds, if there is this key.
    ///
    /// # Errors
    /// Its value is another.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i32>>, CheckpointError> {
        self.read(key, "an array of integers", |value| match value {
            MetadataValue::Numbers(array) => {
                let values = array.values();
                values
                    .map(|value| i32::try_from(value.as_integer()?).ok())
                    .collect()
            }
            _ => None,
        })
    }

    /// An array of F32, if there is this key.
    ///
    /// # Errors
    /// Its value is another.
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f32>>, CheckpointError> {
        self.read(key, "an array of f32", |value| match value {
            MetadataValue::Numbers(array) => {
                let floats = array.values().map(|value| match value {
                    MetadataValue::F32(float) => Some(float),
                    _ => None,
                });
                floats.collect()
            }
            _ => None,
        })
    }

    /// The error for a key that has to be there.
    pub fn missing(&self, key: &str) -> CheckpointError {
        self.error(key, "expected this entry, found none".to_owned())
    }

    /// An error about the value of a key.
    pub fn error(&self, key: &str, message: impl Into<String>) -> CheckpointError {
        let message = format!("metadata `{key}`: {}", message.into());
        CheckpointError::new(CheckpointErrorKind::Malformed, message).in_file(&self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(value: MetadataValue) -> Metadata {
        Metadata::new(Path::new("m.gguf"), vec![("k".to_owned(), value)])
    }

    #[test]
    fn values_are_taken_as_what_they_are() {
        let of = metadata;
        assert_eq!(of(MetadataValue::U64(7)).size("k").unwrap(), Some(7));
        assert_eq!(of(MetadataValue::I8(7)).size("k").unwrap(), Some(7));
        assert_eq!(of(MetadataValue::U64(7)).size("l").unwrap(), None);
        assert_eq!(of(MetadataValue::F64(0.5)).float("k").unwrap(), Some(0.5));
        let array = of(MetadataValue::i32s(&[-3, 4]));
        assert_eq!(array.integers("k").unwrap(), Some(vec![-3, 4]));
        for wrong in [
            MetadataValue::I32(-1),
            MetadataValue::U64(1 << 32),
            MetadataValue::F32(1.0),
            MetadataValue::String("1".to_owned()),
        ] {
            assert!(of(wrong).size("k").is_err());
        }
        assert!(of(MetadataValue::F32(f32::NAN)).float("k").is_err());
        assert_eq!(
            array.floats("k").unwrap_err().to_string(),
            "m.gguf: metadata `k`: expected an array of f32, found an array of numbers"
        );
    }
}
