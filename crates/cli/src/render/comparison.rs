//! The table of `fewbit compare`, a legend, and what to keep in mind.

use super::columns::{self, Columns};
use super::numbers::{count, grouped, megabytes};
use super::table::{number, text as word};
use fewbit::compare::{ComparedModel, Comparison};
use fewbit::measure::ModelOutput;
use fewbit::model::WeightOnlyArithmetic;

/// The comparison as text, at most 120 columns wide for the methods there are.
pub(crate) fn text(comparison: &Comparison) -> String {
    let mut columns = Columns::of(&comparison.rows)
        .with(word("method"), |row| short(&row.name))
        .with(number("disk\nMB"), |row| megabytes(row.disk_bytes, 1))
        .with(number("params\nMB"), |row| {
            megabytes(row.parameter_bytes, 1)
        })
        .with(number("buffers\nMB"), |row| megabytes(row.buffer_bytes, 1))
        .numbers("times\nless", Some(2), |row| row.compression_ratio)
        .numbers("bits/\nweight", Some(2), |row| row.bits_per_weight);
    columns = match comparison.output {
        ModelOutput::Embeddings => of_embeddings(columns, comparison),
        ModelOutput::Logits => of_classes(columns, comparison),
    };
    let mut columns = columns
        .numbers("median\nms", Some(2), |row| row.median_milliseconds)
        .numbers("texts\n/s", Some(0), |row| row.texts_per_second)
        .optional("peak\nMB", |row| {
            Some(megabytes(row.memory.peak_resident_bytes?, 0))
        })
        .filled;
    for method in &comparison.failed {
        let said = [short(&method.name), "failed".to_owned()].into_iter();
        let cells = said.chain(std::iter::repeat("-".to_owned()));
        for ((_, column), cell) in columns.iter_mut().zip(cells) {
            column.push(cell);
        }
    }
    format!(
        "{}{}\n{}{}",
        introduction(comparison),
        columns::render(columns),
        failures(comparison),
        legend(comparison)
    )
}

/// The figures of models that are compared by their embeddings.
fn of_embeddings<'a>(
    columns: Columns<'a, ComparedModel>,
    comparison: &Comparison,
) -> Columns<'a, ComparedModel> {
    let columns = columns
        .optional("cosine\nmean", |row| {
            Some(format!("{:.5}", row.agreement?.mean_cosine))
        })
        .optional("cosine\nleast", |row| {
            Some(format!("{:.5}", row.agreement?.minimum_cosine))
        })
        .optional("max\n|diff|", |row| {
            Some(format!("{:.4}", row.agreement?.largest_absolute_difference))
        });
    match comparison.texts_kind {
        "pairs" => columns.optional("Spear-\nman", |row| {
            Some(format!("{:.2}", 100.0 * row.similarity?.spearman))
        }),
        _ => columns,
    }
}

/// The figures of models that classify texts.
fn of_classes<'a>(
    columns: Columns<'a, ComparedModel>,
    comparison: &Comparison,
) -> Columns<'a, ComparedModel> {
    let agreement = |row: &ComparedModel| row.classes?.agreement;
    let quality = |row: &ComparedModel| row.classes?.quality;
    let columns = columns
        .optional("same\nlabel", move |row| {
            Some(format!("{:.2}", 100.0 * agreement(row)?.same_label?))
        })
        .optional("KL\nnats", move |row| {
            Some(format!("{:.5}", agreement(row)?.mean_divergence?))
        })
        .optional("logit\n|diff|", move |row| {
            Some(format!("{:.4}", agreement(row)?.largest_logit_difference))
        });
    match comparison.texts_kind {
        "labelled" => columns
            .optional("accu-\nracy", move |row| {
                Some(format!("{:.2}", 100.0 * quality(row)?.accuracy))
            })
            .optional("macro\nF1", move |row| {
                Some(format!("{:.2}", 100.0 * quality(row)?.macro_f1))
            }),
        _ => columns,
    }
}

/// What each method failed with.
fn failures(comparison: &Comparison) -> String {
    let failed = comparison.failed.iter();
    let text: String = failed
        .map(|method| format!("{} failed: {}\n", method.name, method.error))
        .collect();
    if text.is_empty() { text } else { text + "\n" }
}

/// A method's name in fewer letters, which `--methods` reads, too.
fn short(name: &str) -> String {
    name.replace("double quantization", "double quant.")
        .replace("int8 embeddings", "int8 embed.")
}

/// How many texts there are, and what they are; built-in ones with an advice.
pub(super) fn texts(number: usize, kind: &str, advice: &str) -> String {
    let texts = count(number, "text", "texts");
    match kind {
        "pairs" => format!(
            "{texts} of {}",
            count(number / 2, "scored pair", "scored pairs")
        ),
        "built-in" => format!("{texts} built into fewbit ({advice})"),
        _ => texts,
    }
}

fn introduction(comparison: &Comparison) -> String {
    let source = texts(
        comparison.texts,
        comparison.texts_kind,
        "bring your own with --data or --texts before you decide",
    );
    let cut = match comparison.truncated {
        0 => String::new(),
        cut => format!("; {cut} cut at the model's limit"),
    };
    format!(
        "{}: {} parameters\n{source}, {} tokens{cut}; {}, {}\n\n",
        comparison.model.display(),
        grouped(comparison.parameters),
        grouped(comparison.tokens as u64),
        count(comparison.threads, "thread", "threads"),
        comparison.isa
    )
}

fn legend(comparison: &Comparison) -> String {
    let threads = count(comparison.threads, "thread", "threads");
    let mut lines = vec![
        "disk            the files of weights; 1 MB = 1,000,000 bytes; `times less` compares these"
            .to_owned(),
        "params          what is stored of the parameters themselves: floats or codes".to_owned(),
        "buffers         what is stored beside them: scales, code tables, position numbers"
            .to_owned(),
        "bits/weight     8 x bytes on disk / number of parameters, embeddings included".to_owned(),
    ];
    match comparison.output {
        ModelOutput::Embeddings => lines.push(
            "cosine, |diff|  each text's embedding against the original's: mean and least cosine, largest difference".to_owned(),
        ),
        ModelOutput::Logits => lines.extend(legend_of_classes(comparison)),
    }
    if comparison.texts_kind == "pairs" {
        lines.push("Spearman        100 x rank correlation of the pairs' cosine similarities with their scores".to_owned());
        if comparison.rows.iter().any(|row| row.similarity.is_none()) {
            lines.push("                (- where a model finds all pairs equally similar: there is no correlation)".to_owned());
        }
    }
    lines.extend([
        format!(
            "median ms       one text at a time, tokenization included; {}",
            timed_texts(comparison)
        ),
        format!(
            "texts/s         {} in batches of {}, on {threads}",
            count(comparison.speed_texts, "text", "texts"),
            comparison.batch_size
        ),
        format!(
            "                (speed is measured in {} rounds over all models; the middle one is shown)",
            comparison.rounds_of_speed
        ),
        "peak MB         most memory of a process that opens this model and encodes all texts (pages of the mapped file count)".to_owned(),
        String::new(),
    ]);
    lines.extend(notes(comparison));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn legend_of_classes(comparison: &Comparison) -> Vec<String> {
    let mut lines = vec![
        "same label      100 x share of the texts with the original's label (of several at once: with the same ones)".to_owned(),
        "KL nats         mean Kullback-Leibler divergence of a text's probabilities from the original's".to_owned(),
        "logit |diff|    largest difference of a logit from the original's".to_owned(),
    ];
    if comparison.texts_kind == "labelled" {
        lines.push("accuracy        100 x share of the texts whose label is right".to_owned());
        lines.push("macro F1        100 x mean of the labels' F1".to_owned());
    }
    lines
}

/// Which texts latency is measured on.
fn timed_texts(comparison: &Comparison) -> String {
    const FEW: usize = 20;
    let timed = comparison.latency_texts;
    let which = if timed == comparison.texts {
        count(timed, "text", "texts")
    } else {
        format!("{timed} of the texts, evenly spread")
    };
    if timed < FEW {
        format!("{which} (fewer than {FEW} are too few to rely on)")
    } else {
        which
    }
}

/// What the figures do not say by themselves, for the methods that are in the table.
fn notes(comparison: &Comparison) -> Vec<String> {
    use fewbit::Method::{Bf16, Dynamic, Fp4, Fp16, Nf4, Static, WeightOnly};
    let has = |methods: &[fewbit::Method]| {
        comparison.rows.iter().any(|row| {
            row.recipe
                .as_ref()
                .is_some_and(|recipe| methods.contains(&recipe.method()))
        })
    };
    let mut notes = Vec::new();
    if has(&[Fp16, Bf16]) {
        notes.push("fp16 and bf16 are storage: the arithmetic is f32, so they halve the size, not the time.".to_owned());
    }
    let integer: Vec<fewbit::Method> = [Dynamic, Static]
        .into_iter()
        .filter(|&method| has(&[method]))
        .collect();
    match integer[..] {
        [] => {}
        [method] => notes.push(format!(
            "{method} is the one method here that computes in int8."
        )),
        _ => notes.push("dynamic and static compute in int8.".to_owned()),
    }
    if has(&[WeightOnly]) {
        notes.push(
            match comparison.weight_only_in {
                WeightOnlyArithmetic::Integers => {
                    "weight-only computes in integers, too, with activations of 12 bits instead of 8."
                }
                WeightOnlyArithmetic::Floats => {
                    "weight-only computes in floats, as --weight-only-in or FEWBIT_WEIGHT_ONLY asks; in integers, its default, it is faster."
                }
            }
            .to_owned(),
        );
    }
    if has(&[Nf4, Fp4]) {
        notes.push(
            "nf4 and fp4 are small, not fast: their weights become floats again to compute with."
                .to_owned(),
        );
    }
    notes
}
