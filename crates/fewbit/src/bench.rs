//! How fast models are: fixed shapes, texts, the first embedding, and where the time goes.
//!
//! [`bench()`] asks a [`ModelHost`] to open every model, and every open model for its times.

mod options;
mod report;

pub use options::{BenchModel, BenchOptions, MAXIMUM_CALL_TOKENS};
pub use report::{
    BenchReport, BenchedModel, ProfileResult, ShapeResult, ShapeRow, StartupTime, TextResult,
    TextRow, TextsReport,
};

use crate::measure::{Memory, ModelHost, ModelOutput, OpenModel, in_rounds};
use crate::{Error, ModelSize};
use fewbit_evaluate::{
    BatchShape, Latency, ShapeRequest, TextOrder, TextPass, TextRequest, median,
};
use fewbit_model::{EncodeOptions, EncoderSpec, open_checkpoint};
use fewbit_quantize::Recipe;

/// The text of the first embedding.
const FIRST_TEXT: &str = "The first text that a model is given.";

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
///         println!("{}x{} {}: {:.2} ms", row.shape.batch, row.shape.tokens, result.model, result.latency.median_milliseconds);
///     }
/// }
/// # Ok::<(), fewbit::Error>(())
/// ```
pub fn bench(
    models: &[BenchModel],
    options: &BenchOptions,
    host: &mut dyn ModelHost,
    step: &mut dyn FnMut(&BenchStep<'_>),
) -> Result<BenchReport, Error> {
    options.check(models)?;
    let mut contenders = Vec::new();
    for model in models {
        step(&BenchStep::Opening(&model.name));
        contenders.push(Contender::open(model, options, host)?);
    }

    step(&BenchStep::Startup);
    let startups = startups(&mut contenders, options, host)?;
    let mut timings = Vec::new();
    for (shape, threads) in options.shapes() {
        step(&BenchStep::Shape(shape, threads));
        let latencies = time_shape(&mut contenders, shape, threads, options)?;
        timings.push((shape, threads, latencies));
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

    // Only now is the best peak of each model known.
    let shapes = timings
        .into_iter()
        .map(|(shape, threads, latencies)| shape_row(&contenders, shape, threads, &latencies));
    Ok(BenchReport {
        isa: crate::isa()?,
        seconds: options.seconds,
        rounds: options.rounds,
        shapes: shapes.collect(),
        models: contenders
            .into_iter()
            .zip(startups)
            .zip(memory)
            .map(|((contender, startup), memory)| contender.benched(startup, memory))
            .collect(),
        profiles,
        texts,
    })
}

/// A model while it is measured.
struct Contender {
    model: BenchModel,
    spec: EncoderSpec,
    method: Option<String>,
    stored_as: String,
    open: Box<dyn OpenModel>,
    /// The best multiply-adds a second of one thread that was seen.
    peak: f64,
}

impl Contender {
    fn open(
        model: &BenchModel,
        options: &BenchOptions,
        host: &mut dyn ModelHost,
    ) -> Result<Self, Error> {
        let open = host.open(
            &model.directory,
            options.weight_only,
            ModelOutput::Embeddings,
        )?;
        let directory = &open.facts().checkpoint_directory;
        let checkpoint = open_checkpoint(directory)?;
        let spec = EncoderSpec::from_checkpoint(&checkpoint)?;
        options.check_positions(&model.name, spec.positions.max_tokens())?;
        let quantization = checkpoint.quantization();
        let stored_as = if quantization.is_quantized() {
            quantization.to_string()
        } else {
            let size = ModelSize::of(directory)?;
            let most = size.by_dtype.first();
            most.map_or("no weights", |dtype| dtype.name).to_owned()
        };
        Ok(Contender {
            model: model.clone(),
            spec,
            // The model runs without the file: one that is no recipe of this version only tells nothing.
            method: Recipe::read(directory.join("recipe.toml"))
                .ok()
                .map(|recipe| recipe.label()),
            stored_as,
            open,
            peak: 0.0,
        })
    }

    fn benched(self, startup: StartupTime, memory: Memory) -> BenchedModel {
        BenchedModel {
            name: self.model.name,
            directory: self.model.directory,
            max_tokens: self.spec.positions.max_tokens(),
            model_type: self.spec.model_type,
            method: self.method,
            stored_as: self.stored_as,
            arithmetic: self.open.facts().arithmetic.clone(),
            peak_gmacs_per_second: self.peak / 1e9,
            startup,
            memory,
        }
    }
}

/// One way from a directory to the first embedding.
struct Startup {
    load_seconds: f64,
    /// Opening included.
    first_embedding_seconds: f64,
    peak_resident_bytes: Option<u64>,
}

/// The way to the first embedding, once in each round. What the system keeps of a model's files from earlier reads counts.
fn startups(
    contenders: &mut [Contender],
    options: &BenchOptions,
    host: &mut dyn ModelHost,
) -> Result<Vec<StartupTime>, Error> {
    let threads = options.threads[0];
    let request = TextRequest {
        texts: vec![FIRST_TEXT.to_owned()],
        pairs: Vec::new(),
        order: TextOrder::ByLength,
        batch_size: EncodeOptions::default().batch_size,
        threads,
    };
    let all = in_rounds(options.rounds, contenders, |contender, _| {
        let directory = &contender.model.directory;
        let mut open = host.open(directory, options.weight_only, ModelOutput::Embeddings)?;
        let load_seconds = open.facts().load_seconds;
        let first_embedding_seconds = load_seconds + open.time_texts(&request)?.seconds();
        tracing::info!(directory = %directory.display(), first_embedding_seconds, "started up");
        Ok(Startup {
            load_seconds,
            first_embedding_seconds,
            peak_resident_bytes: open.memory()?.peak_resident_bytes,
        })
    })?;
    all.iter()
        .map(|startups| startup_time(startups, threads))
        .collect()
}

fn startup_time(startups: &[Startup], threads: usize) -> Result<StartupTime, Error> {
    let milliseconds = |seconds: fn(&Startup) -> f64| {
        let median = median(startups.iter().map(seconds).collect());
        median
            .map(|seconds| 1e3 * seconds)
            .ok_or_else(nothing_measured)
    };
    let peaks = startups.iter().map(|startup| startup.peak_resident_bytes);
    Ok(StartupTime {
        load_milliseconds: milliseconds(|startup| startup.load_seconds)?,
        first_embedding_milliseconds: milliseconds(|startup| startup.first_embedding_seconds)?,
        peak_resident_bytes: peaks.flatten().max(),
        startups: startups.len(),
        threads,
    })
}

fn time_shape(
    contenders: &mut [Contender],
    shape: BatchShape,
    threads: usize,
    options: &BenchOptions,
) -> Result<Vec<Latency>, Error> {
    let slot = options.seconds / options.rounds as f64;
    let calls = in_rounds(
        options.rounds,
        contenders,
        |contender, before: &[Vec<f64>]| {
            if before.is_empty() {
                let peak = contender.open.multiply_adds_per_second()?;
                contender.peak = contender.peak.max(peak);
            }
            // The caches hold another model after its turn. A call that is long against the slot hardly notices, and
            // would double the time of the benchmark.
            let warm_up = median(before.concat()).is_none_or(|seconds| seconds < slot / 4.0);
            contender.open.time_shape(&ShapeRequest {
                shape,
                threads,
                minimum_seconds: slot,
                warm_up,
            })
        },
    )?;
    calls
        .iter()
        .map(|calls| Latency::from_seconds(calls.concat()).ok_or_else(nothing_measured))
        .collect()
}

fn shape_row(
    contenders: &[Contender],
    shape: BatchShape,
    threads: usize,
    latencies: &[Latency],
) -> ShapeRow {
    let first = latencies[0].median_milliseconds;
    let models = contenders
        .iter()
        .zip(latencies)
        .map(|(contender, &latency)| {
            let multiply_adds = shape.multiply_adds(&contender.spec);
            let seconds = latency.median_milliseconds / 1e3;
            let rate = multiply_adds as f64 / seconds;
            ShapeResult {
                model: contender.model.name.clone(),
                latency,
                texts_per_second: shape.batch as f64 / seconds,
                tokens_per_second: shape.total_tokens() as f64 / seconds,
                gmacs_per_second: rate / 1e9,
                share_of_peak: rate / (threads as f64 * contender.peak),
                multiply_adds,
                times_faster: first / latency.median_milliseconds,
            }
        });
    ShapeRow {
        shape,
        threads,
        models: models.collect(),
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
                    pairs: Vec::new(),
                    order,
                    batch_size,
                    threads,
                };
                let passes = in_rounds(options.rounds, contenders, |contender, _| {
                    contender.open.time_texts(&request)
                })?;
                rows.push(text_row(contenders, &request, &passes)?);
            }
        }
    }
    Ok(TextsReport {
        texts: texts.len(),
        rows,
    })
}

fn text_row(
    contenders: &[Contender],
    request: &TextRequest,
    passes: &[Vec<TextPass>],
) -> Result<TextRow, Error> {
    let mut models: Vec<TextResult> = Vec::new();
    for (contender, passes) in contenders.iter().zip(passes) {
        let seconds = median(passes.iter().map(TextPass::seconds).collect());
        let (Some(seconds), Some(last)) = (seconds, passes.last()) else {
            return Err(nothing_measured());
        };
        let first = models.first().map_or(seconds, |first| first.median_seconds);
        models.push(TextResult {
            model: contender.model.name.clone(),
            median_seconds: seconds,
            texts_per_second: request.texts.len() as f64 / seconds,
            tokens_per_second: last.tokens as f64 / seconds,
            tokens: last.tokens,
            truncated: last.truncated,
            passes: passes.len(),
            times_faster: first / seconds,
        });
    }
    Ok(TextRow {
        batch_size: request.batch_size,
        threads: request.threads,
        order: request.order,
        models,
    })
}

/// A host that answers with no time at all.
fn nothing_measured() -> Error {
    Error::Bench("expected at least one timed call, found none".to_owned())
}
