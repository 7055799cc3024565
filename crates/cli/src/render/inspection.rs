//! What `fewbit inspect` shows.

use super::numbers::{bytes, grouped, without_control_characters};
use super::table::{self, number, text as word};
use fewbit::Inspection;
use fewbit::checkpoint::RenamedTensor;
use fewbit::inspect::{HeadInspection, PairSaturation};
use fewbit::model::{ScoreFunction, Task};
use fewbit::size::{GroupSize, TensorRole};
use std::fmt::Write;

/// The inspection as text; every tensor too if `tensors`.
pub(crate) fn text(inspection: &Inspection, tensors: bool) -> String {
    let size = &inspection.size;
    let mut out = format!(
        "{}\n  {}, {}\n{}  {}\n  {} parameters, {} of tensors ({:.2} bits a parameter), {} on disk\n\n",
        inspection.directory.display(),
        inspection.model_type,
        inspection.encoder.as_ref().map_or_else(
            || "a model that fewbit does not run: weights can be quantized, as their names and shapes say".to_owned(),
            |encoder| format!(
                "{} layers, hidden size {}, {} heads, vocabulary {}",
                encoder.layers,
                encoder.hidden_size,
                encoder.heads,
                grouped(encoder.vocab_size as u64)
            )
        ),
        inspection.head.as_ref().map(head).unwrap_or_default(),
        inspection.quantization.as_deref().map_or_else(
            || "not quantized".to_owned(),
            |name| format!("quantized: {name}")
        ),
        grouped(size.parameters),
        bytes(size.tensor_bytes()),
        size.bits_per_parameter,
        bytes(size.disk_bytes),
    );
    if let Some(example) = RenamedTensor::example(&inspection.renamed) {
        // With the other lines about the model, before the blank one.
        out.truncate(out.len() - 1);
        let _ = writeln!(
            out,
            "  shown under the names of modules in transformers: {example}\n"
        );
    }
    if let Some(saturation) = &inspection.saturation {
        // With the other lines about the model, before the blank one.
        out.truncate(out.len() - 1);
        out.push_str(&pairs(saturation));
    }
    out.push_str(&groups("part", &size.by_part, size.tensor_bytes()));
    out.push('\n');
    out.push_str(&groups("dtype", &size.by_dtype, size.tensor_bytes()));
    if tensors {
        out.push('\n');
        out.push_str(&tensor_table(inspection));
    }
    out.push('\n');
    out.push_str(&methods(inspection));
    out
}

/// Labels that are shown by name.
const SHOWN_LABELS: usize = 12;

/// The line about the task head.
fn head(head: &HeadInspection) -> String {
    let class = without_control_characters(&head.model_class);
    if let Some(reason) = &head.not_run {
        return format!("  task head of {class}, of which fewbit gives no logits: {reason}\n");
    }
    let mut line = format!("  {} ({class})", head.task.map_or("task head", Task::name));
    if !head.labels.is_empty() {
        let shown = head.labels.iter().take(SHOWN_LABELS);
        let shown: Vec<String> = shown
            .map(|label| without_control_characters(label))
            .collect();
        let plural = if head.labels.len() == 1 { "" } else { "s" };
        line.push_str(&format!(
            ", {} label{plural}: {}",
            head.labels.len(),
            shown.join(", ")
        ));
        if shown.len() < head.labels.len() {
            line.push_str(", …");
        }
    }
    match head.scores {
        None => {}
        Some(ScoreFunction::Softmax) => line.push_str("; scores: softmax"),
        Some(ScoreFunction::Sigmoid) => line.push_str("; scores: sigmoid"),
        Some(ScoreFunction::Identity) => line.push_str("; scores: the logits"),
    }
    line.push('\n');
    line
}

/// Whether 16-bit sums of products are exact.
fn pairs(saturation: &PairSaturation) -> String {
    let PairSaturation {
        saturating_pairs,
        pairs,
        ..
    } = *saturation;
    let all = grouped(pairs);
    if saturating_pairs == 0 {
        return format!(
            "  saturation-proof: none of {all} pairs of int8 weights can saturate 16 bits\n\n"
        );
    }
    format!(
        "  not saturation-proof: {} of {all} pairs of int8 weights ({:.2} %) can saturate 16 bits\n\n",
        grouped(saturating_pairs),
        100.0 * saturating_pairs as f64 / pairs as f64
    )
}

fn groups(header: &'static str, groups: &[GroupSize], total: u64) -> String {
    let with_dtypes = header == "part";
    let mut columns = vec![
        word(header),
        number("tensors"),
        number("parameters"),
        number("bytes"),
        number("share"),
    ];
    if with_dtypes {
        columns.push(word("dtypes"));
    }
    table::render(
        &columns,
        groups.iter().map(|group| {
            let share = 100.0 * group.bytes as f64 / total.max(1) as f64;
            let mut row = vec![
                group.name.to_owned(),
                group.tensors.to_string(),
                grouped(group.parameters),
                grouped(group.bytes),
                format!("{share:.1} %"),
            ];
            if with_dtypes {
                row.push(group.dtypes.join(" "));
            }
            row
        }),
    )
}

fn tensor_table(inspection: &Inspection) -> String {
    table::render(
        &[
            word("tensor"),
            word("part"),
            word("dtype"),
            number("shape"),
            number("parameters"),
            number("bytes"),
        ],
        inspection.tensors.iter().map(|tensor| {
            let shape: Vec<String> = tensor.shape.iter().map(usize::to_string).collect();
            vec![
                tensor.name.clone(),
                tensor.part.to_owned(),
                tensor.dtype.to_owned(),
                shape.join(" x "),
                match tensor.role {
                    TensorRole::Parameter => grouped(tensor.parameters),
                    TensorRole::Buffer => "-".to_owned(),
                },
                grouped(tensor.bytes),
            ]
        }),
    )
}

fn methods(inspection: &Inspection) -> String {
    if inspection.methods.is_empty() {
        return "Quantized already: other methods start from the float checkpoint.\n".to_owned();
    }
    let rows = inspection.methods.iter().map(|method| {
        vec![
            method.label.clone(),
            bytes(method.file_bytes),
            format!(
                "{:.2}",
                inspection.size.disk_bytes as f64 / method.file_bytes as f64
            ),
        ]
    });
    format!(
        "What each method would make of it (the whole file of weights; static with every input static):\n{}",
        table::render(
            &[word("method"), number("size"), number("times smaller")],
            rows
        )
    )
}
