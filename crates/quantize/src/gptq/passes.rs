//! Which layers are rounded after which pass over the samples.

use std::collections::HashMap;

use fewbit_checkpoint::StoredWeight;
use fewbit_kernels::Kernels;
use fewbit_model::{Catalogue, Encoder, ModelError};
use rayon::{ThreadPool, ThreadPoolBuilder};
use tracing::debug;

use super::collect::{CollectedSite, collect};
use super::round_weight::{RoundingInputs, order_of, round_weight};
use super::{FinishedLayers, GptqCalibration, InputStatistics, InverseFactor, NotPositive};
use crate::calibration::{CalibrationSite, calibration_sites};
use crate::{PlanRow, QuantizeError};

/// A weight to round.
pub(crate) struct GptqModule<'a> {
    /// Its number among the rows of the plan.
    pub(crate) index: usize,
    /// What becomes of it.
    pub(crate) row: &'a PlanRow,
}

impl<'a> GptqModule<'a> {
    /// Its path in the checkpoint.
    pub(crate) fn name(&self) -> &'a str {
        self.row.module.as_deref().unwrap_or(&self.row.tensor)
    }

    /// (out, in)
    pub(crate) fn shape(&self) -> [usize; 2] {
        [self.row.shape[0], self.row.shape[1]]
    }
}

/// Weights that read the same rows, and so have one Hessian.
struct GptqSite<'a> {
    name: String,
    columns: usize,
    /// Whether one of the weights needs a Hessian, and not the squares of its inputs alone.
    for_gptq: bool,
    modules: Vec<GptqModule<'a>>,
}

/// The weights of a plan that are rounded for what calibration shows of their inputs, in the order and the groups in which that is collected.
pub(crate) struct GptqPasses<'a> {
    passes: Vec<Vec<GptqSite<'a>>>,
}

impl<'a> GptqPasses<'a> {
    /// Those of `rows`, which are the plan's for the model of `catalogue`, with Hessians of so many bytes at a time.
    pub(crate) fn new(catalogue: &Catalogue, rows: &'a [PlanRow], hessian_bytes: usize) -> Self {
        let calibrated = rows
            .iter()
            .enumerate()
            .filter(|(_, row)| row.action.needs_calibration());
        let mut modules: HashMap<&str, GptqModule<'a>> = calibrated
            .filter_map(|(index, row)| {
                let name = catalogue.without_prefix(row.module.as_deref()?);
                Some((name, GptqModule { index, row }))
            })
            .collect();
        let mut layers: Vec<Vec<GptqSite<'a>>> = Vec::new();
        let mut last_layer = None;
        for CalibrationSite {
            name,
            modules: readers,
        } in calibration_sites(catalogue)
        {
            let readers = readers.iter();
            let modules: Vec<GptqModule<'a>> = readers
                .filter_map(|module| modules.remove(module.as_str()))
                .collect();
            let Some(first) = modules.first() else {
                continue;
            };
            let layer = layer_of(&name).to_owned();
            if last_layer.as_ref() != Some(&layer) {
                layers.push(Vec::new());
            }
            last_layer = Some(layer);
            let site = GptqSite {
                columns: first.row.shape[1],
                for_gptq: modules
                    .iter()
                    .any(|module| order_of(&module.row.action).is_some()),
                name,
                modules,
            };
            layers.last_mut().expect("one was pushed").push(site);
        }
        debug_assert!(modules.is_empty(), "every linear layer reads a site");
        Self {
            passes: filled(layers, hessian_bytes),
        }
    }

    /// Collects what is needed from the samples, pass after pass, and rounds every weight with it. A pass whose weights lie in `finished`
    /// is passed over, and others are saved there.
    ///
    /// # Errors
    /// Samples that the model cannot run, or that are none; a Hessian without a factor; those of `output`.
    pub(crate) fn run(
        self,
        encoder: &Encoder,
        calibration: &GptqCalibration,
        finished: Option<&FinishedLayers>,
        kernels: &'static Kernels,
        output: &mut dyn GptqOutput,
    ) -> Result<(), QuantizeError> {
        let GptqCalibration {
            samples, threads, ..
        } = calibration;
        if samples.is_empty() {
            return Err(QuantizeError::Calibration {
                place: "calibration".to_owned(),
                expected: "at least one calibration text".to_owned(),
                found: "none".to_owned(),
                hint: "a few hundred texts like those that the model will see".to_owned(),
            });
        }
        let pool = thread_pool(*threads)?;
        let (total, passes) = (samples.len(), self.passes.len());
        for (pass, sites) in (1..).zip(self.passes) {
            if let Some(finished) = finished
                && let Some(saved) = finished.read(pass)?
            {
                for module in sites.iter().flat_map(|site| &site.modules) {
                    let weight = saved.stored_weight(module.name(), module.shape())?;
                    let source = output.read(module)?;
                    output.write(module, &source, &weight)?;
                }
                continue;
            }
            let collected: Vec<CollectedSite<'_>> = sites.iter().map(GptqSite::collected).collect();
            let mut progress = |done: usize| {
                output.collecting(&format!(
                    "calibration, pass {pass} of {passes}: {done} of {total} samples"
                ));
            };
            let mut rounded_now = Vec::new();
            let statistics = collect(&pool, encoder, samples, &collected, &mut progress)?;
            for (site, statistics) in sites.iter().zip(statistics) {
                let mut factor: Option<InverseFactor> = None;
                for module in &site.modules {
                    let action = &module.row.action;
                    if let InputStatistics::Hessian(hessian) = &statistics
                        && let Some(order) = order_of(action)
                        && factor.as_ref().map(InverseFactor::order) != Some(order)
                    {
                        let made = pool
                            .install(|| InverseFactor::of(hessian, order))
                            .map_err(|error| without_factor(site, &error))?;
                        debug!(site = site.name, damping = made.damping(), "factor");
                        factor = Some(made);
                    }
                    let inputs = RoundingInputs {
                        statistics: &statistics,
                        factor: factor.as_ref(),
                        kernels,
                    };
                    let weights = output.read(module)?;
                    let rounded = pool.install(|| round_weight(&weights, action, &inputs));
                    output.write(module, &weights, &rounded)?;
                    if finished.is_some() {
                        rounded_now.push((module, rounded));
                    }
                }
            }
            if let Some(finished) = finished {
                finished.write(pass, &rounded_now)?;
            }
        }
        Ok(())
    }
}

impl GptqSite<'_> {
    fn collected(&self) -> CollectedSite<'_> {
        CollectedSite {
            name: &self.name,
            columns: self.columns,
            for_gptq: self.for_gptq,
        }
    }

    fn bytes(&self) -> usize {
        InputStatistics::bytes_of(self.columns, self.for_gptq)
    }
}

/// Where rounded weights go, and who is told.
pub(crate) trait GptqOutput {
    /// Told what is being collected.
    fn collecting(&mut self, what: &str);

    /// The weight of `module`, finite.
    fn read(&mut self, module: &GptqModule<'_>) -> Result<Vec<f32>, QuantizeError>;

    /// Writes what became of the weight of `module`.
    fn write(
        &mut self,
        module: &GptqModule<'_>,
        weights: &[f32],
        rounded: &StoredWeight<'_>,
    ) -> Result<(), QuantizeError>;
}

fn without_factor(site: &GptqSite<'_>, error: &NotPositive) -> QuantizeError {
    let weights = site.modules.iter().map(|module| module.row.tensor.as_str());
    QuantizeError::Calibration {
        place: weights.collect::<Vec<_>>().join(", "),
        expected: "inputs whose Hessian has a Cholesky factor".to_owned(),
        found: error.to_string(),
        hint: "give other or more calibration texts, or skip these layers".to_owned(),
    }
}

fn thread_pool(threads: usize) -> Result<ThreadPool, QuantizeError> {
    let refused = |found: String| {
        ModelError::Input(format!(
            "threads: expected at least 1 that can be started, found {found}"
        ))
    };
    if threads == 0 {
        return Err(refused("0".to_owned()).into());
    }
    let pool = ThreadPoolBuilder::new().num_threads(threads).build();
    Ok(pool.map_err(|error| refused(format!("{threads}: {error}")))?)
}

/// The transformer layer that a site belongs to, as far as its name says: `encoder.layer.3` of `encoder.layer.3.output.dense.input`.
fn layer_of(site: &str) -> &str {
    let end = site
        .match_indices('.')
        .nth(2)
        .filter(|_| site.starts_with("encoder.layer."));
    end.map_or("", |(end, _)| &site[..end])
}

/// Layers put together while what is collected takes no more than so many bytes; one layer is never cut.
fn filled(layers: Vec<Vec<GptqSite<'_>>>, most_bytes: usize) -> Vec<Vec<GptqSite<'_>>> {
    let mut passes: Vec<Vec<GptqSite<'_>>> = Vec::new();
    let bytes = |sites: &[GptqSite<'_>]| sites.iter().map(GptqSite::bytes).sum::<usize>();
    for layer in layers {
        match passes.last_mut() {
            Some(pass) if bytes(pass) + bytes(&layer) <= most_bytes => pass.extend(layer),
            _ => passes.push(layer),
        }
    }
    passes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(columns: &[usize]) -> Vec<GptqSite<'static>> {
        let sites = columns.iter().map(|&columns| GptqSite {
            name: String::new(),
            columns,
            for_gptq: true,
            modules: Vec::new(),
        });
        sites.collect()
    }

    #[test]
    fn layers_share_a_pass_while_their_hessians_fit() {
        // 8 * (1 + 2 + 3) bytes of a Hessian of three columns.
        let passes = |most| -> Vec<usize> {
            let layers = vec![layer(&[3, 3]), layer(&[3, 3]), layer(&[3])];
            filled(layers, most).iter().map(Vec::len).collect()
        };
        assert_eq!(passes(0), [2, 2, 1]);
        assert_eq!(passes(4 * 48 - 1), [2, 3]);
        assert_eq!(passes(4 * 48), [4, 1]);
        assert_eq!(passes(usize::MAX), [5]);
    }

    #[test]
    fn sites_know_their_layer() {
        assert_eq!(
            layer_of("encoder.layer.11.output.dense.input"),
            "encoder.layer.11"
        );
        assert_eq!(layer_of("embeddings_project.input"), "");
    }
}
