//! Writing embeddings: `.npy`, `.safetensors` or JSONL, row by row, the file renamed when whole.

use crate::failure::UsageError;
use crate::streams;
use anyhow::{Context, Result, bail};
use fewbit::checkpoint::unfinished::Unfinished;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// How embeddings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EmbeddingFormat {
    /// NumPy array file, float32, C order.
    Npy,
    /// safetensors with one F32 tensor `embeddings`.
    Safetensors,
    /// One JSON object a line.
    JsonLines,
}

impl EmbeddingFormat {
    /// By the extension of `path`.
    ///
    /// # Errors
    /// The extension is none of the three.
    pub(crate) fn of(path: &Path) -> Result<Self, UsageError> {
        let extension = path
            .extension()
            .and_then(|extension| extension.to_str())
            .map(str::to_ascii_lowercase);
        match extension.as_deref() {
            Some("npy") => Ok(EmbeddingFormat::Npy),
            Some("safetensors") => Ok(EmbeddingFormat::Safetensors),
            Some("jsonl" | "ndjson") => Ok(EmbeddingFormat::JsonLines),
            _ => Err(UsageError(format!(
                "{}: expected an output file ending in .npy, .safetensors or .jsonl, found {}\n  hint: leave out -o for JSONL on standard output",
                path.display(),
                extension.map_or_else(
                    || "no extension".to_owned(),
                    |extension| format!(".{extension}")
                )
            ))),
        }
    }
}

/// Errors unless the folder that `path` lies in exists and `path` is no folder, not the file `input`, and, without `force`,
/// not there at all.
pub(crate) fn check_place(path: &Path, input: &Path, force: bool) -> Result<()> {
    if path.is_dir() {
        bail!(
            "{}: expected a file to write, found a directory\n  hint: name a file in it",
            path.display()
        );
    }
    if let (Ok(output), Ok(input)) = (path.canonicalize(), input.canonicalize())
        && output == input
    {
        bail!(
            "{}: expected an output file apart from the input, found the input itself\n  hint: name another output file",
            path.display()
        );
    }
    if path.exists() && !force {
        bail!(
            "{}: output exists: expected no such path, found a file\n  hint: name another output file, or replace this one with --force",
            path.display()
        );
    }
    let folder = folder(path);
    if !folder.is_dir() {
        bail!(
            "{}: expected an existing directory {}, found none\n  hint: create the directory first",
            path.display(),
            folder.display()
        );
    }
    Ok(())
}

fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

enum Target {
    Stdout(BufWriter<StdoutLock<'static>>),
    File {
        temporary: BufWriter<NamedTempFile>,
        _unfinished: Unfinished,
        path: PathBuf,
    },
}

/// Takes rows in order; nothing is at the output path until [`EmbeddingWriter::finish`].
pub(crate) struct EmbeddingWriter {
    format: EmbeddingFormat,
    target: Target,
}

impl EmbeddingWriter {
    /// A writer for standard output (JSONL).
    pub(crate) fn to_stdout() -> Self {
        EmbeddingWriter {
            format: EmbeddingFormat::JsonLines,
            target: Target::Stdout(BufWriter::new(io::stdout().lock())),
        }
    }

    /// A writer for the file `path` that will hold `rows` by `columns` values.
    ///
    /// # Errors
    /// The directory of `path` cannot be written to.
    pub(crate) fn to_file(
        path: &Path,
        format: EmbeddingFormat,
        rows: usize,
        columns: usize,
    ) -> Result<Self> {
        let directory = folder(path);
        // A temporary file is private to its owner; the finished one is as readable as any other new file.
        let mut builder = tempfile::Builder::new();
        builder.prefix(".fewbit-").suffix(".partial");
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let temporary = builder.tempfile_in(directory).with_context(|| {
            format!(
                "{}: cannot create a file in {}",
                path.display(),
                directory.display()
            )
        })?;
        let unfinished = Unfinished::register(temporary.path());
        let mut temporary = BufWriter::new(temporary);
        let header = match format {
            EmbeddingFormat::Npy => npy_header(rows, columns),
            EmbeddingFormat::Safetensors => safetensors_header(rows, columns),
            EmbeddingFormat::JsonLines => Vec::new(),
        };
        temporary
            .write_all(&header)
            .with_context(|| format!("{}: cannot write", path.display()))?;
        Ok(EmbeddingWriter {
            format,
            target: Target::File {
                temporary,
                _unfinished: unfinished,
                path: path.to_owned(),
            },
        })
    }

    /// Appends one embedding.
    ///
    /// # Errors
    /// Writing failed (disk full, pipe closed).
    pub(crate) fn write_row(&mut self, row: &[f32], truncated: bool) -> Result<()> {
        let bytes = match self.format {
            EmbeddingFormat::JsonLines => json_line(row, truncated)?,
            EmbeddingFormat::Npy | EmbeddingFormat::Safetensors => {
                row.iter().flat_map(|value| value.to_le_bytes()).collect()
            }
        };
        match &mut self.target {
            Target::Stdout(stdout) => streams::written(stdout.write_all(&bytes)),
            Target::File {
                temporary, path, ..
            } => temporary
                .write_all(&bytes)
                .with_context(|| format!("{}: cannot write", path.display())),
        }
    }

    /// Flushes and, for a file, moves it to its path.
    ///
    /// # Errors
    /// The last bytes cannot be written, or the file cannot be renamed.
    pub(crate) fn finish(self) -> Result<()> {
        match self.target {
            Target::Stdout(mut stdout) => streams::written(stdout.flush()),
            Target::File {
                temporary, path, ..
            } => {
                let temporary = temporary
                    .into_inner()
                    .map_err(io::IntoInnerError::into_error)
                    .with_context(|| format!("{}: cannot write", path.display()))?;
                temporary
                    .as_file()
                    .sync_all()
                    .with_context(|| format!("{}: cannot write", path.display()))?;
                temporary
                    .persist(&path)
                    .map_err(|error| error.error)
                    .with_context(|| {
                        format!("{}: cannot rename the finished file", path.display())
                    })?;
                Ok(())
            }
        }
    }
}

/// Version 1.0 header: magic, length, a Python dictionary padded with spaces so that the data starts at a multiple of 64.
fn npy_header(rows: usize, columns: usize) -> Vec<u8> {
    let dictionary =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    let preamble = 10;
    let whole = (preamble + dictionary.len() + 1).next_multiple_of(64);
    let length = whole - preamble;
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    // Two numbers of at most 20 digits keep the dictionary far below the format's limit of 65535 bytes.
    header.extend_from_slice(&(length as u16).to_le_bytes());
    header.extend_from_slice(dictionary.as_bytes());
    header.resize(whole - 1, b' ');
    header.push(b'\n');
    header
}

/// Length of the JSON header (u64, little-endian), then the header, padded with spaces to a multiple of 8.
fn safetensors_header(rows: usize, columns: usize) -> Vec<u8> {
    let bytes = rows * columns * size_of::<f32>();
    let mut json = format!(r#"{{"embeddings":{{"dtype":"F32","shape":[{rows},{columns}],"data_offsets":[0,{bytes}]}}}}"#).into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend_from_slice(&json);
    header
}

fn json_line(row: &[f32], truncated: bool) -> Result<Vec<u8>> {
    #[derive(serde::Serialize)]
    struct Line<'a> {
        embedding: &'a [f32],
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        truncated: bool,
    }
    let mut line = serde_json::to_vec(&Line {
        embedding: row,
        truncated,
    })
    .context("cannot write an embedding as JSON")?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_npy_header_is_aligned_and_ends_in_a_line_end() {
        for (rows, columns) in [(0, 384), (1, 1), (123_456_789, 768)] {
            let header = npy_header(rows, columns);
            assert_eq!(header.len() % 64, 0);
            assert_eq!(
                usize::from(u16::from_le_bytes([header[8], header[9]])) + 10,
                header.len()
            );
            assert_eq!(header.last(), Some(&b'\n'));
            let text = std::str::from_utf8(&header[10..]).unwrap();
            assert!(text.starts_with(&format!(
                "{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}"
            )));
        }
    }

    #[test]
    fn the_safetensors_header_says_where_the_data_lies() {
        let header = safetensors_header(3, 5);
        let length = u64::from_le_bytes(header[..8].try_into().unwrap()) as usize;
        assert_eq!(length + 8, header.len());
        let json: serde_json::Value = serde_json::from_slice(&header[8..]).unwrap();
        assert_eq!(
            json["embeddings"]["data_offsets"],
            serde_json::json!([0, 60])
        );
        assert_eq!(json["embeddings"]["shape"], serde_json::json!([3, 5]));
    }

    #[test]
    fn a_json_line_reads_back_to_the_same_bits_and_says_truncated_only_then() {
        let row = [0.1_f32, -1.0e-30, 3.402_823_5e38];
        let line = String::from_utf8(json_line(&row, false).unwrap()).unwrap();
        assert!(!line.contains("truncated"));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let back: Vec<f32> = value["embedding"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_f64().unwrap() as f32)
            .collect();
        assert_eq!(back, row);
        assert!(
            String::from_utf8(json_line(&row, true).unwrap())
                .unwrap()
                .ends_with(",\"truncated\":true}\n")
        );
    }

    #[test]
    fn an_unknown_extension_is_refused() {
        let text = EmbeddingFormat::of(Path::new("out.csv"))
            .unwrap_err()
            .to_string();
        assert!(text.starts_with("out.csv: expected an output file ending in .npy, .safetensors or .jsonl, found .csv\n  hint: "), "{text}");
        assert!(
            EmbeddingFormat::of(Path::new("out"))
                .unwrap_err()
                .to_string()
                .contains("found no extension")
        );
        assert_eq!(
            EmbeddingFormat::of(Path::new("A.NPY")).unwrap(),
            EmbeddingFormat::Npy
        );
    }
}
