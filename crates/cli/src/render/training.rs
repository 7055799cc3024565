//! What `fewbit quantize --method qat` shows of the training.

use super::numbers::count;
use fewbit::train::{TrainingEnd, TrainingProgress, TrainingReport};

/// Loss and held-out cosine, beside a bar of progress.
pub(crate) fn state(state: &TrainingProgress) -> String {
    let loss = state
        .loss
        .map_or_else(String::new, |loss| format!("loss {loss:.5}, "));
    match state.cosine {
        Some(cosine) => format!("{loss}held-out cosine {cosine:.5}"),
        None => "quantizing the model to begin with".to_owned(),
    }
}

/// What the training did, in one paragraph.
pub(crate) fn report(report: &TrainingReport) -> String {
    let end = match report.end {
        TrainingEnd::AllSteps => "",
        TrainingEnd::NoGain => ", when held-out texts showed no gain any more",
        TrainingEnd::NotFinite => ", when a number was not finite any more",
    };
    format!(
        "trained on {} for {}{end}, {:.0} s\nmean cosine to the float model on {} held out: {:.5} before, {:.5} after step {}\n\n",
        count(report.trained_texts, "text", "texts"),
        count(report.steps, "step", "steps"),
        report.training_seconds,
        count(report.held_out_texts, "text", "texts"),
        report.cosine_before,
        report.cosine_after,
        report.best_step,
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
