//! `fewbit calibrate`, and what `fewbit quantize --method static` does before it converts.

use crate::arguments::{
    BackendArgument, CalibrateArguments, CalibrationArguments, CalibrationTexts, GlobalArguments,
    ObserverArgument, QuantizeArguments,
};
use crate::failure::UsageError;
use crate::render::numbers::count;
use crate::render::progress::{Progress, Unit};
use crate::{render, streams};
use anyhow::Result;
use fewbit::data::TokenColumns;
use fewbit::data::tokens::INPUT_IDS;
use fewbit::quantize::calibration::texts::{CalibrationFile, Drawn};
use fewbit::quantize::calibration::tokens::TokenizedFile;
use fewbit::quantize::calibration::{
    CalibratedFile, CalibrationInput, CalibrationRun, CalibrationSamples, LEAST_SQNR_DB,
    Sensitivity, SiteSensitivity, StaticCalibration, StatisticsFile,
};
use fewbit::quantize::observers::{AveragingConstant, KeptPercentage};
use fewbit::quantize::{
    ActivationScales, Backend, CalibrationStatistics, Calibrator, Int8Inputs, Int8Recipe,
    ObserverKind, ObserverSettings, WeightScales,
};
use fewbit::{EncoderSpec, Method, Recipe, open_checkpoint};
use serde::Serialize;
use std::path::Path;

/// What `--json` prints.
#[derive(Serialize)]
struct Summary<'a> {
    stats: &'a Path,
    samples: u64,
    tokens: u64,
    /// Samples that the interrupted run had observed.
    resumed_after: u64,
    settings: ObserverSettings,
    sensitivity: &'a [SiteSensitivity],
}

pub(super) fn run(arguments: &CalibrateArguments, global: GlobalArguments) -> Result<()> {
    let source = super::resolve(&arguments.model)?;
    let out = &arguments.stats;
    let file = StatisticsFile::new(out, arguments.resume)?;
    if arguments.resume && !file.is_resumed() {
        streams::note(&format!(
            "{} is not there: nothing to resume, calibrating from the start\n",
            file.partial().display()
        ));
    }
    let flags = &arguments.texts;
    let calibrator = Calibrator::prepare(&source, settings(flags)?)?;
    let input = input(&arguments.calibration, flags)?;
    let samples = sample(&input, flags, calibrator.encoder().network().spec())?;
    let run = CalibrationRun::new(&input, &samples, flags.seed, flags.batch_size)?;
    let mut progress = samples_progress(&samples);
    let mut begun = false;
    let calibrated = file.calibrate(calibrator, &run, &samples, &mut |seen| {
        if begun {
            progress.set(seen as u64, samples.len() as u64, "");
        } else {
            progress.begin_after(seen as u64);
            begun = true;
        }
    });
    progress.finish();
    let CalibratedFile {
        statistics,
        resumed_after,
    } = calibrated?;
    let sensitivity = Sensitivity::new(&statistics)?;
    // What `quantize` will do by default with these statistics.
    let least = backend(flags).least_sqnr_db();
    if global.json {
        return streams::print_json(&Summary {
            stats: out,
            samples: statistics.samples(),
            tokens: statistics.tokens(),
            resumed_after,
            settings: statistics.settings(),
            sensitivity: sensitivity.sites(),
        });
    }
    streams::print(&format!(
        "{} {}, {} tokens observed; statistics in {}\n\n{}",
        statistics.samples(),
        match samples {
            CalibrationSamples::Texts(_) => "texts",
            CalibrationSamples::Tokens(_) => "rows",
        },
        statistics.tokens(),
        out.display(),
        render::sensitivity::table(sensitivity.sites(), least)
    ))
}

/// Refuses calibration flags that would have no effect, and `static` without anything to calibrate with.
pub(super) fn check(arguments: &QuantizeArguments, recipe: &Recipe) -> Result<(), UsageError> {
    let calibration = &arguments.calibration;
    // Scales per tensor at run time have a backend, too, but nothing to observe.
    let of_run_time = has_scales_of_run_time(recipe) && arguments.recipe.is_none();
    let named = is_named(calibration, of_run_time)? || !calibration.texts.field.is_empty();
    if recipe.needs_gptq() {
        return check_gptq(arguments, recipe, of_run_time);
    }
    if arguments.threads.is_some() {
        return Err(UsageError(
            "--threads: expected --gptq beside it\n  hint: nothing else of `quantize` runs on several threads: leave it out".to_owned(),
        ));
    }
    if arguments.resume {
        return Err(UsageError(
            "--resume: expected --gptq beside it\n  hint: nothing else of `quantize` is kept when it is interrupted; `fewbit calibrate` has a --resume of its own"
                .to_owned(),
        ));
    }
    if named && arguments.recipe.is_some() {
        return Err(UsageError(
            "flags of calibration do not go with --recipe, which holds the scales that calibration chose\n  hint: give --method static instead of the recipe to calibrate again".to_owned(),
        ));
    }
    if named && recipe.method() != Method::Static {
        return Err(UsageError(format!(
            "flags of calibration do not go with the method `{}`, which is not calibrated\n  hint: leave them out, or give --method static, or --gptq, which takes texts for every int8 method",
            recipe.method()
        )));
    }
    if !is_given(calibration) && arguments.recipe.is_none() && recipe.method() == Method::Static {
        return Err(UsageError(format!("--method static: {EXPECTED_TEXTS}")));
    }
    Ok(())
}

/// Whether the inputs of layers have one scale each that is chosen at run time.
fn has_scales_of_run_time(recipe: &Recipe) -> bool {
    recipe.int8().is_some_and(|options| match &options.inputs {
        Int8Inputs::Dynamic(inputs) => inputs.activations != ActivationScales::PerToken,
        _ => false,
    })
}

/// Refuses GPTQ without texts, and flags beside it that would have no effect.
fn check_gptq(
    arguments: &QuantizeArguments,
    recipe: &Recipe,
    of_run_time: bool,
) -> Result<(), UsageError> {
    let calibration = &arguments.calibration;
    let who = match &arguments.recipe {
        Some(file) => format!("{}: `gptq`", file.display()),
        None => "--gptq".to_owned(),
    };
    if calibration.calibration.is_none() {
        return Err(UsageError(format!("{who}: {EXPECTED_TEXTS_OF_GPTQ}")));
    }
    if recipe.method() == Method::Static && arguments.recipe.is_none() {
        return refuse_one_scale(&calibration.texts);
    }
    if arguments.sensitivity.is_some() {
        return Err(UsageError(
            "--sensitivity: expected --method static: it is about ranges of inputs\n  hint: leave it out".to_owned(),
        ));
    }
    refuse_ranges(calibration, of_run_time)
}

/// Refuses GPTQ with a backend that has one scale for a weight, before anything is calibrated.
pub(super) fn refuse_one_scale(texts: &CalibrationTexts) -> Result<(), UsageError> {
    let backend = backend(texts);
    match backend.qconfig().weight_scales() {
        WeightScales::PerChannel => Ok(()),
        WeightScales::PerTensor => Err(UsageError(format!(
            "--backend {backend}: expected a backend with a scale for each channel of a weight with GPTQ\n  hint: use another backend, or leave GPTQ out"
        ))),
    }
}

/// Refuses flags of ranges where no range is chosen, and texts are only there for GPTQ.
pub(super) fn refuse_ranges(
    arguments: &CalibrationArguments,
    backend_apart: bool,
) -> Result<(), UsageError> {
    let flag = if !arguments.stats.is_empty() {
        "--stats"
    } else if arguments.min_sqnr.is_some() {
        "--min-sqnr"
    } else if arguments.texts.observer.is_some() {
        "--observer"
    } else if arguments.texts.backend.is_some() && !backend_apart {
        "--backend"
    } else {
        return Ok(());
    };
    Err(UsageError(format!(
        "{flag}: expected the method `static`, without a recipe file: it is about ranges of inputs, of which none is chosen here\n  hint: leave it out: GPTQ needs nothing but texts"
    )))
}

/// Refuses what is said of a calibration file where there is none.
pub(super) fn refuse_without_file(arguments: &CalibrationArguments) -> Result<(), UsageError> {
    let texts = &arguments.texts;
    let flag = if texts.samples.is_some() {
        "--samples"
    } else if !texts.field.is_empty() {
        "--field"
    } else {
        return Ok(());
    };
    Err(UsageError(format!(
        "{flag}: expected a file that it is about, found none\n  hint: --calibration FILE names the texts"
    )))
}

/// What `static` needs.
pub(super) const EXPECTED_TEXTS: &str = "expected --calibration FILE or --stats FILE\n  hint: a few hundred texts like those that the model will see, one a line; `dynamic` needs none";

/// What GPTQ needs.
pub(super) const EXPECTED_TEXTS_OF_GPTQ: &str = "expected --calibration FILE\n  hint: a few hundred texts like those that the model will see, one a line; statistics (--stats) hold ranges, not what GPTQ needs";

/// Whether there is anything to calibrate with.
pub(super) fn is_given(arguments: &CalibrationArguments) -> bool {
    arguments.calibration.is_some() || !arguments.stats.is_empty()
}

/// Whether any flag of calibration was typed; where a backend alone does not mean one, `backend_apart`.
pub(super) fn is_named(
    arguments: &CalibrationArguments,
    backend_apart: bool,
) -> Result<bool, UsageError> {
    if arguments.min_sqnr.is_some_and(f64::is_nan) {
        return Err(UsageError(
            "--min-sqnr: expected a number of decibels, found NaN\n  hint: 30 is the default"
                .to_owned(),
        ));
    }
    let texts = &arguments.texts;
    Ok(is_given(arguments)
        || texts.samples.is_some()
        || arguments.min_sqnr.is_some()
        || texts.observer.is_some()
        || !(backend_apart || texts.is_default()))
}

/// Says what it costs that a backend of PyTorch makes every input static, where nobody asked for that in so many words.
pub(super) fn warn_of_noise(calibration: &StaticCalibration, arguments: &CalibrationArguments) {
    if arguments.min_sqnr.is_some() {
        return;
    }
    let Some(noisy) = calibration.noisy_sites() else {
        return;
    };
    let all = calibration.sites().len();
    let worst = noisy.worst.site.trim_end_matches(".input");
    let remedy = if noisy.count < all {
        format!("--min-sqnr {LEAST_SQNR_DB} makes these dynamic per token, ")
    } else {
        String::new()
    };
    streams::warn(&format!(
        "backend {}: every input is static, as in PyTorch; {} of {all} have a signal to noise ratio below {LEAST_SQNR_DB} dB, at worst {:.1} dB ({worst}): {remedy}--backend native or the method dynamic lose less",
        calibration.backend(),
        noisy.count,
        noisy.worst.static_sqnr_db
    ));
}

/// Measures on some of the texts what the ranges do to the embeddings of the model that `options` make.
pub(super) fn measure_output_effect(
    calibration: &mut StaticCalibration,
    options: &Int8Recipe,
) -> Result<()> {
    let mut progress = Progress::start("sensitivity", 0, Unit::Passes);
    let mut show = |done, total| progress.set(done as u64, total as u64, "");
    let result = calibration.measure_output_effect(options, &mut show);
    progress.finish();
    Ok(result?)
}

/// Calibrates the model in `source` as the flags say.
pub(super) fn calibrate(
    source: &Path,
    arguments: &CalibrationArguments,
) -> Result<StaticCalibration> {
    if arguments.calibration.is_none() {
        refuse_without_file(arguments)?;
    }
    let flags = &arguments.texts;
    let saved = CalibrationStatistics::read_all(&arguments.stats)?;
    // Saved statistics say themselves how they were observed.
    let settings = match saved.first() {
        Some(statistics) if flags.is_default() => statistics.settings(),
        _ => settings(flags)?,
    };
    let mut calibrator = Calibrator::prepare(source, settings)?;
    for statistics in &saved {
        calibrator.merge(statistics)?;
    }
    let samples = match &arguments.calibration {
        Some(file) => {
            let spec = calibrator.encoder().network().spec();
            sample(&input(file, flags)?, flags, spec)?
        }
        None => CalibrationSamples::Texts(Vec::new()),
    };
    if !samples.is_empty() {
        let mut progress = samples_progress(&samples);
        let observed = calibrator.observe_samples(&samples, 0, flags.batch_size, |_, done| {
            progress.set(done as u64, samples.len() as u64, "");
            Ok(())
        });
        progress.finish();
        observed?;
    }
    let backend = flags.backend.map(|_| backend(flags));
    Ok(StaticCalibration::new(
        calibrator,
        samples,
        backend,
        arguments.min_sqnr,
    )?)
}

/// The texts or rows of --calibration, for the model in `source`.
pub(super) fn samples(
    source: &Path,
    arguments: &CalibrationArguments,
) -> Result<CalibrationSamples> {
    let Some(file) = &arguments.calibration else {
        return Err(UsageError(format!("GPTQ: {EXPECTED_TEXTS_OF_GPTQ}")).into());
    };
    let spec = EncoderSpec::from_checkpoint(&open_checkpoint(source)?)?;
    sample(&input(file, &arguments.texts)?, &arguments.texts, &spec)
}

/// The signal to noise ratio below which an input becomes dynamic.
pub(super) fn least_sqnr_db(arguments: &CalibrationArguments, backend: Backend) -> f64 {
    arguments
        .min_sqnr
        .unwrap_or_else(|| backend.least_sqnr_db())
}

/// The file to calibrate with, and which of its columns the flags name.
pub(super) fn input(file: &Path, flags: &CalibrationTexts) -> Result<CalibrationInput> {
    let (ids, mask) = (&flags.input_ids_column, &flags.attention_mask_column);
    if ids.is_some() || mask.is_some() {
        let columns = TokenColumns::new(ids.as_deref().unwrap_or(INPUT_IDS), mask.clone());
        return Ok(CalibrationInput::Tokens(TokenizedFile::new(file, columns)));
    }
    if !flags.field.is_empty() {
        return Ok(CalibrationInput::Texts(CalibrationFile::new(
            file,
            &flags.field,
        )));
    }
    let input = CalibrationInput::detect(file)?;
    if matches!(input, CalibrationInput::Tokens(_)) {
        streams::note(&format!(
            "{}: no column `text`: calibrating with the token ids of `{INPUT_IDS}`\n",
            file.display()
        ));
    }
    Ok(input)
}

fn sample(
    input: &CalibrationInput,
    flags: &CalibrationTexts,
    spec: &EncoderSpec,
) -> Result<CalibrationSamples> {
    let size = flags.sample_size();
    let Drawn {
        samples,
        blank,
        seen,
    } = input.draw(size, flags.seed, spec)?;
    let file = input.path().display();
    if blank > 0 {
        streams::note(&format!(
            "{file}: {} passed over\n",
            count(blank, "blank text was", "blank texts were")
        ));
    }
    if seen < size.most() {
        let what = match samples {
            CalibrationSamples::Texts(_) => count(seen, "text", "texts"),
            CalibrationSamples::Tokens(_) => count(seen, "row", "rows"),
        };
        streams::note(&format!(
            "{file}: {what}, fewer than the usual {}: calibrating with all of them\n",
            size.most()
        ));
    }
    Ok(samples)
}

/// The progress of a model that samples run through.
fn samples_progress(samples: &CalibrationSamples) -> Progress {
    let unit = match samples {
        CalibrationSamples::Texts(_) => Unit::Texts,
        CalibrationSamples::Tokens(_) => Unit::Rows,
    };
    Progress::start("calibrate", samples.len() as u64, unit)
}

/// The backend that the flags name.
pub(super) fn backend(arguments: &CalibrationTexts) -> Backend {
    match arguments.backend {
        None | Some(BackendArgument::Native) => Backend::Native,
        Some(BackendArgument::Fbgemm) => Backend::Fbgemm,
        Some(BackendArgument::X86) => Backend::X86,
        Some(BackendArgument::Qnnpack) => Backend::Qnnpack,
        Some(BackendArgument::Onednn) => Backend::Onednn,
    }
}

/// The observer of activations that the flags name.
pub(super) fn settings(arguments: &CalibrationTexts) -> Result<ObserverSettings> {
    let defaults = backend(arguments).qconfig().activation();
    let kind = match arguments.observer {
        None => return Ok(defaults),
        Some(ObserverArgument::MinMax) => ObserverKind::MinMax,
        Some(ObserverArgument::MovingAverage) => ObserverKind::MovingAverageMinMax {
            averaging_constant: AveragingConstant::default(),
        },
        Some(ObserverArgument::Histogram) => ObserverKind::Histogram,
        Some(ObserverArgument::Percentile) => ObserverKind::Percentile {
            percentile: KeptPercentage::default(),
        },
        Some(ObserverArgument::Mse) => ObserverKind::Mse,
        Some(ObserverArgument::Entropy) => ObserverKind::Entropy,
    };
    let settings = ObserverSettings::new(kind, defaults.rule());
    settings.map_err(|error| UsageError(format!("--observer: {error}")).into())
}
