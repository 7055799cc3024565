//! What `fewbit convert` shows.

use super::numbers::{bytes, count, grouped};
use super::table::{self, number, text as word};
use fewbit::{ConvertPlan, ConvertReport};
use std::path::Path;

/// The plan: what it is and would be, the files of weights, and what is to be known of the result.
pub(crate) fn plan(plan: &ConvertPlan) -> String {
    let source = plan.source_quantization.as_deref().unwrap_or("floats");
    let mut out = format!(
        "{source} -> {}: {} -> {}\n",
        plan.target,
        bytes(plan.source_bytes as u64),
        bytes(plan.output_bytes as u64),
    );
    if plan.dequantized > 0 {
        let weights = count(plan.dequantized, "weight", "weights");
        out.push_str(&format!("{weights} to be dequantized\n"));
    }
    for note in &plan.notes {
        out.push_str(&format!("{note}\n"));
    }
    let rows = plan.files.iter().map(|file| {
        let name = file.name.as_deref().unwrap_or("OUT");
        vec![name.to_owned(), grouped(file.bytes)]
    });
    out.push('\n');
    out.push_str(&table::render(&[word("file"), number("bytes")], rows));
    out.push_str(&format!(
        "\n{} of weights; nothing written\n",
        bytes(plan.file_bytes)
    ));
    out
}

/// The report: what it was and what it is, sizes, and what was lost on the way.
pub(crate) fn report(report: &ConvertReport, output: &Path) -> String {
    let source = report.source_quantization.as_deref().unwrap_or("floats");
    let mut out = format!(
        "{source} -> {}: {} -> {}; {} {} bytes\n",
        report.target,
        bytes(report.source_bytes as u64),
        bytes(report.output_bytes as u64),
        match report.files {
            1 => "the whole file has".to_owned(),
            files => format!("{files} files have"),
        },
        grouped(report.file_bytes),
    );
    if report.dequantized > 0 {
        let weights = count(report.dequantized, "weight", "weights");
        out.push_str(&format!("{weights} dequantized\n"));
    }
    if report.underflowed > 0 {
        let values = count(report.underflowed, "value", "values");
        out.push_str(&format!("{values} too small for the dtype became zero\n"));
    }
    for note in &report.notes {
        out.push_str(&format!("{note}\n"));
    }
    out.push_str(&format!(
        "written to {} in {:.2} s\n",
        output.display(),
        report.elapsed_seconds
    ));
    out
}
