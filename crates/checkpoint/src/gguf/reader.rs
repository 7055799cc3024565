//! What stands before the data, read: every count and length is checked against the bytes that there are before anything is made of it.
use super::file::GgufTensor;
use super::header::{ALIGNMENT, DIMENSIONS, MAGIC};
use super::metadata::{ARRAY, MetadataValue, NumberArray, NumberKind, STRING};
use super::tensor_type::StoredType;
use crate::{CheckpointError, CheckpointErrorKind};
use std::collections::HashSet;

/// Versions that are read.
const VERSIONS: [u32; 2] = [2, 3];
/// The least that an entry of metadata takes: length of its key, type, one byte.
const ENTRY_BYTES: usize = 8 + 4 + 1;
/// The least that the description of a tensor takes: length of its name, dimensions, type, offset.
const TENSOR_BYTES: usize = 8 + 4 + 4 + 8;
/// More entries of metadata than any file has, and few enough to be kept.
const MOST_ENTRIES: usize = 1 << 16;
/// The same of tensors.
const MOST_TENSORS: usize = 1 << 20;
const DOWNLOAD_AGAIN: &str = "the file is incomplete or damaged: download or write it again";

/// A header, checked.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) alignment: usize,
    pub(super) metadata: Vec<(String, MetadataValue)>,
    /// Their ranges are those of the file.
    pub(super) tensors: Vec<GgufTensor>,
}

fn malformed(message: impl Into<String>) -> CheckpointError {
    CheckpointError::new(CheckpointErrorKind::Malformed, message)
}

/// Reads the header of a whole file.
///
/// # Errors
/// Another format or version; less bytes than a count, a length or a tensor needs; strings that are not UTF-8; keys and names that stand twice; types that
/// ggml does not have; rows that are no whole blocks; tensors that do not follow one another.
pub(super) fn header(file: &[u8]) -> Result<Header, CheckpointError> {
    if file.starts_with(b"version https://git-lfs") {
        return Err(malformed("a Git LFS pointer instead of a GGUF file")
            .hint("fetch the data with `git lfs pull`"));
    }
    if !file.starts_with(MAGIC) {
        return Err(malformed(
            "not a GGUF file: expected `GGUF` at its start, found something else",
        )
        .hint(DOWNLOAD_AGAIN));
    }
    let mut bytes = Bytes {
        file,
        at: MAGIC.len(),
    };
    let version = bytes.u32("version")?;
    if !VERSIONS.contains(&version) {
        let error = malformed(format!("version: expected 2 or 3, found {version}"));
        return Err(match VERSIONS.contains(&version.swap_bytes()) {
            true => error.hint("the file is big-endian: convert it with gguf_convert_endian.py of the package gguf"),
            false => error.hint("write the file with a recent llama.cpp"),
        });
    }
    let tensors = bytes.count("number of tensors", TENSOR_BYTES, MOST_TENSORS)?;
    let entries = bytes.count("number of entries of metadata", ENTRY_BYTES, MOST_ENTRIES)?;
    let metadata = metadata(&mut bytes, entries)?;
    let alignment = alignment(&metadata)?;
    let mut tensors = descriptions(&mut bytes, tensors, alignment)?;
    place(&mut tensors, bytes.at, alignment, file.len())?;
    Ok(Header {
        version,
        alignment,
        metadata,
        tensors,
    })
}

fn metadata(
    bytes: &mut Bytes<'_>,
    entries: usize,
) -> Result<Vec<(String, MetadataValue)>, CheckpointError> {
    let mut metadata = Vec::new();
    let mut keys = HashSet::new();
    for index in 0..entries {
        let key = bytes.string(|| format!("key of entry {index} of metadata"))?;
        let value = value(bytes, &key)
            .map_err(|error| error.within(&format!("metadata `{}`", shown(&key))))?;
        if !keys.insert(key.clone()) {
            return Err(malformed(format!(
                "metadata `{}`: expected once, found twice",
                shown(&key)
            )));
        }
        metadata.push((key, value));
    }
    Ok(metadata)
}

/// A key or name in a message: a damaged file may have a long one.
fn shown(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.chars().count() > SHOWN {
        false => text.to_owned(),
        true => text.chars().take(SHOWN).chain(['…']).collect(),
    }
}

fn value(bytes: &mut Bytes<'_>, key: &str) -> Result<MetadataValue, CheckpointError> {
    let what = || format!("value of `{}`", shown(key));
    match bytes.u32("type")? {
        STRING => Ok(MetadataValue::String(bytes.string(what)?)),
        ARRAY => array(bytes, what),
        number => {
            let kind = NumberKind::of_number(number).ok_or_else(|| {
                malformed(format!("type: expected one of 0 to 12, found {number}"))
                    .hint(DOWNLOAD_AGAIN)
            })?;
            Ok(kind.read(bytes.take(kind.bytes(), what)?))
        }
    }
}

fn array(
    bytes: &mut Bytes<'_>,
    what: impl Fn() -> String,
) -> Result<MetadataValue, CheckpointError> {
    let number = bytes.u32("type of elements")?;
    if number == STRING {
        let count = bytes.count("number of strings", 8, usize::MAX)?;
        let strings = (0..count).map(|_| bytes.string(&what));
        return Ok(MetadataValue::Strings(strings.collect::<Result<_, _>>()?));
    }
    // ggml has no arrays of arrays either.
    let kind = NumberKind::of_number(number).ok_or_else(|| {
        malformed(format!(
            "type of elements: expected numbers or strings, found {number}"
        ))
    })?;
    let count = bytes.count("number of elements", kind.bytes(), usize::MAX)?;
    let numbers = bytes.take(count * kind.bytes(), what)?;
    Ok(MetadataValue::Numbers(NumberArray::new(
        kind,
        numbers.to_vec(),
    )))
}

fn alignment(metadata: &[(String, MetadataValue)]) -> Result<usize, CheckpointError> {
    const KEY: &str = "general.alignment";
    let Some((_, value)) = metadata.iter().find(|(key, _)| key == KEY) else {
        return Ok(ALIGNMENT);
    };
    let number = value
        .as_integer()
        .and_then(|value| u32::try_from(value).ok());
    match number {
        Some(number) if number.is_power_of_two() => Ok(number as usize),
        _ => Err(malformed(format!(
            "metadata `{KEY}`: expected a power of two, found {value:?}"
        ))),
    }
}

/// What is said of each tensor; ranges begin at the start of the data.
fn descriptions(
    bytes: &mut Bytes<'_>,
    count: usize,
    alignment: usize,
) -> Result<Vec<GgufTensor>, CheckpointError> {
    let mut tensors = Vec::new();
    let mut names = HashSet::new();
    let mut expected = 0usize;
    for index in 0..count {
        let name = bytes.string(|| format!("name of tensor {index}"))?;
        let at = |error: CheckpointError| error.at_tensor(shown(&name));
        if !names.insert(name.clone()) {
            return Err(at(malformed("the file lists this name twice")));
        }
        let dimensions = bytes.u32("number of dimensions").map_err(at)? as usize;
        if dimensions > DIMENSIONS {
            return Err(at(malformed(format!(
                "expected at most {DIMENSIONS} dimensions, found {dimensions}"
            ))));
        }
        let sizes = (0..dimensions).map(|_| bytes.u64("dimension"));
        // Innermost first.
        let mut sizes = sizes.collect::<Result<Vec<u64>, _>>().map_err(at)?;
        sizes.reverse();
        let number = bytes.u32("type").map_err(at)?;
        let offset = bytes.u64("offset").map_err(at)?;
        let kind = StoredType::of_number(number).ok_or_else(|| {
            let error = format!("type: expected one of ggml's types, found number {number}");
            at(CheckpointError::new(CheckpointErrorKind::WrongDType, error))
        })?;
        let (shape, byte_len) = size(kind, &sizes).map_err(at)?;
        if offset != expected as u64 {
            return Err(at(malformed(format!(
                "offset in the data: expected {expected}, where the tensor before it ends, found {offset}"
            ))));
        }
        let end = expected.checked_add(byte_len);
        let next = end.and_then(|end| end.checked_next_multiple_of(alignment));
        let (Some(end), Some(next)) = (end, next) else {
            return Err(at(malformed("the bytes of the file overflow")));
        };
        tensors.push(GgufTensor {
            name,
            shape,
            kind,
            range: expected..end,
        });
        expected = next;
    }
    Ok(tensors)
}

/// Dimensions as sizes of this machine, and bytes.
fn size(kind: StoredType, sizes: &[u64]) -> Result<(Vec<usize>, usize), CheckpointError> {
    let overflow = || malformed(format!("shape {sizes:?}: the number of bytes overflows"));
    let shape = sizes.iter().map(|size| usize::try_from(*size).ok());
    let shape = shape.collect::<Option<Vec<usize>>>().ok_or_else(overflow)?;
    let columns = shape.last().copied().unwrap_or(1);
    if !columns.is_multiple_of(kind.block_elements()) {
        return Err(malformed(format!(
            "{}: expected rows of a multiple of {} elements, found {columns}",
            kind.name(),
            kind.block_elements()
        )));
    }
    let elements = shape
        .iter()
        .try_fold(1usize, |product, size| product.checked_mul(*size));
    let bytes = elements
        .and_then(|elements| (elements / kind.block_elements()).checked_mul(kind.block_bytes()));
    let bytes = bytes.ok_or_else(overflow)?;
    Ok((shape, bytes))
}

/// Moves the ranges to where the data begins: behind `header_end`, padded.
fn place(
    tensors: &mut [GgufTensor],
    header_end: usize,
    alignment: usize,
    file_bytes: usize,
) -> Result<(), CheckpointError> {
    let start = header_end.checked_next_multiple_of(alignment);
    for tensor in tensors {
        let range = &tensor.range;
        let moved = start.and_then(|start| {
            let end = start.checked_add(range.end)?;
            Some(start + range.start..end)
        });
        match moved {
            Some(moved) if moved.end <= file_bytes => tensor.range = moved,
            _ => {
                let expected = moved.map_or(usize::MAX, |moved| moved.end);
                return Err(malformed(format!(
                    "truncated GGUF file: expected at least {expected} bytes, found {file_bytes}"
                ))
                .at_tensor(shown(&tensor.name))
                .hint(DOWNLOAD_AGAIN));
            }
        }
    }
    Ok(())
}

/// The bytes of a file, read one after the other.
struct Bytes<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Bytes<'a> {
    fn remaining(&self) -> usize {
        self.file.len() - self.at
    }

    fn take(
        &mut self,
        count: usize,
        what: impl FnOnce() -> String,
    ) -> Result<&'a [u8], CheckpointError> {
        if count > self.remaining() {
            return Err(malformed(format!(
                "truncated GGUF file: {}: expected {count} more bytes, found {}",
                what(),
                self.remaining()
            ))
            .hint(DOWNLOAD_AGAIN));
        }
        let taken = &self.file[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], CheckpointError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N, || what.to_owned())?);
        Ok(bytes)
    }

    fn u32(&mut self, what: &str) -> Result<u32, CheckpointError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, CheckpointError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// How many of something follow, each of which takes at least `least` bytes: no more than there are bytes for, and than `limit`.
    fn count(&mut self, what: &str, least: usize, limit: usize) -> Result<usize, CheckpointError> {
        let count = self.u64(what)?;
        let most = limit.min(self.remaining() / least);
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(
                malformed(format!("{what}: expected at most {most}, found {count}"))
                    .hint(DOWNLOAD_AGAIN),
            ),
        }
    }

    fn string(&mut self, what: impl Fn() -> String) -> Result<String, CheckpointError> {
        let length = self.u64("length of a string")?;
        let bytes = match usize::try_from(length) {
            Ok(length) => self.take(length, &what)?,
            Err(_) => self.take(usize::MAX, &what)?,
        };
        let text = std::str::from_utf8(bytes).map_err(|error| {
            malformed(format!("{}: expected UTF-8, found other bytes", what()))
                .hint(DOWNLOAD_AGAIN)
                .caused_by(error)
        })?;
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests;
