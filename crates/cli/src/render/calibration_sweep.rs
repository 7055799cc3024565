//! The table of `fewbit compare --calibration-sweep`, and what its figures are.

use super::comparison::texts;
use super::numbers::{count, grouped};
use super::table::{self, Column, number, text as word};
use fewbit::compare::calibration_sweep::{CalibrationSweep, Spread, SweepRow};

/// The sweep as text, at most 80 columns wide but for long paths.
pub(crate) fn text(sweep: &CalibrationSweep) -> String {
    let scored = sweep.texts_kind == "pairs";
    let mut columns: Vec<Column> = vec![
        word("calibration\ntexts"),
        number("cosine\nmean"),
        number("\nlowest"),
        number("\nhighest"),
    ];
    if scored {
        columns.extend([
            number("Spearman\nmean"),
            number("\nlowest"),
            number("\nhighest"),
        ]);
    }
    columns.push(number("dynamic\ninputs"));
    let table = table::render(&columns, rows(sweep, scored));
    format!("{}{table}\n{}", introduction(sweep), legend(sweep, scored))
}

fn introduction(sweep: &CalibrationSweep) -> String {
    let judged = texts(
        sweep.texts,
        sweep.texts_kind,
        "better: your own, with --data",
    );
    let seeds: Vec<String> = sweep.seeds.iter().map(u64::to_string).collect();
    format!(
        "{}\nstatic, calibrated on texts of {}, seeds {}\njudged by {judged}; {}, {}\n\n",
        sweep.model.display(),
        sweep.calibration.display(),
        seeds.join(", "),
        count(sweep.threads, "thread", "threads"),
        sweep.isa
    )
}

fn rows(sweep: &CalibrationSweep, scored: bool) -> Vec<Vec<String>> {
    let points = |spearman: f64| format!("{:.2}", 100.0 * spearman);
    let single = |name: &str, cosine: Option<f64>, spearman: Option<f64>, inputs: String| {
        let empty = String::new;
        let cosine = cosine.map_or_else(empty, |cosine| format!("{cosine:.5}"));
        let mut cells = vec![name.to_owned(), cosine, empty(), empty()];
        if scored {
            let spearman = spearman.map_or_else(|| "-".to_owned(), points);
            cells.extend([spearman, empty(), empty()]);
        }
        cells.push(inputs);
        cells
    };
    let spearman = |similarity: Option<fewbit::evaluate::SentenceSimilarity>| {
        similarity.map(|similarity| similarity.spearman)
    };
    let swept = sweep.rows.iter().map(|row| {
        let three = |spread: Spread, show: &dyn Fn(f64) -> String| {
            [spread.mean, spread.least, spread.greatest].map(show)
        };
        let mut cells = vec![grouped(row.samples as u64)];
        cells.extend(three(row.mean_cosine, &|cosine| format!("{cosine:.5}")));
        if scored {
            let dashes = || [(); 3].map(|()| "-".to_owned());
            let spread = row.spearman.map(|spread| three(spread, &points));
            cells.extend(spread.unwrap_or_else(dashes));
        }
        cells.push(dynamic_inputs(row));
        cells
    });
    let dynamic = &sweep.dynamic;
    let cosine = Some(dynamic.agreement.mean_cosine);
    let all = sweep.inputs.to_string();
    let references = [
        single("(original)", None, spearman(sweep.original), String::new()),
        single("(dynamic)", cosine, spearman(dynamic.similarity), all),
    ];
    references.into_iter().chain(swept).collect()
}

/// How many inputs the seeds left dynamic.
fn dynamic_inputs(row: &SweepRow) -> String {
    let inputs = || row.runs.iter().map(|run| run.dynamic_inputs);
    match (inputs().min(), inputs().max()) {
        (Some(least), Some(most)) if least != most => format!("{least} to {most}"),
        (least, _) => least.unwrap_or_default().to_string(),
    }
}

fn legend(sweep: &CalibrationSweep, scored: bool) -> String {
    let seeds = sweep.seeds.len();
    let mut lines = vec![
        format!("mean, lowest, highest: of {seeds} models, each calibrated on another draw"),
        "cosine          mean cosine of the embeddings to those of the original".to_owned(),
    ];
    if scored {
        lines.push(
            "Spearman        100 x rank correlation of the pairs' similarities and scores"
                .to_owned(),
        );
    }
    lines.push(format!(
        "dynamic inputs  of {}: one range would cost too much there (--min-sqnr)",
        sweep.inputs
    ));
    lines.iter().map(|line| format!("{line}\n")).collect()
}
