//! tokenizer.json: its parts that transformers takes over, whatever builds the tokenizer.

use serde::Deserialize;
use serde_json::Value;
use tokenizers::AddedToken;
use tokenizers::models::ModelWrapper;
use tokenizers::utils::padding::PaddingParams;
use tokenizers::utils::truncation::TruncationParams;

/// Everything but the vocabulary.
#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "a tokenizer")]
pub(super) struct StoredSettings {
    /// Its direction is the side that texts are cut on, where no other file says.
    #[serde(default)]
    pub(super) truncation: Option<TruncationParams>,
    #[serde(default)]
    pub(super) padding: Option<PaddingParams>,
    #[serde(default)]
    pub(super) added_tokens: Vec<StoredToken>,
    #[serde(default)]
    pub(super) model: StoredModelSettings,
}

/// An entry of `added_tokens`.
#[derive(Debug, Deserialize)]
#[serde(expecting = "an added token")]
pub(super) struct StoredToken {
    pub(super) id: u32,
    #[serde(flatten)]
    pub(super) token: AddedToken,
}

/// Settings of the model that the tokenizers crate reads but does not show.
#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "a model")]
pub(super) struct StoredModelSettings {
    #[serde(default)]
    pub(super) continuing_subword_prefix: Option<String>,
    #[serde(default)]
    pub(super) unk_id: Option<usize>,
    #[serde(default)]
    pub(super) byte_fallback: Option<bool>,
}

/// What a class builds its tokenizer from.
#[derive(Debug, Deserialize)]
#[serde(expecting = "a tokenizer")]
pub(super) struct StoredVocabulary {
    pub(super) model: ModelWrapper,
    #[serde(default)]
    pub(super) normalizer: Value,
}
