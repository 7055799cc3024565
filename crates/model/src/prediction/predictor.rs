//! Texts in, predictions out.

mod batches;
mod tasks;

pub use tasks::{Classification, FilledMasks, LabelScore, Tagging, TextLogits};

use crate::module_names::open_checkpoint;
use crate::network;
use crate::tokenization::{TextSettings, TextTokenizer};
use crate::weight_source::FromCheckpoint;
use crate::{EncoderSpec, ModelError, ScoreFunction, Task, TaskModel, WeightOnlyArithmetic};
use std::path::{Path, PathBuf};

/// Tokenizer, network and task head of one model directory.
///
/// ```no_run
/// use fewbit_model::{EncodeOptions, Predictor};
///
/// let classifier = Predictor::open("models/sst2-classifier")?;
/// let found = classifier.classify(&["A film to love.", "A film to hate."], &EncodeOptions::default())?;
/// let best = &found[0].labels[0];
/// println!("{} ({:.3})", best.label, best.score);
/// # Ok::<(), fewbit_model::ModelError>(())
/// ```
pub struct Predictor {
    model: TaskModel,
    tokenizer: TextTokenizer,
    /// [`PredictorSettings::max_tokens`]
    asked_max_tokens: Option<usize>,
    directory: PathBuf,
}

/// Settings that replace those in the files of a model directory; none by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PredictorSettings {
    /// Longest input in tokens, special tokens included; at most the positions that the model has. By default the model's limit, and for
    /// question answering 384.
    pub max_tokens: Option<usize>,
    /// The arithmetic of layers whose weights alone are int8; by default that of
    /// [`WeightOnlyArithmetic::from_environment`].
    pub weight_only: Option<WeightOnlyArithmetic>,
}

/// One text, or two that are read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextInput<'t> {
    /// The text; a query, a question.
    pub text: &'t str,
    /// What is read with it: a passage, a context.
    pub pair: Option<&'t str>,
}

impl<'t> From<&'t str> for TextInput<'t> {
    fn from(text: &'t str) -> Self {
        Self { text, pair: None }
    }
}

impl<'t> From<(&'t str, &'t str)> for TextInput<'t> {
    fn from((text, pair): (&'t str, &'t str)) -> Self {
        Self {
            text,
            pair: Some(pair),
        }
    }
}

impl Predictor {
    /// Opens a model directory with the kernels that this CPU runs best (or that `FEWBIT_ISA` names).
    ///
    /// # Errors
    /// As [`TaskModel::open`]: among others for a model without a head; and if a tokenizer file is missing, malformed, or asks for
    /// something that fewbit does not have.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, ModelError> {
        Self::open_with_settings(directory, &PredictorSettings::default())
    }

    /// [`Predictor::open`], where `settings` take the place of those in the directory.
    ///
    /// # Errors
    /// As [`Predictor::open`]; [`ModelError::Input`] for settings that the model cannot follow.
    pub fn open_with_settings(
        directory: impl AsRef<Path>,
        settings: &PredictorSettings,
    ) -> Result<Self, ModelError> {
        let checkpoint = open_checkpoint(directory)?;
        let kernels = network::kernels_from_environment()?;
        let weight_only = WeightOnlyArithmetic::resolve(settings.weight_only)?;
        let spec = EncoderSpec::from_checkpoint(&checkpoint)?;
        spec.check_max_tokens(settings.max_tokens)?;
        let model = TaskModel::load(&checkpoint, &FromCheckpoint, kernels, weight_only)?;
        let text_settings = TextSettings {
            max_seq_length: settings.max_tokens,
            lowercase: false,
        };
        let directory = checkpoint.directory().to_owned();
        let tokenizer = TextTokenizer::open(&directory, &spec, text_settings)?;
        Ok(Self {
            model,
            tokenizer,
            asked_max_tokens: settings.max_tokens,
            directory,
        })
    }

    /// What the model is for.
    pub fn task(&self) -> Task {
        self.model.task()
    }

    /// The names of a classifier's labels.
    pub fn labels(&self) -> &[String] {
        self.model.labels()
    }

    /// How the logits of a text become its scores; for sequence classification.
    pub fn score_function(&self) -> ScoreFunction {
        self.model.score_function()
    }

    /// Network and head.
    pub fn model(&self) -> &TaskModel {
        &self.model
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// Where config.json and the weights lie.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Longest input in tokens, special tokens included; longer texts are cut and reported.
    pub fn max_tokens(&self) -> usize {
        self.tokenizer.max_tokens()
    }

    /// Errors if the model is for another task than `task`.
    fn check_task(&self, task: Task) -> Result<(), ModelError> {
        match self.task() {
            found if found == task => Ok(()),
            found => Err(ModelError::Input(format!(
                "{}: expected a model for {}, found one for {}\n  hint: the model class in config.json (`architectures`) says what a model is for",
                self.directory.display(),
                task.name(),
                found.name()
            ))),
        }
    }
}
