//! `fewbit bench`

use crate::arguments::{BenchArguments, GlobalArguments};
use crate::failure::UsageError;
use crate::machine::Machine;
use crate::render::numbers::count;
use crate::render::progress::Steps;
use crate::{render, streams};
use anyhow::Result;
use fewbit::bench::{BenchModel, BenchOptions, BenchReport, BenchStep, bench};
use fewbit::evaluate::read_texts;
use fewbit::repetition::first_repeated;
use fewbit::threads;
use serde::Serialize;

/// A benchmark and what it was run on.
#[derive(Debug, Serialize)]
struct Benchmark {
    #[serde(flatten)]
    machine: Machine,
    #[serde(flatten)]
    report: BenchReport,
}

pub(super) fn run(arguments: &BenchArguments, global: GlobalArguments) -> Result<()> {
    refuse_repetitions(arguments)?;
    let options = BenchOptions {
        batches: arguments.batch.clone(),
        tokens: arguments.tokens.clone(),
        threads: if arguments.threads.is_empty() {
            vec![threads::resolve(None)?.count]
        } else {
            arguments.threads.clone()
        },
        texts: arguments
            .texts
            .as_ref()
            .map(|path| read_texts(path, &arguments.field))
            .transpose()?,
        seconds: arguments.seconds,
        rounds: arguments.rounds,
        profile: arguments.profile,
        weight_only: arguments.weight_only.arithmetic(),
    };
    let directories = arguments
        .models
        .iter()
        .map(|model| super::resolve(model))
        .collect::<Result<Vec<_>>>()?;
    let models: Vec<BenchModel> = names(&arguments.models)
        .into_iter()
        .zip(directories)
        .map(|(name, directory)| BenchModel { name, directory })
        .collect();
    warn_of_too_many_threads(&options.threads);

    let mut host = super::measuring_processes()?;
    let mut steps = Steps::start(options.steps(models.len()), global.verbose > 0);
    let report = bench(&models, &options, &mut host, &mut |step| {
        steps.next(&what(step));
    });
    steps.finish();
    let benchmark = Benchmark {
        machine: Machine::here(),
        report: report?,
    };
    warn_of_truncation(&benchmark.report);
    if global.json {
        streams::print_json(&benchmark)
    } else {
        let Benchmark { machine, report } = &benchmark;
        streams::print(&render::benchmark::text(machine, report))
    }
}

fn refuse_repetitions(arguments: &BenchArguments) -> Result<()> {
    for (flag, numbers) in [
        ("--batch", &arguments.batch),
        ("--tokens", &arguments.tokens),
        ("--threads", &arguments.threads),
    ] {
        if let Some(number) = first_repeated(numbers) {
            return Err(UsageError(format!(
                "{flag}: expected each number once, found {number} twice"
            ))
            .into());
        }
    }
    Ok(())
}

/// What each model is called: the last part of its path or Hub id; where several have the same, all that was typed, and a
/// number where that is the same, too.
fn names(models: &[String]) -> Vec<String> {
    let last = |model: &String| {
        let model = model.trim_end_matches('/');
        model.rsplit('/').next().unwrap_or(model).to_owned()
    };
    let appears =
        |names: &[String], name: &str| names.iter().filter(|known| *known == name).count();
    let short: Vec<String> = models.iter().map(last).collect();
    let unique: Vec<String> = short
        .iter()
        .zip(models)
        .map(|(short_name, model)| {
            if short_name.is_empty() || appears(&short, short_name) > 1 {
                model.clone()
            } else {
                short_name.clone()
            }
        })
        .collect();
    (0..unique.len())
        .map(|index| match appears(&unique, &unique[index]) {
            1 => unique[index].clone(),
            _ => {
                let number = appears(&unique[..=index], &unique[index]);
                format!("{} ({number})", unique[index])
            }
        })
        .collect()
}

fn what(step: &BenchStep<'_>) -> String {
    match step {
        BenchStep::Opening(name) => format!("opening: {name}"),
        BenchStep::Startup => "time to the first embedding".to_owned(),
        BenchStep::Shape(shape, threads) => format!(
            "batch of {}, {} each, {}",
            shape.batch,
            count(shape.tokens, "token", "tokens"),
            count(*threads, "thread", "threads")
        ),
        BenchStep::Profile(shape) => format!(
            "stages: batch of {}, {} each",
            shape.batch,
            count(shape.tokens, "token", "tokens")
        ),
        BenchStep::Texts(batch_size, threads) => format!(
            "texts in batches of {batch_size}, {}",
            count(*threads, "thread", "threads")
        ),
    }
}

fn warn_of_too_many_threads(threads: &[usize]) {
    let available = std::thread::available_parallelism().map_or(usize::MAX, |cpus| cpus.get());
    if let Some(threads) = threads.iter().find(|&&threads| threads > available) {
        streams::warn(&format!(
            "{threads} threads take turns on {}: times will be long and the share of the peak small",
            count(available, "CPU", "CPUs")
        ));
    }
}

fn warn_of_truncation(report: &BenchReport) {
    let Some(texts) = &report.texts else { return };
    // The same texts are cut in every row.
    for result in texts.rows.first().map_or(&[][..], |row| &row.models) {
        if result.truncated > 0 {
            streams::warn(&format!(
                "{}: {} of {} cut at the model's limit",
                result.model,
                result.truncated,
                count(texts.texts, "text", "texts")
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn names_are_short_and_tell_models_apart() {
        let of = |models: &[&str]| {
            names(
                &models
                    .iter()
                    .map(|&model| model.to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(of(&["models/a/", "owner/b@main"]), ["a", "b@main"]);
        assert_eq!(of(&["x/a", "y/a", "c"]), ["x/a", "y/a", "c"]);
        assert_eq!(of(&["x/a", "x/a", "y/a"]), ["x/a (1)", "x/a (2)", "y/a"]);
        assert_eq!(of(&["/", "."]), ["/", "."]);
    }
}
