//! Which layers are rounded after which pass over the samples.

use std::collections::HashMap;

use fewbit_checkpoint::compressed_tensors::CompressedScheme;
use fewbit_model::{Catalogue, Encoder, ModelError};
use fewbit_numerics::rows::Int8Rows;
use rayon::{ThreadPool, ThreadPoolBuilder};
use tracing::debug;

use super::collect::collect;
use super::{FinishedLayers, GptqCalibration, Hessian, InverseFactor, NotPositive, int8_rows};
use crate::calibration::{CalibrationSite, calibration_sites};
use crate::{PlanRow, QuantizeError, TensorAction};

/// A weight to round.
pub(crate) struct GptqModule<'a> {
    /// Its number among the rows of the plan.
    pub(crate) index: usize,
    /// What becomes of it.
    pub(crate) row: &'a PlanRow,
    /// How it is stored.
    pub(crate) scheme: CompressedScheme,
    /// Whether its codes are such that no pair of them saturates.
    saturation_proof: bool,
}

/// Weights that read the same rows, and so have one Hessian.
struct GptqSite<'a> {
    name: String,
    columns: usize,
    modules: Vec<GptqModule<'a>>,
}

/// The weights of a plan that GPTQ rounds, in the order and the groups in which Hessians are collected for them.
pub(crate) struct GptqPasses<'a> {
    passes: Vec<Vec<GptqSite<'a>>>,
}

impl<'a> GptqPasses<'a> {
    /// Those of `rows`, which are the plan's for the model of `catalogue`, with Hessians of so many bytes at a time.
    pub(crate) fn new(catalogue: &Catalogue, rows: &'a [PlanRow], hessian_bytes: usize) -> Self {
        let mut modules: HashMap<&str, GptqModule<'a>> = rows
            .iter()
            .enumerate()
            .filter_map(|(index, row)| {
                let TensorAction::Int8LinearGptq {
                    scheme,
                    saturation_proof,
                } = row.action
                else {
                    return None;
                };
                let name = catalogue.without_prefix(row.module.as_deref()?);
                let module = GptqModule {
                    index,
                    row,
                    scheme,
                    saturation_proof,
                };
                Some((name, module))
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

    /// Collects Hessians from the samples, pass after pass, and has every weight rounded with them. A pass whose weights lie in `finished`
    /// is passed over, and others are saved there.
    ///
    /// # Errors
    /// Samples that the model cannot run, or that are none; a Hessian without a factor; those of `output`.
    pub(crate) fn run(
        self,
        encoder: &Encoder,
        calibration: &GptqCalibration,
        finished: Option<&FinishedLayers>,
        output: &mut dyn GptqOutput,
    ) -> Result<(), QuantizeError> {
        let GptqCalibration {
            samples, threads, ..
        } = calibration;
        if samples.is_empty() {
            return Err(QuantizeError::Calibration {
                place: "gptq".to_owned(),
                expected: "at least one calibration text".to_owned(),
                found: "none".to_owned(),
                hint: "a few hundred texts like those that the model will see".to_owned(),
            });
        }
        let pool = thread_pool(*threads)?;
        let (total, passes) = (samples.len(), self.passes.len());
        for (pass, sites) in (1..).zip(self.passes) {
            let modules = || sites.iter().flat_map(|site| &site.modules);
            if let Some(finished) = finished {
                let rows: Vec<&PlanRow> = modules().map(|module| module.row).collect();
                if let Some(saved) = finished.read(pass, &rows)? {
                    for (module, weight) in modules().zip(saved) {
                        output.round(module, &|_| weight.clone())?;
                    }
                    continue;
                }
            }
            let names: Vec<(&str, usize)> = sites
                .iter()
                .map(|site| (site.name.as_str(), site.columns))
                .collect();
            let mut progress = |done: usize| {
                output.collecting(&format!(
                    "GPTQ, pass {pass} of {passes}: {done} of {total} samples"
                ));
            };
            let mut rounded_now = Vec::new();
            let hessians = collect(&pool, encoder, samples, &names, &mut progress)?;
            for (site, hessian) in sites.iter().zip(hessians) {
                let factor = pool
                    .install(|| InverseFactor::of(&hessian))
                    .map_err(|error| without_factor(site, &error))?;
                drop(hessian);
                debug!(site = site.name, damping = factor.damping(), "factor");
                for module in &site.modules {
                    let saturation_proof = module.saturation_proof;
                    let rounded = |weights: &[f32]| {
                        pool.install(|| int8_rows(weights, &factor, saturation_proof))
                    };
                    rounded_now.push((module.row, output.round(module, &rounded)?));
                }
            }
            if let Some(finished) = finished {
                finished.write(pass, &rounded_now)?;
            }
        }
        Ok(())
    }
}

/// Where rounded weights go, and who is told.
pub(crate) trait GptqOutput {
    /// Told what is being collected.
    fn collecting(&mut self, what: &str);

    /// Reads the weight of `module`, rounds it with `rounded(weights)`, writes it, and returns it.
    fn round(
        &mut self,
        module: &GptqModule<'_>,
        rounded: &dyn Fn(&[f32]) -> Int8Rows,
    ) -> Result<Int8Rows, QuantizeError>;
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

/// Layers put together while their Hessians take no more than so many bytes; one layer is never cut.
fn filled(layers: Vec<Vec<GptqSite<'_>>>, most_bytes: usize) -> Vec<Vec<GptqSite<'_>>> {
    let mut passes: Vec<Vec<GptqSite<'_>>> = Vec::new();
    let bytes = |sites: &[GptqSite<'_>]| -> usize {
        sites
            .iter()
            .map(|site| Hessian::bytes_of(site.columns))
            .sum()
    };
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
