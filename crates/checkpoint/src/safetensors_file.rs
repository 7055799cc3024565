//! One safetensors file: its header validated whole before any data is touched.
//!
//! A file is an unsigned 64-bit little-endian header length, a JSON header that gives dtype, shape and byte range of every
//! tensor, and the data. The checks are those of the `safetensors` crate (the tests compare the two on damaged files), with
//! messages that name the tensor, what was expected and what was found, and a refusal of duplicate names, which that
//! crate resolves silently.
use crate::json_fields::Fields;
use crate::memory_map::{MappedFile, MappedTensor};
use crate::weights_file::WeightsFile;
use crate::{CheckpointError, CheckpointErrorKind, TensorInfo};
use fewbit_numerics::dtype::DType;
use serde_json::Value;
use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Longest header that readers accept.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Bytes of the header length field.
const LENGTH_BYTES: usize = 8;

/// Maps and validates the file at `path`; its tensors are in the order of their data.
pub(crate) fn open(path: &Path) -> Result<WeightsFile, CheckpointError> {
    let map = MappedFile::open(path)
        .map(Arc::new)
        .map_err(|error| CheckpointError::io("cannot open", path, error))?;
    let entries = parse_header(map.bytes()).map_err(|error| error.in_file(path))?;
    let mut tensors = Vec::with_capacity(entries.len());
    let mut data = Vec::with_capacity(entries.len());
    for Entry {
        name,
        dtype,
        shape,
        range,
    } in entries
    {
        tensors.push(TensorInfo {
            name,
            dtype,
            shape,
            file: path.to_owned(),
            byte_len: range.len(),
        });
        data.push(MappedTensor::new(Arc::clone(&map), range));
    }
    Ok(WeightsFile::new(tensors, data))
}

/// A tensor of a header, its byte range counted from the start of the file.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    range: Range<usize>,
}

fn malformed(message: impl Into<String>) -> CheckpointError {
    CheckpointError::new(CheckpointErrorKind::Malformed, message)
}

/// Validates a whole file and returns its tensors in the order of their data.
fn parse_header(file: &[u8]) -> Result<Vec<Entry>, CheckpointError> {
    const DOWNLOAD_AGAIN: &str = "the file is incomplete or damaged: download or write it again";
    if file.starts_with(b"version https://git-lfs") {
        return Err(malformed("a Git LFS pointer instead of a safetensors file")
            .hint("fetch the data with `git lfs pull`"));
    }
    let Some((length, rest)) = file.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(malformed(format!(
            "truncated safetensors file: expected at least {LENGTH_BYTES} bytes, found {}",
            file.len()
        ))
        .hint(DOWNLOAD_AGAIN));
    };
    let header_bytes = u64::from_le_bytes(*length);
    if header_bytes > MAX_HEADER_BYTES {
        return Err(malformed(format!(
            "not a safetensors file: expected a header of at most {MAX_HEADER_BYTES} bytes, found a header length of {header_bytes}"
        ))
        .hint("PyTorch, GGUF and HTML files are sometimes saved under this name"));
    }
    // At most 100 MB, so it fits a usize.
    let header_bytes = header_bytes as usize;
    let Some((header, data)) = rest.split_at_checked(header_bytes) else {
        return Err(malformed(format!(
            "truncated safetensors file: expected {} bytes of length and header, found {}",
            LENGTH_BYTES + header_bytes,
            file.len()
        ))
        .hint(DOWNLOAD_AGAIN));
    };
    let Fields(tensors): Header = serde_json::from_slice(header).map_err(|error| {
        malformed(format!("safetensors header is not valid: {error}")).caused_by(error)
    })?;

    let mut names = HashSet::with_capacity(tensors.len());
    let mut entries = Vec::with_capacity(tensors.len());
    for (name, fields) in &tensors {
        if !names.insert(name) {
            return Err(malformed("the header lists this name twice").at_tensor(name));
        }
        let fields = fields.as_ref().map(|Fields(fields)| &fields[..]);
        if name == "__metadata__" {
            // Null is no metadata.
            if !fields
                .unwrap_or_default()
                .iter()
                .all(|(_, value)| value.is_string())
            {
                return Err(malformed(
                    "header field `__metadata__`: expected an object of strings or null, found something else",
                ));
            }
        } else {
            let entry = parse_entry(name, fields.unwrap_or_default());
            entries.push(entry.map_err(|error| error.at_tensor(name))?);
        }
    }
    entries.sort_by_key(|entry| (entry.range.start, entry.range.end));

    let mut previous: Option<&Entry> = None;
    for entry in &entries {
        let expected = previous.map_or(0, |previous| previous.range.end);
        if entry.range.start != expected {
            let Range { start, end } = entry.range;
            let what = if start < expected {
                "overlapping"
            } else {
                "gapped"
            };
            let neighbour = previous.map_or_else(
                || "where the data starts".to_owned(),
                |previous| {
                    format!(
                        "where tensor `{}` ({}..{}) ends",
                        previous.name, previous.range.start, previous.range.end
                    )
                },
            );
            return Err(malformed(format!(
                "{what} data offsets {start}..{end}: expected a start at {expected}, {neighbour}, found {start}"
            ))
            .at_tensor(&entry.name));
        }
        previous = Some(entry);
    }
    let data_bytes = previous.map_or(0, |last| last.range.end);
    let data_start = LENGTH_BYTES + header_bytes;
    if data_bytes > data.len() {
        return Err(malformed(format!(
            "truncated safetensors file: expected {} bytes, found {}",
            data_start.saturating_add(data_bytes),
            file.len()
        ))
        .hint(DOWNLOAD_AGAIN));
    }
    if data_bytes < data.len() {
        return Err(malformed(format!(
            "bytes after the last tensor: expected {} bytes, found {}",
            data_start + data_bytes,
            file.len()
        )));
    }
    for entry in &mut entries {
        entry.range = entry.range.start + data_start..entry.range.end + data_start;
    }
    Ok(entries)
}

/// One tensor's description; the range is relative to the start of the data.
fn parse_entry(name: &str, fields: &[(String, Value)]) -> Result<Entry, CheckpointError> {
    let dtype_name = only(fields, "dtype")?
        .and_then(Value::as_str)
        .ok_or_else(|| malformed("header field `dtype`: expected a string, found none"))?;
    let dtype = DType::parse(dtype_name).ok_or_else(|| {
        CheckpointError::new(
            CheckpointErrorKind::WrongDType,
            format!("dtype: expected one of the types up to 64 bits that fewbit reads, found `{dtype_name}`"),
        )
    })?;
    let shape = unsigned_list(fields, "shape")?;
    let offsets = unsigned_list(fields, "data_offsets")?;
    let [start, end] = offsets[..] else {
        return Err(malformed(format!(
            "header field `data_offsets`: expected 2 numbers, found {}",
            offsets.len()
        )));
    };
    if end < start {
        return Err(malformed(format!(
            "header field `data_offsets`: expected start <= end, found [{start}, {end}]"
        )));
    }
    let expected = shape
        .iter()
        .try_fold(dtype.bytes(), |product, &dimension| {
            product.checked_mul(dimension)
        })
        .ok_or_else(|| {
            malformed(format!(
                "shape {shape:?} of {dtype_name}: the number of bytes overflows"
            ))
        })?;
    if end - start != expected {
        return Err(malformed(format!(
            "data of shape {shape:?} and dtype {dtype_name}: expected {expected} bytes, found {} (offsets {start}..{end})",
            end - start
        )));
    }
    Ok(Entry {
        name: name.to_owned(),
        dtype,
        shape,
        range: start..end,
    })
}

/// The value of a field, if it is there; twice is once too often.
fn only<'f>(
    fields: &'f [(String, Value)],
    name: &str,
) -> Result<Option<&'f Value>, CheckpointError> {
    let mut values = fields.iter().filter(|(field, _)| field == name);
    match (values.next(), values.next()) {
        (Some(_), Some(_)) => Err(malformed(format!(
            "header field `{name}`: expected it once, found it twice"
        ))),
        (first, _) => Ok(first.map(|(_, value)| value)),
    }
}

fn unsigned_list(fields: &[(String, Value)], name: &str) -> Result<Vec<usize>, CheckpointError> {
    only(fields, name)?
        .and_then(Value::as_array)
        .and_then(|items| {
            items
                .iter()
                .map(|item| usize::try_from(item.as_u64()?).ok())
                .collect()
        })
        .ok_or_else(|| {
            malformed(format!(
                "header field `{name}`: expected a list of unsigned integers, found something else"
            ))
        })
}

/// A tensor's fields, or the metadata, by name.
type Header = Fields<Option<Fields<Value>>>;

#[cfg(test)]
mod tests;
