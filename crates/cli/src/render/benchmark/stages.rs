//! Where the time of one model goes at one shape.

use crate::render::numbers::{count, decimals};
use crate::render::table::{self, number, text as word};
use fewbit::bench::{BenchReport, ProfileResult};

/// A title and a table; the model is named where there are several.
pub(super) fn stages(report: &BenchReport, result: &ProfileResult) -> String {
    let profile = &result.profile;
    let whole = profile.whole_milliseconds;
    let digits = decimals([whole / 100.0].into_iter());
    let row = |name: &str, milliseconds: f64| {
        vec![
            name.to_owned(),
            format!("{milliseconds:.digits$}"),
            format!("{:.1}", 100.0 * milliseconds / whole),
        ]
    };
    let rows = profile
        .stages
        .iter()
        .map(|stage| row(&stage.name, stage.milliseconds))
        .chain([
            row("other", profile.other_milliseconds),
            row("whole", whole),
        ]);
    let model = if report.models.len() > 1 {
        format!("{}, ", result.model)
    } else {
        String::new()
    };
    format!(
        "stages: {model}{} x {}, 1 thread, mean of {}\n{}",
        result.shape.batch,
        result.shape.tokens,
        count(profile.calls, "call", "calls"),
        table::render(&[word("stage"), number("ms"), number("share\n%")], rows)
    )
}
