//! `fewbit predict`

mod output;
mod task;

use crate::arguments::{GlobalArguments, PredictArguments, TextFormat};
use crate::failure::UsageError;
use crate::model_directory::resolve;
use crate::render::numbers::count;
use crate::render::progress::Count;
use crate::streams;
use crate::texts::Texts;
use anyhow::Result;
use fewbit::data::Column;
use fewbit::model::{PredictorSettings, Task};
use fewbit::{EncodeOptions, Predictor, threads};
use output::Output;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;
pub(crate) use task::{Line, Prediction};
use task::{Wanted, predict};

/// What was done, where there is an output file.
#[derive(Serialize)]
struct Summary<'a> {
    output: PathBuf,
    task: Task,
    texts: usize,
    max_tokens: usize,
    /// How many texts were cut.
    truncated_texts: usize,
    /// What the kernels ran on; one of them rounds.
    instruction_set: &'a str,
    seconds: f64,
}

pub(super) fn run(arguments: &PredictArguments, global: GlobalArguments) -> Result<()> {
    // What can be refused without opening the model is refused first.
    let output = Output::check(arguments)?;
    refuse_columns_of_lines(arguments)?;
    let options = EncodeOptions {
        threads: threads::resolve(arguments.threads.threads)?.count,
        batch_size: arguments.batch_size,
    };
    let directory = resolve(&arguments.model)?;
    let settings = PredictorSettings {
        max_tokens: arguments.max_tokens,
        weight_only: arguments.weight_only.arithmetic(),
    };
    let predictor = Predictor::open_with_settings(&directory, &settings)?;
    let wanted = Wanted::of(arguments, predictor.task())?;
    let columns = columns(arguments, predictor.task());
    let are_named = columns.len() > 1 || arguments.text_column.is_some();
    if are_named && arguments.input_format == Some(TextFormat::Lines) {
        return Err(lines_have_no_columns("the model reads two texts of a row").into());
    }
    let texts = Texts::open_columns(&arguments.input, arguments.input_format, columns, are_named)?;
    let start = Instant::now();
    let written = output.path().map(Path::to_owned);
    let done = predict_all(&predictor, &wanted, &options, texts, output, global)?;
    if done.texts == 0 {
        streams::warn("the input holds no texts");
    }
    if done.truncated > 0 {
        streams::warn(&format!(
            "{} of {} cut at the model's limit of {} tokens\n  hint: what lies beyond the limit has no influence on the prediction",
            done.truncated,
            count(done.texts, "text was", "texts were"),
            predictor.max_tokens()
        ));
    }
    let Some(output) = written else {
        return Ok(());
    };
    let summary = Summary {
        output,
        task: predictor.task(),
        texts: done.texts,
        max_tokens: predictor.max_tokens(),
        truncated_texts: done.truncated,
        instruction_set: predictor.model().network().isa().name(),
        seconds: start.elapsed().as_secs_f64(),
    };
    if global.json {
        return streams::print_json(&summary);
    }
    streams::note(&format!(
        "wrote {} ({}, {}; in {:.2} s on {})\n",
        summary.output.display(),
        predictor.task().name(),
        count(summary.texts, "text", "texts"),
        summary.seconds,
        summary.instruction_set,
    ));
    Ok(())
}

fn lines_have_no_columns(why: &str) -> UsageError {
    UsageError(format!(
        "--input-format lines: {why}, and lines have no columns\n  hint: bring rows as JSONL, CSV, TSV or Parquet"
    ))
}

fn refuse_columns_of_lines(arguments: &PredictArguments) -> Result<(), UsageError> {
    let named = [
        ("--text-column", &arguments.text_column),
        ("--pair-column", &arguments.pair_column),
    ];
    let named = named
        .into_iter()
        .find_map(|(flag, name)| Some(format!("{flag} {} is given", name.as_ref()?)));
    match (arguments.input_format, named) {
        (Some(TextFormat::Lines), Some(named)) => Err(lines_have_no_columns(&named)),
        _ => Ok(()),
    }
}

/// The columns of a row that are read: the text, and what is read with it.
fn columns(arguments: &PredictArguments, task: Task) -> Vec<Column> {
    let (text, pair) = match task {
        Task::QuestionAnswering => ("question", Some("context")),
        _ => (fewbit::data::DEFAULT_TEXT_COLUMN, None),
    };
    let text = arguments.text_column.as_deref().unwrap_or(text);
    let pair = arguments.pair_column.as_deref().or(pair);
    let text = Column::text(text).named_by("--text-column");
    let pair = pair.map(|pair| Column::text(pair).named_by("--pair-column"));
    [text].into_iter().chain(pair).collect()
}

/// Counts of what was predicted.
#[derive(Default)]
struct Done {
    texts: usize,
    /// How many texts were cut.
    truncated: usize,
}

/// Predicts texts as they come. What is in memory at a time is bounded by the window, whatever the length of the input.
fn predict_all(
    predictor: &Predictor,
    wanted: &Wanted,
    options: &EncodeOptions,
    mut texts: Texts,
    output: Output<'_>,
    global: GlobalArguments,
) -> Result<Done> {
    let mut output = output.open(global.json)?;
    let mut done = Done::default();
    // On a terminal where texts are typed, progress would stand between texts and answers.
    let mut progress = (!texts.are_from_standard_input()).then(|| Count::start("predicting"));
    loop {
        let window = texts.next_window(options.batch_size);
        if !window.rows.is_empty() {
            let predictions = predict(predictor, wanted, &window.rows, options)?;
            done.truncated += predictions.iter().filter(|line| line.truncated).count();
            output.write(done.texts, &window.rows, &predictions)?;
            done.texts += predictions.len();
            if let Some(progress) = &mut progress {
                progress.set(done.texts as u64);
            }
        }
        if let Some(end) = window.end {
            if let Some(progress) = progress {
                progress.finish();
            }
            end?;
            output.finish()?;
            return Ok(done);
        }
    }
}
