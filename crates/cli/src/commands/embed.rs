//! `fewbit embed`

use crate::arguments::{EmbedArguments, GlobalArguments};
use crate::embedding_file::{EmbeddingFormat, EmbeddingWriter, check_place};
use crate::render::numbers::count;
use crate::render::progress::{Progress, Unit};
use crate::{streams, texts};
use anyhow::Result;
use fewbit::{EncodeOptions, Encoder, LoadLedger, threads};
use serde::Serialize;
use std::path::PathBuf;

/// Batches between two steps of the progress display; what is embedded is on its way to the output after each.
const BATCHES_A_STEP: usize = 8;

/// What was done, for `--json` with an output file.
#[derive(Serialize)]
struct Summary {
    output: PathBuf,
    texts: usize,
    dimension: usize,
    tokens: usize,
    max_tokens: usize,
    /// Indices of the texts that were cut.
    truncated: Vec<usize>,
    seconds: f64,
}

pub(super) fn run(arguments: &EmbedArguments, global: GlobalArguments) -> Result<()> {
    // What can be refused without opening the model is refused first.
    let format = arguments
        .output
        .as_deref()
        .map(EmbeddingFormat::of)
        .transpose()?;
    arguments.output.as_deref().map(check_place).transpose()?;
    let options = EncodeOptions {
        threads: threads::resolve(arguments.threads.threads)?.count,
        batch_size: arguments.batch_size,
    };
    let encoder = Encoder::open(super::resolve(&arguments.model)?)?;
    let texts = texts::read(
        &arguments.input,
        arguments.input_format,
        arguments.field.as_deref(),
    )?;
    log_ledger(encoder.ledger(), &options);
    if texts.is_empty() {
        streams::warn("the input holds no texts");
    }

    let start = std::time::Instant::now();
    let mut progress = Progress::start("embedding", texts.len() as u64, Unit::Texts);
    let mut writer = None;
    let mut truncated = Vec::new();
    let (mut done, mut tokens) = (0, 0);
    let columns = loop {
        let chunk = &texts[done..texts.len().min(done + BATCHES_A_STEP * options.batch_size)];
        let embeddings = encoder.encode(chunk, &options)?;
        let columns = embeddings.columns;
        let writer = match &mut writer {
            Some(writer) => writer,
            // No row is written before there is one: the first chunk tells the dimension.
            none => none.insert(match (&arguments.output, format) {
                (Some(path), Some(format)) => {
                    EmbeddingWriter::to_file(path, format, texts.len(), columns)?
                }
                _ => EmbeddingWriter::to_stdout(),
            }),
        };
        for (row, values) in embeddings.values.chunks_exact(columns.max(1)).enumerate() {
            writer.write_row(values, embeddings.truncated.contains(&row))?;
        }
        truncated.extend(embeddings.truncated.iter().map(|row| done + row));
        tokens += embeddings.tokens;
        done += chunk.len();
        progress.set(done as u64, texts.len() as u64, "");
        if done == texts.len() {
            break columns;
        }
    };
    progress.finish();
    if let Some(writer) = writer {
        writer.finish()?;
    }

    if !truncated.is_empty() {
        streams::warn(&truncation_note(
            &truncated,
            texts.len(),
            encoder.max_tokens(),
        ));
    }
    let summary = Summary {
        output: arguments.output.clone().unwrap_or_default(),
        texts: texts.len(),
        dimension: columns,
        tokens,
        max_tokens: encoder.max_tokens(),
        truncated,
        seconds: start.elapsed().as_secs_f64(),
    };
    match &arguments.output {
        Some(_) if global.json => streams::print_json(&summary),
        Some(path) => {
            let (texts, tokens) = (
                count(summary.texts, "text", "texts"),
                count(tokens, "token", "tokens"),
            );
            let seconds = summary.seconds;
            streams::note(&format!(
                "wrote {} ({texts} x {columns}; {tokens} in {seconds:.2} s)\n",
                path.display()
            ));
            Ok(())
        }
        None => Ok(()),
    }
}

/// What became of the checkpoint's tensors, for `--verbose`.
fn log_ledger(ledger: &LoadLedger, options: &EncodeOptions) {
    tracing::info!(
        tensors = ledger.applied.len(),
        missing = ledger.missing.len(),
        unused = ledger.unused.len(),
        threads = options.threads,
        batch_size = options.batch_size,
        "model loaded"
    );
    for name in &ledger.missing {
        tracing::info!(%name, "absent from the checkpoint, and may be");
    }
    for (name, reason) in &ledger.unused {
        tracing::info!(%name, %reason, "not used");
    }
}

/// How many texts were cut, at which limit, and which the first are.
fn truncation_note(truncated: &[usize], texts: usize, max_tokens: usize) -> String {
    const SHOWN: usize = 5;
    let lines: Vec<String> = truncated
        .iter()
        .take(SHOWN)
        .map(|index| (index + 1).to_string())
        .collect();
    let more = if truncated.len() > SHOWN { ", …" } else { "" };
    format!(
        "{} of {} cut at the model's limit of {max_tokens} tokens (number {}{more})\n  hint: what lies beyond the limit has no influence on the embedding; split long texts to keep it",
        truncated.len(),
        count(texts, "text was", "texts were"),
        lines.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_truncation_note_counts_from_one_and_names_five() {
        let note = truncation_note(&[0, 2], 3, 256);
        assert!(
            note.starts_with(
                "2 of 3 texts were cut at the model's limit of 256 tokens (number 1, 3)\n  hint: "
            ),
            "{note}"
        );
        assert!(truncation_note(&[0, 1, 2, 3, 4, 5], 9, 8).contains("(number 1, 2, 3, 4, 5, …)"));
        assert!(truncation_note(&[0], 1, 8).starts_with("1 of 1 text was cut"));
    }
}
