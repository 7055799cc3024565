//! What `fewbit quantize --method qat` shows of the training.

use super::numbers::count;
use fewbit::train::{LogitAgreement, LogitMeasure, TrainingEnd, TrainingProgress, TrainingReport};

/// Loss, and what held-out texts are judged by, beside a bar of progress.
pub(crate) fn state(state: &TrainingProgress) -> String {
    let words = state.in_words();
    words.unwrap_or_else(|| "quantizing the model to begin with".to_owned())
}

/// What the training did, in one paragraph.
pub(crate) fn report(report: &TrainingReport) -> String {
    let end = match report.end {
        TrainingEnd::AllSteps => "",
        TrainingEnd::NoGain => ", when held-out texts showed no gain any more",
        TrainingEnd::NotFinite => ", when a number was not finite any more",
    };
    let trained = format!(
        "trained on {} for {}{end}, {:.0} s",
        count(report.trained_texts, "text", "texts"),
        count(report.steps, "step", "steps"),
        report.training_seconds,
    );
    let held_out = count(report.held_out_texts, "text", "texts");
    let step = report.best_step;
    let (before, after) = (report.cosine_before, report.cosine_after);
    match (&report.logits_before, &report.logits_after) {
        (Some(logits_before), Some(logits_after)) => format!(
            "{trained}\n{}mean cosine of the embeddings: {before:.5} before, {after:.5} after\n\n",
            logits(logits_before, logits_after, &held_out, step)
        ),
        _ => format!(
            "{trained}\nmean cosine to the float model on {held_out} held out: {before:.5} before, {after:.5} after step {step}\n\n"
        ),
    }
}

/// How near logits are to those of the float model: the lines of a model with a head.
fn logits(before: &LogitAgreement, after: &LogitAgreement, held_out: &str, step: usize) -> String {
    let measure = match after.measure {
        LogitMeasure::KullbackLeibler => "mean KL divergence from the float model's probabilities",
        LogitMeasure::RelativeSquaredDistance => {
            "mean squared distance to the float model's values, of their variance,"
        }
    };
    let same = before.same_answers.zip(after.same_answers);
    let same = same.map_or_else(String::new, |(before, after)| {
        let [before, after] = [before, after].map(|share| 100.0 * share);
        format!("same answers: {before:.1}% before, {after:.1}% after\n")
    });
    format!(
        "{measure} on {held_out} held out: {:.5} before, {:.5} after step {step}\n{same}",
        before.distance, after.distance
    )
}

/// What is worth a warning.
pub(crate) fn warning(report: &TrainingReport) -> Option<String> {
    let stopped = match report.end {
        TrainingEnd::NotFinite => format!(
            "training stopped after {}: loss or gradients were not finite; ",
            count(report.steps, "step", "steps")
        ),
        TrainingEnd::AllSteps | TrainingEnd::NoGain => String::new(),
    };
    match (report.best_step, stopped.is_empty()) {
        (0, _) => Some(format!(
            "{stopped}no step was better on held-out texts than the model before training, which is what was written: give other texts, more steps or another learning rate"
        )),
        (_, true) => None,
        (step, false) => Some(format!(
            "{stopped}the weights after step {step} were written: give a lower learning rate"
        )),
    }
}
