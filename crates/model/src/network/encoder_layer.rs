//! A layer of the encoder with its weights.

use super::plan::LayerPlan;
use super::window::Window;
use crate::packed_linear::PackedLinear;

pub(super) struct EncoderLayer {
    pub(super) query: PackedLinear,
    pub(super) key: PackedLinear,
    pub(super) value: PackedLinear,
    pub(super) attention_output: PackedLinear,
    /// After attention's addition to the residual stream, or before attention.
    pub(super) attention_norm: Option<LayerNorm>,
    /// After the feed-forward's addition to the residual stream, or before the feed-forward.
    pub(super) feed_forward_norm: LayerNorm,
    pub(super) intermediate: PackedLinear,
    /// What the activations of the feed-forward are multiplied by.
    pub(super) gate: Option<PackedLinear>,
    pub(super) output: PackedLinear,
    /// The keys that a token attends to, if not all.
    pub(super) window: Option<Window>,
    pub(super) plan: LayerPlan,
}

pub(super) struct LayerNorm {
    /// Module path at sites.
    pub(super) site: String,
    /// (columns)
    pub(super) gamma: Vec<f32>,
    /// (columns)
    pub(super) beta: Vec<f32>,
}

impl EncoderLayer {
    /// Decides anew, after its weights have changed.
    pub(super) fn plan_anew(&mut self) {
        self.plan = LayerPlan::new(
            [&self.query, &self.key, &self.value],
            &self.intermediate,
            self.gate.as_ref(),
            &self.output,
            self.window.as_ref(),
        );
    }

    pub(super) fn linears(&self) -> impl Iterator<Item = &PackedLinear> {
        let attention = [&self.query, &self.key, &self.value, &self.attention_output];
        let feed_forward = [
            Some(&self.intermediate),
            self.gate.as_ref(),
            Some(&self.output),
        ];
        attention
            .into_iter()
            .chain(feed_forward.into_iter().flatten())
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let norms = [self.attention_norm.as_ref(), Some(&self.feed_forward_norm)];
        self.linears()
            .map(PackedLinear::memory_bytes)
            .sum::<usize>()
            + norms
                .into_iter()
                .flatten()
                .map(LayerNorm::memory_bytes)
                .sum::<usize>()
    }
}

impl LayerNorm {
    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(self.gamma.as_slice()) + size_of_val(self.beta.as_slice())
    }
}
