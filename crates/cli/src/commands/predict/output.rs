//! Where predictions go: a table, lines of JSON, or a file of them that appears when it is whole.

use super::task::Line;
use crate::arguments::PredictArguments;
use crate::embedding_file::check_place;
use crate::failure::UsageError;
use crate::{render, streams};
use anyhow::{Context, Result};
use fewbit::checkpoint::output_file::OutputFile;
use std::path::Path;

/// Where predictions are written.
pub(super) enum Output<'a> {
    StandardOutput,
    File {
        path: &'a Path,
        /// Whether it may replace a file that is there.
        force: bool,
    },
}

impl<'a> Output<'a> {
    /// The one that `-o` names.
    ///
    /// # Errors
    /// The file's extension names another format, or the file cannot be written there.
    pub(super) fn check(arguments: &'a PredictArguments) -> Result<Self> {
        let named = arguments.output.as_deref();
        let Some(path) = named.filter(|path| *path != Path::new("-")) else {
            return Ok(Self::StandardOutput);
        };
        let extension = path.extension().and_then(|extension| extension.to_str());
        if !extension.is_some_and(|found| {
            ["jsonl", "ndjson"]
                .iter()
                .any(|e| found.eq_ignore_ascii_case(e))
        }) {
            return Err(UsageError(format!(
                "{}: expected an output file ending in .jsonl, found {}\n  hint: leave out -o for a table on standard output, or with --json for JSONL there",
                path.display(),
                extension.map_or_else(|| "no extension".to_owned(), |found| format!(".{found}"))
            ))
            .into());
        }
        check_place(path, &arguments.input, arguments.force)?;
        Ok(Self::File {
            path,
            force: arguments.force,
        })
    }

    /// The file, if it is one.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::StandardOutput => None,
            Self::File { path, .. } => Some(path),
        }
    }

    /// Opens it. On standard output, `json` gives lines of JSON and no table.
    pub(super) fn open(self, json: bool) -> Result<PredictionWriter> {
        Ok(match self {
            Self::StandardOutput if json => PredictionWriter::Lines,
            Self::StandardOutput => PredictionWriter::Tables,
            Self::File { path, force } => PredictionWriter::File(OutputFile::create(path, force)?),
        })
    }
}

/// Takes predictions in order; nothing is at the path of a file until [`PredictionWriter::finish`].
pub(super) enum PredictionWriter {
    Tables,
    Lines,
    File(OutputFile),
}

impl PredictionWriter {
    /// Appends the predictions of `rows`, which come after `before` others.
    ///
    /// # Errors
    /// Writing failed (disk full, pipe closed).
    pub(super) fn write(
        &mut self,
        before: usize,
        rows: &[Vec<String>],
        predictions: &[Line],
    ) -> Result<()> {
        match self {
            Self::Tables => streams::print(&render::predictions::table(before, rows, predictions)),
            Self::Lines => streams::print(&json_lines(predictions)?),
            Self::File(file) => Ok(file.append(json_lines(predictions)?.as_bytes())?),
        }
    }

    /// Moves a file to its path.
    ///
    /// # Errors
    /// The file cannot be renamed.
    pub(super) fn finish(self) -> Result<()> {
        match self {
            Self::Tables | Self::Lines => Ok(()),
            Self::File(file) => Ok(file.commit()?),
        }
    }
}

fn json_lines(predictions: &[Line]) -> Result<String> {
    let mut text = String::new();
    for line in predictions {
        text += &serde_json::to_string(line).context("cannot write a prediction as JSON")?;
        text.push('\n');
    }
    Ok(text)
}
