//! The tables of `fewbit bench`, and a legend.

mod legend;
mod stages;

use super::columns::{self, Columns, Filled};
use super::numbers::{count, megabytes, shortened};
use super::table::{number, text as word};
use crate::machine::Machine;
use fewbit::bench::{BenchReport, TextsReport};
use fewbit::evaluate::TextOrder;

/// Columns that the tables keep to, if names and numbers let them.
const WIDTH: usize = 100;
/// A model's name is not cut below this.
const LEAST_NAME: usize = 11;

/// The benchmark as text, at most [`WIDTH`] columns wide for names and numbers of common length.
pub(crate) fn text(machine: &Machine, report: &BenchReport) -> String {
    let mut out = format!(
        "fewbit {} on {}, {} kernels, {}\n\n",
        machine.version,
        machine.cpu,
        report.isa,
        threads(report)
    );
    out.push_str(&models(report));
    out.push('\n');
    out.push_str(&startup(report));
    out.push_str("\nnetwork alone, sequences of one length\n");
    out.push_str(&shapes(report));
    if let Some(texts) = &report.texts {
        out.push_str(&format!(
            "\n{}, tokenization included\n",
            count(texts.texts, "text", "texts")
        ));
        out.push_str(&texts_table(report, texts));
    }
    for profile in &report.profiles {
        out.push('\n');
        out.push_str(&stages::stages(report, profile));
    }
    out.push('\n');
    out.push_str(&legend::legend(report));
    out
}

/// The numbers of threads that were measured: `1 thread`, `1 and 2 threads`.
fn threads(report: &BenchReport) -> String {
    let mut counts: Vec<usize> = Vec::new();
    for row in &report.shapes {
        if !counts.contains(&row.threads) {
            counts.push(row.threads);
        }
    }
    match counts.as_slice() {
        [one] => count(*one, "thread", "threads"),
        several => {
            let several: Vec<String> = several.iter().map(usize::to_string).collect();
            format!("{} threads", several.join(" and "))
        }
    }
}

fn models(report: &BenchReport) -> String {
    let columns = Columns::of(report.models.iter())
        .with(word("type"), |model| model.model_type.clone())
        .with(word("weights"), |model| {
            model.method.as_ref().unwrap_or(&model.stored_as).clone()
        })
        .with(word("computes\nin"), |model| model.arithmetic.clone())
        .numbers("peak of\n1 thread\nGMAC/s", Some(1), |model| {
            model.peak_gmacs_per_second
        });
    named(report, 0, columns.filled)
}

fn startup(report: &BenchReport) -> String {
    let columns = Columns::of(report.models.iter())
        .numbers("load\nms", None, |model| model.startup.load_milliseconds)
        .numbers("first\nembedding\nms", None, |model| {
            model.startup.first_embedding_milliseconds
        })
        .optional("peak memory\nuntil then\nMB", |model| {
            Some(megabytes(model.startup.peak_resident_bytes?, 1))
        })
        .optional("peak memory\nafter shapes\nMB", |model| {
            Some(megabytes(model.memory.peak_resident_bytes?, 1))
        })
        .with(number("weights\nMB"), |model| {
            megabytes(model.memory.weight_memory_bytes, 1)
        })
        .with(number("buffers\nMB"), |model| {
            megabytes(model.memory.scratch_bytes, 1)
        });
    named(report, 0, columns.filled)
}

fn shapes(report: &BenchReport) -> String {
    let labels = Columns::of(report.shapes.iter()).with(word("batch x\ntokens"), |row| {
        format!("{:>2} x {}", row.shape.batch, row.shape.tokens)
    });
    let figures = Columns::of(report.shapes.iter().flat_map(|row| &row.models));
    let digits = Some(figures.decimals(|result| result.latency.p10_milliseconds));
    let figures = figures
        .numbers("median\nms", digits, |result| {
            result.latency.median_milliseconds
        })
        .numbers("p10\nms", digits, |result| result.latency.p10_milliseconds)
        .numbers("p90\nms", digits, |result| result.latency.p90_milliseconds)
        .numbers("p99\nms", digits, |result| result.latency.p99_milliseconds)
        .numbers("texts\n/s", None, |result| result.texts_per_second)
        .numbers("tokens\n/s", None, |result| result.tokens_per_second)
        .numbers("GMAC\n/s", Some(1), |result| result.gmacs_per_second)
        .numbers("% of\npeak", Some(0), |result| 100.0 * result.share_of_peak)
        .numbers("times\nfaster", Some(2), |result| result.times_faster);
    labelled(report, labels, |row| row.threads, figures.filled)
}

fn texts_table(report: &BenchReport, texts: &TextsReport) -> String {
    let labels = Columns::of(texts.rows.iter())
        .with(word("batches\nof"), |row| format!("{:>7}", row.batch_size))
        .with(word("order"), |row| {
            let order = match row.order {
                TextOrder::AsGiven => "as in the file",
                TextOrder::ByLength => "by length",
            };
            order.to_owned()
        });
    let figures = Columns::of(texts.rows.iter().flat_map(|row| &row.models))
        .numbers("texts\n/s", None, |result| result.texts_per_second)
        .numbers("tokens\n/s", None, |result| result.tokens_per_second)
        .numbers("times\nfaster", Some(2), |result| result.times_faster);
    labelled(report, labels, |row| row.threads, figures.filled)
}

/// Labels and figures as a table, the models of one label below one another; the number of threads is a label, too, where it
/// differs between rows. A single model is not named, and its ratio to itself, the last figure, not shown.
fn labelled<T>(
    report: &BenchReport,
    mut labels: Columns<'_, T>,
    threads: fn(&T) -> usize,
    mut figures: Vec<Filled>,
) -> String {
    let models = report.models.len();
    let mut measured = report.shapes.iter().map(|row| row.threads);
    if measured.any(|threads| threads != report.shapes[0].threads) {
        labels = labels.with(number("threads"), |row| threads(row).to_string());
    }
    let mut columns = labels.filled;
    for (_, cells) in &mut columns {
        let below = || vec![String::new(); models - 1];
        let spread = cells.drain(..).flat_map(|cell| [vec![cell], below()]);
        *cells = spread.flatten().collect();
    }
    let position = columns.len();
    if models == 1 {
        figures.pop();
    }
    columns.extend(figures);
    if models == 1 {
        columns::render(columns)
    } else {
        named(report, position, columns)
    }
}

/// The table with the models' names, in turn, as its column `position`, cut to what [`WIDTH`] leaves for them.
fn named(report: &BenchReport, position: usize, mut columns: Vec<Filled>) -> String {
    let widths = columns.iter().map(|(column, cells)| {
        let lines = column
            .header()
            .lines()
            .chain(cells.iter().map(String::as_str));
        // Two spaces stand between columns.
        2 + lines.map(|text| text.chars().count()).max().unwrap_or(0)
    });
    let room = WIDTH.saturating_sub(widths.sum()).max(LEAST_NAME);
    let rows = columns[0].1.len();
    let names = report.models.iter().cycle().take(rows);
    let names = names.map(|model| shortened(&model.name, room)).collect();
    columns.insert(position, (word("model"), names));
    columns::render(columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fewbit::bench::{
        BenchedModel, ProfileResult, ShapeResult, ShapeRow, StartupTime, TextResult, TextRow,
    };
    use fewbit::evaluate::{BatchShape, Latency, StageProfile, StageTime};
    use fewbit::measure::Memory;

    fn machine() -> Machine {
        Machine {
            version: "1.2.3",
            target: "x86_64-linux".to_owned(),
            cpu: "Some CPU @ 2.10GHz".to_owned(),
        }
    }

    fn model(name: &str, arithmetic: &str, scale: f64) -> BenchedModel {
        BenchedModel {
            name: name.to_owned(),
            directory: name.into(),
            model_type: "bert".to_owned(),
            method: (arithmetic == "int8").then(|| "dynamic + int8 embeddings".to_owned()),
            stored_as: "F32".to_owned(),
            arithmetic: arithmetic.to_owned(),
            max_tokens: 512,
            peak_gmacs_per_second: 60.0 / scale,
            startup: StartupTime {
                load_milliseconds: 120.0 * scale,
                first_embedding_milliseconds: 130.0 * scale,
                peak_resident_bytes: Some(100_000_000),
                startups: 5,
                threads: 1,
            },
            memory: Memory {
                weight_memory_bytes: 90_300_000,
                scratch_bytes: 4_000_000,
                peak_resident_bytes: (scale == 1.0).then_some(136_300_000),
            },
        }
    }

    fn shape_row(shape: BatchShape, threads: usize, names: &[&str]) -> ShapeRow {
        let result = |(index, name): (usize, &&str)| {
            let seconds =
                0.0078 * shape.total_tokens() as f64 / ((index + 1) * threads * 16) as f64;
            let latency =
                Latency::from_seconds(vec![seconds, 1.5 * seconds, 2.0 * seconds]).unwrap();
            let multiply_adds = 10_700_000 * shape.total_tokens() as u64;
            let milliseconds = latency.median_milliseconds;
            let gmacs_per_second = multiply_adds as f64 / milliseconds / 1e6;
            ShapeResult {
                model: (*name).to_owned(),
                latency,
                texts_per_second: 1e3 * shape.batch as f64 / milliseconds,
                tokens_per_second: 1e3 * shape.total_tokens() as f64 / milliseconds,
                gmacs_per_second,
                share_of_peak: gmacs_per_second / (threads as f64 * [60.0, 240.0][index]),
                multiply_adds,
                times_faster: (index + 1) as f64,
            }
        };
        ShapeRow {
            shape,
            threads,
            models: names.iter().enumerate().map(result).collect(),
        }
    }

    fn report(names: &[&str], threads: &[usize]) -> BenchReport {
        let shapes = [(1, 16), (8, 128)].map(|(batch, tokens)| BatchShape { batch, tokens });
        BenchReport {
            isa: "avx2",
            seconds: 1.0,
            rounds: 3,
            models: names
                .iter()
                .enumerate()
                .map(|(index, name)| match index {
                    0 => model(name, "f32", 1.0),
                    _ => model(name, "int8", 0.25),
                })
                .collect(),
            shapes: shapes
                .iter()
                .flat_map(|&shape| threads.iter().map(move |&threads| (shape, threads)))
                .map(|(shape, threads)| shape_row(shape, threads, names))
                .collect(),
            profiles: Vec::new(),
            texts: None,
        }
    }

    #[test]
    fn one_model_alone() {
        let mut report = report(&["all-MiniLM-L6-v2"], &[1]);
        report.profiles.push(ProfileResult {
            shape: BatchShape {
                batch: 1,
                tokens: 16,
            },
            model: "all-MiniLM-L6-v2".to_owned(),
            profile: StageProfile {
                stages: [("embeddings", 0.1), ("query, key, value", 5.6)]
                    .map(|(name, milliseconds)| StageTime {
                        name: name.to_owned(),
                        milliseconds,
                        share: milliseconds / 7.6,
                    })
                    .to_vec(),
                other_milliseconds: 1.9,
                whole_milliseconds: 7.6,
                calls: 130,
            },
        });
        insta::assert_snapshot!(text(&machine(), &report));
    }

    #[test]
    fn several_models_on_several_threads_with_texts() {
        let names = ["all-MiniLM-L6-v2", "all-MiniLM-L6-v2-dynamic+embeddings"];
        let mut report = report(&names, &[1, 2]);
        let row = |order, texts_per_second: f64| TextRow {
            batch_size: 32,
            threads: 2,
            order,
            models: [(names[0], 1.0), (names[1], 3.0)]
                .map(|(name, times_faster)| TextResult {
                    model: name.to_owned(),
                    median_seconds: 2000.0 / (texts_per_second * times_faster),
                    texts_per_second: texts_per_second * times_faster,
                    tokens_per_second: 14.0 * texts_per_second * times_faster,
                    tokens: 28_000,
                    truncated: 0,
                    passes: 3,
                    times_faster,
                })
                .to_vec(),
        };
        report.texts = Some(TextsReport {
            texts: 2000,
            rows: vec![
                row(TextOrder::AsGiven, 700.0),
                row(TextOrder::ByLength, 886.0),
            ],
        });
        let shown = text(&machine(), &report);
        assert!(
            shown.lines().all(|line| line.chars().count() <= WIDTH),
            "{shown}"
        );
        insta::assert_snapshot!(shown);
    }
}
