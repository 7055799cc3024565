//! Activation buffers of one thread, reused from block to block and from call to call.

use crate::EncoderSpec;
use fewbit_kernels::{QuantizedRows, Workspace};

/// Every buffer is as large as the largest block so far needed.
#[derive(Default)]
pub(super) struct Scratch {
    /// (tokens, embedding_size), used where a projection follows the embeddings.
    pub(super) embeddings: Vec<f32>,
    /// One row (embedding_size).
    pub(super) row: Vec<f32>,
    /// (tokens, hidden_size): the residual stream.
    pub(super) hidden: Vec<f32>,
    /// (tokens, hidden_size)
    pub(super) query: Vec<f32>,
    /// (tokens, hidden_size)
    pub(super) key: Vec<f32>,
    /// (tokens, hidden_size)
    pub(super) value: Vec<f32>,
    /// (tokens, hidden_size): what attention gives.
    pub(super) context: Vec<f32>,
    /// (tokens, hidden_size): what joins the residual stream.
    pub(super) projected: Vec<f32>,
    /// (tokens, intermediate_size)
    pub(super) intermediate: Vec<f32>,
    /// (heads, length, length) for sequences of `attention_bias_length` tokens.
    pub(super) attention_bias: Vec<f32>,
    pub(super) attention_bias_length: usize,
    pub(super) quantized: QuantizedRows,
    pub(super) workspace: Workspace,
}

impl Scratch {
    /// Makes every buffer large enough for a block of `tokens`.
    pub(super) fn fit(&mut self, spec: &EncoderSpec, tokens: usize) {
        let hidden = tokens * spec.hidden_size;
        let grow = |buffer: &mut Vec<f32>, length: usize| {
            if buffer.len() < length {
                buffer.resize(length, 0.0);
            }
        };
        if spec.has_embeddings_projection() {
            grow(&mut self.embeddings, tokens * spec.embedding_size);
        }
        grow(&mut self.row, spec.embedding_size);
        for buffer in [
            &mut self.hidden,
            &mut self.query,
            &mut self.key,
            &mut self.value,
            &mut self.context,
            &mut self.projected,
        ] {
            grow(buffer, hidden);
        }
        grow(&mut self.intermediate, tokens * spec.intermediate_size);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let floats = [
            &self.embeddings,
            &self.row,
            &self.hidden,
            &self.query,
            &self.key,
            &self.value,
            &self.context,
            &self.projected,
            &self.intermediate,
            &self.attention_bias,
        ];
        floats
            .into_iter()
            .map(|buffer| size_of_val(buffer.as_slice()))
            .sum::<usize>()
            + self.quantized.memory_bytes()
            + self.workspace.memory_bytes()
    }
}
