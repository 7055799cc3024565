//! `fewbit embed`

use crate::arguments::{EmbedArguments, GlobalArguments, PoolingArgument, TextFormat};
use crate::embedding_file::{EmbeddingFormat, EmbeddingWriter, check_place};
use crate::failure::UsageError;
use crate::model_directory::resolve;
use crate::render::numbers::count;
use crate::render::progress::Count;
use crate::streams;
use crate::texts::Texts;
use anyhow::{Result, bail};
use fewbit::checkpoint::MODULES_FILE;
use fewbit::model::pooling::PoolingMode;
use fewbit::model::{EncoderSettings, Prompt};
use fewbit::{EncodeOptions, Encoder, threads};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Cut texts that are named by their index.
const TRUNCATED_SHOWN: usize = 1000;

/// What was done, where there is an output file.
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
    /// How many texts were cut.
    truncated_texts: usize,
    /// Indices of those texts: of the first thousand.
    truncated: Vec<usize>,
    /// What the kernels ran on; one of them rounds.
    instruction_set: &'static str,
    seconds: f64,
}

impl Summary {
    fn new(output: &Path, encoder: &Encoder, done: Done, elapsed: Duration) -> Self {
        Self {
            output: output.to_owned(),
            texts: done.texts,
            dimension: encoder.columns(),
            tokens: done.tokens,
            max_tokens: encoder.max_tokens(),
            pooling: pooling_names(encoder),
            normalized: encoder.normalizes(),
            truncated_texts: done.truncated_texts,
            truncated: done.truncated,
            instruction_set: encoder.network().isa().name(),
            seconds: elapsed.as_secs_f64(),
        }
    }

    /// As JSON on standard output, or in words on standard error.
    fn print(&self, json: bool) -> Result<()> {
        if json {
            return streams::print_json(self);
        }
        streams::note(&format!(
            "wrote {} ({} x {}; {} in {:.2} s on {})\n",
            self.output.display(),
            count(self.texts, "text", "texts"),
            self.dimension,
            count(self.tokens, "token", "tokens"),
            self.seconds,
            self.instruction_set,
        ));
        Ok(())
    }
}

pub(super) fn run(arguments: &EmbedArguments, global: GlobalArguments) -> Result<()> {
    // What can be refused without opening the model is refused first.
    let output = OutputChoice::of(arguments)?;
    refuse_fields_of_lines(arguments)?;
    let options = EncodeOptions {
        threads: threads::resolve(arguments.threads.threads)?.count,
        batch_size: arguments.batch_size,
    };
    let directory = resolve(&arguments.model)?;
    let encoder = Encoder::open_with_settings(&directory, &settings(arguments))?;
    log_model(&encoder, &options);
    let texts = Texts::open(&arguments.input, arguments.input_format, &arguments.field)?;
    let writer = output.writer(&encoder)?;
    let start = Instant::now();
    let done = embed(&encoder, &options, texts, writer)?;
    warn_of_empty_input(&done);
    if arguments.pooling.is_none() {
        note_pooling_by_default(&directory, &encoder);
    }
    warn_of_truncation(&done, &encoder);
    match output {
        OutputChoice::StandardOutput => Ok(()),
        OutputChoice::File { path, .. } => {
            let summary = Summary::new(path, &encoder, done, start.elapsed());
            summary.print(global.json)
        }
    }
}

/// Where embeddings are written.
enum OutputChoice<'a> {
    /// As JSONL.
    StandardOutput,
    File {
        path: &'a Path,
        format: EmbeddingFormat,
        /// Whether it may replace a file that is there.
        force: bool,
    },
}

impl<'a> OutputChoice<'a> {
    /// The one that `-o` names.
    ///
    /// # Errors
    /// The file's extension names no format, or the file cannot be written there.
    fn of(arguments: &'a EmbedArguments) -> Result<Self> {
        let named = arguments.output.as_deref();
        let Some(path) = named.filter(|path| *path != Path::new("-")) else {
            return Ok(Self::StandardOutput);
        };
        let format = EmbeddingFormat::of(path)?;
        check_place(path, &arguments.input, arguments.force)?;
        Ok(Self::File {
            path,
            format,
            force: arguments.force,
        })
    }

    /// A writer of the embeddings of `encoder`.
    ///
    /// # Errors
    /// The embeddings are sparse, and the file is of another format than JSONL.
    fn writer(&self, encoder: &Encoder) -> Result<EmbeddingWriter> {
        let writer = match *self {
            Self::StandardOutput => EmbeddingWriter::to_stdout(),
            Self::File { path, format, .. }
                if encoder.is_sparse() && format != EmbeddingFormat::JsonLines =>
            {
                bail!(
                    "{}: expected an output file ending in .jsonl for sparse embeddings, found another\n  hint: an embedding of this model has {} values, most of them 0; a line of JSONL holds the others, with their columns",
                    path.display(),
                    encoder.columns()
                )
            }
            Self::File {
                path,
                format,
                force,
            } => EmbeddingWriter::to_file(path, format, encoder.columns(), force)?,
        };
        Ok(writer.of_sparse(encoder.is_sparse()))
    }
}

fn refuse_fields_of_lines(arguments: &EmbedArguments) -> Result<(), UsageError> {
    match (arguments.input_format, arguments.field.first()) {
        (Some(TextFormat::Lines), Some(field)) => Err(UsageError(format!(
            "--field {field}: lines have no fields\n  hint: leave out --field, or --input-format lines"
        ))),
        _ => Ok(()),
    }
}

fn warn_of_empty_input(done: &Done) {
    if done.texts == 0 {
        streams::warn("the input holds no texts");
    }
}

/// Says how hidden states are pooled where neither a flag nor the model's files do.
fn note_pooling_by_default(directory: &Path, encoder: &Encoder) {
    if directory.join(MODULES_FILE).exists() {
        return;
    }
    let is_last = encoder
        .pooling()
        .is_some_and(|pooling| pooling.modes() == [PoolingMode::LastToken]);
    let pooled = match is_last {
        true => "the hidden state of the last token",
        false => "the mean of the hidden states",
    };
    let normalized = if encoder.normalizes() {
        "normalized"
    } else {
        "not normalized"
    };
    streams::note(&format!(
        "note: the model has no modules.json: an embedding is {pooled}, {normalized}\n"
    ));
}

fn warn_of_truncation(done: &Done, encoder: &Encoder) {
    if done.truncated_texts > 0 {
        streams::warn(&truncation_note(done, encoder.max_tokens()));
    }
}

/// Settings of the flags, which replace those of the model's files.
fn settings(arguments: &EmbedArguments) -> EncoderSettings {
    let pooling = |argument| match argument {
        PoolingArgument::Mean => PoolingMode::Mean,
        PoolingArgument::Cls => PoolingMode::Cls,
        PoolingArgument::Max => PoolingMode::Max,
        PoolingArgument::Last => PoolingMode::LastToken,
    };
    EncoderSettings {
        pooling: arguments.pooling.map(pooling),
        normalize: (arguments.normalize || arguments.no_normalize).then_some(arguments.normalize),
        max_tokens: arguments.max_tokens,
        prompt: match (&arguments.prompt, &arguments.prompt_name) {
            (Some(text), _) => Some(Prompt::Text(text.clone())),
            (None, Some(name)) => Some(Prompt::Named(name.clone())),
            (None, None) => None,
        },
        task: arguments.task.clone(),
        weight_only: arguments.weight_only.arithmetic(),
    }
}

/// Counts of what was embedded.
#[derive(Default)]
struct Done {
    texts: usize,
    tokens: usize,
    /// How many texts were cut.
    truncated_texts: usize,
    /// Indices of the first of them.
    truncated: Vec<usize>,
}

/// Embeds texts as they come. What is in memory at a time is bounded by the window, whatever the length of the input.
fn embed(
    encoder: &Encoder,
    options: &EncodeOptions,
    mut texts: Texts,
    mut writer: EmbeddingWriter,
) -> Result<Done> {
    let columns = encoder.columns();
    let mut done = Done::default();
    // On a terminal where texts are typed, progress would stand between texts and answers.
    let mut progress = (!texts.are_from_standard_input()).then(|| Count::start("embedding"));
    loop {
        let window = texts.next_window(options.batch_size);
        let texts: Vec<String> = window.rows.into_iter().flatten().collect();
        if !texts.is_empty() {
            let embeddings = encoder.encode(&texts, options)?;
            for (row, values) in embeddings.values.chunks_exact(columns.max(1)).enumerate() {
                let truncated = embeddings.truncated.binary_search(&row).is_ok();
                writer.write_row(values, truncated)?;
            }
            writer.flush_to_reader()?;
            let room = TRUNCATED_SHOWN.saturating_sub(done.truncated.len());
            let first = embeddings.truncated.iter().take(room);
            done.truncated.extend(first.map(|row| done.texts + row));
            done.truncated_texts += embeddings.truncated.len();
            done.tokens += embeddings.tokens;
            done.texts += texts.len();
            if let Some(progress) = &mut progress {
                progress.set(done.texts as u64);
            }
        }
        if let Some(end) = window.end {
            if let Some(progress) = progress {
                progress.finish();
            }
            end?;
            writer.finish()?;
            return Ok(done);
        }
    }
}

fn pooling_names(encoder: &Encoder) -> Vec<&'static str> {
    match encoder.pooling() {
        Some(pooling) => pooling.modes().iter().map(|mode| mode.name()).collect(),
        None => vec!["splade"],
    }
}

/// Logs how the model runs and which of the checkpoint's tensors it uses, for `--verbose`.
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
        modules = encoder.modules().join(", "),
        pooling = pooling_names(encoder).join(" + "),
        normalized = encoder.normalizes(),
        max_tokens = encoder.max_tokens(),
        threads = options.threads,
        batch_size = options.batch_size,
        "model opened"
    );
}

/// How many texts were cut, at which limit, and which the first are.
fn truncation_note(done: &Done, max_tokens: usize) -> String {
    const SHOWN: usize = 5;
    let lines: Vec<String> = done
        .truncated
        .iter()
        .take(SHOWN)
        .map(|index| (index + 1).to_string())
        .collect();
    let more = if done.truncated_texts > SHOWN {
        ", …"
    } else {
        ""
    };
    let was = if done.truncated_texts == 1 {
        "was"
    } else {
        "were"
    };
    format!(
        "{} of {} {was} cut at the model's limit of {max_tokens} tokens (number {}{more})\n  hint: what lies beyond the limit has no influence on the embedding; split long texts to keep it",
        done.truncated_texts,
        count(done.texts, "text", "texts"),
        lines.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(truncated: &[usize], texts: usize, max_tokens: usize) -> String {
        let done = Done {
            texts,
            truncated_texts: truncated.len(),
            truncated: truncated.to_vec(),
            ..Done::default()
        };
        truncation_note(&done, max_tokens)
    }

    #[test]
    fn the_truncation_note_counts_from_one_and_names_five() {
        let two = note(&[0, 2], 3, 256);
        assert!(
            two.starts_with(
                "2 of 3 texts were cut at the model's limit of 256 tokens (number 1, 3)\n  hint: "
            ),
            "{two}"
        );
        assert!(note(&[0, 1, 2, 3, 4, 5], 9, 8).contains("(number 1, 2, 3, 4, 5, …)"));
        assert!(note(&[0], 1, 8).starts_with("1 of 1 text was cut"));
        assert!(note(&[0], 13, 8).starts_with("1 of 13 texts was cut"));
    }
}
