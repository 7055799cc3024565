//! Calibration texts from a file, in bounded memory.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::QuantizeError;

/// The seed that samples are drawn with unless another is given.
pub const DEFAULT_SEED: u64 = 0;

/// A file of texts: one a line, or JSONL (`.jsonl`, `.ndjson`, or any name if fields are given) whose named fields hold texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalibrationFile {
    path: PathBuf,
    /// Fields of a JSON object, each a text of its own; none for plain text.
    fields: Vec<String>,
}

impl CalibrationFile {
    /// The file at `path`. `fields` are those of JSONL objects to take texts from; `text` in a JSONL file if none is given.
    pub fn new(path: impl Into<PathBuf>, fields: &[String]) -> Self {
        let path = path.into();
        let is_json = path
            .extension()
            .is_some_and(|extension| extension == "jsonl" || extension == "ndjson");
        let fields = match fields {
            [] if is_json => vec!["text".to_owned()],
            fields => fields.to_vec(),
        };
        Self { path, fields }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Draws `samples` texts, every choice being equally likely, in one pass that holds no more than these texts and one line
    /// (Vitter, "Random Sampling with a Reservoir", 1985, algorithm R). They come in the order of the file; the same seed draws the same.
    ///
    /// # Errors
    /// [`QuantizeError::Io`]; [`QuantizeError::Calibration`] naming the line for what is empty, no UTF-8 or no JSON object, or lacks
    /// a field, and for a file of fewer texts than asked.
    pub fn sample(&self, samples: usize, seed: u64) -> Result<Vec<String>, QuantizeError> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut drawn: Vec<(usize, String)> = Vec::new();
        let mut seen = 0;
        self.for_each(&mut |text| {
            if drawn.len() < samples {
                drawn.push((seen, text));
            } else {
                let place = random.usize(0..=seen);
                if let Some(kept) = drawn.get_mut(place) {
                    *kept = (seen, text);
                }
            }
            seen += 1;
        })?;
        if samples == 0 || seen < samples {
            let expected = samples.max(1);
            let found = if samples == 0 {
                "0 samples".to_owned()
            } else {
                seen.to_string()
            };
            return Err(self.error(
                None,
                format!("at least {expected} texts"),
                found,
                "give a file of more texts, or ask for fewer samples",
            ));
        }
        drawn.sort_unstable_by_key(|(index, _)| *index);
        Ok(drawn.into_iter().map(|(_, text)| text).collect())
    }

    /// Calls `take` with every text of the file, in order.
    fn for_each(&self, take: &mut dyn FnMut(String)) -> Result<(), QuantizeError> {
        let io = |source| QuantizeError::Io {
            path: self.path.clone(),
            source,
        };
        let mut reader = BufReader::new(File::open(&self.path).map_err(io)?);
        let mut bytes = Vec::new();
        for number in 1.. {
            bytes.clear();
            if reader.read_until(b'\n', &mut bytes).map_err(io)? == 0 {
                break;
            }
            let mut line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
            line = line.strip_suffix(b"\r").unwrap_or(line);
            if number == 1 {
                line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
            }
            let line = std::str::from_utf8(line).map_err(|error| {
                let hint = "save the file as UTF-8";
                self.error(Some(number), "UTF-8".to_owned(), error.to_string(), hint)
            })?;
            if line.trim().is_empty() {
                return Err(self.empty(number, "a line"));
            }
            if self.fields.is_empty() {
                take(line.to_owned());
                continue;
            }
            self.fields_of(number, line)?
                .into_iter()
                .for_each(&mut *take);
        }
        Ok(())
    }

    /// The texts in the fields of a line of JSONL.
    fn fields_of(&self, number: usize, line: &str) -> Result<Vec<String>, QuantizeError> {
        let object: Value = serde_json::from_str(line).map_err(|error| {
            let hint = "each line of a JSONL file is an object";
            self.error(Some(number), "JSON".to_owned(), error.to_string(), hint)
        })?;
        let text = |field: &String| match object.get(field) {
            Some(Value::String(text)) if text.trim().is_empty() => {
                Err(self.empty(number, &format!("the field `{field}`")))
            }
            Some(Value::String(text)) => Ok(text.clone()),
            other => {
                let fields = object.as_object().map(|object| {
                    let names: Vec<&str> = object.keys().map(String::as_str).collect();
                    format!("only {}", names.join(", "))
                });
                let found = match (other, fields) {
                    (Some(value), _) => format!("{value}"),
                    (None, Some(fields)) => fields,
                    (None, None) => "no object".to_owned(),
                };
                let expected = format!("an object with a text `{field}`");
                let hint = "name the fields that hold texts";
                Err(self.error(Some(number), expected, found, hint))
            }
        };
        self.fields.iter().map(text).collect()
    }

    fn empty(&self, number: usize, what: &str) -> QuantizeError {
        let hint = "an empty text says nothing about a model's activations: remove the line";
        self.error(
            Some(number),
            "a text".to_owned(),
            format!("{what} without one"),
            hint,
        )
    }

    fn error(
        &self,
        line: Option<usize>,
        expected: String,
        found: String,
        hint: &str,
    ) -> QuantizeError {
        let path = self.path.display();
        QuantizeError::Calibration {
            place: line.map_or_else(|| path.to_string(), |line| format!("{path}: line {line}")),
            expected,
            found,
            hint: hint.to_owned(),
        }
    }
}
