//! From the hidden states of a batch to one vector for each text, by the modules after the encoder.

use super::dense::{Dense, LayerNorm};
use super::splade::Splade;
use crate::finite::check_values;
use crate::network::TaskHead;
use crate::pooling::{Pooling, PoolingMode};
use crate::sentence_modules::{Feature, PoolingSettings, SentenceModule};
use crate::{ModelError, Network, RaggedBatch};
use fewbit_kernels::Kernels;
use std::path::Path;

/// The modules after the encoder, with their weights. Their sizes fit together.
pub(super) struct Pipeline {
    steps: Vec<Step>,
    /// Classes of the modules, as sentence-transformers names them.
    classes: Vec<&'static str>,
    /// The last pooling, from which a text's vector comes.
    pooling: Option<Pooling>,
    /// Length of a text's vector at the end.
    columns: usize,
    kernels: &'static Kernels,
}

enum Step {
    Pooling {
        pooling: Pooling,
        without_prompt: bool,
    },
    Splade(Splade),
    Dense(Dense),
    LayerNorm(LayerNorm),
    Normalize(Feature),
    Dropout,
}

/// The vectors of a batch.
struct Features {
    /// (tokens, token_columns)
    tokens: Vec<f32>,
    token_columns: usize,
    /// (texts, columns); empty before pooling.
    texts: Vec<f32>,
    columns: usize,
}

impl Features {
    fn of(&mut self, feature: Feature) -> (&mut Vec<f32>, &mut usize) {
        match feature {
            Feature::TokenEmbeddings => (&mut self.tokens, &mut self.token_columns),
            Feature::SentenceEmbedding => (&mut self.texts, &mut self.columns),
        }
    }
}

impl Pipeline {
    /// Loads the weights of `modules`, of which the first that read something read hidden states of `hidden_size` columns; `head` is the
    /// one whose logits they pool, where they do.
    ///
    /// # Errors
    /// Files of weights that are missing or damaged, or do not have what the settings say; sizes that do not fit together.
    pub(super) fn load(
        modules: &[SentenceModule],
        hidden_size: usize,
        kernels: &'static Kernels,
        mut head: Option<TaskHead>,
    ) -> Result<Self, ModelError> {
        let mut widths = [hidden_size, 0];
        let mut steps = Vec::with_capacity(modules.len());
        let mut last_pooling = None;
        for module in modules {
            let width = |feature| widths[usize::from(feature == Feature::SentenceEmbedding)];
            let step = match module {
                SentenceModule::Pooling(settings) => {
                    warn_of_width(settings, width(Feature::TokenEmbeddings));
                    Step::Pooling {
                        pooling: settings.pooling.clone(),
                        without_prompt: settings.without_prompt,
                    }
                }
                SentenceModule::Splade(settings) => {
                    let head = head.take().ok_or_else(|| {
                        ModelError::Input("SpladePooling: expected a model with logits of words, found none\n  hint: it comes right after the encoder".to_owned())
                    })?;
                    Step::Splade(Splade {
                        head,
                        settings: *settings,
                    })
                }
                SentenceModule::Dense(settings) => {
                    let found = settings.in_features;
                    let expected = width(settings.feature);
                    expect_width(
                        &settings.folder,
                        "in_features",
                        settings.feature,
                        expected,
                        found,
                    )?;
                    Step::Dense(Dense::load(settings, kernels)?)
                }
                SentenceModule::LayerNorm { folder, dimension } => {
                    let feature = Feature::SentenceEmbedding;
                    expect_width(folder, "dimension", feature, width(feature), *dimension)?;
                    Step::LayerNorm(LayerNorm::load(folder, *dimension)?)
                }
                SentenceModule::Normalize(feature) => Step::Normalize(*feature),
                SentenceModule::Dropout => Step::Dropout,
            };
            match &step {
                Step::Pooling { pooling, .. } => {
                    widths[1] = pooling.columns(widths[0]);
                    last_pooling = Some(pooling.clone());
                }
                Step::Splade(splade) => {
                    widths[1] = splade.columns();
                    last_pooling = None;
                }
                Step::Dense(dense) => {
                    widths[usize::from(dense.feature == Feature::SentenceEmbedding)] =
                        dense.out_features();
                }
                Step::LayerNorm(_) | Step::Normalize(_) | Step::Dropout => {}
            }
            steps.push(step);
        }
        Ok(Self {
            steps,
            classes: modules.iter().map(SentenceModule::class).collect(),
            pooling: last_pooling,
            columns: widths[1],
            kernels,
        })
    }

    /// Length of a text's vector.
    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// The last pooling, from which a text's vector comes; none where it comes from logits of words.
    pub(super) fn pooling(&self) -> Option<&Pooling> {
        self.pooling.as_ref()
    }

    /// Classes of the modules, as sentence-transformers names them.
    pub(super) fn classes(&self) -> &[&'static str] {
        &self.classes
    }

    /// Whether a pooling leaves the prompt's tokens out.
    pub(super) fn leaves_prompt_out(&self) -> bool {
        let mut steps = self.steps.iter();
        steps.any(|step| {
            matches!(
                step,
                Step::Pooling {
                    without_prompt: true,
                    ..
                }
            )
        })
    }

    /// Whether the last module that changes a text's vector gives it length 1.
    pub(super) fn normalizes(&self) -> bool {
        let last = self.steps.iter().rev().find(|step| match step {
            Step::Dense(dense) => dense.feature == Feature::SentenceEmbedding,
            Step::Normalize(feature) => *feature == Feature::SentenceEmbedding,
            Step::Pooling { .. } | Step::Splade(_) | Step::LayerNorm(_) => true,
            Step::Dropout => false,
        });
        matches!(last, Some(Step::Normalize(_)))
    }

    /// The vectors (sequences, columns) of `batch`, whose hidden states `network` gave as `states`; the first `prompt` tokens of each are its prompt's.
    ///
    /// # Errors
    /// [`ModelError::NonFinite`] with the number of the sequence as its row; [`ModelError::Input`] where nothing but the prompt is left
    /// of a text and its maximum is asked for.
    pub(super) fn run(
        &self,
        batch: &RaggedBatch,
        states: Vec<f32>,
        network: &Network,
        prompt: usize,
        threads: usize,
    ) -> Result<Vec<f32>, ModelError> {
        let mut features = Features {
            tokens: states,
            token_columns: network.spec().hidden_size,
            texts: Vec::new(),
            columns: 0,
        };
        for step in &self.steps {
            match step {
                Step::Pooling {
                    pooling,
                    without_prompt,
                } => {
                    let left_out = if *without_prompt { prompt } else { 0 };
                    pool(pooling, batch, &mut features, left_out)?;
                }
                Step::Splade(splade) => {
                    let found = splade.run(network, batch, &features.tokens, threads)?;
                    features.texts = found;
                    features.columns = splade.columns();
                }
                Step::Dense(dense) => {
                    let (values, columns) = features.of(dense.feature);
                    let out = dense.forward(values, self.kernels);
                    *values = out.map_err(|error| in_sequence(error, dense.feature, batch))?;
                    *columns = dense.out_features();
                }
                Step::LayerNorm(norm) => norm.forward(&mut features.texts, self.kernels)?,
                Step::Normalize(feature) => {
                    let (values, columns) = features.of(*feature);
                    for (row, values) in values.chunks_exact_mut(*columns).enumerate() {
                        normalize(values, row, self.kernels)
                            .map_err(|error| in_sequence(error, *feature, batch))?;
                    }
                }
                Step::Dropout => {}
            }
        }
        Ok(features.texts)
    }
}

/// Pooling takes the states as they come.
fn warn_of_width(settings: &PoolingSettings, expected: usize) {
    if let Some((file, width)) = &settings.width
        && *width != expected as u64
    {
        tracing::warn!(
            "{}: the width of the hidden states: expected {expected}, as in config.json, found {width}: it has no effect on the result, but the files may belong to different models",
            file.display()
        );
    }
}

fn expect_width(
    folder: &Path,
    field: &str,
    feature: Feature,
    expected: usize,
    found: usize,
) -> Result<(), ModelError> {
    if expected == found {
        return Ok(());
    }
    let what = match feature {
        Feature::TokenEmbeddings => "a token",
        Feature::SentenceEmbedding => "the text",
    };
    Err(ModelError::Config {
        file: folder.join("config.json"),
        field: field.to_owned(),
        message: format!(
            "expected {expected}, the width of {what}'s vector as the modules before give it, found {found}"
        ),
        hint: "the modules belong to different models, or another pooling was asked for than they are made for".to_owned(),
    })
}

/// Pools every sequence of `batch` without its first `left_out` tokens.
fn pool(
    pooling: &Pooling,
    batch: &RaggedBatch,
    features: &mut Features,
    left_out: usize,
) -> Result<(), ModelError> {
    let width = features.token_columns;
    features.columns = pooling.columns(width);
    features.texts.clear();
    features
        .texts
        .resize(batch.sequences() * features.columns, 0.0);
    let rows = features.texts.chunks_exact_mut(features.columns);
    for (sequence, out) in rows.enumerate() {
        let tokens = batch.range(sequence);
        if left_out >= tokens.len() && pooling.modes().contains(&PoolingMode::Max) {
            return Err(ModelError::Input(format!(
                "pooling: expected tokens beside those of the prompt, which pooling leaves out (`include_prompt` is false), found {} in all, of which the prompt has {left_out}\n  hint: a maximum over no token is not a number; use a shorter prompt or a longer limit",
                tokens.len()
            )));
        }
        let states = &features.tokens[tokens.start * width..tokens.end * width];
        pooling.pool_after(states, left_out, width, out);
        check_values(out, out.len(), sequence, "pooling", "output")?;
    }
    Ok(())
}

/// L2-normalizes row `row`, which is finite.
fn normalize(values: &mut [f32], row: usize, kernels: &Kernels) -> Result<(), ModelError> {
    let is_zero = |values: &[f32]| values.iter().all(|&value| value == 0.0);
    let was_zero = is_zero(values);
    kernels.normalize(values);
    // Only division by an infinite length makes all of a vector zero: the clamp at 1e-12 enlarges what is small.
    if !was_zero && is_zero(values) {
        return Err(ModelError::NonFinite {
            site: "normalize.length".to_owned(),
            row,
            column: 0,
            value: f32::INFINITY,
        });
    }
    Ok(())
}

/// The error with the number of the sequence as its row, where it has that of a token.
fn in_sequence(error: ModelError, feature: Feature, batch: &RaggedBatch) -> ModelError {
    if feature != Feature::TokenEmbeddings {
        return error;
    }
    error.at_row(|row| {
        let mut sequences = 0..batch.sequences();
        let sequence = sequences.find(|&sequence| batch.range(sequence).contains(&row));
        sequence.unwrap_or(row)
    })
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline")
            .field("modules", &self.classes)
            .field("columns", &self.columns)
            .finish_non_exhaustive()
    }
}
