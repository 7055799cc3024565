//! Which layers need 8 bits, and which do with 4: measured on texts of a file, and chosen under a limit.

use crate::Error;
use crate::calibration::{CalibrationOptions, CalibrationStep};
pub use fewbit_quantize::sensitivity::{
    ChoiceSensitivity, GroupSensitivity, SensitivityGoal, SensitivityOptions, SensitivityReport,
    UniformWeights, WeightChoice, WeightSensitivity,
};
use fewbit_quantize::{IntegerInputs, Recipe};
use std::path::Path;

/// What happens while layers are measured.
#[derive(Debug)]
pub enum SensitivityStep<'a> {
    /// Texts are drawn.
    Samples(CalibrationStep<'a>),
    /// So many of so many passes over the texts are done; the text says what is run.
    Pass(usize, usize, &'a str),
}

/// Measures what the choices of weights cost at each layer of the model in `source`, on the texts that `calibration` names, and gives the mixture that is best
/// under `goal`, with its recipe. [`fewbit_quantize::sensitivity`] has the formulas. Of `static` without scales, the ranges of inputs are calibrated with the same texts
/// first; they are those of the float model, whatever weights are chosen.
///
/// # Errors
/// Texts that cannot be read or are none, a model that fewbit does not run, choices that do not fit its layers, a goal that no mixture reaches.
///
/// ```no_run
/// use fewbit::calibration::{CalibrationOptions, CalibrationTexts};
/// use fewbit::sensitivity::{SensitivityGoal, SensitivityOptions, sensitivity};
///
/// let texts = CalibrationOptions {
///     texts: Some(CalibrationTexts::File("texts.txt".into())),
///     ..CalibrationOptions::default()
/// };
/// let goal = SensitivityGoal::MinCosine(0.99);
/// let report = sensitivity("models/minilm", &SensitivityOptions::default(), &texts, goal, &mut |_| {})?;
/// std::fs::write("recipe.toml", report.recipe.to_toml())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn sensitivity(
    source: impl AsRef<Path>,
    options: &SensitivityOptions,
    calibration: &CalibrationOptions,
    goal: SensitivityGoal,
    step: &mut dyn FnMut(SensitivityStep<'_>),
) -> Result<SensitivityReport, Error> {
    let source = source.as_ref();
    let mut options = options.clone();
    let mut tell = |drawn: CalibrationStep<'_>| step(SensitivityStep::Samples(drawn));
    let is_to_be_calibrated = matches!(
        &options.base.inputs,
        IntegerInputs::Static(inputs) if inputs.scales.is_empty()
    );
    let samples = if is_to_be_calibrated {
        let calibrated = calibration.calibrate(source, &mut tell)?;
        if let Recipe::Integer(with_scales) = calibrated.recipe(&options.base)? {
            options.base = with_scales;
        }
        goal.check(source, &options)?;
        calibrated.into_samples()
    } else {
        goal.check(source, &options)?;
        calibration.samples_for(source, &mut tell)?
    };
    let mut pass = |done: usize, total: usize, what: &str| {
        step(SensitivityStep::Pass(done, total, what));
    };
    let measured = WeightSensitivity::measure(source, &options, &samples, &mut pass)?;
    Ok(measured.choose(goal, &mut pass)?)
}
