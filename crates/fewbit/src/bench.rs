//! How fast models are: fixed shapes, texts, the first embedding, and where the time goes.
//!
//! [`bench()`] asks a [`BenchHost`] to open every model and to run it. [`InProcess`](crate::measure::InProcess) does so in
//! this process; a program that wants each model's peak memory to be its own opens each in a process of its own, which
//! hands what it is asked to the [`OpenModel`] of [`InProcess`](crate::measure::InProcess).

mod facts;
mod host;
mod options;
mod report;

pub use facts::{BenchedModel, arithmetic_name};
pub use host::{BenchHost, Memory, OpenFacts, OpenModel, ShapeRequest, TextRequest};
pub use options::{BenchModel, BenchOptions, MAXIMUM_CALL_TOKENS};
pub use report::{
    BenchReport, ProfileResult, ShapeResult, ShapeRow, StartupTime, TextResult, TextRow,
    TextsReport,
};

use crate::Error;
use facts::ModelFacts;
use fewbit_evaluate::{BatchShape, Latency, ShapeSpeed, Startup, TextOrder, TextPass};
use std::ops::Range;

/// What a benchmark does next, always with every model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BenchStep<'a> {
    /// Opening this model.
    Opening(&'a str),
    /// Timing the way to the first embedding.
    Startup,
    /// Timing a shape on so many threads.
    Shape(BatchShape, usize),
    /// Profiling the stages of a shape.
    Profile(BatchShape),
    /// Encoding the texts in batches of this size on so many threads.
    Texts(usize, usize),
}

/// Measures every model at every shape, and whatever else `options` ask for.
///
/// Times are taken in rounds that visit every model in turn, every other round backwards, so that a machine that grows
/// slower meanwhile disturbs all models alike. `step` is told what is done next.
///
/// # Errors
/// [`Error::Bench`]: nothing to measure, a number out of its range, or more tokens than a model has positions; found before
/// anything is measured. A model cannot be opened or run.
///
/// ```no_run
/// use fewbit::bench::{BenchModel, BenchOptions, bench};
/// use fewbit::measure::InProcess;
///
/// let models = ["models/all-MiniLM-L6-v2", "models/minilm-int8"].map(BenchModel::from_directory);
/// let report = bench(&models, &BenchOptions::default(), &mut InProcess, &mut |_| {})?;
/// for row in &report.shapes {
///     for result in &row.models {
///         println!("{}x{} {}: {:.2} ms", row.shape.batch, row.shape.tokens, result.model, result.speed.latency.median_milliseconds);
///     }
/// }
/// # Ok::<(), fewbit::Error>(())
/// ```
pub fn bench(
    models: &[BenchModel],
    options: &BenchOptions,
    host: &mut dyn BenchHost,
    step: &mut dyn FnMut(&BenchStep<'_>),
) -> Result<BenchReport, Error> {
    options.check(models)?;
    let mut contenders = Vec::new();
    for model in models {
        step(&BenchStep::Opening(&model.name));
        let mut open = host.open(&model.directory, options.weight_only)?;
        let facts = ModelFacts::of(&model.name, &open.facts()?)?;
        options.check_positions(&facts)?;
        contenders.push(Contender {
            model: model.clone(),
            facts,
            open,
            peak: 0.0,
        });
    }

    step(&BenchStep::Startup);
    let startups = startups(models, options, host)?;
    let mut timings = Vec::new();
    for (shape, threads) in options.shapes() {
        step(&BenchStep::Shape(shape, threads));
        timings.push((
            shape,
            threads,
            time_shape(&mut contenders, shape, threads, options)?,
        ));
    }
    // Only now: the texts of the other measurements are not memory of the model.
    let memory = contenders
        .iter_mut()
        .map(|contender| contender.open.memory())
        .collect::<Result<Vec<_>, _>>()?;
    let mut profiles = Vec::new();
    if options.profile {
        for shape in options.batch_shapes() {
            step(&BenchStep::Profile(shape));
            for contender in &mut contenders {
                profiles.push(ProfileResult {
                    shape,
                    model: contender.model.name.clone(),
                    profile: contender.open.profile(shape, options.seconds)?,
                });
            }
        }
    }
    let texts = match &options.texts {
        Some(texts) => Some(time_texts(&mut contenders, texts, options, step)?),
        None => None,
    };

    let shapes = timings
        .into_iter()
        .map(|(shape, threads, latencies)| shape_row(&contenders, shape, threads, &latencies));
    Ok(BenchReport {
        isa: crate::isa()?,
        seconds: options.seconds,
        rounds: options.rounds,
        shapes: shapes.collect(),
        models: contenders
            .iter()
            .zip(startups)
            .zip(memory)
            .map(|((contender, startup), memory)| {
                contender
                    .facts
                    .benched(&contender.model, startup, memory, contender.peak)
            })
            .collect(),
        profiles,
        texts,
    })
}

/// A model while it is measured.
struct Contender {
    model: BenchModel,
    facts: ModelFacts,
    open: Box<dyn OpenModel>,
    /// The best multiply-adds a second of one thread that was seen.
    peak: f64,
}

/// The order in which a round visits the models.
fn visits(round: usize, models: usize) -> impl Iterator<Item = usize> {
    let forward: Range<usize> = 0..models;
    forward.map(move |index| {
        if round % 2 == 1 {
            models - 1 - index
        } else {
            index
        }
    })
}

fn startups(
    models: &[BenchModel],
    options: &BenchOptions,
    host: &mut dyn BenchHost,
) -> Result<Vec<StartupTime>, Error> {
    let mut seen: Vec<Vec<Startup>> = vec![Vec::new(); models.len()];
    for round in 0..options.rounds {
        for index in visits(round, models.len()) {
            let directory = &models[index].directory;
            seen[index].push(host.startup(directory, options.weight_only, options.threads[0])?);
        }
    }
    seen.iter()
        .map(|startups| StartupTime::of(startups, options.threads[0]).ok_or_else(nothing_measured))
        .collect()
}

fn time_shape(
    contenders: &mut [Contender],
    shape: BatchShape,
    threads: usize,
    options: &BenchOptions,
) -> Result<Vec<Latency>, Error> {
    let slot = options.seconds / options.rounds as f64;
    let mut seconds: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    for round in 0..options.rounds {
        for index in visits(round, contenders.len()) {
            let contender = &mut contenders[index];
            if round == 0 {
                contender.peak = contender
                    .peak
                    .max(contender.open.multiply_adds_per_second()?);
            }
            // The caches hold another model after its turn. A call that is long against the slot hardly notices, and
            // would double the time of the benchmark.
            let warm_up = Latency::from_seconds(seconds[index].clone())
                .is_none_or(|latency| latency.median_milliseconds < 1e3 * slot / 4.0);
            seconds[index].extend(contender.open.time_shape(&ShapeRequest {
                shape,
                threads,
                minimum_seconds: slot,
                warm_up,
            })?);
        }
    }
    seconds.into_iter().map(latency).collect()
}

fn shape_row(
    contenders: &[Contender],
    shape: BatchShape,
    threads: usize,
    latencies: &[Latency],
) -> ShapeRow {
    let first = latencies[0].median_milliseconds;
    let results = contenders
        .iter()
        .zip(latencies)
        .map(|(contender, latency)| {
            let multiply_adds = shape.multiply_adds(&contender.facts.spec);
            ShapeResult {
                model: contender.model.name.clone(),
                speed: ShapeSpeed::new(*latency, shape, threads, multiply_adds, contender.peak),
                multiply_adds,
                times_faster: first / latency.median_milliseconds,
            }
        });
    ShapeRow {
        shape,
        threads,
        models: results.collect(),
    }
}

fn time_texts(
    contenders: &mut [Contender],
    texts: &[String],
    options: &BenchOptions,
    step: &mut dyn FnMut(&BenchStep<'_>),
) -> Result<TextsReport, Error> {
    let mut rows = Vec::new();
    for &batch_size in &options.batches {
        for &threads in &options.threads {
            step(&BenchStep::Texts(batch_size, threads));
            for order in TextOrder::ALL {
                let request = TextRequest {
                    texts: texts.to_vec(),
                    order,
                    batch_size,
                    threads,
                };
                let mut passes: Vec<Vec<TextPass>> = vec![Vec::new(); contenders.len()];
                for round in 0..options.rounds {
                    for index in visits(round, contenders.len()) {
                        passes[index].push(contenders[index].open.time_texts(&request)?);
                    }
                }
                let names = contenders.iter().map(|contender| &contender.model.name);
                rows.push(TextRow::of(names, &passes, &request).ok_or_else(nothing_measured)?);
            }
        }
    }
    Ok(TextsReport {
        texts: texts.len(),
        rows,
    })
}

fn latency(seconds: Vec<f64>) -> Result<Latency, Error> {
    Latency::from_seconds(seconds).ok_or_else(nothing_measured)
}

/// A host that answers with no time at all.
fn nothing_measured() -> Error {
    Error::Bench("expected at least one timed call, found none".to_owned())
}

#[cfg(test)]
mod tests {
    use super::visits;

    #[test]
    fn every_other_round_goes_backwards() {
        let order = |round| visits(round, 3).collect::<Vec<_>>();
        assert_eq!(order(0), [0, 1, 2]);
        assert_eq!(order(1), [2, 1, 0]);
        assert_eq!(order(2), [0, 1, 2]);
    }
}
