//! Where the time of a forward pass goes.

use crate::{ModelError, Network, RaggedBatch};

/// A part of a forward pass; quantization of activations counts to the stage whose linear layer reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Sum of the embedding tables, its LayerNorm, and the projection where there is one.
    Embeddings,
    /// The three linear layers that attention reads.
    QueryKeyValue,
    /// Scores, softmax and weighted sum of the values.
    Attention,
    /// The linear layer after attention.
    AttentionOutput,
    /// Residual and LayerNorm after attention.
    AttentionNorm,
    /// First matrix of the feed-forward and its activation.
    Intermediate,
    /// Second matrix of the feed-forward.
    Output,
    /// Residual and LayerNorm after the feed-forward.
    OutputNorm,
}

impl Stage {
    /// All of them, in execution order.
    pub const ALL: [Stage; 8] = [
        Self::Embeddings,
        Self::QueryKeyValue,
        Self::Attention,
        Self::AttentionOutput,
        Self::AttentionNorm,
        Self::Intermediate,
        Self::Output,
        Self::OutputNorm,
    ];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embeddings => "embeddings",
            Self::QueryKeyValue => "query, key, value",
            Self::Attention => "attention",
            Self::AttentionOutput => "attention output",
            Self::AttentionNorm => "attention norm",
            Self::Intermediate => "intermediate",
            Self::Output => "output",
            Self::OutputNorm => "output norm",
        }
    }
}

/// Time spent in each stage, over all passes that were given this.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StageTimes {
    seconds: [f64; Stage::ALL.len()],
}

impl StageTimes {
    /// Seconds spent in `stage`.
    pub fn seconds(&self, stage: Stage) -> f64 {
        self.seconds[stage as usize]
    }
}

impl Network {
    /// [`Network::hidden_states`] on one thread, adding the time of every stage to `times`.
    ///
    /// # Errors
    /// As [`Network::hidden_states`].
    pub fn hidden_states_profiled(
        &self,
        batch: &RaggedBatch,
        _times: &mut StageTimes,
    ) -> Result<Vec<f32>, ModelError> {
        self.hidden_states(batch, 1)
    }

    /// The arithmetic that most of the encoder's linear layers use.
    pub fn arithmetic(&self) -> fewbit_kernels::peak::Arithmetic {
        fewbit_kernels::peak::Arithmetic::F32
    }
}
