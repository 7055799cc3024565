//! A safetensors file that is laid out first and then filled in any order.
use crate::background_writes::{BackgroundWrites, Explain};
use crate::disk_space::{reserve, write_error};
use crate::unfinished::critical_section;
use crate::{CheckpointError, CheckpointErrorKind, TensorPlan};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The layout of a file: header bytes and where each tensor's data starts.
pub(crate) struct TensorLayout {
    header: Vec<u8>,
    tensors: HashMap<String, Slot>,
    total_bytes: u64,
}

/// Bytes that are copied for one write.
const COPIED_BYTES: usize = 4 << 20;

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

    /// Bytes of the tensors alone.
    pub(crate) fn tensor_bytes(&self) -> u64 {
        self.total_bytes - self.header.len() as u64
    }

    /// What the file begins with: the length of the header, and the header.
    pub(crate) fn header(&self) -> &[u8] {
        &self.header
    }

    /// Names of the tensors, in no order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }
}

/// A file being filled.
pub(crate) struct TensorFile {
    /// None until something is written to it.
    file: Option<Arc<File>>,
    name: String,
    /// Where it will be when the directory has its name: what errors show.
    path: PathBuf,
    directory: PathBuf,
    layout: TensorLayout,
}

impl TensorFile {
    /// The file `name` in `directory`, which is made when something is written to it. Errors call it `path`.
    pub(crate) fn new(directory: &Path, name: &str, path: PathBuf, layout: TensorLayout) -> Self {
        TensorFile {
            file: None,
            name: name.to_owned(),
            path,
            directory: directory.to_owned(),
            layout,
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where it will be.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its layout.
    pub(crate) fn layout(&self) -> &TensorLayout {
        &self.layout
    }

    /// The file, at its full length and with its header.
    fn file(&mut self) -> Result<Arc<File>, CheckpointError> {
        if let Some(file) = &self.file {
            return Ok(Arc::clone(file));
        }
        let (path, bytes) = (&self.path, self.layout.total_bytes);
        // Nothing is made in a directory that is being removed.
        let section = critical_section();
        let mut file = File::create_new(self.directory.join(&self.name))
            .map_err(|error| CheckpointError::io("cannot write", path, error))?;
        drop(section);
        reserve(&file, bytes)
            .and_then(|()| file.write_all(&self.layout.header))
            .map_err(|error| write_error(path, &self.directory, bytes, error))?;
        Ok(Arc::clone(self.file.insert(Arc::new(file))))
    }

    /// Writes a whole tensor.
    pub(crate) fn write(
        &mut self,
        writes: &mut BackgroundWrites,
        name: &str,
        bytes: Cow<'_, [u8]>,
    ) -> Result<(), CheckpointError> {
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
            _ => self.write_part(writes, name, 0, bytes),
        }
    }

    /// Writes a part of a tensor, `offset` bytes after its start. No byte may be written twice.
    pub(crate) fn write_part(
        &mut self,
        writes: &mut BackgroundWrites,
        name: &str,
        offset: usize,
        bytes: Cow<'_, [u8]>,
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
        let file = self.file()?;
        let position = start + offset as u64;
        match bytes {
            Cow::Owned(bytes) if bytes.is_empty() => Ok(()),
            Cow::Owned(bytes) => writes.write(&file, position, bytes, self.explain(name)),
            // Copied part by part, so that no more of it is there twice than may wait.
            Cow::Borrowed(bytes) => {
                let starts = (position..).step_by(COPIED_BYTES);
                let mut parts = bytes.chunks(COPIED_BYTES).zip(starts);
                parts.try_for_each(|(part, position)| {
                    writes.write(&file, position, part.to_vec(), self.explain(name))
                })
            }
        }
    }

    /// What names the file and the tensor where a write of some of its bytes fails.
    fn explain(&self, tensor: &str) -> Explain {
        let (path, directory, tensor) =
            (self.path.clone(), self.directory.clone(), tensor.to_owned());
        Box::new(move |error, bytes| {
            write_error(&path, &directory, bytes as u64, error).at_tensor(tensor)
        })
    }

    /// Errors if a byte of a tensor was not written.
    pub(crate) fn expect_whole(&self) -> Result<(), CheckpointError> {
        let mut incomplete: Vec<(&String, &Slot)> = self
            .layout
            .tensors
            .iter()
            .filter(|(_, slot)| slot.written.bytes() < slot.byte_len)
            .collect();
        incomplete.sort_by_key(|(name, _)| name.as_str());
        let Some((name, slot)) = incomplete.first() else {
            return Ok(());
        };
        let message = format!(
            "not written whole: expected {} bytes, found {}",
            slot.byte_len,
            slot.written.bytes()
        );
        Err(self.error(CheckpointErrorKind::MissingTensor, name, message))
    }

    /// Errors if a byte of a tensor was not written. When the disk has all of them, `afterwards` is called.
    pub(crate) fn finish(
        &mut self,
        writes: &mut BackgroundWrites,
        afterwards: impl FnOnce() -> Result<(), CheckpointError> + Send + 'static,
    ) -> Result<(), CheckpointError> {
        self.expect_whole()?;
        let file = self.file()?;
        self.file = None;
        let (path, directory) = (self.path.clone(), self.directory.clone());
        let bytes = self.layout.total_bytes;
        writes.then(Box::new(move || {
            file.sync_all()
                .map_err(|error| write_error(&path, &directory, bytes, error))?;
            // Not every system renames a file that is open.
            drop(file);
            afterwards()
        }))
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
