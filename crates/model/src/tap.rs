//! A read-only window on named sites of the executor.
//!
//! A site is `MODULE.input` or `MODULE.output`. Modules have BERT's names whatever the checkpoint calls them, so the
//! same site means the same value in every family; [`sites`] lists those of a spec:
//!
//! | site | value |
//! |---|---|
//! | `embeddings.LayerNorm.output` | summed and normalized embeddings (tokens, embedding_size) |
//! | `embeddings_project.input`, `.output` | around ELECTRA's projection, where there is one |
//! | `encoder.layer.I.attention.self.query.input`, `.output` | and `key`, `value`; the three inputs are the same rows |
//! | `encoder.layer.I.attention.output.dense.input`, `.output` | attention's weighted values, and their projection |
//! | `encoder.layer.I.attention.output.LayerNorm.output` | after the first residual |
//! | `encoder.layer.I.intermediate.dense.input`, `.output` | the output is before the activation function |
//! | `encoder.layer.I.output.dense.input`, `.output` | the input is after the activation function |
//! | `encoder.layer.I.output.LayerNorm.output` | the output of layer I |

use crate::EncoderSpec;
use crate::profile::{Stage, StageTimes};
use crate::spec::LayerLinear;

/// Sees values at sites such as `encoder.layer.3.output.dense.input`; never changes them.
///
/// Values come in blocks of whole sequences, in the order of the batch; rows are tokens.
pub trait Tap {
    /// Asked before the value is shown.
    fn wants(&self, site: &str) -> bool;
    /// `values` is (rows, columns), row-major.
    fn see(&mut self, site: &str, rows: usize, columns: usize, values: &[f32]);
}

/// Module path of the embeddings' LayerNorm at sites.
pub(crate) const EMBEDDINGS_NORM: &str = "embeddings.LayerNorm";
/// Module path of the projection after the embeddings at sites.
pub(crate) const EMBEDDINGS_PROJECTION: &str = "embeddings_project";

/// Module path of a layer's linear at sites.
pub(crate) fn layer_linear(layer: usize, role: LayerLinear) -> String {
    let path = match role {
        LayerLinear::Query => "attention.self.query",
        LayerLinear::Key => "attention.self.key",
        LayerLinear::Value => "attention.self.value",
        LayerLinear::AttentionOutput => "attention.output.dense",
        LayerLinear::Intermediate => "intermediate.dense",
        LayerLinear::Output => "output.dense",
    };
    format!("encoder.layer.{layer}.{path}")
}

/// Module path of the LayerNorm after attention at sites.
pub(crate) fn attention_norm(layer: usize) -> String {
    format!("encoder.layer.{layer}.attention.output.LayerNorm")
}

/// Module path of the LayerNorm after the feed-forward at sites.
pub(crate) fn output_norm(layer: usize) -> String {
    format!("encoder.layer.{layer}.output.LayerNorm")
}

/// Every site of an encoder, in execution order.
///
/// The linear layers among them are in the order of [`EncoderSpec::linear_modules`].
pub fn sites(spec: &EncoderSpec) -> Vec<String> {
    let around = |module: String| [format!("{module}.input"), format!("{module}.output")];
    let mut sites = vec![format!("{EMBEDDINGS_NORM}.output")];
    if spec.has_embeddings_projection() {
        sites.extend(around(EMBEDDINGS_PROJECTION.to_owned()));
    }
    for layer in 0..spec.layers {
        for role in LayerLinear::ALL {
            sites.extend(around(layer_linear(layer, role)));
            match role {
                LayerLinear::AttentionOutput => {
                    sites.push(format!("{}.output", attention_norm(layer)));
                }
                LayerLinear::Output => sites.push(format!("{}.output", output_norm(layer))),
                _ => {}
            }
        }
    }
    sites
}

/// The executor's end of a tap and of a profile; without either it costs nothing.
pub(crate) struct Viewer<'t> {
    tap: Option<&'t mut dyn Tap>,
    times: Option<&'t mut StageTimes>,
}

impl<'t> Viewer<'t> {
    pub(crate) fn nobody() -> Self {
        Self {
            tap: None,
            times: None,
        }
    }

    pub(crate) fn of(tap: &'t mut dyn Tap) -> Self {
        Self {
            tap: Some(tap),
            times: None,
        }
    }

    pub(crate) fn timing(times: &'t mut StageTimes) -> Self {
        Self {
            tap: None,
            times: Some(times),
        }
    }

    /// Whether somebody may look at values, which then have to exist.
    pub(crate) fn looks(&self) -> bool {
        self.tap.is_some()
    }

    /// `stage` begins.
    pub(crate) fn enter(&mut self, stage: Stage) {
        if let Some(times) = &mut self.times {
            times.enter(stage);
        }
    }

    /// The current stage ends.
    pub(crate) fn leave(&mut self) {
        if let Some(times) = &mut self.times {
            times.leave();
        }
    }

    pub(crate) fn show_input(&mut self, module: &str, columns: usize, values: &[f32]) {
        self.show(module, "input", columns, values);
    }

    pub(crate) fn show_output(&mut self, module: &str, columns: usize, values: &[f32]) {
        self.show(module, "output", columns, values);
    }

    fn show(&mut self, module: &str, end: &str, columns: usize, values: &[f32]) {
        if let Some(tap) = &mut self.tap {
            let site = format!("{module}.{end}");
            if tap.wants(&site) {
                tap.see(&site, values.len() / columns, columns, values);
            }
        }
    }
}
