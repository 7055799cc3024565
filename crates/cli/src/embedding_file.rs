//! Writing embeddings: `.npy`, `.safetensors` or JSONL, row by row, the file renamed when whole.

use crate::failure::UsageError;
use crate::streams;
use anyhow::{Context, Result, bail};
use fewbit::checkpoint::output_file::OutputFile;
use std::io::{self, BufWriter, Seek, SeekFrom, StdoutLock, Write};
use std::path::Path;

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

    /// The bytes before `rows` by `columns` values. Their number does not depend on `rows`, so that they can be written again at the end.
    fn header(self, rows: usize, columns: usize) -> Vec<u8> {
        match self {
            EmbeddingFormat::Npy => npy_header(rows, columns),
            EmbeddingFormat::Safetensors => safetensors_header(rows, columns),
            EmbeddingFormat::JsonLines => Vec::new(),
        }
    }
}

/// Errors unless the folder that `path` lies in exists and `path` is no folder, not the file `input`, and, without `force`,
/// not there at all.
pub(crate) fn check_place(path: &Path, input: &Path, force: bool) -> Result<()> {
    if let (Ok(output), Ok(input)) = (path.canonicalize(), input.canonicalize())
        && output == input
    {
        bail!(
            "{}: expected an output file apart from the input, found the input itself\n  hint: name another output file",
            path.display()
        );
    }
    Ok(OutputFile::check(path, force)?)
}

enum Target {
    Stdout(BufWriter<StdoutLock<'static>>),
    File(OutputFile),
}

/// Takes rows in order; nothing is at the output path until [`EmbeddingWriter::finish`].
pub(crate) struct EmbeddingWriter {
    format: EmbeddingFormat,
    target: Target,
    rows: usize,
    columns: usize,
    /// Whether a line holds only the values other than 0, with their columns.
    sparse: bool,
}

impl EmbeddingWriter {
    /// A writer for standard output (JSONL).
    pub(crate) fn to_stdout() -> Self {
        EmbeddingWriter {
            format: EmbeddingFormat::JsonLines,
            target: Target::Stdout(BufWriter::new(io::stdout().lock())),
            rows: 0,
            columns: 0,
            sparse: false,
        }
    }

    /// The same writer for sparse embeddings, of which a line of JSONL holds the values other than 0 and their columns.
    pub(crate) fn of_sparse(self, sparse: bool) -> Self {
        Self { sparse, ..self }
    }

    /// A writer for the file `path` that will hold rows of `columns` values; with `force` it replaces one that is there.
    ///
    /// # Errors
    /// The directory of `path` cannot be written to.
    pub(crate) fn to_file(
        path: &Path,
        format: EmbeddingFormat,
        columns: usize,
        force: bool,
    ) -> Result<Self> {
        let mut file = OutputFile::create(path, force)?;
        // Holds the place of the header, which says how many rows there are.
        file.append(&format.header(0, columns))?;
        Ok(EmbeddingWriter {
            format,
            target: Target::File(file),
            rows: 0,
            columns,
            sparse: false,
        })
    }

    /// Appends one embedding.
    ///
    /// # Errors
    /// Writing failed (disk full, pipe closed).
    pub(crate) fn write_row(&mut self, row: &[f32], truncated: bool) -> Result<()> {
        let bytes = match self.format {
            EmbeddingFormat::JsonLines if self.sparse => sparse_json_line(row, truncated)?,
            EmbeddingFormat::JsonLines => json_line(row, truncated)?,
            EmbeddingFormat::Npy | EmbeddingFormat::Safetensors => {
                row.iter().flat_map(|value| value.to_le_bytes()).collect()
            }
        };
        self.rows += 1;
        match &mut self.target {
            Target::Stdout(stdout) => streams::written(stdout.write_all(&bytes)),
            Target::File(file) => Ok(file.append(&bytes)?),
        }
    }

    /// Sends on what a reader of standard output waits for.
    ///
    /// # Errors
    /// Writing failed (pipe closed).
    pub(crate) fn flush_to_reader(&mut self) -> Result<()> {
        match &mut self.target {
            Target::Stdout(stdout) => streams::written(stdout.flush()),
            Target::File(_) => Ok(()),
        }
    }

    /// Flushes and, for a file, moves it to its path.
    ///
    /// # Errors
    /// The last bytes cannot be written, or the file cannot be renamed.
    pub(crate) fn finish(self) -> Result<()> {
        match self.target {
            Target::Stdout(mut stdout) => streams::written(stdout.flush()),
            Target::File(mut file) => {
                let header = self.format.header(self.rows, self.columns);
                file.seek(SeekFrom::Start(0))
                    .context("cannot go back to the header")?;
                file.append(&header)?;
                Ok(file.commit()?)
            }
        }
    }
}

/// Digits of the largest number of rows or bytes.
const DIGITS: usize = 20;

/// Version 1.0 header: magic, length, a Python dictionary padded with spaces so that the data starts at a multiple of 64, wherever
/// numbers end.
fn npy_header(rows: usize, columns: usize) -> Vec<u8> {
    let shape = format!("({rows}, {columns}), }}");
    let dictionary = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}");
    let longest = dictionary.len() - shape.len() + 2 * DIGITS + "(, ), }".len();
    let preamble = 10;
    let header_length = (preamble + longest + 1).next_multiple_of(64);
    let length = header_length - preamble;
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    // Two numbers of at most 20 digits keep the dictionary far below the format's limit of 65535 bytes.
    header.extend_from_slice(&(length as u16).to_le_bytes());
    header.extend_from_slice(dictionary.as_bytes());
    header.resize(header_length - 1, b' ');
    header.push(b'\n');
    header
}

/// Length of the JSON header (u64, little-endian), then the header, padded with spaces to a multiple of 8 and to the length that the
/// largest numbers need.
fn safetensors_header(rows: usize, columns: usize) -> Vec<u8> {
    let json = |numbers: [&str; 3]| {
        let [rows, columns, bytes] = numbers;
        format!(
            r#"{{"embeddings":{{"dtype":"F32","shape":[{rows},{columns}],"data_offsets":[0,{bytes}]}}}}"#
        )
    };
    let longest = json([""; 3]).len() + 3 * DIGITS;
    let bytes = rows * columns * size_of::<f32>();
    let mut json = json(
        [rows, columns, bytes]
            .map(|number| number.to_string())
            .each_ref()
            .map(String::as_str),
    )
    .into_bytes();
    json.resize(longest.next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend_from_slice(&json);
    header
}

/// The values other than 0 in the order of their columns.
fn sparse_json_line(row: &[f32], truncated: bool) -> Result<Vec<u8>> {
    #[derive(serde::Serialize)]
    struct Line {
        indices: Vec<usize>,
        values: Vec<f32>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        truncated: bool,
    }
    let active = row.iter().enumerate().filter(|(_, value)| **value != 0.0);
    let (indices, values) = active.map(|(index, value)| (index, *value)).unzip();
    let line = Line {
        indices,
        values,
        truncated,
    };
    let mut line = serde_json::to_vec(&line).context("cannot write an embedding as JSON")?;
    line.push(b'\n');
    Ok(line)
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
            assert_eq!(header.len(), npy_header(0, columns).len());
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
        assert_eq!(header.len(), safetensors_header(0, 5).len());
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
    fn a_sparse_line_holds_what_is_not_zero() {
        let line = |row: &[f32], truncated| {
            String::from_utf8(sparse_json_line(row, truncated).unwrap()).unwrap()
        };
        assert_eq!(
            line(&[0.0, 1.5, 0.0, -0.25], false),
            "{\"indices\":[1,3],\"values\":[1.5,-0.25]}\n"
        );
        assert_eq!(
            line(&[0.0], true),
            "{\"indices\":[],\"values\":[],\"truncated\":true}\n"
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
