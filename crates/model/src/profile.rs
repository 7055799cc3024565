//! Where the time of a forward pass goes.

use std::time::{Duration, Instant};

/// A part of the work of every encoder. Quantizing activations counts to the stage whose linear layers read them, unless a LayerNorm
/// does it in passing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Table look-ups, their sum, LayerNorm, and where there are such the projection and the convolution beside the first layer.
    Embeddings,
    /// The products that give queries, keys and values.
    QueryKeyValue,
    /// Scores, softmax and weighted values.
    Attention,
    /// The product after attention, added to the residual stream.
    AttentionOutput,
    /// LayerNorm after attention; where layers normalize what they read, before attention and before the feed-forward.
    AttentionNorm,
    /// The first product of the feed-forward and its activation function.
    Intermediate,
    /// The second product of the feed-forward, added to the residual stream.
    Output,
    /// LayerNorm after the feed-forward; where layers normalize what they read, after the last one.
    OutputNorm,
}

impl Stage {
    /// Every stage, in the order of execution.
    pub const ALL: [Stage; 8] = [
        Stage::Embeddings,
        Stage::QueryKeyValue,
        Stage::Attention,
        Stage::AttentionOutput,
        Stage::AttentionNorm,
        Stage::Intermediate,
        Stage::Output,
        Stage::OutputNorm,
    ];

    /// A name for tables: `query, key, value`.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Embeddings => "embeddings",
            Stage::QueryKeyValue => "query, key, value",
            Stage::Attention => "attention",
            Stage::AttentionOutput => "attention output",
            Stage::AttentionNorm => "attention LayerNorm",
            Stage::Intermediate => "intermediate",
            Stage::Output => "output",
            Stage::OutputNorm => "output LayerNorm",
        }
    }
}

/// Time spent in each [`Stage`], summed over layers and calls.
///
/// ```no_run
/// use fewbit_model::profile::{Stage, StageTimes};
/// use fewbit_model::{Encoder, RaggedBatch};
///
/// let encoder = Encoder::open("models/all-MiniLM-L6-v2")?;
/// let mut times = StageTimes::default();
/// let batch = RaggedBatch::from_sequences(&[&[101, 7592, 2088, 102]]);
/// encoder.network().hidden_states_profiled(&batch, &mut times)?;
/// for stage in Stage::ALL {
///     println!("{:20} {:.3} ms", stage.name(), 1e3 * times.seconds(stage));
/// }
/// # Ok::<(), fewbit_model::ModelError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct StageTimes {
    spent: [Duration; Stage::ALL.len()],
    current: Option<(Stage, Instant)>,
}

impl StageTimes {
    /// Seconds spent in `stage`.
    pub fn seconds(&self, stage: Stage) -> f64 {
        self.spent[stage as usize].as_secs_f64()
    }

    /// `stage` begins, and with it ends the one before.
    pub(crate) fn enter(&mut self, stage: Stage) {
        let now = Instant::now();
        self.leave_at(now);
        self.current = Some((stage, now));
    }

    /// The current stage ends.
    pub(crate) fn leave(&mut self) {
        self.leave_at(Instant::now());
    }

    fn leave_at(&mut self, now: Instant) {
        if let Some((stage, since)) = self.current.take() {
            self.spent[stage as usize] += now - since;
        }
    }
}
