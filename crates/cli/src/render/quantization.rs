//! What `fewbit quantize` shows: the plan of a dry run, the report of a conversion.

use super::numbers::{bytes, count, grouped};
use super::table::{self, number, text as word};
use fewbit::quantize::PlanRow;
use fewbit::size::part_order;
use fewbit::{KeptModule, ModuleReport, PartBytes, QuantizePlan, QuantizeReport, TensorAction};
use std::path::Path;

/// Layers that the report names as the worst.
const WORST_LAYERS: usize = 5;

/// The plan: the changed tensors, by their new form; those that stay float; the size of the result, whose files have `files` bytes.
pub(crate) fn plan(plan: &QuantizePlan, files: &[u64]) -> String {
    let (kept, changed): (Vec<_>, Vec<_>) = plan
        .rows()
        .iter()
        .partition(|row| row.action == TensorAction::Keep);
    let mut groups: Vec<(&TensorAction, Vec<&PlanRow>)> = Vec::new();
    for &row in &changed {
        // Static scales differ from layer to layer; what is done is the same.
        let same = |action: &TensorAction| action.to_string() == row.action.to_string();
        match groups.iter_mut().find(|(action, _)| same(action)) {
            Some((_, rows)) => rows.push(row),
            None => groups.push((&row.action, vec![row])),
        }
    }
    let mut out = String::new();
    for (action, rows) in groups {
        out.push_str(&format!(
            "{action}: {}\n",
            count(rows.len(), "tensor", "tensors")
        ));
        out.push_str(&plan_rows(&rows));
        out.push('\n');
    }
    let kept_bytes: usize = kept.iter().map(|row| row.output_bytes).sum();
    out.push_str(&format!(
        "written as they are: {} ({})\n\n",
        count(kept.len(), "tensor", "tensors"),
        bytes(kept_bytes as u64)
    ));
    out.push_str(&summary(
        &plan.recipe().label(),
        plan.source_bytes(),
        plan.output_bytes(),
        plan.compression_ratio(),
        plan.bits_per_weight(),
        (files.len(), files.iter().sum()),
    ));
    out.push_str(&parts(plan.parts()));
    out.push_str(&kept_modules(plan.kept()));
    out.push_str(&notes(plan.notes()));
    out.push_str("\nDry run: nothing was written.\n");
    out
}

fn plan_rows(rows: &[&PlanRow]) -> String {
    table::render(
        &[
            word("tensor"),
            number("shape"),
            word("now"),
            number("bytes now"),
            number("bytes then"),
        ],
        rows.iter().map(|row| {
            let shape: Vec<String> = row.shape.iter().map(usize::to_string).collect();
            vec![
                row.tensor.clone(),
                shape.join(" x "),
                row.dtype.to_owned(),
                grouped(row.source_bytes as u64),
                grouped(row.output_bytes as u64),
            ]
        }),
    )
}

/// The report: size before and after, what stayed float and why, the layers that lost most.
pub(crate) fn report(report: &QuantizeReport, output: &Path) -> String {
    let mut out = summary(
        &report.recipe.label(),
        report.source_bytes,
        report.output_bytes,
        report.compression_ratio,
        report.bits_per_weight,
        (report.files, report.file_bytes),
    );
    out.push_str(&parts(&report.parts));
    out.push_str(&kept_modules(&report.kept));
    out.push_str(&worst(&report.modules));
    if report.underflowed > 0 {
        let values = count(report.underflowed, "value", "values");
        out.push_str(&format!("\n{values} too small for the dtype became zero\n"));
    }
    out.push_str(&notes(&report.notes));
    out.push_str(&format!(
        "\nwritten to {} in {:.2} s\n",
        output.display(),
        report.elapsed_seconds
    ));
    out
}

fn summary(
    label: &str,
    source: usize,
    output: usize,
    ratio: f64,
    bits: Option<f64>,
    (files, file_bytes): (usize, u64),
) -> String {
    let files = match files {
        1 => "the whole file has".to_owned(),
        _ => format!("the {files} files of weights have"),
    };
    let bits = bits.map_or_else(String::new, |bits| {
        format!(", {bits:.2} bits a weight in the layers changed")
    });
    format!(
        "{label}: {} -> {}, {ratio:.2} times smaller{bits}; {files} {} bytes\n\n",
        bytes(source as u64),
        bytes(output as u64),
        grouped(file_bytes)
    )
}

fn parts(parts: &[PartBytes]) -> String {
    let mut parts: Vec<&PartBytes> = parts.iter().collect();
    parts.sort_by_key(|part| part_order(part.part));
    table::render(
        &[word("part"), number("bytes before"), number("bytes after")],
        parts.iter().map(|part| {
            vec![
                part.part.to_owned(),
                grouped(part.source_bytes as u64),
                grouped(part.output_bytes as u64),
            ]
        }),
    )
}

/// Modules grouped by their reason, in the order of first appearance.
fn kept_modules(kept: &[KeptModule]) -> String {
    const SHOWN: usize = 4;
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for module in kept {
        let reason = module.reason.to_string();
        match groups.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, modules)) => modules.push(&module.module),
            None => groups.push((reason, vec![&module.module])),
        }
    }
    if groups.is_empty() {
        return String::new();
    }
    let mut out = "\nstays float:\n".to_owned();
    for (reason, modules) in groups {
        let more = modules.len().saturating_sub(SHOWN);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        let shown: Vec<&str> = modules.iter().take(SHOWN).copied().collect();
        out.push_str(&format!("  {}{more}: {reason}\n", shown.join(", ")));
    }
    out
}

fn worst(modules: &[ModuleReport]) -> String {
    // Without loss the ratio is infinite: there is no worst layer then.
    let mut lossy: Vec<&ModuleReport> = modules
        .iter()
        .filter(|module| module.sqnr_db.is_finite())
        .collect();
    lossy.sort_by(|a, b| a.sqnr_db.total_cmp(&b.sqnr_db));
    if lossy.is_empty() {
        return String::new();
    }
    let shown = lossy.iter().take(WORST_LAYERS).map(|module| {
        vec![
            module.module.clone(),
            format!("{:.1}", module.sqnr_db),
            format!("{:.6}", module.cosine),
            format!("{:.2e}", module.max_absolute_error),
        ]
    });
    format!(
        "\nweights that lost most, of {}:\n{}",
        count(modules.len(), "layer", "layers"),
        table::render(
            &[
                word("layer"),
                number("SQNR dB"),
                number("cosine"),
                number("largest error")
            ],
            shown
        )
    )
}

fn notes(notes: &[String]) -> String {
    notes
        .iter()
        .map(|note| format!("\nnote: {note}\n"))
        .collect()
}
