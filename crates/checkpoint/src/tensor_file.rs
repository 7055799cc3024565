//! A safetensors file that is laid out first and then filled in any order.
use crate::disk_space::{reserve, write_error};
use crate::{CheckpointError, CheckpointErrorKind, TensorPlan};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The layout of a file: header bytes and where each tensor's data starts.
pub(crate) struct TensorLayout {
    header: Vec<u8>,
    tensors: HashMap<String, Slot>,
    total_bytes: u64,
}

struct Slot {
    /// From the start of the file.
    start: u64,
    byte_len: usize,
    written: Coverage,
}

impl TensorLayout {
    /// Lays out `plans` by descending element size, then name: every tensor is aligned to its element.
    pub(crate) fn new(mut plans: Vec<TensorPlan>) -> Result<Self, CheckpointError> {
        plans.sort_by(|a, b| {
            b.dtype
                .bytes()
                .cmp(&a.dtype.bytes())
                .then_with(|| a.name.cmp(&b.name))
        });
        let mut fields = Map::new();
        fields.insert("__metadata__".to_owned(), json!({"format": "pt"}));
        let mut ends = Vec::with_capacity(plans.len());
        let mut position = 0usize;
        for plan in &plans {
            let overflow = || {
                CheckpointError::new(
                    CheckpointErrorKind::WrongShape,
                    format!("shape {:?}: the number of bytes overflows", plan.shape),
                )
                .at_tensor(&plan.name)
            };
            let start = position;
            position = plan
                .checked_byte_len()
                .and_then(|bytes| start.checked_add(bytes))
                .ok_or_else(overflow)?;
            ends.push((start, position));
            let entry = json!({"dtype": plan.dtype.name(), "shape": plan.shape, "data_offsets": [start, position]});
            if fields.insert(plan.name.clone(), entry).is_some() {
                return Err(
                    CheckpointError::new(CheckpointErrorKind::Malformed, "planned twice")
                        .at_tensor(&plan.name),
                );
            }
        }
        let mut json = Value::Object(fields).to_string().into_bytes();
        json.resize(json.len().next_multiple_of(8), b' ');
        let mut header = (json.len() as u64).to_le_bytes().to_vec();
        header.append(&mut json);

        let data_start = header.len();
        let mut tensors = HashMap::with_capacity(plans.len());
        for (plan, (start, end)) in plans.into_iter().zip(ends) {
            let slot = Slot {
                start: (data_start + start) as u64,
                byte_len: end - start,
                written: Coverage::default(),
            };
            tensors.insert(plan.name, slot);
        }
        Ok(TensorLayout {
            total_bytes: (data_start + position) as u64,
            header,
            tensors,
        })
    }

    /// Length of the whole file.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.total_bytes
    }
}

/// A file being filled.
pub(crate) struct TensorFile {
    file: File,
    /// Where it will be when the directory has its name: what errors show.
    path: PathBuf,
    directory: PathBuf,
    layout: TensorLayout,
}

impl TensorFile {
    /// Creates the file `name` in `directory` at its full length and writes the header. Errors call it `path`.
    pub(crate) fn create(
        directory: &Path,
        name: &str,
        path: PathBuf,
        layout: TensorLayout,
    ) -> Result<Self, CheckpointError> {
        let mut file = File::create_new(directory.join(name))
            .map_err(|error| CheckpointError::io("cannot write", &path, error))?;
        let written =
            reserve(&file, layout.total_bytes).and_then(|()| file.write_all(&layout.header));
        written.map_err(|error| write_error(&path, directory, layout.total_bytes, error))?;
        Ok(TensorFile {
            file,
            path,
            directory: directory.to_owned(),
            layout,
        })
    }

    /// Writes a whole tensor.
    pub(crate) fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        let expected = self.layout.tensors.get(name).map(|slot| slot.byte_len);
        match expected {
            Some(expected) if expected != bytes.len() => Err(self.error(
                CheckpointErrorKind::WrongShape,
                name,
                format!(
                    "data to write: expected {expected} bytes, found {}",
                    bytes.len()
                ),
            )),
            _ => self.write_part(name, 0, bytes),
        }
    }

    /// Writes a part of a tensor, `offset` bytes after its start. No byte may be written twice.
    pub(crate) fn write_part(
        &mut self,
        name: &str,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), CheckpointError> {
        let Some(slot) = self.layout.tensors.get_mut(name) else {
            return Err(self.error(
                CheckpointErrorKind::MissingTensor,
                name,
                "not planned: expected a tensor of `plan_tensors`",
            ));
        };
        let (byte_len, start) = (slot.byte_len, slot.start);
        let Some(end) = offset
            .checked_add(bytes.len())
            .filter(|&end| end <= byte_len)
        else {
            let message = format!(
                "data to write: expected at most {byte_len} bytes, found {} from offset {offset}",
                bytes.len()
            );
            return Err(self.error(CheckpointErrorKind::WrongShape, name, message));
        };
        if !slot.written.add(offset, end) || (byte_len == 0 && !slot.written.mark_empty()) {
            return Err(self.error(
                CheckpointErrorKind::Malformed,
                name,
                format!("bytes {offset}..{end} written twice"),
            ));
        }
        let written = self
            .file
            .seek(SeekFrom::Start(start + offset as u64))
            .and_then(|_| self.file.write_all(bytes));
        written.map_err(|error| {
            write_error(&self.path, &self.directory, bytes.len() as u64, error).at_tensor(name)
        })
    }

    /// Errors if a byte of a tensor was not written; waits until the disk has all of them.
    pub(crate) fn finish(self) -> Result<(), CheckpointError> {
        let mut incomplete: Vec<(&String, &Slot)> = self
            .layout
            .tensors
            .iter()
            .filter(|(_, slot)| slot.written.bytes() < slot.byte_len)
            .collect();
        incomplete.sort_by_key(|(name, _)| name.as_str());
        if let Some((name, slot)) = incomplete.first() {
            let message = format!(
                "not written whole: expected {} bytes, found {}",
                slot.byte_len,
                slot.written.bytes()
            );
            return Err(self.error(CheckpointErrorKind::MissingTensor, name, message));
        }
        self.file.sync_all().map_err(|error| {
            write_error(&self.path, &self.directory, self.layout.total_bytes, error)
        })
    }

    fn error(
        &self,
        kind: CheckpointErrorKind,
        name: &str,
        message: impl Into<String>,
    ) -> CheckpointError {
        CheckpointError::new(kind, message)
            .in_file(&self.path)
            .at_tensor(name)
    }
}

/// Disjoint byte ranges that have been written, neighbours joined.
#[derive(Default)]
struct Coverage {
    /// Start to end.
    ranges: BTreeMap<usize, usize>,
    empty_written: bool,
}

impl Coverage {
    /// Adds `start..end`; false if a byte of it is there already.
    fn add(&mut self, mut start: usize, mut end: usize) -> bool {
        if start == end {
            return true;
        }
        if let Some((&before, &before_end)) = self.ranges.range(..=start).next_back() {
            if before_end > start {
                return false;
            }
            if before_end == start {
                start = before;
            }
        }
        if let Some((&after, &after_end)) = self.ranges.range(start + 1..).next() {
            if after < end {
                return false;
            }
            if after == end {
                self.ranges.remove(&after);
                end = after_end;
            }
        }
        self.ranges.insert(start, end);
        true
    }

    /// Notes that a tensor of no bytes was written; false if it was before.
    fn mark_empty(&mut self) -> bool {
        !std::mem::replace(&mut self.empty_written, true)
    }

    fn bytes(&self) -> usize {
        self.ranges.iter().map(|(start, end)| end - start).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::Coverage;

    #[test]
    fn coverage_joins_neighbours_and_refuses_overlaps() {
        let mut coverage = Coverage::default();
        assert!(coverage.add(4, 8));
        assert!(coverage.add(0, 4));
        assert!(coverage.add(10, 12));
        for (start, end) in [(0, 1), (7, 9), (9, 11), (11, 12), (8, 13), (0, 12)] {
            assert!(!coverage.add(start, end), "{start}..{end}");
        }
        assert_eq!(coverage.bytes(), 10);
        assert!(coverage.add(8, 10));
        assert_eq!(coverage.bytes(), 12);
        assert_eq!(coverage.ranges.len(), 1);
    }
}
