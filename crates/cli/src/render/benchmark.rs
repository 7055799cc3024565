//! The tables of `fewbit bench`, and a legend.

mod legend;
mod stages;

use super::numbers::{count, decimals, megabytes, shortened};
use super::table::{self, Column, number, text as word};
use crate::machine::Machine;
use fewbit::bench::{
    BenchReport, BenchedModel, ShapeResult, ShapeRow, TextResult, TextRow, TextsReport,
};
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
    let columns = vec![
        word("type"),
        word("weights"),
        word("computes\nin"),
        number("peak of\n1 thread\nGMAC/s"),
    ];
    let cells = report.models.iter().map(|model| {
        vec![
            model.model_type.clone(),
            model.method.as_ref().unwrap_or(&model.stored_as).clone(),
            model.arithmetic.clone(),
            format!("{:.1}", model.peak_gmacs_per_second),
        ]
    });
    named(report, 0, columns, cells.collect())
}

fn startup(report: &BenchReport) -> String {
    let milliseconds = |value: fn(&BenchedModel) -> f64| {
        let digits = decimals(report.models.iter().map(value));
        move |model: &BenchedModel| format!("{:.digits$}", value(model))
    };
    let load = milliseconds(|model| model.startup.load_milliseconds);
    let first = milliseconds(|model| model.startup.first_embedding_milliseconds);
    let peak =
        |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), |bytes| megabytes(bytes, 1));
    let columns = vec![
        number("load\nms"),
        number("first\nembedding\nms"),
        number("peak memory\nuntil then\nMB"),
        number("peak memory\nafter shapes\nMB"),
        number("weights\nMB"),
        number("buffers\nMB"),
    ];
    let cells = report.models.iter().map(|model| {
        vec![
            load(model),
            first(model),
            peak(model.startup.peak_resident_bytes),
            peak(model.memory.peak_resident_bytes),
            megabytes(model.memory.weight_memory_bytes, 1),
            megabytes(model.memory.scratch_bytes, 1),
        ]
    });
    named(report, 0, columns, cells.collect())
}

/// The table with the models' names, in turn, as its column `position`, cut to what [`WIDTH`] leaves for them.
fn named(
    report: &BenchReport,
    position: usize,
    mut columns: Vec<Column>,
    mut cells: Vec<Vec<String>>,
) -> String {
    let widths = columns.iter().enumerate().map(|(index, column)| {
        let lines = column.header().lines();
        let cells = cells.iter().map(|row| row[index].as_str());
        // Two spaces stand between columns.
        2 + lines
            .chain(cells)
            .map(|text| text.chars().count())
            .max()
            .unwrap_or(0)
    });
    let room = WIDTH.saturating_sub(widths.sum()).max(LEAST_NAME);
    columns.insert(position, word("model"));
    for (row, model) in cells.iter_mut().zip(report.models.iter().cycle()) {
        row.insert(position, shortened(&model.name, room));
    }
    table::render(&columns, cells)
}

/// Cells of one column, all with as many digits as the smallest value needs.
fn column<T>(rows: &[&T], value: impl Fn(&T) -> f64) -> Vec<String> {
    let digits = decimals(rows.iter().map(|row| value(row)));
    rows.iter()
        .map(|row| format!("{:.digits$}", value(row)))
        .collect()
}

fn shapes(report: &BenchReport) -> String {
    let rows: Vec<(&ShapeRow, &ShapeResult)> = report
        .shapes
        .iter()
        .flat_map(|row| row.models.iter().map(move |result| (row, result)))
        .collect();
    let results: Vec<&ShapeResult> = rows.iter().map(|(_, result)| *result).collect();
    let labels = labels(
        report,
        &["batch x\ntokens"],
        rows.iter()
            .map(|(row, _)| vec![format!("{:>2} x {}", row.shape.batch, row.shape.tokens)]),
        rows.iter().map(|(row, _)| row.threads),
    );
    let milliseconds = decimals(
        results
            .iter()
            .map(|result| result.speed.latency.p10_milliseconds),
    );
    let milliseconds = |value: fn(&ShapeResult) -> f64| -> Vec<String> {
        results
            .iter()
            .map(|result| format!("{:.milliseconds$}", value(result)))
            .collect()
    };
    let mut figures = vec![
        (
            "median\nms",
            milliseconds(|result| result.speed.latency.median_milliseconds),
        ),
        (
            "p10\nms",
            milliseconds(|result| result.speed.latency.p10_milliseconds),
        ),
        (
            "p90\nms",
            milliseconds(|result| result.speed.latency.p90_milliseconds),
        ),
        (
            "p99\nms",
            milliseconds(|result| result.speed.latency.p99_milliseconds),
        ),
        (
            "texts\n/s",
            column(&results, |result| result.speed.texts_per_second),
        ),
        (
            "tokens\n/s",
            column(&results, |result| result.speed.tokens_per_second),
        ),
        (
            "GMAC\n/s",
            results
                .iter()
                .map(|result| format!("{:.1}", result.speed.gmacs_per_second))
                .collect(),
        ),
        (
            "% of\npeak",
            results
                .iter()
                .map(|result| format!("{:.0}", 100.0 * result.speed.share_of_peak))
                .collect(),
        ),
    ];
    figures.push(ratios(results.iter().map(|result| result.times_faster)));
    labelled(report, labels, &figures)
}

fn texts_table(report: &BenchReport, texts: &TextsReport) -> String {
    let rows: Vec<(&TextRow, &TextResult)> = texts
        .rows
        .iter()
        .flat_map(|row| row.models.iter().map(move |result| (row, result)))
        .collect();
    let results: Vec<&TextResult> = rows.iter().map(|(_, result)| *result).collect();
    let order = |order| match order {
        TextOrder::AsGiven => "as in the file",
        TextOrder::ByLength => "by length",
    };
    let labels = labels(
        report,
        &["batches\nof", "order"],
        rows.iter().map(|(row, _)| {
            vec![
                format!("{:>7}", row.batch_size),
                order(row.order).to_owned(),
            ]
        }),
        rows.iter().map(|(row, _)| row.threads),
    );
    let figures = [
        (
            "texts\n/s",
            column(&results, |result| result.texts_per_second),
        ),
        (
            "tokens\n/s",
            column(&results, |result| result.tokens_per_second),
        ),
        ratios(results.iter().map(|result| result.times_faster)),
    ];
    labelled(report, labels, &figures)
}

fn ratios(values: impl Iterator<Item = f64>) -> (&'static str, Vec<String>) {
    (
        "times\nfaster",
        values.map(|value| format!("{value:.2}")).collect(),
    )
}

/// What stands before the figures of a row.
struct Labels {
    columns: Vec<Column>,
    /// A row each.
    cells: Vec<Vec<String>>,
}

/// The given columns, and the number of threads where it differs between rows.
fn labels(
    report: &BenchReport,
    headers: &[&'static str],
    cells: impl Iterator<Item = Vec<String>>,
    threads: impl Iterator<Item = usize>,
) -> Labels {
    let several = report
        .shapes
        .iter()
        .any(|row| row.threads != report.shapes[0].threads);
    let mut columns: Vec<Column> = headers.iter().map(|header| word(header)).collect();
    if several {
        columns.push(number("threads"));
    }
    let cells = cells.zip(threads).map(|(mut cells, threads)| {
        if several {
            cells.push(threads.to_string());
        }
        cells
    });
    Labels {
        columns,
        cells: cells.collect(),
    }
}

/// Labels and figures as a table, the models of one label below one another. A single model is not named, and its ratio to
/// itself, the last figure, not shown.
fn labelled(
    report: &BenchReport,
    labels: Labels,
    figures: &[(&'static str, Vec<String>)],
) -> String {
    let compared = report.models.len() > 1;
    let figures = if compared {
        figures
    } else {
        &figures[..figures.len() - 1]
    };
    let Labels {
        mut columns,
        mut cells,
    } = labels;
    let position = columns.len();
    columns.extend(figures.iter().map(|(header, _)| number(header)));
    for (index, row) in cells.iter_mut().enumerate() {
        if index % report.models.len() > 0 {
            row.iter_mut().for_each(String::clear);
        }
        row.extend(figures.iter().map(|(_, cells)| cells[index].clone()));
    }
    if compared {
        named(report, position, columns, cells)
    } else {
        table::render(&columns, cells)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fewbit::bench::{Memory, ProfileResult, StartupTime};
    use fewbit::evaluate::{BatchShape, Latency, ShapeSpeed, StageProfile, StageTime};

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
            ShapeResult {
                model: (*name).to_owned(),
                speed: ShapeSpeed::new(
                    latency,
                    shape,
                    threads,
                    multiply_adds,
                    [60e9, 240e9][index],
                ),
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
