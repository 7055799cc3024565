//! From samples to the Hessians of some sites.

use std::ops::Range;

use fewbit_model::{Encoder, Tap};
use rayon::ThreadPool;
use rayon::iter::{
    IndexedParallelIterator, IntoParallelIterator, IntoParallelRefMutIterator, ParallelIterator,
};

use super::Hessian;
use crate::QuantizeError;
use crate::calibration::CalibrationSamples;

/// Samples that a thread runs through the model at a time. Bounds memory, has no effect on the result.
const SAMPLES_AT_ONCE: usize = 8;

/// The Hessians of the inputs `sites`, names and numbers of columns, of the float model `encoder`, on the threads of `pool`.
/// `progress` is told how many samples are done.
///
/// # Errors
/// Samples that the model cannot run; a site whose values or squares are not finite.
pub(super) fn collect(
    pool: &ThreadPool,
    encoder: &Encoder,
    samples: &CalibrationSamples,
    sites: &[(&str, usize)],
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Hessian>, QuantizeError> {
    let mut hessians: Vec<Hessian> = sites
        .iter()
        .map(|(_, columns)| Hessian::new(*columns))
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
            let hessians = hessians.par_iter_mut().enumerate();
            hessians.for_each(|(index, hessian)| {
                for seen in &seen {
                    hessian.add_rows(&seen[index]);
                }
            });
        });
        progress(ranges.last().map_or(0, |range| range.end));
    }
    for (hessian, (site, _)) in hessians.iter_mut().zip(sites) {
        pool.install(|| hessian.finish());
        if !hessian.is_finite() {
            return Err(QuantizeError::Calibration {
                place: (*site).to_owned(),
                expected: "activations whose squares are finite in f32".to_owned(),
                found: "larger ones, or NaN".to_owned(),
                hint: "the model overflows on one of the calibration texts: quantize it without GPTQ, or skip the layer".to_owned(),
            });
        }
    }
    Ok(hessians)
}

/// The values of each site for some of the samples.
fn rows(
    encoder: &Encoder,
    samples: &CalibrationSamples,
    sites: &[(&str, usize)],
    range: Range<usize>,
) -> Result<Vec<Vec<f32>>, QuantizeError> {
    let batch = samples.batch(encoder, range)?;
    let mut seen = Recorder {
        sites,
        values: vec![Vec::new(); sites.len()],
    };
    encoder.network().hidden_states_tapped(&batch, &mut seen)?;
    Ok(seen.values)
}

/// Keeps what some sites show.
struct Recorder<'a> {
    sites: &'a [(&'a str, usize)],
    values: Vec<Vec<f32>>,
}

impl Recorder<'_> {
    fn position(&self, site: &str) -> Option<usize> {
        self.sites.iter().position(|(known, _)| *known == site)
    }
}

impl Tap for Recorder<'_> {
    fn wants(&self, site: &str) -> bool {
        self.position(site).is_some()
    }

    fn see(&mut self, site: &str, _rows: usize, _columns: usize, values: &[f32]) {
        if let Some(index) = self.position(site) {
            self.values[index].extend_from_slice(values);
        }
    }
}
