//! `fewbit compare`

mod calibration_sweep;

use super::calibrate;
use crate::arguments::{CompareArguments, GlobalArguments};
use crate::failure::{GateMissed, UsageError};
use crate::render::numbers::count;
use crate::render::progress::Steps;
use crate::{render, streams};
use anyhow::{Result, anyhow};
use fewbit::calibration::CalibratedRecipes;
use fewbit::compare::{
    CompareOptions, CompareStep, CompareTexts, FailedMethod, compare, default_recipes, method_name,
    parse_methods, without_other_names_of_defaults,
};
use fewbit::evaluate::{
    ClassColumns, PairColumns, read_class_texts, read_sentence_pairs, read_texts,
};
use fewbit::measure::ModelOutput;
use fewbit::quantize::GptqCalibration;
use fewbit::quantize::calibration::CalibrationSamples;
use fewbit::{Method, Recipe, threads};
use std::path::Path;

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
    if arguments.texts.is_none() && arguments.calibration.calibration.is_none() {
        calibrate::refuse_without_file(&arguments.calibration)?;
    }
    let mut recipes = recipes(arguments)?;
    let texts = compare_texts(arguments)?;
    let threads = threads::resolve(arguments.threads.threads)?.count;
    let source = super::resolve(&arguments.model)?;
    if arguments.methods.is_empty() {
        let all = recipes.len();
        recipes = without_other_names_of_defaults(&source, recipes)?;
        if recipes.len() < all {
            streams::note(
                "embeddings stay float: a head of this model shares the word embedding table\n",
            );
        }
    }
    let Calibrated {
        recipes,
        mut failed,
        samples,
    } = with_scales(recipes, arguments, &source)?;
    let gptq = if recipes.iter().any(Recipe::needs_samples) {
        let samples = match samples {
            Some(samples) => samples,
            None => calibrate::samples(&source, &arguments.calibration)?,
        };
        Some(GptqCalibration::new(samples, threads))
    } else {
        None
    };
    let options = CompareOptions {
        recipes,
        quantized: arguments.quantized.clone(),
        gptq,
        texts,
        keep: arguments.keep.clone(),
        threads,
        weight_only: arguments.weight_only.arithmetic(),
        ..CompareOptions::default()
    };
    let mut host = super::measuring_processes()?;
    let mut steps = Steps::start(options.steps(), global.verbose > 0);
    let comparison = compare(source, &options, &mut host, &mut |step| {
        steps.next(&what(step));
    });
    steps.finish();
    let mut comparison = comparison?;
    failed.append(&mut comparison.failed);
    comparison.failed = failed;
    if global.json {
        streams::print_json(&comparison)?;
    } else {
        streams::print(&render::comparison::text(&comparison))?;
    }
    verdict(&comparison, arguments.max_drop)
}

/// What calibration made of the recipes.
struct Calibrated {
    /// Those that can be applied.
    recipes: Vec<Recipe>,
    /// The methods that no range was found for.
    failed: Vec<FailedMethod>,
    /// What was calibrated with, if anything was.
    samples: Option<CalibrationSamples>,
}

/// The recipes with what calibration chose for those of `static`. An error if no range was found for any, and these are all.
fn with_scales(
    recipes: Vec<Recipe>,
    arguments: &CompareArguments,
    source: &Path,
) -> Result<Calibrated> {
    if !recipes
        .iter()
        .any(|recipe| recipe.method().needs_calibration())
    {
        return Ok(Calibrated {
            recipes,
            failed: Vec::new(),
            samples: None,
        });
    }
    let calibrated = calibrate::calibrate(source, &arguments.calibration)?;
    if calibrated.least_sqnr_db() > f64::NEG_INFINITY {
        streams::note(&format!(
            "static: {} of {} inputs are dynamic per token, as one range would cost too much there\n",
            calibrated.dynamic_sites(),
            calibrated.sites().len()
        ));
    }
    calibrate::warn_of_noise(&calibrated, &arguments.calibration);
    let CalibratedRecipes { ready, failed } = CalibratedRecipes::new(recipes, &calibrated);
    let failures = failed.iter();
    let failures = failures.map(|(recipe, error)| FailedMethod::new(recipe.label(), error));
    let failures = failures.collect();
    match failed.into_iter().next() {
        Some((_, error)) if ready.is_empty() => Err(error.into()),
        _ => Ok(Calibrated {
            recipes: ready,
            failed: failures,
            samples: Some(calibrated.into_samples()),
        }),
    }
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
    let fixed = recipes
        .iter()
        .find(|recipe| recipe.method().needs_calibration());
    let sampled = recipes.iter().find(|recipe| recipe.needs_samples());
    match (fixed, sampled) {
        (Some(recipe), _) if !given => {
            let method = method_name(recipe);
            Err(refused(format!("{method}: {}", calibrate::EXPECTED_TEXTS)))
        }
        (_, Some(recipe)) if arguments.calibration.calibration.is_none() => {
            let method = method_name(recipe);
            Err(refused(format!(
                "{method}: {}",
                calibrate::EXPECTED_SAMPLES
            )))
        }
        (None, None) if named => Err(refused(
            "flags of calibration go with `static`, with GPTQ (`dynamic+gptq`) and with weighted scales (`nf4+activation-weighted`), which are not among the methods\n  hint: add one, or leave out the flags".to_owned(),
        )),
        (None, Some(_)) => calibrate::refuse_ranges(&arguments.calibration, false).map(|()| recipes),
        (Some(_), Some(_)) => {
            calibrate::refuse_one_scale(&arguments.calibration.texts).map(|()| recipes)
        }
        _ => Ok(recipes),
    }
}

fn pair_columns(fields: &[String]) -> Result<PairColumns, UsageError> {
    match fields {
        [] => Ok(PairColumns::default()),
        [sentence1, sentence2, score] => Ok(PairColumns {
            sentence1: sentence1.clone(),
            sentence2: sentence2.clone(),
            score: score.clone(),
        }),
        _ => Err(UsageError(format!(
            "--data-fields: expected three names, found {}\n  hint: those of the first sentence, the second sentence and the score, such as premise,hypothesis,label",
            fields.len()
        ))),
    }
}

fn compare_texts(arguments: &CompareArguments) -> Result<CompareTexts> {
    if let Some(data) = &arguments.data {
        let columns = pair_columns(&arguments.data_fields)?;
        let texts = CompareTexts::Pairs(read_sentence_pairs(data, &columns)?);
        texts
            .check()
            .map_err(|error| anyhow!("{}: {error}", data.display()))?;
        return Ok(texts);
    }
    Ok(match &arguments.texts {
        Some(path) if arguments.label_column.is_some() || arguments.pair_column.is_some() => {
            let text = match &arguments.calibration.texts.field[..] {
                [] => fewbit::data::DEFAULT_TEXT_COLUMN.to_owned(),
                [field] => field.clone(),
                fields => {
                    return Err(UsageError(format!(
                        "--field: expected one column of texts beside --label-column or --pair-column, found {}\n  hint: name one",
                        fields.len()
                    ))
                    .into());
                }
            };
            let columns = ClassColumns {
                text,
                pair: arguments.pair_column.clone(),
                label: arguments.label_column.clone(),
            };
            CompareTexts::Classes(read_class_texts(path, &columns)?)
        }
        Some(path) => CompareTexts::Texts(read_texts(path, &arguments.calibration.texts.field)?),
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

/// An error if a method failed or lost more than `max_drop`. A failure goes before a missed gate, whose figures are incomplete then.
fn verdict(comparison: &fewbit::Comparison, max_drop: Option<f64>) -> Result<()> {
    let missed = max_drop.and_then(|max_drop| missed_gate(comparison, max_drop));
    if comparison.failed.is_empty() {
        return missed.map_or(Ok(()), |text| Err(GateMissed(text).into()));
    }
    let failed: Vec<String> = comparison
        .failed
        .iter()
        .map(|method| format!("\n  {}", method.name))
        .collect();
    let gate = missed.map_or_else(String::new, |text| format!("\n{text}"));
    Err(anyhow!(
        "{} of {} failed:{}{gate}\n  hint: what each failed with stands below the table, or under `failed` with --json",
        failed.len(),
        count(
            failed.len() + comparison.rows.len() - 1,
            "method",
            "methods"
        ),
        failed.concat()
    ))
}

/// What to say of the methods that lose more than `max_drop`, if there are any.
fn missed_gate(comparison: &fewbit::Comparison, max_drop: f64) -> Option<String> {
    let missed = comparison.missed_gates(max_drop);
    if missed.is_empty() {
        return None;
    }
    let unit = match (comparison.output, comparison.texts_kind) {
        (ModelOutput::Logits, "labelled") => "points of accuracy x 100",
        (ModelOutput::Logits, _) => "points of 100 x (share of texts with another label)",
        (ModelOutput::Embeddings, "pairs") => "points of Spearman x 100",
        (ModelOutput::Embeddings, _) => "points of 100 x (1 - mean cosine)",
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
    Some(format!(
        "quality gate missed: expected a loss of at most {max_drop} {unit}{}",
        lines.concat()
    ))
}
