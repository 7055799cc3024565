//! What each choice of weights costs at each layer, and what was chosen.

use super::numbers::{count, megabytes};
use super::table::{self, number, text as word};
use fewbit::sensitivity::{GroupSensitivity, SensitivityReport, UniformWeights};
use std::path::Path;

/// The report; the recipe lies in `written`, if in any file.
pub(crate) fn text(report: &SensitivityReport, written: Option<&Path>) -> String {
    let mut columns = vec![word("layers")];
    for choice in &report.choices {
        columns.push(number(format!("{choice}\nbytes")));
        if *choice != report.baseline {
            columns.push(number("\ncost"));
        }
    }
    columns.push(word("chosen"));
    let rows = report.groups.iter().map(|group| {
        let mut cells = vec![names(group)];
        for choice in &group.choices {
            cells.push(super::numbers::grouped(choice.bytes));
            if choice.weights != report.baseline {
                cells.push(format!("{:.1e}", choice.loss));
            }
        }
        cells.push(group.chosen.clone());
        cells
    });
    let groups = table::render(&columns, rows);
    let mixed = UniformWeights {
        weights: "mixed, as chosen".to_owned(),
        file_bytes: report.file_bytes,
        cosine: report.measured_cosine,
    };
    let columns = [word("weights"), number("MB"), number("mean cosine")];
    let models = report.uniform.iter().chain([&mixed]);
    let models = models.map(|model| {
        vec![
            model.weights.clone(),
            megabytes(model.file_bytes, 2),
            format!("{:.6}", model.cosine),
        ]
    });
    let models = table::render(&columns, models);
    let after = match written {
        Some(path) => format!("\nrecipe written to {}\n", path.display()),
        None => "\nno recipe written: -o FILE says where\n".to_owned(),
    };
    format!(
        "{groups}\ncost: what the choice at these layers alone adds to 1 - mean cosine of the embeddings to the float model's,\nover {}; all else is {}\n\n{models}\nmixed: mean cosine {:.6} predicted, {:.6} measured on the texts that it was chosen by\n{after}",
        count(report.texts, "text", "texts"),
        report.baseline,
        report.predicted_cosine,
        report.measured_cosine
    )
}

/// The layers of a group: `encoder.layer.0.attention.self.{query,key,value}`.
fn names(group: &GroupSensitivity) -> String {
    let modules = &group.modules;
    let parts = |module: &String| {
        let (start, end) = module.rsplit_once('.').unwrap_or(("", module));
        (start.to_owned(), end.to_owned())
    };
    let first = modules.first().map(parts).unwrap_or_default().0;
    match &modules[..] {
        [only] => only.clone(),
        _ if !first.is_empty() && modules.iter().all(|module| parts(module).0 == first) => {
            let ends: Vec<String> = modules.iter().map(|module| parts(module).1).collect();
            format!("{first}.{{{}}}", ends.join(","))
        }
        _ => modules.join(", "),
    }
}
