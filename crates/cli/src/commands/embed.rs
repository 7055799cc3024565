//! `fewbit embed`

use crate::arguments::{EmbedArguments, GlobalArguments, TextFormat};
use crate::embedding_file::{EmbeddingFormat, EmbeddingWriter, check_place};
use crate::failure::UsageError;
use crate::render::numbers::count;
use crate::render::progress::{Progress, Unit};
use crate::{streams, texts};
use anyhow::Result;
use fewbit::{EncodeOptions, Encoder, threads};
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
    /// How hidden states become one vector; the vectors of several are joined.
    pooling: Vec<&'static str>,
    /// Whether embeddings have length 1.
    normalized: bool,
    /// Indices of the texts that were cut.
    truncated: Vec<usize>,
    /// What the kernels ran on; one of them rounds.
    instruction_set: &'static str,
    seconds: f64,
}

pub(super) fn run(arguments: &EmbedArguments, global: GlobalArguments) -> Result<()> {
    // What can be refused without opening the model is refused first.
    let format = arguments
        .output
        .as_deref()
        .map(EmbeddingFormat::of)
        .transpose()?;
    if let Some(output) = &arguments.output {
        check_place(output, &arguments.input, arguments.force)?;
    }
    if let (Some(TextFormat::Lines), Some(field)) = (arguments.input_format, &arguments.field) {
        return Err(UsageError(format!(
            "--field {field}: lines have no fields\n  hint: leave out --field, or --input-format lines"
        ))
        .into());
    }
    let options = EncodeOptions {
        threads: threads::resolve(arguments.threads.threads)?.count,
        batch_size: arguments.batch_size,
    };
    let directory = super::resolve(&arguments.model)?;
    let encoder = Encoder::open(&directory)?;
    log_model(&encoder, &options);
    let texts = texts::read(
        &arguments.input,
        arguments.input_format,
        arguments.field.as_deref(),
    )?;
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

    if !directory.join("modules.json").exists() {
        streams::note(
            "note: the model has no modules.json: an embedding is the mean of the hidden states, not normalized\n",
        );
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
        pooling: pooling_names(&encoder),
        normalized: encoder.normalizes(),
        truncated,
        instruction_set: encoder.network().isa().name(),
        seconds: start.elapsed().as_secs_f64(),
    };
    match &arguments.output {
        Some(_) if global.json => streams::print_json(&summary),
        Some(path) => {
            let (texts, tokens) = (
                count(summary.texts, "text", "texts"),
                count(tokens, "token", "tokens"),
            );
            let (seconds, isa) = (summary.seconds, summary.instruction_set);
            streams::note(&format!(
                "wrote {} ({texts} x {columns}; {tokens} in {seconds:.2} s on {isa})\n",
                path.display()
            ));
            Ok(())
        }
        None => Ok(()),
    }
}

fn pooling_names(encoder: &Encoder) -> Vec<&'static str> {
    let modes = encoder.pooling().modes();
    modes.iter().map(|mode| mode.name()).collect()
}

/// How the model runs and what became of the checkpoint's tensors, for `--verbose`.
fn log_model(encoder: &Encoder, options: &EncodeOptions) {
    const SHOWN: usize = 8;
    let ledger = encoder.ledger();
    tracing::info!(
        applied = ledger.applied.len(),
        missing = ledger.missing.len(),
        unused = ledger.unused.len(),
        "tensors of the checkpoint"
    );
    for name in &ledger.missing {
        tracing::info!(%name, "absent from the checkpoint, and may be");
    }
    for (index, (name, reason)) in ledger.unused.iter().enumerate() {
        if index < SHOWN {
            tracing::info!(%name, %reason, "not used");
        } else {
            tracing::debug!(%name, %reason, "not used");
        }
    }
    if ledger.unused.len() > SHOWN {
        let more = ledger.unused.len() - SHOWN;
        tracing::info!("{more} more are not used; -vv names them");
    }
    tracing::info!(
        pooling = pooling_names(encoder).join(" + "),
        normalized = encoder.normalizes(),
        max_tokens = encoder.max_tokens(),
        threads = options.threads,
        batch_size = options.batch_size,
        "model opened"
    );
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
    let was = if truncated.len() == 1 { "was" } else { "were" };
    format!(
        "{} of {} {was} cut at the model's limit of {max_tokens} tokens (number {}{more})\n  hint: what lies beyond the limit has no influence on the embedding; split long texts to keep it",
        truncated.len(),
        count(texts, "text", "texts"),
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
        assert!(truncation_note(&[0], 13, 8).starts_with("1 of 13 texts was cut"));
    }
}
