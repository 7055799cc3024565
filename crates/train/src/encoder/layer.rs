//! A layer of the encoder.

use candle_core::{Result, Tensor};
use fewbit_checkpoint::Checkpoint;
use fewbit_model::{Catalogue, EncoderSpec, Module, Role};

use super::attention::SelfAttention;
use super::disentangled::ReachedPositions;
use super::missing_role;
use super::norm::NormModule;
use super::run::Run;
use crate::TrainError;
use crate::operations::activation::activate;

/// The modules of a layer.
#[derive(Debug)]
pub(super) struct Layer {
    attention: SelfAttention,
    attention_output: Module,
    /// After attention's addition to the residual stream, or before attention.
    attention_norm: Option<NormModule>,
    /// Of what attention gives, before it is added.
    attention_output_norm: Option<NormModule>,
    /// After the feed-forward's addition to the residual stream, or before the feed-forward.
    feed_forward_norm: NormModule,
    intermediate: Intermediate,
    output: Module,
    /// Of what the feed-forward gives, before it is added.
    output_norm: Option<NormModule>,
}

/// The first part of the feed-forward.
#[derive(Debug)]
enum Intermediate {
    /// One layer.
    Plain(Module),
    /// With a gate of its own.
    Gated(Module, Module),
    /// With the gate in the same matrix; whether it comes first.
    Fused(Module, bool),
}

impl Layer {
    pub(super) fn new(
        spec: &EncoderSpec,
        catalogue: &Catalogue,
        layer: usize,
        checkpoint: &Checkpoint,
    ) -> std::result::Result<Self, TrainError> {
        let of_layer = Some(layer);
        let optional = |role| catalogue.get(role, of_layer).cloned();
        let required = |role| optional(role).ok_or_else(|| missing_role(role, catalogue));
        let norm = |role| NormModule::of_role(catalogue, role, of_layer, checkpoint);
        let intermediate = if let Some(fused) = optional(Role::GatedIntermediate) {
            Intermediate::Fused(fused, false)
        } else if let Some(fused) = optional(Role::GateAndIntermediate) {
            Intermediate::Fused(fused, true)
        } else {
            let first = required(Role::Intermediate)?;
            match optional(Role::Gate) {
                Some(gate) => Intermediate::Gated(first, gate),
                None => Intermediate::Plain(first),
            }
        };
        let feed_forward_norm = norm(Role::FeedForwardNorm);
        Ok(Self {
            attention: SelfAttention::new(spec, catalogue, layer, checkpoint)?,
            attention_output: required(Role::AttentionOutput)?,
            attention_norm: norm(Role::AttentionNorm),
            attention_output_norm: norm(Role::AttentionOutputNorm),
            feed_forward_norm: feed_forward_norm
                .ok_or_else(|| missing_role(Role::FeedForwardNorm, catalogue))?,
            intermediate,
            output: required(Role::Output)?,
            output_norm: norm(Role::OutputNorm),
        })
    }

    /// The residual stream (tokens, hidden_size) after the layer.
    pub(super) fn forward(
        &self,
        run: &Run<'_>,
        positions: Option<&ReachedPositions>,
        hidden: &Tensor,
    ) -> Result<Tensor> {
        let pre_norm = run.spec.is_pre_norm();
        let normalized = |norm: Option<&NormModule>, x: &Tensor| match norm {
            Some(norm) => run.normalize(norm, x),
            None => Ok(x.clone()),
        };
        let (before, after) = match pre_norm {
            true => (self.attention_norm.as_ref(), None),
            false => (None, self.attention_norm.as_ref()),
        };
        let read = normalized(before, hidden)?;
        let context = self.attention.forward(run, positions, &read)?;
        let given = run.linear(&self.attention_output, &context)?;
        let given = normalized(self.attention_output_norm.as_ref(), &given)?;
        let hidden = normalized(after, &(hidden + given)?)?;

        // As the executor reads it, also without a norm of attention.
        let (before, after) = match pre_norm || self.attention_norm.is_none() {
            true => (Some(&self.feed_forward_norm), None),
            false => (None, Some(&self.feed_forward_norm)),
        };
        let read = normalized(before, &hidden)?;
        let intermediate = self.intermediate(run, &read)?;
        let given = run.linear(&self.output, &intermediate)?;
        let given = normalized(self.output_norm.as_ref(), &given)?;
        normalized(after, &(hidden + given)?)
    }

    /// What the second layer of the feed-forward reads.
    fn intermediate(&self, run: &Run<'_>, x: &Tensor) -> Result<Tensor> {
        let activated = |x: &Tensor| activate(x, run.spec.activation, run.kernels);
        match &self.intermediate {
            Intermediate::Plain(first) => activated(&run.linear(first, x)?),
            Intermediate::Gated(first, gate) => {
                let rows = run.quantized(first, x)?;
                let of_gate = match run.reads_same_rows(first, gate) {
                    true => run.product(gate, &rows)?,
                    false => run.linear(gate, x)?,
                };
                activated(&run.product(first, &rows)?)? * of_gate
            }
            Intermediate::Fused(fused, gate_first) => {
                let both = run.linear(fused, x)?;
                let size = fused.shape[0] / 2;
                let (first, gate) = if *gate_first { (size, 0) } else { (0, size) };
                let gate = both.narrow(1, gate, size)?;
                activated(&both.narrow(1, first, size)?)? * gate
            }
        }
    }
}
