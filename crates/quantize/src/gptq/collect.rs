//! From samples to the statistics of some sites.

use std::ops::Range;

use fewbit_model::{Encoder, Tap};
use rayon::ThreadPool;
use rayon::iter::{
    IndexedParallelIterator, IntoParallelIterator, IntoParallelRefMutIterator, ParallelIterator,
};

use super::{InputStatistics, SeenRows};
use crate::QuantizeError;
use crate::calibration::CalibrationSamples;

/// Samples that a thread runs through the model at a time. Bounds memory, has no effect on the result.
const SAMPLES_AT_ONCE: usize = 8;

/// A site whose rows are summed.
pub(super) struct CollectedSite<'a> {
    pub(super) name: &'a str,
    pub(super) columns: usize,
    /// Whether all products of columns are wanted, and not their squares alone.
    pub(super) for_gptq: bool,
}

/// The statistics of the inputs `sites` of the float model `encoder`, on the threads of `pool`. `progress` is told how many samples are done.
///
/// # Errors
/// Samples that the model cannot run; a site whose values or squares are not finite.
pub(super) fn collect(
    pool: &ThreadPool,
    encoder: &Encoder,
    samples: &CalibrationSamples,
    sites: &[CollectedSite<'_>],
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<InputStatistics>, QuantizeError> {
    let mut statistics: Vec<InputStatistics> = sites
        .iter()
        .map(|site| InputStatistics::new(site.columns, site.for_gptq))
        .collect();
    let ranges: Vec<Range<usize>> = samples.batches(0, SAMPLES_AT_ONCE).collect();
    for ranges in ranges.chunks(pool.current_num_threads()) {
        let seen = pool.install(|| {
            let ranges = ranges.to_vec().into_par_iter();
            let rows = ranges.map(|range| rows(encoder, samples, sites, range));
            rows.collect::<Vec<_>>()
        });
        // The first error of the first samples, whichever thread was faster.
        let seen = seen.into_iter().collect::<Result<Vec<_>, _>>()?;
        pool.install(|| {
            let statistics = statistics.par_iter_mut().enumerate();
            statistics.for_each(|(index, statistics)| {
                for seen in &seen {
                    statistics.add(&seen[index]);
                }
            });
        });
        progress(ranges.last().map_or(0, |range| range.end));
    }
    for (statistics, site) in statistics.iter_mut().zip(sites) {
        pool.install(|| statistics.finish());
        if !statistics.is_finite() {
            return Err(QuantizeError::Calibration {
                place: site.name.to_owned(),
                expected: "activations whose squares are finite in f32".to_owned(),
                found: "larger ones, or NaN".to_owned(),
                hint: "the model overflows on one of the calibration texts: quantize it without GPTQ, or skip the layer".to_owned(),
            });
        }
    }
    Ok(statistics)
}

/// What some of the samples show at each site.
fn rows(
    encoder: &Encoder,
    samples: &CalibrationSamples,
    sites: &[CollectedSite<'_>],
    range: Range<usize>,
) -> Result<Vec<SeenRows>, QuantizeError> {
    let batch = samples.batch(encoder, range)?;
    let seen = sites.iter().map(|site| match site.for_gptq {
        true => SeenRows::Values(Vec::new()),
        false => SeenRows::Squares(vec![0.0; site.columns]),
    });
    let mut recorder = Recorder {
        sites,
        seen: seen.collect(),
    };
    encoder
        .network()
        .hidden_states_tapped(&batch, &mut recorder)?;
    Ok(recorder.seen)
}

/// Keeps what some sites show.
struct Recorder<'a> {
    sites: &'a [CollectedSite<'a>],
    seen: Vec<SeenRows>,
}

impl Recorder<'_> {
    fn position(&self, site: &str) -> Option<usize> {
        self.sites.iter().position(|known| known.name == site)
    }
}

impl Tap for Recorder<'_> {
    fn wants(&self, site: &str) -> bool {
        self.position(site).is_some()
    }

    fn see(&mut self, site: &str, _rows: usize, _columns: usize, values: &[f32]) {
        if let Some(index) = self.position(site) {
            self.seen[index].take_in(values);
        }
    }
}
