//! The result of a benchmark.

use super::facts::BenchedModel;
use super::host::TextRequest;
use fewbit_evaluate::{
    BatchShape, Latency, ShapeSpeed, StageProfile, Startup, TextOrder, TextPass,
};
use serde::Serialize;

/// The result of [`bench()`](super::bench()). Wherever there is a list of `models`, it is in the order of the first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchReport {
    /// Instruction set of the kernels.
    pub isa: &'static str,
    /// Seconds for which each model was timed at each shape.
    pub seconds: f64,
    /// Rounds over the models.
    pub rounds: usize,
    /// The models; ratios are to the first.
    pub models: Vec<BenchedModel>,
    /// A row for each shape and number of threads.
    pub shapes: Vec<ShapeRow>,
    /// The stages of each model at each shape, if they were asked for.
    pub profiles: Vec<ProfileResult>,
    /// Speed on texts, if there were any.
    pub texts: Option<TextsReport>,
}

/// All models at one shape.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShapeRow {
    /// The batch.
    #[serde(flatten)]
    pub shape: BatchShape,
    /// Worker threads.
    pub threads: usize,
    /// The models.
    pub models: Vec<ShapeResult>,
}

/// One model at one shape.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShapeResult {
    /// The model.
    pub model: String,
    /// Time and rates.
    #[serde(flatten)]
    pub speed: ShapeSpeed,
    /// [`BatchShape::multiply_adds`] of one pass.
    pub multiply_adds: u64,
    /// Median time of the first model over that of this one.
    pub times_faster: f64,
}

/// The stages of one model at one shape, on one thread.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProfileResult {
    /// The batch.
    #[serde(flatten)]
    pub shape: BatchShape,
    /// The model.
    pub model: String,
    /// Its stages.
    #[serde(flatten)]
    pub profile: StageProfile,
}

/// The way to the first embedding, each time anew.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StartupTime {
    /// Median time of opening the directory.
    pub load_milliseconds: f64,
    /// Median time of opening the directory and embedding one short text.
    pub first_embedding_milliseconds: f64,
    /// The largest peak of a process that does this and nothing else.
    pub peak_resident_bytes: Option<u64>,
    /// How often it was measured.
    pub startups: usize,
    /// Worker threads.
    pub threads: usize,
}

impl StartupTime {
    /// None if there are no times.
    pub(super) fn of(startups: &[Startup], threads: usize) -> Option<Self> {
        let median = |seconds: fn(&Startup) -> f64| {
            Latency::from_seconds(startups.iter().map(seconds).collect())
                .map(|latency| latency.median_milliseconds)
        };
        Some(StartupTime {
            load_milliseconds: median(|startup| startup.load_seconds)?,
            first_embedding_milliseconds: median(|startup| startup.first_embedding_seconds)?,
            peak_resident_bytes: startups
                .iter()
                .filter_map(|startup| startup.peak_resident_bytes)
                .max(),
            startups: startups.len(),
            threads,
        })
    }
}

/// Speed on texts, tokenization included.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextsReport {
    /// How many texts there are.
    pub texts: usize,
    /// A row for each batch size, number of threads and order.
    pub rows: Vec<TextRow>,
}

/// All models on the texts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextRow {
    /// Texts run together.
    pub batch_size: usize,
    /// Worker threads.
    pub threads: usize,
    /// Which texts make up a batch.
    pub order: TextOrder,
    /// The models.
    pub models: Vec<TextResult>,
}

/// One model on the texts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextResult {
    /// The model.
    pub model: String,
    /// Median time of a pass over all texts.
    pub median_seconds: f64,
    /// Texts over the median time.
    pub texts_per_second: f64,
    /// Tokens over the median time, special tokens included.
    pub tokens_per_second: f64,
    /// Tokens of all texts.
    pub tokens: usize,
    /// Texts that were cut at the model's limit.
    pub truncated: usize,
    /// Timed passes.
    pub passes: usize,
    /// Median time of the first model over that of this one.
    pub times_faster: f64,
}

impl TextRow {
    /// From the passes of each model; none if a model has no passes.
    pub(super) fn of<'a>(
        names: impl Iterator<Item = &'a String>,
        passes: &[Vec<TextPass>],
        request: &TextRequest,
    ) -> Option<Self> {
        let median = |passes: &[TextPass]| {
            Latency::from_seconds(passes.iter().map(|pass| pass.seconds).collect())
                .map(|latency| latency.median_milliseconds / 1e3)
        };
        let first = median(passes.first()?)?;
        let models = names.zip(passes).map(|(name, passes)| {
            let seconds = median(passes)?;
            let last = passes.last()?;
            Some(TextResult {
                model: name.clone(),
                median_seconds: seconds,
                texts_per_second: request.texts.len() as f64 / seconds,
                tokens_per_second: last.tokens as f64 / seconds,
                tokens: last.tokens,
                truncated: last.truncated,
                passes: passes.len(),
                times_faster: first / seconds,
            })
        });
        Some(TextRow {
            batch_size: request.batch_size,
            threads: request.threads,
            order: request.order,
            models: models.collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_on_texts_by_hand() {
        let request = TextRequest {
            texts: vec![String::new(); 10],
            order: TextOrder::ByLength,
            batch_size: 4,
            threads: 1,
        };
        let passes = |seconds: [f64; 3]| {
            seconds
                .map(|seconds| TextPass {
                    seconds,
                    tokens: 50,
                    truncated: 1,
                })
                .to_vec()
        };
        let names = ["first".to_owned(), "second".to_owned()];
        let all = [passes([1.0, 4.0, 2.0]), passes([0.5, 0.5, 9.0])];
        let row = TextRow::of(names.iter(), &all, &request).unwrap();
        let [first, second] = row.models.as_slice() else {
            panic!("{row:?}")
        };
        assert_eq!((first.texts_per_second, first.times_faster), (5.0, 1.0));
        assert_eq!((second.texts_per_second, second.times_faster), (20.0, 4.0));
        assert_eq!((second.tokens_per_second, second.passes), (100.0, 3));
        assert_eq!(TextRow::of(names.iter(), &[Vec::new()], &request), None);
    }

    #[test]
    fn startups_take_the_middle_time_and_the_largest_peak() {
        let startup = |load_seconds, peak| Startup {
            load_seconds,
            first_embedding_seconds: load_seconds + 1.0,
            peak_resident_bytes: Some(peak),
        };
        let time =
            StartupTime::of(&[startup(0.5, 7), startup(0.25, 9), startup(1.0, 8)], 2).unwrap();
        assert_eq!(time.load_milliseconds, 500.0);
        assert_eq!(time.first_embedding_milliseconds, 1500.0);
        assert_eq!((time.peak_resident_bytes, time.startups), (Some(9), 3));
        assert_eq!(StartupTime::of(&[], 1), None);
    }
}
