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
use fewbit::calibration::{CalibrationOptions, CalibrationStep, CalibrationTexts as Source};
use fewbit::data::tokens::INPUT_IDS;
use fewbit::quantize::calibration::texts::SampleSize;
use fewbit::quantize::calibration::{
    CalibratedFile, CalibrationRun, CalibrationSamples, LEAST_SQNR_DB, Sensitivity,
    SiteSensitivity, StaticCalibration, StatisticsFile,
};
use fewbit::quantize::observers::{AveragingConstant, KeptPercentage};
use fewbit::quantize::{
    ActivationScales, Backend, Calibrator, IntegerInputs, IntegerRecipe, ObserverKind,
    ObserverSettings, WeightScales,
};
use fewbit::{Method, Recipe};
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
    let options = options_of_texts(flags);
    let calibrator = Calibrator::prepare(&source, settings(&options)?)?;
    let mut note = |step: CalibrationStep<'_>| note(&step, options.size);
    let input = options.input(&arguments.calibration, &mut note)?;
    let spec = calibrator.encoder().network().spec();
    let samples = options.draw(&input, spec, &mut note)?;
    let run = CalibrationRun::new(&input, &samples, flags.seed, flags.batch_size())?;
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
    let least = options.least_sqnr_db();
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
    super::quantize::training::check(arguments, recipe)?;
    if recipe.is_trained() {
        return Ok(());
    }
    let calibration = &arguments.calibration;
    // Scales per tensor at run time have a backend, too, but nothing to observe.
    let of_run_time = has_scales_of_run_time(recipe) && arguments.recipe.is_none();
    let named = is_named(calibration, of_run_time)? || !calibration.texts.field.is_empty();
    if arguments.recipe.is_none() {
        refuse_choices_of_integers(arguments, recipe)?;
    }
    if recipe.needs_samples() {
        return check_samples(arguments, recipe, of_run_time);
    }
    if named && arguments.recipe.is_some() {
        return Err(UsageError(
            "flags of calibration do not go with --recipe, which holds the scales that calibration chose\n  hint: give --method static instead of the recipe to calibrate again".to_owned(),
        ));
    }
    if named && recipe.method() != Method::Static {
        return Err(UsageError(format!(
            "flags of calibration do not go with the method `{}`, which is not calibrated\n  hint: leave them out, or give --method static, or --gptq, which takes texts for every method of 8 and of 4 bits",
            recipe.method()
        )));
    }
    if !is_given(calibration) && arguments.recipe.is_none() && recipe.method() == Method::Static {
        return Err(UsageError(format!("--method static: {EXPECTED_TEXTS}")));
    }
    Ok(())
}

/// Refuses what chooses scales of integers, where they are those of FP8, or of weights whose scales the backend chooses.
fn refuse_choices_of_integers(
    arguments: &QuantizeArguments,
    recipe: &Recipe,
) -> Result<(), UsageError> {
    let are_floats = recipe
        .integer()
        .is_some_and(|options| options.weights.floats().is_some());
    if arguments.weight_scales.is_some() && !are_floats {
        return Err(UsageError(
            "--weight-scales: expected --weights fp8 beside it\n  hint: int8 weights have a scale for each channel, or what --backend has; groups have --group-size".to_owned(),
        ));
    }
    if !are_floats || recipe.method() != Method::Static {
        return Ok(());
    }
    let calibration = &arguments.calibration;
    let flag = if calibration.min_sqnr.is_some() {
        "--min-sqnr"
    } else if calibration.texts.observer.is_some() {
        "--observer"
    } else if calibration.texts.backend.is_some() {
        "--backend"
    } else if arguments.sensitivity.is_some() {
        "--sensitivity"
    } else {
        return Ok(());
    };
    Err(UsageError(format!(
        "{flag} does not go with --weights fp8\n  hint: leave it out: every input has its largest magnitude as its range, which costs floats nothing"
    )))
}

/// Whether the inputs of layers have one scale each that is chosen at run time.
fn has_scales_of_run_time(recipe: &Recipe) -> bool {
    recipe
        .integer()
        .is_some_and(|options| match &options.inputs {
            IntegerInputs::Dynamic(inputs) => inputs.activations != ActivationScales::PerToken,
            _ => false,
        })
}

/// Refuses what is rounded or scaled for texts without any, and flags beside it that would have no effect.
fn check_samples(
    arguments: &QuantizeArguments,
    recipe: &Recipe,
    of_run_time: bool,
) -> Result<(), UsageError> {
    let calibration = &arguments.calibration;
    if calibration.calibration.is_none() {
        let who = match (&arguments.recipe, recipe.needs_gptq()) {
            (Some(file), true) => format!("{}: `gptq`", file.display()),
            (Some(file), false) => format!("{}: `scales`", file.display()),
            (None, true) => "--gptq".to_owned(),
            (None, false) => "--scales activation-weighted".to_owned(),
        };
        return Err(UsageError(format!("{who}: {EXPECTED_SAMPLES}")));
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

/// Refuses flags of ranges where no range is chosen, and texts are only there for GPTQ or weighted scales.
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
        "{flag}: expected the method `static`, without a recipe file: it is about ranges of inputs, of which none is chosen here\n  hint: leave it out: GPTQ and weighted scales need nothing but texts"
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

/// What GPTQ and weighted scales need.
pub(super) const EXPECTED_SAMPLES: &str = "expected --calibration FILE\n  hint: a few hundred texts like those that the model will see, one a line; statistics (--stats) hold ranges, and nothing else will do";

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
    options: &IntegerRecipe,
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
    let options = options(arguments);
    settings(&options)?;
    let mut progress = None;
    let calibration = options.calibrate(source, &mut |step| match step {
        CalibrationStep::Observed(done, samples) => progress
            .get_or_insert_with(|| samples_progress(samples))
            .set(done as u64, samples.len() as u64, ""),
        step => note(&step, options.size),
    });
    if let Some(progress) = progress {
        progress.finish();
    }
    Ok(calibration?)
}

/// The texts or rows of --calibration, for the model in `source`.
pub(super) fn samples(
    source: &Path,
    arguments: &CalibrationArguments,
) -> Result<CalibrationSamples> {
    if arguments.calibration.is_none() {
        return Err(UsageError(EXPECTED_SAMPLES.to_owned()).into());
    }
    let options = options(arguments);
    let samples = options.samples_for(source, &mut |step| note(&step, options.size));
    Ok(samples?)
}

/// What the flags of calibration amount to.
pub(super) fn options(arguments: &CalibrationArguments) -> CalibrationOptions {
    CalibrationOptions {
        texts: arguments.calibration.clone().map(Source::File),
        statistics: arguments.stats.clone(),
        min_sqnr: arguments.min_sqnr,
        ..options_of_texts(&arguments.texts)
    }
}

/// What the flags amount to that say which texts are observed, and how.
pub(super) fn options_of_texts(flags: &CalibrationTexts) -> CalibrationOptions {
    CalibrationOptions {
        size: flags.sample_size(),
        batch_size: flags.batch_size(),
        seed: flags.seed,
        fields: flags.field.clone(),
        input_ids_column: flags.input_ids_column.clone(),
        attention_mask_column: flags.attention_mask_column.clone(),
        observer: flags.observer.map(observer),
        backend: flags.backend.map(backend_of),
        ..CalibrationOptions::default()
    }
}

/// Says what is worth knowing of the samples.
pub(super) fn note(step: &CalibrationStep<'_>, size: SampleSize) {
    let (file, drawn) = match step {
        CalibrationStep::Observed(..) => return,
        CalibrationStep::TokenIds(file) => {
            streams::note(&format!(
                "{}: no column `text`: calibrating with the token ids of `{INPUT_IDS}`\n",
                file.display()
            ));
            return;
        }
        CalibrationStep::Drawn(file, drawn) => (file.display(), drawn),
    };
    if drawn.blank > 0 {
        streams::note(&format!(
            "{file}: {} passed over\n",
            count(drawn.blank, "blank text was", "blank texts were")
        ));
    }
    if drawn.seen < size.most() {
        let what = match drawn.samples {
            CalibrationSamples::Texts(_) => count(drawn.seen, "text", "texts"),
            CalibrationSamples::Tokens(_) => count(drawn.seen, "row", "rows"),
        };
        streams::note(&format!(
            "{file}: {what}, fewer than the usual {}: calibrating with all of them\n",
            size.most()
        ));
    }
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
    arguments.backend.map_or(Backend::Native, backend_of)
}

fn backend_of(argument: BackendArgument) -> Backend {
    match argument {
        BackendArgument::Native => Backend::Native,
        BackendArgument::Fbgemm => Backend::Fbgemm,
        BackendArgument::X86 => Backend::X86,
        BackendArgument::Qnnpack => Backend::Qnnpack,
        BackendArgument::Onednn => Backend::Onednn,
    }
}

fn observer(argument: ObserverArgument) -> ObserverKind {
    match argument {
        ObserverArgument::MinMax => ObserverKind::MinMax,
        ObserverArgument::MovingAverage => ObserverKind::MovingAverageMinMax {
            averaging_constant: AveragingConstant::default(),
        },
        ObserverArgument::Histogram => ObserverKind::Histogram,
        ObserverArgument::Percentile => ObserverKind::Percentile {
            percentile: KeptPercentage::default(),
        },
        ObserverArgument::Mse => ObserverKind::Mse,
        ObserverArgument::Entropy => ObserverKind::Entropy,
    }
}

/// The observer of activations.
pub(super) fn settings(options: &CalibrationOptions) -> Result<ObserverSettings> {
    let settings = options.observer_settings();
    settings.map_err(|error| UsageError(format!("--observer: {error}")).into())
}
