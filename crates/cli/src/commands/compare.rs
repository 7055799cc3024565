//! `fewbit compare`

mod calibration_sweep;
mod child_process;

use super::calibrate;
use crate::arguments::{CompareArguments, GlobalArguments};
use crate::failure::{GateMissed, UsageError};
use crate::render::progress::Steps;
use crate::{render, streams};
use anyhow::{Result, anyhow};
use child_process::ChildProcess;
use fewbit::compare::{
    CompareOptions, CompareStep, CompareTexts, compare, default_recipes, method_name, parse_methods,
};
use fewbit::evaluate::{read_sentence_pairs, read_texts};
use fewbit::{Method, Recipe, threads};

pub(super) fn run(arguments: &CompareArguments, global: GlobalArguments) -> Result<()> {
    if let Some(max_drop) = arguments.max_drop
        && !(max_drop.is_finite() && max_drop >= 0.0)
    {
        return Err(UsageError(format!(
            "--max-drop: expected a number of points, 0 or more, found {max_drop}"
        ))
        .into());
    }
    if let Some(calibration) = &arguments.calibration.calibration
        && !arguments.calibration_sweep.is_empty()
    {
        return calibration_sweep::run(arguments, calibration, global);
    }
    let mut recipes = recipes(arguments)?;
    let texts = compare_texts(arguments)?;
    let threads = threads::resolve(arguments.threads.threads)?.count;
    let source = super::resolve(&arguments.model)?;
    if recipes
        .iter()
        .any(|recipe| recipe.method.needs_calibration())
    {
        let calibrated = calibrate::calibrate(&source, &arguments.calibration)?;
        let least = calibrate::least_sqnr_db(&arguments.calibration);
        let sites = &calibrated.sites;
        let dynamic = sites.iter().filter(|site| site.is_dynamic(least)).count();
        streams::note(&format!(
            "static: {dynamic} of {} inputs are dynamic per token, as one range would cost too much there\n",
            sites.len()
        ));
        for recipe in &mut recipes {
            if recipe.method.needs_calibration() {
                *recipe = calibrated.recipe(&source, recipe)?;
            }
        }
    }
    let options = CompareOptions {
        recipes,
        texts,
        keep: arguments.keep.clone(),
        threads,
        ..CompareOptions::default()
    };
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

/// The methods that the flags name; those of `static` have no scales yet.
fn recipes(arguments: &CompareArguments) -> Result<Vec<Recipe>, UsageError> {
    let refused = |what: String| UsageError(format!("--methods: {what}"));
    let named = calibrate::is_named(&arguments.calibration, false)?;
    let given = calibrate::is_given(&arguments.calibration);
    let recipes = if arguments.methods.is_empty() {
        let fixed = given.then(|| Recipe::new(Method::Static));
        default_recipes().into_iter().chain(fixed).collect()
    } else {
        parse_methods(&arguments.methods).map_err(|error| refused(error.to_string()))?
    };
    let mut calibrated = recipes
        .iter()
        .filter(|recipe| recipe.method.needs_calibration());
    match calibrated.next() {
        Some(recipe) if !given => {
            let method = method_name(recipe);
            Err(refused(format!("{method}: {}", calibrate::EXPECTED_TEXTS)))
        }
        None if named => Err(refused(
            "flags of calibration go with `static`, which is not among the methods\n  hint: add it, or leave out the flags".to_owned(),
        )),
        _ => Ok(recipes),
    }
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
