//! A layer of the encoder with its weights.

use super::convolution::Convolution;
use super::disentangled::LayerPositions;
use super::plan::LayerPlan;
use super::window::Window;
use crate::packed_linear::PackedLinear;
use crate::spec::NormSpec;
use fewbit_kernels::Norm;
use std::sync::Arc;

pub(super) struct EncoderLayer {
    pub(super) query: PackedLinear,
    pub(super) key: PackedLinear,
    pub(super) value: PackedLinear,
    /// Makes keys of relative positions, and queries, where they are not made as those of tokens.
    pub(super) position_key: Option<PackedLinear>,
    pub(super) position_query: Option<PackedLinear>,
    /// What is made of relative positions.
    pub(super) positions: LayerPositions,
    pub(super) attention_output: PackedLinear,
    /// After attention's addition to the residual stream, or before attention.
    pub(super) attention_norm: Option<LayerNorm>,
    /// Of each head of the queries, and of the keys.
    pub(super) query_norm: Option<LayerNorm>,
    pub(super) key_norm: Option<LayerNorm>,
    /// Of what attention gives, before its addition to the residual stream.
    pub(super) attention_output_norm: Option<LayerNorm>,
    /// Of what the feed-forward gives, before its addition to the residual stream.
    pub(super) output_norm: Option<LayerNorm>,
    /// After the feed-forward's addition to the residual stream, or before the feed-forward.
    pub(super) feed_forward_norm: LayerNorm,
    pub(super) intermediate: PackedLinear,
    /// What the activations of the feed-forward are multiplied by.
    pub(super) gate: Option<PackedLinear>,
    pub(super) output: PackedLinear,
    /// What is added to the output of the layer.
    pub(super) convolution: Option<Convolution>,
    /// Whether tokens attend to near ones only.
    pub(super) local: bool,
    /// The keys that a token attends to, if not all.
    pub(super) window: Option<Arc<Window>>,
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
            self.window.is_none() && self.positions.is_empty(),
        );
    }

    /// The linear layers that run on tokens.
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
        let norms = [
            self.attention_norm.as_ref(),
            self.query_norm.as_ref(),
            self.key_norm.as_ref(),
            self.attention_output_norm.as_ref(),
            Some(&self.feed_forward_norm),
            self.output_norm.as_ref(),
        ];
        let of_positions = [self.position_key.as_ref(), self.position_query.as_ref()];
        self.linears()
            .chain(of_positions.into_iter().flatten())
            .map(PackedLinear::memory_bytes)
            .sum::<usize>()
            + self.positions.memory_bytes()
            + self
                .convolution
                .as_ref()
                .map_or(0, Convolution::memory_bytes)
            + norms
                .into_iter()
                .flatten()
                .map(LayerNorm::memory_bytes)
                .sum::<usize>()
    }
}

impl LayerNorm {
    /// With what normalizations of the model compute.
    pub(super) fn of(&self, spec: NormSpec) -> Norm<'_> {
        Norm {
            kind: spec.kind,
            gamma: &self.gamma,
            beta: &self.beta,
            epsilon: spec.epsilon,
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(self.gamma.as_slice()) + size_of_val(self.beta.as_slice())
    }
}
