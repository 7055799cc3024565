//! What all layers of one forward pass share.

use candle_core::{Result, Tensor};
use fewbit_kernels::Kernels;
use fewbit_model::spec::{LocalAttention, NormSpec, RotaryFrequencies};
use fewbit_model::{EncoderSpec, Module, RaggedBatch};
use std::ops::Range;
use std::sync::Arc;

use super::DifferentiableEncoder;
use super::norm::NormModule;
use crate::operations::attention::{Attention, DistanceTable};
use crate::operations::linear::Product;
use crate::operations::norm::normalize;
use crate::{LayerInputs, Parameters};

/// One forward pass.
pub(super) struct Run<'r> {
    pub(super) spec: &'r EncoderSpec,
    pub(super) kernels: &'static Kernels,
    parameters: &'r Parameters,
    inputs: &'r dyn LayerInputs,
    /// Sequence i is the rows `offsets[i]..offsets[i + 1]`.
    offsets: Arc<[usize]>,
    /// Of layers that attend to all tokens, and of those that attend to near ones.
    attention: [Attention; 2],
    /// The same of rotations: (tokens, head_size), where there are some.
    turns: Option<[Arc<[f32]>; 2]>,
}

impl<'r> Run<'r> {
    /// The pass of a batch that has been checked and has tokens.
    pub(super) fn new(
        encoder: &'r DifferentiableEncoder,
        parameters: &'r Parameters,
        batch: &RaggedBatch,
        inputs: &'r dyn LayerInputs,
    ) -> Self {
        let spec = &encoder.spec;
        let offsets: Arc<[usize]> = batch.offsets.as_slice().into();
        let attention = |is_local| Attention {
            heads: spec.heads,
            key_value_heads: spec.key_value_heads,
            head_size: spec.head_size,
            scale: spec.score_scale,
            offsets: Arc::clone(&offsets),
            bias: encoder.distance_table(batch, is_local),
            kernels: encoder.kernels,
        };
        let turns = spec.rotary.as_ref().map(|rotary| {
            let [global, local] = [&rotary.global, &rotary.local];
            [turns(global, batch), turns(local, batch)]
        });
        Self {
            spec,
            kernels: encoder.kernels,
            parameters,
            inputs,
            attention: [attention(false), attention(true)],
            offsets,
            turns,
        }
    }

    /// Where the rows of each sequence begin, and where the last ends.
    pub(super) fn offsets(&self) -> &Arc<[usize]> {
        &self.offsets
    }

    /// The rows of each sequence.
    pub(super) fn sequences(&self) -> impl Iterator<Item = Range<usize>> {
        self.offsets.windows(2).map(|pair| pair[0]..pair[1])
    }

    /// The attention of a layer that attends to near tokens only, or of another one.
    pub(super) fn attention(&self, is_local: bool) -> Attention {
        self.attention[usize::from(is_local)].clone()
    }

    /// The rotations of such a layer, where there are some.
    pub(super) fn turns(&self, is_local: bool) -> Option<&Arc<[f32]>> {
        let turns = self.turns.as_ref()?;
        Some(&turns[usize::from(is_local)])
    }

    /// The parameter of this name.
    pub(super) fn parameter(&self, name: &str) -> Result<&'r Tensor> {
        self.parameters.get(name)
    }

    /// Whether two layers read the same rows, quantized alike.
    pub(super) fn reads_same_rows(&self, first: &Module, other: &Module) -> bool {
        first.input_site == other.input_site && self.inputs.are_alike(first, other)
    }

    /// What `module` reads of `input`.
    pub(super) fn quantized(&self, module: &Module, input: &Tensor) -> Result<Tensor> {
        self.inputs.quantized(module, input)
    }

    /// The product of `module` with rows that it reads as they are.
    pub(super) fn product(&self, module: &Module, rows: &Tensor) -> Result<Tensor> {
        let name = format!("{}.weight", module.name);
        let weight = self.parameter(&name)?;
        let product = Product {
            packed: self.parameters.packed(&name).cloned(),
            record: self
                .parameters
                .record()
                .cloned()
                .map(|record| (record, name.clone())),
            kernels: self.kernels,
        };
        let bias = match module.bias {
            true => Some(self.parameter(&format!("{}.bias", module.name))?),
            false => None,
        };
        product.linear(rows, weight, bias)
    }

    /// The layer `module` of `input`.
    pub(super) fn linear(&self, module: &Module, input: &Tensor) -> Result<Tensor> {
        self.product(module, &self.quantized(module, input)?)
    }

    /// The rows of `x` normalized as in layers.
    pub(super) fn normalize(&self, norm: &NormModule, x: &Tensor) -> Result<Tensor> {
        self.normalize_as(self.spec.norm, norm, x)
    }

    /// The rows of `x` normalized in this way.
    pub(super) fn normalize_as(
        &self,
        spec: NormSpec,
        norm: &NormModule,
        x: &Tensor,
    ) -> Result<Tensor> {
        let weight = self.parameter(&norm.weight)?;
        let bias = norm.bias.as_deref();
        let bias = bias.map(|name| self.parameter(name)).transpose()?;
        normalize(x, weight, bias, spec, self.kernels)
    }
}

impl DifferentiableEncoder {
    /// What is added to scores: the model's relative bias, and minus infinity for keys that are not seen.
    fn distance_table(&self, batch: &RaggedBatch, is_local: bool) -> Option<DistanceTable> {
        let spec = &self.spec;
        let longest = (0..batch.sequences()).map(|sequence| batch.range(sequence).len());
        let longest = longest.max()? as isize;
        let local = spec.local_attention.as_ref().filter(|_| is_local);
        let relative = spec.relative_attention.zip(self.relative_bias.as_ref());
        if local.is_none() && !spec.causal && relative.is_none() {
            return None;
        }
        let reach = |local: &LocalAttention| local.distance as isize;
        let before = local.map_or(longest, reach);
        let after = if spec.causal { 0 } else { before };
        let of_distance = |head: usize, distance: isize| match relative {
            _ if distance < -before || distance > after => f32::NEG_INFINITY,
            Some((relative, table)) => table[relative.bucket(distance) * spec.heads + head],
            None => 0.0,
        };
        let distances = 1 - longest..longest;
        let heads = if relative.is_some() { spec.heads } else { 1 };
        let values = (0..heads).flat_map(|head| {
            let distances = distances.clone();
            distances.map(move |distance| of_distance(head, distance))
        });
        Some(DistanceTable {
            values: values.collect(),
            head_stride: if relative.is_some() {
                distances.len()
            } else {
                0
            },
            center: longest as usize - 1,
        })
    }
}

/// Cosines and sines of the position of each token in its sequence.
fn turns(frequencies: &RotaryFrequencies, batch: &RaggedBatch) -> Arc<[f32]> {
    let sequences = 0..batch.sequences();
    let longest = sequences
        .clone()
        .map(|sequence| batch.range(sequence).len());
    let positions = 0..longest.max().unwrap_or(0);
    let table: Vec<f32> = positions
        .flat_map(|position| frequencies.turn(position))
        .collect();
    let columns = 2 * frequencies.frequencies.len();
    let of_sequence = |sequence| &table[..batch.range(sequence).len() * columns];
    sequences.flat_map(of_sequence).copied().collect()
}
