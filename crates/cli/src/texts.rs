//! Rows of texts from a file or standard input, one after the other as they come.

use crate::arguments::TextFormat;
use crate::streams;
use anyhow::{Context, Result};
use fewbit::data::{Column, DEFAULT_TEXT_COLUMN, DataError, DataFile, FileFormat};
use std::io::IsTerminal;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// Rows that are read ahead; few, as each may be long.
const READ_AHEAD: usize = 16;
/// Batches of a window, whose texts are sorted by length; what becomes of them is on its way to the output after each window.
const BATCHES_OF_A_WINDOW: usize = 8;
/// Bytes of texts that one window holds at most, but for its last row.
const WINDOW_BYTES: usize = 4 << 20;
/// After so long without a text on standard input, its writer is taken to wait for an answer.
const PAUSE: Duration = Duration::from_millis(5);

/// The texts of a file or of standard input. A thread reads ahead, by a bounded number.
pub(crate) struct Texts {
    read: Receiver<Result<Vec<String>, DataError>>,
    name: String,
    from_standard_input: bool,
}

/// Some rows in the order of the input.
pub(crate) struct Window {
    /// Of each row the text of every column.
    pub(crate) rows: Vec<Vec<String>>,
    /// Whether the input ends behind them, and if it does, how.
    pub(crate) end: Option<Result<()>>,
}

impl Texts {
    /// Opens the file that `-i` names. Of every row, the columns `fields` are each a text; the column `text` if none is named.
    pub(crate) fn open(path: &Path, format: Option<TextFormat>, fields: &[String]) -> Result<Self> {
        let columns = match fields {
            [] => vec![Column::text(DEFAULT_TEXT_COLUMN)],
            fields => fields.iter().map(Column::text).collect(),
        };
        Self::open_columns(path, format, columns, !fields.is_empty())
    }

    /// Opens the file that `-i` names. Of every row, `columns` are each a text. If columns `are_named`, a file whose name says nothing is
    /// JSONL.
    pub(crate) fn open_columns(
        path: &Path,
        format: Option<TextFormat>,
        columns: Vec<Column>,
        are_named: bool,
    ) -> Result<Self> {
        // A format that the user named needs no remark on what the file looks like.
        let remarks = format.is_none();
        let format = format.map_or_else(
            || FileFormat::of_rows(path, are_named),
            |format| match format {
                TextFormat::Lines => FileFormat::Lines,
                TextFormat::Jsonl => FileFormat::Jsonl,
                TextFormat::Json => FileFormat::Json,
                TextFormat::Csv => FileFormat::Csv,
                TextFormat::Tsv => FileFormat::Tsv,
                TextFormat::Parquet => FileFormat::Parquet,
            },
        );
        let from_standard_input = path == Path::new("-");
        let file = if from_standard_input {
            if std::io::stdin().is_terminal() {
                streams::note("reading texts from standard input, one a line; end with Ctrl-D\n");
            }
            DataFile::standard_input(format)
        } else {
            DataFile::new(path, Some(format))
        };
        let name = file.name().to_owned();
        let (sender, read) = sync_channel(READ_AHEAD);
        std::thread::Builder::new()
            .name("texts".to_owned())
            .spawn(move || read_all(&file, &columns, remarks, &sender))
            .context("cannot start a thread that reads the texts")?;
        Ok(Texts {
            read,
            name,
            from_standard_input,
        })
    }

    pub(crate) fn are_from_standard_input(&self) -> bool {
        self.from_standard_input
    }

    /// The next rows, at most some batches of them: as many as there are, but of standard input only those that come without a pause.
    pub(crate) fn next_window(&mut self, batch_size: usize) -> Window {
        let most = BATCHES_OF_A_WINDOW.saturating_mul(batch_size);
        let (mut rows, mut bytes) = (Vec::<Vec<String>>::new(), 0);
        while rows.len() < most && bytes < WINDOW_BYTES {
            let received = if self.from_standard_input && !rows.is_empty() {
                self.read.recv_timeout(PAUSE)
            } else {
                self.read.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            let end = match received {
                Ok(Ok(row)) => {
                    bytes += row.iter().map(String::len).sum::<usize>();
                    rows.push(row);
                    continue;
                }
                Ok(Err(error)) => Some(Err(self.cannot_read(error))),
                Err(RecvTimeoutError::Disconnected) => Some(Ok(())),
                Err(RecvTimeoutError::Timeout) => None,
            };
            return Window { rows, end };
        }
        Window { rows, end: None }
    }

    fn cannot_read(&self, error: DataError) -> anyhow::Error {
        match error {
            DataError::Io { source, .. } => anyhow::Error::new(source).context(format!(
                "{}: cannot read the texts\n  hint: -i names a file of texts, or is - for standard input",
                self.name
            )),
            error => error.into(),
        }
    }
}

/// Sends every row, then what went wrong, if something did. Ends early if the receiver is gone.
fn read_all(
    file: &DataFile,
    columns: &[Column],
    remarks: bool,
    sender: &SyncSender<Result<Vec<String>, DataError>>,
) {
    let mut abandoned = false;
    let result = file.for_each_row(columns, &mut |row| {
        if let Some(remark) = row.remark().filter(|_| remarks) {
            streams::warn(remark);
        }
        let columns = 0..row.cells().len();
        let texts = columns.map(|column| row.text(column).to_owned());
        if sender.send(Ok(texts.collect())).is_err() {
            abandoned = true;
            return Err(row.error(0, "a reader", "none", ""));
        }
        Ok(())
    });
    if let Err(error) = result
        && !abandoned
    {
        // The receiver may be gone by now, and with it the need for the error.
        let _ = sender.send(Err(error));
    }
}
