//! Read-only access to values at named sites of the executor.
//!
//! A site is `MODULE.input` or `MODULE.output`. Modules have BERT's names whatever the checkpoint calls them, so the
//! same site means the same value in every family; [`sites`] lists those of a model:
//!
//! | site | value |
//! |---|---|
//! | `embeddings.LayerNorm.output` | summed and normalized embeddings (tokens, embedding_size) |
//! | `embeddings_project.input`, `.output` | around ELECTRA's projection, where there is one |
//! | `encoder.layer.I.attention.self.query.input`, `.output` | and `key`, `value`; the three inputs are the same rows |
//! | `encoder.layer.I.attention.self.position_key.input`, `.output` | and `position_query`: the rows of relative positions that a text reaches, where they have projections of their own; where they have not, these rows come to `query` and `key` after those of the texts |
//! | `encoder.layer.I.attention.output.dense.input`, `.output` | attention's weighted values, and their projection |
//! | `encoder.layer.I.attention.output.LayerNorm.output` | after the first residual |
//! | `encoder.layer.I.intermediate.dense.input`, `.output` | the output is before the activation function |
//! | `encoder.layer.I.output.dense.input`, `.output` | the input is after the activation function |
//! | `encoder.layer.I.output.LayerNorm.output` | the output of layer I |
//!
//! With a convolution beside the first layer there is `encoder.conv.LayerNorm.output`, the output of that layer with it. Where several layers share
//! weights, their sites are one, which is seen for each of them.
//!
//! Where layers normalize what they read (pre-norm), the first and the last of these are
//!
//! | site | value |
//! |---|---|
//! | `encoder.layer.I.attention.LayerNorm.output` | what attention reads |
//! | `encoder.layer.I.intermediate.LayerNorm.output` | what the feed-forward reads |
//! | `encoder.LayerNorm.output` | the output of the last layer, normalized |
//!
//! A gated feed-forward has `encoder.layer.I.intermediate.gate.input` and `.output`, what the activations are multiplied by. Where heads of
//! queries and keys are normalized, `encoder.layer.I.attention.self.query_norm.output` and `key_norm` have a row for each head; where what
//! attention and feed-forward give is normalized before it is added, that is `encoder.layer.I.attention.output.LayerNorm.output` and
//! `encoder.layer.I.output.LayerNorm.output`.

use crate::profile::{Stage, StageTimes};
use crate::{Catalogue, Module, ModuleKind};

/// Sees values at sites such as `encoder.layer.3.output.dense.input`; never changes them.
///
/// Values come in blocks of whole sequences, in the order of the batch; rows are tokens.
pub trait Tap {
    /// Asked before the value is shown.
    fn wants(&self, site: &str) -> bool;
    /// `values` is (rows, columns), row-major.
    fn see(&mut self, site: &str, rows: usize, columns: usize, values: &[f32]);
    /// The residual stream of a block after `step` of its layers, (rows, columns) with `columns` the hidden size: the embeddings with none of
    /// them, the last hidden states with all. Layers that run several times are as many.
    fn see_hidden_states(&mut self, _step: usize, _columns: usize, _values: &[f32]) {}
}

/// Every site of an encoder, in execution order.
pub fn sites(catalogue: &Catalogue) -> Vec<String> {
    let of_module = |module: &Module| {
        let ends: &[&str] = match module.kind() {
            ModuleKind::Linear => &["input", "output"],
            ModuleKind::Norm => &["output"],
            ModuleKind::Table | ModuleKind::Bias | ModuleKind::Convolution => &[],
        };
        let sites = module.sites.iter();
        let sites = sites.flat_map(|site| ends.iter().map(move |end| format!("{site}.{end}")));
        sites.collect::<Vec<_>>()
    };
    catalogue.modules().iter().flat_map(of_module).collect()
}

/// The tap and the stage times of one run, each of them optional; without both it costs nothing.
pub(crate) struct Viewer<'t> {
    tap: Option<&'t mut dyn Tap>,
    times: Option<&'t mut StageTimes>,
}

impl<'t> Viewer<'t> {
    /// A run without tap and without stage times.
    pub(crate) fn none() -> Self {
        Self {
            tap: None,
            times: None,
        }
    }

    /// A run whose values `tap` sees.
    pub(crate) fn of(tap: &'t mut dyn Tap) -> Self {
        Self {
            tap: Some(tap),
            times: None,
        }
    }

    /// A run whose stages are timed.
    pub(crate) fn timing(times: &'t mut StageTimes) -> Self {
        Self {
            tap: None,
            times: Some(times),
        }
    }

    /// Whether there is a tap, so that the values of every site have to exist in memory.
    pub(crate) fn is_tapped(&self) -> bool {
        self.tap.is_some()
    }

    /// Shows the residual stream of a block.
    pub(crate) fn show_hidden_states(&mut self, step: usize, columns: usize, values: &[f32]) {
        if let Some(tap) = &mut self.tap {
            tap.see_hidden_states(step, columns, values);
        }
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
