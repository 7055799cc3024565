//! Text in, embeddings out.

mod dense;
mod pipeline;
mod settings;
mod splade;

use crate::input_scale::InputScale;
use crate::module_names::open_checkpoint;
use crate::network;
use crate::parallel_map::parallel_map;
use crate::pooling::Pooling;
use crate::sentence_modules::SentenceModules;
use crate::tokenization::{TextSettings, TextTokenizer, TokenizedText};
use crate::weight_source::{FromCheckpoint, WeightSource};
use crate::{
    EncoderSpec, HeadSpec, Labels, LoadLedger, ModelError, Network, RaggedBatch, Task,
    WeightOnlyArithmetic,
};
use fewbit_checkpoint::Checkpoint;
use fewbit_checkpoint::stored_weight::Int8Activations;
use fewbit_kernels::Kernels;
use pipeline::Pipeline;
pub use settings::{EncoderSettings, Prompt};
use splade::keep_largest;
use std::path::{Path, PathBuf};

/// Tokenizer, network and pooling of one model directory.
///
/// With the files of sentence-transformers (`modules.json` and the folders that it names) what follows the encoder is
/// what they say: Pooling, Dense, LayerNorm, Normalize, Dropout, and Router where it chooses between lists of these; another
/// module is an error. Without `modules.json` the mean of the hidden states is taken, of a causal
/// language model the last one, and nothing is normalized, as sentence-transformers does with a plain checkpoint.
#[derive(Debug)]
pub struct Encoder {
    network: Network,
    ledger: LoadLedger,
    tokenizer: TextTokenizer,
    /// What follows the network.
    pipeline: Pipeline,
    /// Put before every text.
    prompt: String,
    /// Tokens of the prompt, where pooling leaves them out.
    prompt_tokens: usize,
    /// Columns that are kept of an embedding, after everything else.
    truncate_dim: Option<usize>,
    /// Values that are kept of a sparse embedding.
    max_active_dims: Option<usize>,
    checkpoint_directory: PathBuf,
}

/// How to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Texts tokenized and run together, at least 1; bounds memory, never changes a result.
    pub batch_size: usize,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self {
            threads: 1,
            batch_size: 32,
        }
    }
}

impl EncodeOptions {
    /// Errors if one is 0.
    pub(crate) fn check(&self) -> Result<(), ModelError> {
        let options = [("threads", self.threads), ("batch_size", self.batch_size)];
        expect_at_least_one(options, "EncodeOptions")
    }
}

/// Errors if one of the options of the type `of`, given with their names, is 0.
pub(crate) fn expect_at_least_one<const N: usize>(
    options: [(&str, usize); N],
    of: &str,
) -> Result<(), ModelError> {
    match options.iter().find(|(_, value)| *value == 0) {
        None => Ok(()),
        Some((name, _)) => Err(ModelError::Input(format!(
            "{name}: expected at least 1, found 0\n  hint: the default is {name} of `{of}::default()`"
        ))),
    }
}

/// One row per text, in the order given.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// Number of texts.
    pub rows: usize,
    /// Length of an embedding.
    pub columns: usize,
    /// (rows, columns), row-major.
    pub values: Vec<f32>,
    /// Ascending indices of texts that were cut at the model's limit.
    pub truncated: Vec<usize>,
    /// Tokens processed, special tokens included.
    pub tokens: usize,
}

impl Embeddings {
    /// The embedding of text `row`, which must be below `rows`.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }
}

impl Encoder {
    /// Opens a model directory with the kernels that this CPU runs best (or that `FEWBIT_ISA` names).
    ///
    /// # Errors
    /// As [`Network::load`], and if a tokenizer or sentence-transformers file is missing, malformed, or asks for
    /// something that fewbit does not have.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, ModelError> {
        Self::open_with_settings(directory, &EncoderSettings::default())
    }

    /// [`Encoder::open`], where `settings` take the place of those in the directory.
    ///
    /// # Errors
    /// As [`Encoder::open`]; [`ModelError::Input`] for settings that the model cannot follow.
    pub fn open_with_settings(
        directory: impl AsRef<Path>,
        settings: &EncoderSettings,
    ) -> Result<Self, ModelError> {
        Self::open_with(
            directory.as_ref(),
            settings,
            &FromCheckpoint,
            network::kernels_from_environment,
        )
    }

    /// [`Encoder::open`] with the weights that `weights` has in place of the directory's.
    ///
    /// # Errors
    /// As [`Encoder::open`]; a weight of another shape than its module's, or with NaN or infinity.
    pub fn open_with_weights(
        directory: impl AsRef<Path>,
        weights: &dyn WeightSource,
    ) -> Result<Self, ModelError> {
        let settings = EncoderSettings::default();
        let kernels = network::kernels_from_environment;
        Self::open_with(directory.as_ref(), &settings, weights, kernels)
    }

    /// [`Encoder::open`] with the kernels of a certain instruction set.
    ///
    /// # Errors
    /// As [`Encoder::open`].
    pub fn open_with_kernels(
        directory: impl AsRef<Path>,
        kernels: &'static Kernels,
    ) -> Result<Self, ModelError> {
        let settings = EncoderSettings::default();
        Self::open_with(directory.as_ref(), &settings, &FromCheckpoint, || {
            Ok(kernels)
        })
    }

    fn open_with(
        directory: &Path,
        settings: &EncoderSettings,
        weights: &dyn WeightSource,
        kernels: impl FnOnce() -> Result<&'static Kernels, ModelError>,
    ) -> Result<Self, ModelError> {
        let mut modules = SentenceModules::read(directory, settings.task.as_deref())?;
        settings.apply(&mut modules)?;
        let checkpoint = open_checkpoint(&modules.transformer)?;
        let text_settings = TextSettings {
            max_seq_length: modules.max_seq_length,
            lowercase: modules.lowercase,
        };
        let kernels = kernels()?;
        let weight_only = WeightOnlyArithmetic::resolve(settings.weight_only)?;
        let spec = EncoderSpec::from_checkpoint(&checkpoint)?;
        let (loaded, tokenizer) = side_by_side(
            || match modules.pools_logits() {
                false => network::load(&checkpoint, weights, spec.clone(), kernels, weight_only)
                    .map(|(network, ledger)| (network, None, ledger)),
                true => {
                    let head = masked_language_head(&checkpoint, &spec)?;
                    let spec = spec.clone();
                    network::load_with_head(&checkpoint, weights, spec, &head, kernels, weight_only)
                        .map(|(network, head, ledger)| (network, Some(head), ledger))
                }
            },
            || TextTokenizer::open(&modules.transformer, &spec, text_settings),
        );
        let (network, head, ledger) = loaded?;
        network.spec().check_max_tokens(settings.max_tokens)?;
        let hidden_size = network.spec().hidden_size;
        let pipeline = Pipeline::load(&modules.after_encoder, hidden_size, kernels, head)?;
        let tokenizer = tokenizer?;
        let prompt_tokens = if pipeline.leaves_prompt_out() && !modules.prompt.is_empty() {
            tokenizer.prompt_length(&modules.prompt)?
        } else {
            0
        };
        Ok(Self {
            network,
            ledger,
            tokenizer,
            pipeline,
            prompt: modules.prompt,
            prompt_tokens,
            truncate_dim: modules.truncate_dim,
            max_active_dims: modules.max_active_dims,
            checkpoint_directory: modules.transformer,
        })
    }

    /// The encoder proper.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Calls `run` while the int8 layers that read the rows of `site` (an input, see [`crate::tap`]) quantize them as `activations` says, and
    /// returns its result; afterwards they quantize as before. None, without a call, if no int8 layer reads these rows.
    pub fn with_input_quantization<R>(
        &mut self,
        site: &str,
        activations: Int8Activations,
        run: impl FnOnce(&Self) -> R,
    ) -> Option<R> {
        let scales = std::iter::repeat(InputScale::of(activations));
        let before = self.network.replace_input_scales(site, scales);
        if before.is_empty() {
            return None;
        }
        let result = run(self);
        self.network.replace_input_scales(site, before.into_iter());
        Some(result)
    }

    /// Where config.json and the weights lie: the model directory, or the folder that its modules.json names.
    pub fn checkpoint_directory(&self) -> &Path {
        &self.checkpoint_directory
    }

    /// What loading did with every tensor.
    pub fn ledger(&self) -> &LoadLedger {
        &self.ledger
    }

    /// Classes of the modules after the encoder, in order, as sentence-transformers names them.
    pub fn modules(&self) -> &[&'static str] {
        self.pipeline.classes()
    }

    /// How hidden states become one vector: by the last pooling, where there are several. None where embeddings [are sparse](Self::is_sparse).
    pub fn pooling(&self) -> Option<&Pooling> {
        self.pipeline.pooling()
    }

    /// Whether an embedding has a value for each word of the model, most of them 0: of SPLADE models, which pool logits of words.
    pub fn is_sparse(&self) -> bool {
        self.pipeline.pooling().is_none()
    }

    /// Whether embeddings are L2-normalized, by the last module.
    pub fn normalizes(&self) -> bool {
        self.pipeline.normalizes()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// Length of an embedding: of the vector that the last module gives, or what `truncate_dim` of a sentence-transformers
    /// configuration keeps of it.
    pub fn columns(&self) -> usize {
        let given = self.pipeline.columns();
        self.truncate_dim.map_or(given, |kept| given.min(kept))
    }

    /// Longest input in tokens, special tokens included; longer texts are cut and reported.
    pub fn max_tokens(&self) -> usize {
        self.tokenizer.max_tokens()
    }

    /// One embedding for each text, in the order given.
    ///
    /// A text's embedding has the same bits whatever other texts there are and whatever `options` say.
    ///
    /// # Errors
    /// [`ModelError::Input`]: an option is 0, or the tokenizer fails on a text. [`ModelError::Tokenizer`]: it breaks down.
    /// [`ModelError::NonFinite`]: a value overflowed in the network or in a module after it.
    pub fn encode<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        options: &EncodeOptions,
    ) -> Result<Embeddings, ModelError> {
        self.encode_with_progress(texts, options, &mut |_| {})
    }

    /// [`Encoder::encode`], which tells `progress` after each batch how many texts are done.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    pub fn encode_with_progress<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        options: &EncodeOptions,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Embeddings, ModelError> {
        options.check()?;
        let columns = self.columns();
        let mut embeddings = Embeddings {
            rows: texts.len(),
            columns,
            values: vec![0.0; texts.len() * columns],
            truncated: Vec::new(),
            tokens: 0,
        };
        // Texts of like length together: blocks of a batch then cost about the same.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&text| texts[text].as_ref().len());
        let mut done = 0;
        for indices in order.chunks(options.batch_size) {
            let mut tokenized: Vec<(usize, TokenizedText)> =
                self.tokenize(texts, indices, options.threads)?;
            tokenized.sort_by_key(|(_, text)| text.token_ids.len());
            let batch = self.batch_of(&tokenized);
            let cut = tokenized.iter().filter(|(_, text)| text.truncated);
            embeddings.truncated.extend(cut.map(|(index, _)| *index));
            embeddings.tokens += batch.tokens();
            let states = self.network.hidden_states(&batch, options.threads)?;
            let vectors = self
                .pipeline
                .run(
                    &batch,
                    states,
                    &self.network,
                    self.prompt_tokens,
                    options.threads,
                )
                .map_err(|error| of_text(error, &tokenized))?;
            let rows = vectors.chunks_exact(self.pipeline.columns());
            for (vector, (index, _)) in rows.zip(&tokenized) {
                // Truncation comes last, so that what is left of a normalized vector is shorter than 1.
                let out = &mut embeddings.values[index * columns..(index + 1) * columns];
                out.copy_from_slice(&vector[..columns]);
                if let Some(count) = self.max_active_dims {
                    keep_largest(out, count);
                }
            }
            done += indices.len();
            progress(done);
        }
        embeddings.truncated.sort_unstable();
        Ok(embeddings)
    }

    /// The tokens of texts as [`Encoder::encode`] runs them (prompt, special tokens, cut at the limit), in the order given.
    ///
    /// # Errors
    /// [`ModelError::Input`] if the tokenizer fails on a text, [`ModelError::Tokenizer`] if it breaks down.
    pub fn batch<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<RaggedBatch, ModelError> {
        let indices: Vec<usize> = (0..texts.len()).collect();
        Ok(self.batch_of(&self.tokenize(texts, &indices, 1)?))
    }

    fn batch_of(&self, texts: &[(usize, TokenizedText)]) -> RaggedBatch {
        let has_types = self.network.spec().token_types > 1;
        let mut batch = RaggedBatch::new();
        for (_, text) in texts {
            let types: &[u32] = if has_types { &text.token_type_ids } else { &[] };
            batch.push(&text.token_ids, types);
        }
        batch
    }

    /// Tokenizes `texts[index]` for each of `indices`, on `threads` threads.
    fn tokenize<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        indices: &[usize],
        threads: usize,
    ) -> Result<Vec<(usize, TokenizedText)>, ModelError> {
        let one = |&index: &usize| {
            let text = texts[index].as_ref();
            let tokenized = if self.prompt.is_empty() {
                self.tokenizer.tokenize(text)
            } else {
                self.tokenizer.tokenize(&format!("{}{text}", self.prompt))
            };
            tokenized.map(|tokenized| (index, tokenized))
        };
        parallel_map(indices, threads, one)
    }
}

/// The head that gives logits of words.
fn masked_language_head(
    checkpoint: &Checkpoint,
    spec: &EncoderSpec,
) -> Result<HeadSpec, ModelError> {
    let labels = Labels::from_checkpoint(checkpoint)?;
    let head = HeadSpec::from_checkpoint(checkpoint, spec, &labels)?;
    if head.task == Task::MaskedLm {
        return Ok(head);
    }
    Err(ModelError::Config {
        file: checkpoint.config_file(),
        field: "architectures".to_owned(),
        message: format!(
            "expected a model for {}, whose logits SpladePooling reads, found one for {}",
            Task::MaskedLm.name(),
            head.task.name()
        ),
        hint: "config.json and modules.json may belong to different models".to_owned(),
    })
}

/// Runs both, the second on a thread of its own where the system gives one, and returns both results. Warnings go where the caller's go.
fn side_by_side<A, B: Send>(first: impl FnOnce() -> A, second: impl Fn() -> B + Sync) -> (A, B) {
    let caller = tracing::dispatcher::get_default(tracing::Dispatch::clone);
    std::thread::scope(|scope| {
        let other = std::thread::Builder::new().spawn_scoped(scope, || {
            tracing::dispatcher::with_default(&caller, &second)
        });
        let first = first();
        let second = match other.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(second)) => second,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(_no_thread) => second(),
        };
        (first, second)
    })
}

/// The error with the index of the text as its row, in place of the number of its sequence in the batch.
fn of_text(error: ModelError, batch: &[(usize, TokenizedText)]) -> ModelError {
    error.at_row(|row| batch.get(row).map_or(row, |(index, _)| *index))
}
