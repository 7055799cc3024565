//! A task head with its weights.

use super::Network;
use super::encoder_layer::LayerNorm;
use super::load::Loader;
use crate::packed_linear::{LinearEpilogue, LinearInput, PackedLinear};
use crate::spec::NormSpec;
use crate::task_head::{HeadSpec, HeadStep};
use crate::{ModelError, Module, Role};
use fewbit_kernels::{Activation, Kernels, QuantizedRows, Workspace};
use std::borrow::Cow;

/// Rows that go through the head together, so that what passes between its steps stays small.
const CHUNK_ROWS: usize = 256;

/// A loaded head.
pub(crate) struct TaskHead {
    /// All steps but the last.
    steps: Vec<LoadedStep>,
    /// The step that gives the logits.
    last: PackedLinear,
}

enum LoadedStep {
    Linear(PackedLinear, Activation),
    Norm(LayerNorm, f32),
}

impl TaskHead {
    /// Logits of a row.
    pub(crate) fn columns(&self) -> usize {
        self.last.out_features()
    }

    /// Whether a layer's input must be all rows of one text.
    pub(crate) fn reads_whole_texts(&self) -> bool {
        let before = self.steps.iter().any(|step| match step {
            LoadedStep::Linear(linear, _) => linear.reads_whole_texts(),
            LoadedStep::Norm(..) => false,
        });
        before || self.last.reads_whole_texts()
    }

    /// Bytes of parameters held in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        let steps = self.steps.iter().map(|step| match step {
            LoadedStep::Linear(linear, _) => linear.memory_bytes(),
            LoadedStep::Norm(norm, _) => norm.memory_bytes(),
        });
        steps.sum::<usize>() + self.last.memory_bytes()
    }

    /// Writes the logits of `rows` (rows, hidden_size), which together are of one text if [`reads_whole_texts`](Self::reads_whole_texts).
    fn run(
        &self,
        rows: &[f32],
        logits: &mut [f32],
        kernels: &Kernels,
        quantized: &mut QuantizedRows,
        workspaces: &mut [Workspace],
    ) -> Result<(), ModelError> {
        let count = logits.len() / self.columns();
        let mut values = Cow::Borrowed(rows);
        for step in &self.steps {
            match step {
                LoadedStep::Linear(linear, activation) => {
                    let mut out = vec![0.0; count * linear.out_features()];
                    let mut input = LinearInput::new(count, &values, quantized, None);
                    let then = match activation {
                        Activation::Identity => LinearEpilogue::Store,
                        other => LinearEpilogue::Activate(*other),
                    };
                    PackedLinear::forward(
                        [(linear, &mut out)],
                        &mut input,
                        then,
                        kernels,
                        workspaces,
                    )?;
                    values = Cow::Owned(out);
                }
                LoadedStep::Norm(norm, epsilon) => {
                    kernels.layer_norm(values.to_mut(), None, norm.of(NormSpec::layer(*epsilon)));
                }
            }
        }
        let mut input = LinearInput::new(count, &values, quantized, None);
        PackedLinear::forward(
            [(&self.last, logits)],
            &mut input,
            LinearEpilogue::Store,
            kernels,
            workspaces,
        )
    }
}

impl Network {
    /// Writes the logits (rows, logits of a row) that `head` gives of `rows` (rows, hidden_size) on `threads` threads, which share the columns of
    /// each product. Where the head's layers read whole texts, `rows` are of one.
    ///
    /// # Errors
    /// [`ModelError::NonFinite`] with the row's number in `rows`; [`ModelError::Input`] if `threads` cannot be started.
    pub(crate) fn run_head(
        &self,
        head: &TaskHead,
        rows: &[f32],
        logits: &mut [f32],
        threads: usize,
    ) -> Result<(), ModelError> {
        let count = logits.len() / head.columns();
        let chunk_rows = match head.reads_whole_texts() {
            true => count.max(1),
            false => CHUNK_ROWS,
        };
        let mut run = || {
            let mut workspaces: Vec<_> = (0..threads).map(|_| Workspace::default()).collect();
            let mut quantized = QuantizedRows::new();
            let chunks = rows
                .chunks(chunk_rows * self.spec.hidden_size)
                .zip(logits.chunks_mut(chunk_rows * head.columns()));
            for (index, (rows, logits)) in chunks.enumerate() {
                head.run(rows, logits, self.kernels, &mut quantized, &mut workspaces)
                    .map_err(|error| error.at_row(|row| row + index * chunk_rows))?;
            }
            Ok(())
        };
        match threads {
            1 => run(),
            _ => self.thread_pools.with(threads, run)?,
        }
    }
}

impl Loader<'_> {
    /// The head that `spec` describes.
    ///
    /// # Errors
    /// A tensor of it is missing, of another shape, or holds NaN or infinity.
    pub(super) fn head(&mut self, spec: &HeadSpec) -> Result<TaskHead, ModelError> {
        let (last, before) = spec.steps.split_last().ok_or_else(|| {
            ModelError::Input(
                "task head: expected a step, found none\n  hint: the table of this family is empty"
                    .to_owned(),
            )
        })?;
        let steps = before
            .iter()
            .map(|step| self.head_step(step))
            .collect::<Result<_, _>>()?;
        let loaded = self.head_step(last).map_err(|error| match (error, last) {
            (ModelError::Checkpoint(error), HeadStep::Linear { module, .. }) => {
                ModelError::Checkpoint(spec.about_labels(error, module))
            }
            (error, _) => error,
        })?;
        match loaded {
            LoadedStep::Linear(last, _) => Ok(TaskHead { steps, last }),
            LoadedStep::Norm(norm, _) => Err(ModelError::Input(format!(
                "`{}`: expected a linear layer at the end of a head, found a normalization\n  hint: the table of this family is wrong",
                norm.site
            ))),
        }
    }

    fn head_step(&mut self, step: &HeadStep) -> Result<LoadedStep, ModelError> {
        Ok(match step {
            HeadStep::Linear { module, activation } => {
                LoadedStep::Linear(self.linear(module)?, *activation)
            }
            HeadStep::Norm { module, epsilon } => LoadedStep::Norm(self.norm(module)?, *epsilon),
            HeadStep::Decoder {
                module,
                shared_bias,
                tied,
            } => {
                let decoder = self.decoder(module, shared_bias.as_deref(), *tied)?;
                LoadedStep::Linear(decoder, Activation::Identity)
            }
        })
    }

    /// The layer that gives logits of words.
    fn decoder(
        &mut self,
        module: &Module,
        shared_bias: Option<&str>,
        tied: bool,
    ) -> Result<PackedLinear, ModelError> {
        let [words, _] = module.shape;
        let table = self.required(Role::WordEmbeddings, None)?;
        let (table, bias) =
            HeadSpec::decoder_tensors(self.checkpoint, module, shared_bias, tied, &table);
        let stored = self.stored_table(&table)?;
        let bias = match bias {
            Some(bias) => self.vector(&bias, words)?,
            None => vec![0.0; words],
        };
        let site = module.sites.concat();
        let decoder = self.packed(site, &table.name, stored, bias, module.shape)?;
        self.release(&table.name);
        Ok(decoder)
    }
}
