//! What `fewbit convert` shows.

use super::numbers::{bytes, count, grouped};
use fewbit::ConvertReport;
use std::path::Path;

/// The report: what it was and what it is, sizes, and what was lost on the way.
pub(crate) fn report(report: &ConvertReport, output: &Path) -> String {
    let source = report.source_quantization.as_deref().unwrap_or("floats");
    let mut out = format!(
        "{source} -> {}: {} -> {}; the whole file has {} bytes\n",
        report.target,
        bytes(report.source_bytes as u64),
        bytes(report.output_bytes as u64),
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
