//! A model with a task head: token ids in, logits out.

use crate::module_names::open_checkpoint;
use crate::network::{self, TaskHead};
use crate::pooling::{Pooling, PoolingMode};
use crate::task_head::{CrossEncoder, HeadRows, HeadSpec, Labels, ScoreFunction, Task};
use crate::weight_source::{FromCheckpoint, WeightSource};
use crate::{EncoderSpec, LoadLedger, ModelError, Network, RaggedBatch, WeightOnlyArithmetic};
use fewbit_checkpoint::Checkpoint;
use fewbit_kernels::Kernels;
use std::ops::Range;
use std::path::Path;

/// An encoder and the task head on top of it.
///
/// ```
/// use fewbit_model::{RaggedBatch, TaskModel};
///
/// # let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/architectures/bert-sequence-classification");
/// let model = TaskModel::open(directory)?;
/// let texts = RaggedBatch::from_sequences(&[&[2, 7, 11, 3][..], &[2, 3]]);
/// let logits = model.logits(&texts, 1)?;
/// assert_eq!((logits.rows, logits.columns), (2, model.labels().len()));
/// println!("{:?}: {:?}", model.labels(), logits.row(0));
/// # Ok::<(), fewbit_model::ModelError>(())
/// ```
pub struct TaskModel {
    network: Network,
    head: TaskHead,
    spec: HeadSpec,
    labels: Labels,
    cross_encoder: Option<CrossEncoder>,
    ledger: LoadLedger,
}

/// Logits, one row for each text or for each token.
#[derive(Debug, Clone, PartialEq)]
pub struct Logits {
    /// Number of texts or tokens.
    pub rows: usize,
    /// Logits of each: labels, or words.
    pub columns: usize,
    /// (rows, columns), row-major.
    pub values: Vec<f32>,
}

impl Logits {
    /// The logits of row `row`, which must be below `rows`.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }
}

impl TaskModel {
    /// Opens a model directory with the kernels that this CPU runs best (or that `FEWBIT_ISA` names), and the arithmetic of int8 weights that
    /// `FEWBIT_WEIGHT_ONLY` names.
    ///
    /// # Errors
    /// As [`Network::load`]; a model class without a head or with one that fewbit does not run; labels that config.json contradicts itself
    /// about; a tensor of the head that is missing, or has another shape than config.json says.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, ModelError> {
        let checkpoint = open_checkpoint(directory)?;
        Self::load(
            &checkpoint,
            &FromCheckpoint,
            network::kernels_from_environment()?,
            WeightOnlyArithmetic::from_environment()?,
        )
    }

    /// [`TaskModel::open`] with the kernels of a certain instruction set.
    ///
    /// # Errors
    /// As [`TaskModel::open`].
    pub fn open_with_kernels(
        directory: impl AsRef<Path>,
        kernels: &'static Kernels,
    ) -> Result<Self, ModelError> {
        let checkpoint = open_checkpoint(directory)?;
        Self::load(
            &checkpoint,
            &FromCheckpoint,
            kernels,
            WeightOnlyArithmetic::from_environment()?,
        )
    }

    /// Loads a model with the weights that `weights` has in place of the checkpoint's.
    ///
    /// # Errors
    /// As [`TaskModel::open`]; a weight of another shape than its module's, or with NaN or infinity.
    pub fn load(
        checkpoint: &Checkpoint,
        weights: &dyn WeightSource,
        kernels: &'static Kernels,
        weight_only: WeightOnlyArithmetic,
    ) -> Result<Self, ModelError> {
        let encoder = EncoderSpec::from_checkpoint(checkpoint)?;
        let labels = Labels::from_checkpoint(checkpoint)?;
        let spec = HeadSpec::from_checkpoint(checkpoint, &encoder, &labels)?;
        let cross_encoder = CrossEncoder::from_checkpoint(checkpoint, &labels)?;
        let (network, head, ledger) =
            network::load_with_head(checkpoint, weights, encoder, &spec, kernels, weight_only)?;
        Ok(Self {
            network,
            head,
            spec,
            labels,
            cross_encoder,
            ledger,
        })
    }

    /// The encoder.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// What the head computes.
    pub fn head(&self) -> &HeadSpec {
        &self.spec
    }

    /// What the head is for.
    pub fn task(&self) -> Task {
        self.spec.task
    }

    /// The name of each logit of a classifier; empty for the other tasks.
    pub fn labels(&self) -> &[String] {
        match self.task().has_labels() {
            true => self.labels.names(),
            false => &[],
        }
    }

    /// How the logits of a text become its scores: as sentence-transformers' CrossEncoder does where it wrote the model, and as
    /// transformers' text-classification pipeline does otherwise.
    pub fn score_function(&self) -> ScoreFunction {
        self.cross_encoder.map_or_else(
            || ScoreFunction::of_pipeline(&self.labels),
            |cross_encoder| cross_encoder.scores,
        )
    }

    /// What sentence-transformers' CrossEncoder says of the model, where it wrote it.
    pub fn cross_encoder(&self) -> Option<CrossEncoder> {
        self.cross_encoder
    }

    /// What loading did with every tensor.
    pub fn ledger(&self) -> &LoadLedger {
        &self.ledger
    }

    /// Logits of a row: labels, 2 for question answering, or words.
    pub fn columns(&self) -> usize {
        self.head.columns()
    }

    /// Bytes of parameters held in memory.
    pub fn memory_bytes(&self) -> usize {
        self.network.memory_bytes() + self.head.memory_bytes()
    }

    /// The logits of every text, or where the task [is one of tokens](Task::is_of_tokens) of every token, in the order of the batch; on `threads`
    /// threads. A row has the same bits whatever else is in the batch, on however many threads.
    ///
    /// Of a masked language model these are the logits of all words for all tokens: [`TaskModel::logits_of_tokens`] gives those wanted.
    ///
    /// # Errors
    /// As [`Network::hidden_states`]; [`ModelError::NonFinite`] where a value overflowed in the head (row: the text's or the token's number).
    pub fn logits(&self, batch: &RaggedBatch, threads: usize) -> Result<Logits, ModelError> {
        let states = self.network.hidden_states(batch, threads)?;
        let rows = match self.spec.rows {
            HeadRows::EveryToken | HeadRows::EveryTokenThenMean => states,
            rows => self.pooled(rows, batch, &states),
        };
        let logits = self.logits_of(&rows, batch, threads)?;
        if self.spec.rows != HeadRows::EveryTokenThenMean {
            return Ok(logits);
        }
        let columns = logits.columns;
        let mut values = vec![0.0; batch.sequences() * columns];
        for (sequence, out) in values.chunks_exact_mut(columns).enumerate() {
            let range = batch.range(sequence);
            let of_tokens = &logits.values[range.start * columns..range.end * columns];
            Pooling::from(PoolingMode::Mean).pool(of_tokens, columns, out);
        }
        Ok(Logits {
            rows: batch.sequences(),
            columns,
            values,
        })
    }

    /// The logits of some tokens: `tokens` are indices of the batch's token ids.
    ///
    /// # Errors
    /// As [`TaskModel::logits`]; [`ModelError::Input`] for a task that is not one of tokens, or an index that is not in the batch.
    pub fn logits_of_tokens(
        &self,
        batch: &RaggedBatch,
        tokens: &[usize],
        threads: usize,
    ) -> Result<Logits, ModelError> {
        if !self.task().is_of_tokens() {
            return Err(ModelError::Input(format!(
                "tokens: expected a model for a task of tokens, found one for {}\n  hint: `logits` gives the row of each text",
                self.task().name()
            )));
        }
        if let Some(token) = tokens.iter().find(|&&token| token >= batch.tokens()) {
            return Err(ModelError::Input(format!(
                "tokens: expected indices below the batch's {} token ids, found {token}\n  hint: token t of sequence s is `offsets[s] + t`",
                batch.tokens()
            )));
        }
        let states = self.network.hidden_states(batch, threads)?;
        if self.head.reads_whole_texts() {
            let all = self.logits_of(&states, batch, threads)?;
            let values = tokens.iter().flat_map(|&token| all.row(token));
            return Ok(Logits {
                rows: tokens.len(),
                columns: all.columns,
                values: values.copied().collect(),
            });
        }
        let hidden = self.network.spec().hidden_size;
        let rows: Vec<f32> = tokens
            .iter()
            .flat_map(|token| &states[token * hidden..(token + 1) * hidden])
            .copied()
            .collect();
        self.logits_of(&rows, batch, threads)
    }

    /// The row that a head reads of each sequence.
    fn pooled(&self, rows: HeadRows, batch: &RaggedBatch, states: &[f32]) -> Vec<f32> {
        let hidden = self.network.spec().hidden_size;
        let mut out = vec![0.0; batch.sequences() * hidden];
        for (sequence, out) in out.chunks_exact_mut(hidden).enumerate() {
            let range = batch.range(sequence);
            let states_of =
                |tokens: Range<usize>| &states[tokens.start * hidden..tokens.end * hidden];
            match rows.token_of(&batch.token_ids[range.clone()]) {
                Some(token) => {
                    let token = range.start + token;
                    out.copy_from_slice(states_of(token..token + 1));
                }
                None => Pooling::from(PoolingMode::Mean).pool(states_of(range), hidden, out),
            }
        }
        out
    }

    /// The logits of `rows` (rows, hidden_size), which are one for each sequence of `batch` or those of tokens.
    fn logits_of(
        &self,
        rows: &[f32],
        batch: &RaggedBatch,
        threads: usize,
    ) -> Result<Logits, ModelError> {
        let (hidden, columns) = (self.network.spec().hidden_size, self.columns());
        let count = rows.len() / hidden;
        let mut values = Vec::new();
        let room = count.checked_mul(columns).and_then(|length| {
            values.try_reserve_exact(length).ok()?;
            Some(length)
        });
        let length = room.ok_or_else(|| {
            ModelError::Input(format!(
                "batch: {columns} logits for each of {count} rows do not fit in memory\n  hint: run fewer sequences at a time, or ask for the tokens that are wanted"
            ))
        })?;
        values.resize(length, 0.0);
        if self.head.reads_whole_texts() {
            for sequence in 0..batch.sequences() {
                // A row each where sequences are pooled.
                let range = match self.spec.rows {
                    HeadRows::EveryToken | HeadRows::EveryTokenThenMean => batch.range(sequence),
                    _ => sequence..sequence + 1,
                };
                let out = &mut values[range.start * columns..range.end * columns];
                let of_text = &rows[range.start * hidden..range.end * hidden];
                self.network
                    .run_head(&self.head, of_text, out, threads)
                    .map_err(|error| error.at_row(|row| range.start + row))?;
            }
        } else {
            self.network
                .run_head(&self.head, rows, &mut values, threads)?;
        }
        Ok(Logits {
            rows: count,
            columns,
            values,
        })
    }
}

impl std::fmt::Debug for TaskModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskModel")
            .field("network", &self.network)
            .field("head", &self.spec)
            .field("labels", &self.labels)
            .finish_non_exhaustive()
    }
}
