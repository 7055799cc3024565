//! What `fewbit inspect` shows of a GGUF file.

use super::numbers::{bytes, grouped, without_control_characters};
use super::table::{self, number, text as word};
use fewbit::GgufInspection;
use serde_json::Value;

/// Characters of a value that are shown.
const VALUE_CHARACTERS: usize = 72;

/// The inspection as text; every tensor too if `tensors`.
pub(crate) fn text(inspection: &GgufInspection, tensors: bool) -> String {
    let architecture = inspection.architecture.as_deref().unwrap_or("unknown");
    let mut out = format!(
        "{}\n  GGUF version {}, architecture {}\n  {} parameters, {} of tensors ({:.2} bits a parameter), {} on disk\n\n",
        inspection.file.display(),
        inspection.version,
        without_control_characters(architecture),
        grouped(inspection.parameters),
        bytes(inspection.tensor_bytes),
        inspection.bits_per_parameter,
        bytes(inspection.file_bytes),
    );
    out.push_str(&types(inspection));
    if tensors {
        out.push('\n');
        out.push_str(&tensor_table(inspection));
    }
    out.push('\n');
    out.push_str(&metadata(inspection));
    let unread: Vec<&str> = inspection
        .by_type
        .iter()
        .filter(|kind| !kind.is_read)
        .map(|kind| kind.name)
        .collect();
    if !unread.is_empty() {
        out.push_str(&format!(
            "\nfewbit shows tensors of {} and does not read them.\n",
            unread.join(", ")
        ));
    }
    out
}

fn types(inspection: &GgufInspection) -> String {
    let total = inspection.tensor_bytes.max(1) as f64;
    table::render(
        &[
            word("type"),
            number("tensors"),
            number("parameters"),
            number("bytes"),
            number("share"),
        ],
        inspection.by_type.iter().map(|kind| {
            vec![
                kind.name.to_owned(),
                kind.tensors.to_string(),
                grouped(kind.parameters),
                grouped(kind.bytes),
                format!("{:.1} %", 100.0 * kind.bytes as f64 / total),
            ]
        }),
    )
}

fn tensor_table(inspection: &GgufInspection) -> String {
    table::render(
        &[
            word("tensor"),
            word("type"),
            number("shape"),
            number("parameters"),
            number("bytes"),
        ],
        inspection.tensors.iter().map(|tensor| {
            let shape: Vec<String> = tensor.shape.iter().map(usize::to_string).collect();
            vec![
                without_control_characters(&tensor.name),
                tensor.kind.to_owned(),
                shape.join(" x "),
                grouped(tensor.parameters),
                grouped(tensor.bytes),
            ]
        }),
    )
}

fn metadata(inspection: &GgufInspection) -> String {
    table::render(
        &[word("metadata"), word("value")],
        inspection.metadata.iter().map(|entry| {
            let key = without_control_characters(&entry.key);
            vec![key, value(&entry.value)]
        }),
    )
}

/// A value on one line.
fn value(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(elements) => list(elements),
        Value::Object(array) => format!(
            "{} elements: {} …",
            grouped(array["count"].as_u64().unwrap_or(0)),
            list(array["first"].as_array().map_or(&[], Vec::as_slice))
        ),
        other => other.to_string(),
    };
    let text = without_control_characters(&text);
    match text.chars().count() > VALUE_CHARACTERS {
        true => text
            .chars()
            .take(VALUE_CHARACTERS - 1)
            .chain(['…'])
            .collect(),
        false => text,
    }
}

fn list(elements: &[Value]) -> String {
    let shown = elements.iter().map(|element| match element {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    shown.collect::<Vec<_>>().join(" ")
}
