//! What the columns of a benchmark's tables mean.

use crate::render::numbers::{count, grouped};
use fewbit::bench::BenchReport;

/// A line, or several, for each column that needs one.
pub(super) fn legend(report: &BenchReport) -> String {
    let calls = || {
        report
            .shapes
            .iter()
            .flat_map(|row| &row.models)
            .map(|result| result.latency.calls)
    };
    let (least, most) = (calls().min().unwrap_or(0), calls().max().unwrap_or(0));
    let calls = if least == most {
        count(least, "call", "calls")
    } else {
        format!(
            "{} to {}",
            grouped(least as u64),
            count(most, "call", "calls")
        )
    };
    let rounds = count(report.rounds, "round", "rounds");
    let startup = report.models[0].startup;
    let mut lines = vec![
        format!(
            "load, first embedding  from opening the directory, its files cached by the system; {},",
            count(startup.threads, "thread", "threads")
        ),
        format!(
            "                       middle one of {}",
            count(startup.startups, "fresh process", "fresh processes")
        ),
        "peak memory            of a process of its own for each model, pages of mapped files included;".to_owned(),
        "                       1 MB = 1,000,000 bytes".to_owned(),
        format!(
            "median, p10, p90, p99  of the time of a call; {calls} a row in {} s and {rounds}",
            report.seconds
        ),
    ];
    if least < 100 {
        lines.push(
            "                       (of fewer than 100 calls, p99 is close to the slowest)"
                .to_owned(),
        );
    }
    lines.extend([
        "texts/s, tokens/s      the batch, and its tokens, over the median".to_owned(),
        "GMAC/s                 10^9 multiply-adds of linear layers and attention a second, by the median;".to_owned(),
        "                       the peak is what the multiply-add instruction reaches from registers".to_owned(),
        "                       alone on one thread, times the threads".to_owned(),
    ]);
    if report.models.len() > 1 {
        lines.push("times faster           median time of the first model over that of this one; rounds visit the".to_owned());
        lines.push("                       models in turn".to_owned());
    }
    if report.texts.is_some() {
        lines.push("order                  a batch is texts that follow one another in the file, or texts of like".to_owned());
        lines.push(format!("                       length; median of {rounds}"));
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}
