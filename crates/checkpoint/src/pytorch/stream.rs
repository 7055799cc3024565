//! The form that `torch.save` wrote before version 1.6: four pickles in a row, and after them the bytes of the storages.
use super::objects::{Object, Objects, Storage, Value};
use super::{malformed, pickle, state_dict, unsupported};
use crate::CheckpointError;
use crate::memory_map::MappedFile;
use crate::weights_file::WeightsFile;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// The first pickle: the number 0x1950a86a20f9469cfc6c.
pub(super) const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

const PROTOCOL: Value<'_> = Value::Int(1001);

/// Reads a file that begins with [`MAGIC`].
pub(super) fn read(path: &Path, map: &Arc<MappedFile>) -> Result<WeightsFile, CheckpointError> {
    let file = map.bytes();
    let mut at = MAGIC.len();
    let mut next = |what: &str| {
        let (objects, value, bytes) =
            pickle::read(&file[at..]).map_err(|error| error.within(what))?;
        at += bytes;
        Ok::<_, CheckpointError>((objects, value))
    };
    let (_, protocol) = next("protocol")?;
    if protocol != PROTOCOL {
        return Err(unsupported(
            "expected protocol 1001 of torch.save, found another one",
        ));
    }
    let (system, facts) = next("system information")?;
    expect_little_endian(&system, facts)?;
    let (objects, root) = next("state dict")?;
    let (keys, list) = next("list of storages")?;
    let Some(Object::List(keys)) = keys.object(list) else {
        return Err(malformed(format!(
            "list of storages: expected a list, found {}",
            keys.describe(list)
        )));
    };
    let widths = widths(&objects)?;
    let mut storages: HashMap<&str, Range<usize>> = HashMap::with_capacity(keys.len());
    for &key in keys {
        let Value::Str(key) = key else {
            return Err(malformed(
                "list of storages: expected strings, found others",
            ));
        };
        let width = widths.get(key).ok_or_else(|| {
            malformed(format!(
                "storage `{key}`: expected one that the state dict has, found none of its tensors in it"
            ))
        })?;
        let range = storage_data(file, at, *width)
            .map_err(|error| error.within(&format!("storage `{key}`")))?;
        at = range.end;
        if storages.insert(key, range).is_some() {
            return Err(malformed(format!(
                "the file lists the storage `{key}` twice"
            )));
        }
    }
    if at < file.len() {
        return Err(malformed(format!(
            "bytes after the last storage: expected {at} bytes, found {}",
            file.len()
        )));
    }
    state_dict::read(path, map, &objects, root, |storage| {
        let whole = storages.get(storage.key).ok_or_else(|| {
            malformed(format!(
                "storage `{}`: expected its data after the state dict, found none",
                storage.key
            ))
        })?;
        super::expect_bytes(storage, whole.len())?;
        part(storage, whole)
    })
}

fn expect_little_endian(objects: &Objects<'_>, facts: Value<'_>) -> Result<(), CheckpointError> {
    let Some(Object::Dict(facts)) = objects.object(facts) else {
        return Err(malformed(format!(
            "system information: expected a dict, found {}",
            objects.describe(facts)
        )));
    };
    let little = facts
        .iter()
        .find(|(key, _)| *key == Value::Str("little_endian"))
        .map(|&(_, value)| value);
    if little == Some(Value::Bool(true)) {
        return Ok(());
    }
    Err(unsupported(
        "expected little-endian numbers, found a file that says otherwise or nothing",
    ))
}

/// Bytes of an element of each storage, by key.
fn widths<'a>(objects: &Objects<'a>) -> Result<HashMap<&'a str, usize>, CheckpointError> {
    let mut widths = HashMap::new();
    for storage in objects.storages() {
        let width = storage.dtype.bytes();
        if *widths.entry(storage.key).or_insert(width) != width {
            return Err(malformed(format!(
                "storage `{}`: expected elements of one size, found two",
                storage.key
            )));
        }
    }
    Ok(widths)
}

/// The data of a storage whose number of elements is at byte `at`.
fn storage_data(file: &[u8], at: usize, width: usize) -> Result<Range<usize>, CheckpointError> {
    let rest = &file[at..];
    let (count, data) = rest.split_first_chunk::<8>().ok_or_else(|| {
        malformed(format!(
            "truncated: expected 8 bytes of its length, found {}",
            rest.len()
        ))
        .hint(super::DOWNLOAD_AGAIN)
    })?;
    let count = i64::from_le_bytes(*count);
    let bytes = usize::try_from(count)
        .ok()
        .and_then(|count| count.checked_mul(width))
        .filter(|&bytes| bytes <= data.len())
        .ok_or_else(|| {
            malformed(format!(
                "truncated: expected {count} elements of {width} bytes, found {} bytes",
                data.len()
            ))
            .hint(super::DOWNLOAD_AGAIN)
        })?;
    let start = at + 8;
    Ok(start..start + bytes)
}

/// The bytes of the part of a storage that is meant, of all its bytes `whole`.
fn part(storage: &Storage<'_>, whole: &Range<usize>) -> Result<Range<usize>, CheckpointError> {
    let Some((first, count)) = storage.part else {
        return Ok(whole.clone());
    };
    let bytes = |elements: i64| {
        usize::try_from(elements)
            .ok()?
            .checked_mul(storage.dtype.bytes())
    };
    bytes(first)
        .zip(bytes(count))
        .and_then(|(start, length)| Some(start..start.checked_add(length)?))
        .filter(|range| range.end <= whole.len())
        .map(|range| whole.start + range.start..whole.start + range.end)
        .ok_or_else(|| {
            malformed(format!(
                "storage `{}`: expected a part within its {} bytes, found {count} elements from {first} on",
                storage.key,
                whole.len()
            ))
        })
}
