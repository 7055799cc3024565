//! Writing a file, one tensor after the other.
use super::header::{self, ALIGNMENT, PlannedTensor};
use super::metadata::MetadataValue;
use crate::output_file::OutputFile;
use crate::{CheckpointError, CheckpointErrorKind};
use std::path::{Path, PathBuf};

/// Writes a GGUF file, which appears when it is whole.
///
/// ```
/// use fewbit_checkpoint::gguf::{GgufWriter, MetadataValue, PlannedTensor, TensorType};
///
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("model.gguf");
/// let metadata = [("general.architecture".to_owned(), MetadataValue::String("bert".to_owned()))];
/// let tensors = vec![PlannedTensor {
///     name: "token_embd_norm.bias".to_owned(),
///     shape: vec![2],
///     kind: TensorType::F32,
/// }];
/// let mut writer = GgufWriter::create(&path, false, &metadata, tensors)?;
/// writer.append(&[0; 8])?;
/// writer.finish()?;
/// assert!(std::fs::read(&path)?.starts_with(b"GGUF\x03"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct GgufWriter {
    path: PathBuf,
    file: OutputFile,
    /// Those that are not whole yet, the next one last, with the bytes that it still lacks.
    lacking: Vec<(String, usize, usize)>,
    file_bytes: u64,
}

impl GgufWriter {
    /// Starts the file `path` with `metadata` and `tensors`, whose data is to follow in this order.
    ///
    /// # Errors
    /// Those of [`OutputFile::create`]; a key or name that is there twice; a tensor with a name, dimensions or rows that the format has no place for.
    pub fn create(
        path: &Path,
        replace: bool,
        metadata: &[(String, MetadataValue)],
        tensors: Vec<PlannedTensor>,
    ) -> Result<Self, CheckpointError> {
        let in_file = |error: CheckpointError| error.in_file(path);
        let header = header::bytes(metadata, &tensors).map_err(in_file)?;
        let mut file_bytes = header.len();
        let mut lacking = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            let bytes = tensor.byte_len().map_err(in_file)?;
            let padded = bytes.next_multiple_of(ALIGNMENT);
            file_bytes += padded;
            lacking.push((tensor.name, bytes, padded - bytes));
        }
        lacking.reverse();
        let mut file = OutputFile::create(path, replace)?;
        file.append(&header)?;
        let mut writer = Self {
            path: path.to_owned(),
            file,
            lacking,
            file_bytes: file_bytes as u64,
        };
        writer.pass_over_whole_ones()?;
        Ok(writer)
    }

    /// Bytes of a whole file with `metadata` and `tensors`, of which none is written.
    ///
    /// # Errors
    /// Those of [`GgufWriter::create`] over keys, names and tensors.
    pub fn planned_bytes(
        metadata: &[(String, MetadataValue)],
        tensors: &[PlannedTensor],
    ) -> Result<u64, CheckpointError> {
        let mut file_bytes = header::bytes(metadata, tensors)?.len() as u64;
        for tensor in tensors {
            let bytes = tensor.byte_len()? as u64;
            file_bytes = file_bytes.saturating_add(bytes.next_multiple_of(ALIGNMENT as u64));
        }
        Ok(file_bytes)
    }

    /// Bytes of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The next bytes of the data: of one tensor, without padding.
    ///
    /// # Errors
    /// There are more of them than the tensor lacks; those of writing.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        if bytes.is_empty() {
            return Ok(());
        }
        match self.lacking.last_mut() {
            Some((_, lacking, _)) if bytes.len() <= *lacking => *lacking -= bytes.len(),
            next => {
                let expected = next.map_or(0, |(_, lacking, _)| *lacking);
                let message = format!(
                    "data: expected at most {expected} bytes, found {}",
                    bytes.len()
                );
                return Err(self.error(message));
            }
        }
        self.file.append(bytes)?;
        self.pass_over_whole_ones()
    }

    fn pass_over_whole_ones(&mut self) -> Result<(), CheckpointError> {
        while let Some((_, 0, padding)) = self.lacking.last() {
            self.file.append(&[0; ALIGNMENT][..*padding])?;
            self.lacking.pop();
        }
        Ok(())
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// A tensor lacks data; those of [`OutputFile::commit`].
    pub fn finish(self) -> Result<(), CheckpointError> {
        if let Some((_, lacking, _)) = self.lacking.last() {
            let message = format!("data: expected {lacking} more bytes, found none");
            return Err(self.error(message));
        }
        self.file.commit()
    }

    fn error(&self, message: String) -> CheckpointError {
        let error =
            CheckpointError::new(CheckpointErrorKind::WrongShape, message).in_file(&self.path);
        match self.lacking.last() {
            Some((name, ..)) => error.at_tensor(name),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::TensorType;
    use fewbit_numerics::ggml_blocks::BlockType;

    fn planned(name: &str, shape: &[usize], kind: TensorType) -> PlannedTensor {
        PlannedTensor {
            name: name.to_owned(),
            shape: shape.to_vec(),
            kind,
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.gguf");
        let metadata = [
            ("a".to_owned(), MetadataValue::U32(7)),
            ("s".to_owned(), MetadataValue::Strings(vec!["é".to_owned()])),
            ("b".to_owned(), MetadataValue::Bool(true)),
        ];
        let tensors = vec![
            planned("t", &[3, 2], TensorType::F16),
            planned("e", &[0, 2], TensorType::F32),
            planned("u", &[1], TensorType::F32),
        ];
        let mut writer = GgufWriter::create(&path, false, &metadata, tensors).unwrap();
        let file_bytes = writer.file_bytes();
        writer.append(&[1; 5]).unwrap();
        writer.append(&[2; 7]).unwrap();
        writer.append(&[3; 4]).unwrap();
        assert!(!path.exists());
        writer.finish().unwrap();

        let mut expected = b"GGUF\x03\0\0\0\x03\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0".to_vec();
        let string =
            |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
        expected.extend([string("a"), vec![4, 0, 0, 0, 7, 0, 0, 0]].concat());
        expected.extend([string("s"), vec![9, 0, 0, 0, 8, 0, 0, 0, 1]].concat());
        expected.extend([vec![0; 7], string("é")].concat());
        expected.extend([string("b"), vec![7, 0, 0, 0, 1]].concat());
        for (name, dimensions, kind, offset) in [
            ("t", &[2u64, 3][..], 1u32, 0u64),
            ("e", &[2, 0], 0, 32),
            ("u", &[1], 0, 32),
        ] {
            expected.extend(string(name));
            expected.extend((dimensions.len() as u32).to_le_bytes());
            dimensions
                .iter()
                .for_each(|size| expected.extend(size.to_le_bytes()));
            expected.extend(kind.to_le_bytes());
            expected.extend(offset.to_le_bytes());
        }
        expected.resize(expected.len().next_multiple_of(32), 0);
        expected.extend([[1; 5].to_vec(), [2; 7].to_vec(), [0; 20].to_vec()].concat());
        expected.extend([[3; 4].to_vec(), [0; 28].to_vec()].concat());
        let found = std::fs::read(&path).unwrap();
        assert_eq!(found, expected);
        assert_eq!(found.len() as u64, file_bytes);
    }

    #[test]
    fn what_readers_refuse_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.gguf");
        let create = |metadata: &[(String, MetadataValue)], tensors: Vec<PlannedTensor>| {
            GgufWriter::create(&path, false, metadata, tensors)
                .unwrap_err()
                .to_string()
        };
        let key = ("a".to_owned(), MetadataValue::U32(7));
        assert!(create(&[key.clone(), key], vec![]).contains("found twice"));
        let tensor = planned("t", &[2], TensorType::F32);
        assert!(create(&[], vec![tensor.clone(), tensor.clone()]).contains("found two"));
        let long = planned(&"n".repeat(64), &[2], TensorType::F32);
        assert!(create(&[], vec![long]).contains("less than 64 bytes"));
        let scalar = planned("t", &[], TensorType::F32);
        assert!(create(&[], vec![scalar]).contains("1 to 4 dimensions"));
        let rows = planned("t", &[2, 48], TensorType::Blocks(BlockType::Q8_0));
        assert!(create(&[], vec![rows]).contains("multiple of 32"));

        let mut writer = GgufWriter::create(&path, false, &[], vec![tensor]).unwrap();
        let too_many = writer.append(&[0; 9]).unwrap_err().to_string();
        assert!(too_many.contains("at most 8 bytes"), "{too_many}");
        writer.append(&[0; 4]).unwrap();
        let lacking = writer.finish().unwrap_err().to_string();
        assert!(lacking.contains("4 more bytes"), "{lacking}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
