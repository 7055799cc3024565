//! `fewbit compare`

mod child_process;

use crate::arguments::{CompareArguments, GlobalArguments};
use crate::failure::{GateMissed, UsageError};
use crate::render::progress::Steps;
use crate::{render, streams};
use anyhow::{Result, anyhow};
use child_process::ChildProcess;
use fewbit::compare::{
    CompareOptions, CompareStep, CompareTexts, compare, default_recipes, parse_methods,
};
use fewbit::evaluate::{read_sentence_pairs, read_texts};
use fewbit::threads;

pub(super) fn run(arguments: &CompareArguments, global: GlobalArguments) -> Result<()> {
    if let Some(max_drop) = arguments.max_drop
        && !(max_drop.is_finite() && max_drop >= 0.0)
    {
        return Err(UsageError(format!(
            "--max-drop: expected a number of points, 0 or more, found {max_drop}"
        ))
        .into());
    }
    let recipes = if arguments.methods.is_empty() {
        default_recipes()
    } else {
        parse_methods(&arguments.methods)
            .map_err(|error| UsageError(format!("--methods: {error}")))?
    };
    let options = CompareOptions {
        recipes,
        texts: compare_texts(arguments)?,
        keep: arguments.keep.clone(),
        threads: threads::resolve(arguments.threads.threads)?.count,
        ..CompareOptions::default()
    };
    let source = super::resolve(&arguments.model)?;
    let mut steps = Steps::start(options.steps(), global.verbose > 0);
    let comparison = compare(source, &options, &mut ChildProcess::new()?, &mut |step| {
        steps.next(&what(step));
    });
    steps.finish();
    let comparison = comparison?;
    if global.json {
        streams::print_json(&comparison)?;
    } else {
        streams::print(&render::comparison::text(&comparison))?;
    }
    gate(&comparison, arguments.max_drop)
}

fn compare_texts(arguments: &CompareArguments) -> Result<CompareTexts> {
    if let Some(data) = &arguments.data {
        let texts = CompareTexts::Pairs(read_sentence_pairs(data)?);
        texts
            .check()
            .map_err(|error| anyhow!("{}: {error}", data.display()))?;
        return Ok(texts);
    }
    Ok(match &arguments.texts {
        Some(path) => CompareTexts::Texts(read_texts(path)?),
        None => CompareTexts::BuiltIn,
    })
}

fn what(step: &CompareStep<'_>) -> String {
    match step {
        CompareStep::Quantizing(method) => format!("quantizing: {method}"),
        CompareStep::Encoding(name) => format!("encoding all texts: {name}"),
        CompareStep::Speed {
            name,
            round,
            rounds,
        } => format!("speed, round {round} of {rounds}: {name}"),
    }
}

fn gate(comparison: &fewbit::Comparison, max_drop: Option<f64>) -> Result<()> {
    let Some(max_drop) = max_drop else {
        return Ok(());
    };
    let missed = comparison.missed_gates(max_drop);
    if missed.is_empty() {
        return Ok(());
    }
    let unit = if comparison.texts_kind == "pairs" {
        "points of Spearman x 100"
    } else {
        "points of 100 x (1 - mean cosine)"
    };
    let lines: Vec<String> = missed
        .iter()
        .map(|miss| {
            if miss.drop.is_nan() {
                format!("\n  {} has no figure to judge it by", miss.name)
            } else {
                format!("\n  {} loses {:.3}", miss.name, miss.drop)
            }
        })
        .collect();
    Err(GateMissed(format!(
        "quality gate missed: expected a loss of at most {max_drop} {unit}{}",
        lines.concat()
    ))
    .into())
}
