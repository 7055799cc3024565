//! A layer of the encoder with its weights, and what follows from the weights of all layers.

use super::window::Window;
use crate::packed_linear::PackedLinear;
use fewbit_kernels::{Arithmetic, Isa};

/// Sequences of at least this number of tokens attend in integers: for fewer, quantizing costs more time than integer products gain.
const LEAST_INTEGER_ATTENTION_TOKENS: usize = 64;

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
    /// Whether attention over `tokens` tokens is computed in integers: long sequences, where queries, keys and values are int8 products.
    pub(super) fn attends_in_integers(&self, tokens: usize) -> bool {
        let projections = [&self.query, &self.key, &self.value];
        self.window.is_none()
            && tokens >= LEAST_INTEGER_ATTENTION_TOKENS
            && projections
                .iter()
                .all(|linear| linear.has_eight_bit_activations())
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

/// The arithmetic of most multiply-adds in the layers.
pub(super) fn arithmetic(layers: &[EncoderLayer]) -> Arithmetic {
    let linears = layers.iter().flat_map(EncoderLayer::linears);
    let mut balance = 0i128;
    for linear in linears {
        let size = (linear.in_features() * linear.out_features()) as i128;
        balance += match linear.arithmetic() {
            Arithmetic::Int8 => size,
            Arithmetic::F32 => -size,
        };
    }
    if balance > 0 {
        Arithmetic::Int8
    } else {
        Arithmetic::F32
    }
}

/// Rows that go through a layer at a time: many enough to pay for reading the weights, which are longer as floats, few enough that their
/// intermediate activations stay in the second-level cache. That of CPUs without instructions for products of bytes is small.
pub(super) fn chunk_rows(arithmetic: Arithmetic, isa: Isa) -> usize {
    match (arithmetic, isa) {
        (Arithmetic::Int8, Isa::Avx2) => 64,
        (Arithmetic::Int8, _) => 128,
        (Arithmetic::F32, _) => 256,
    }
}
