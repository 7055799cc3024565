//! tokenizer.json: its parts that transformers takes over, whatever builds the tokenizer.

use super::class::{TokenizerClass, VocabularyKind};
use serde::Deserialize;
use serde_json::Value;
use tokenizers::AddedToken;
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::models::unigram::Unigram;
use tokenizers::models::wordpiece::WordPiece;
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

/// The parts of tokenizer.json from which a class builds its tokenizer.
#[derive(Debug, Deserialize)]
#[serde(expecting = "a tokenizer")]
pub(super) struct StoredVocabulary<M = ModelWrapper> {
    pub(super) model: M,
    #[serde(default)]
    pub(super) normalizer: Value,
    #[serde(default)]
    pub(super) post_processor: Value,
}

impl StoredVocabulary {
    /// Reads tokenizer.json for `class`.
    ///
    /// [`ModelWrapper`] finds out of what kind a model is, and copies the whole vocabulary twice on the way. The class's own kind is
    /// therefore tried first; `ModelWrapper` decides about what that does not take.
    pub(super) fn read(bytes: &[u8], class: TokenizerClass) -> serde_json::Result<Self> {
        let of_the_class = match class.kind() {
            VocabularyKind::WordPieces => Self::of_kind::<WordPiece>(bytes),
            VocabularyKind::BytePairs => Self::of_kind::<BPE>(bytes),
            VocabularyKind::Unigram => Self::of_kind::<Unigram>(bytes),
            VocabularyKind::AsStored => None,
        };
        of_the_class.map_or_else(|| serde_json::from_slice(bytes), Ok)
    }

    fn of_kind<'a, M: Deserialize<'a> + Into<ModelWrapper>>(bytes: &'a [u8]) -> Option<Self> {
        let StoredVocabulary {
            model,
            normalizer,
            post_processor,
        } = serde_json::from_slice::<StoredVocabulary<M>>(bytes).ok()?;
        Some(Self {
            model: model.into(),
            normalizer,
            post_processor,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::Model;

    fn read(class: TokenizerClass, model: &str) -> ModelWrapper {
        let json = format!(r#"{{"version": "1.0", "model": {model}, "normalizer": null}}"#);
        StoredVocabulary::read(json.as_bytes(), class)
            .expect("a vocabulary")
            .model
    }

    /// `ModelWrapper` takes models with other fields, without a type, and of another kind than the class's: so does this.
    #[test]
    fn every_model_is_read_as_the_library_reads_it() {
        const PIECES: &str = r####""unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "a": 1, "##\u0062": 2}"####;
        let word_pieces = [
            format!(r#"{{"type": "WordPiece", {PIECES}}}"#),
            format!(r#"{{{PIECES}}}"#),
            format!(r#"{{"type": "WordPiece", {PIECES}, "dropout": null}}"#),
            format!(r#"{{{PIECES}, "merges": []}}"#),
        ];
        let byte_pairs = r#"{"type": "BPE", "unk_token": null, "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}"#;
        let unigram = r#"{"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.5]]}"#;
        let models = word_pieces
            .iter()
            .map(String::as_str)
            .chain([byte_pairs, unigram]);
        for model in models {
            let expected: ModelWrapper = serde_json::from_str(model).expect("a model");
            for class in [
                TokenizerClass::Bert,
                TokenizerClass::Roberta,
                TokenizerClass::XlmRoberta,
                TokenizerClass::AsStored,
            ] {
                let found = read(class, model);
                assert!(found == expected, "{class:?} {model}");
                assert_eq!(found.get_vocab(), expected.get_vocab());
            }
        }
    }

    #[test]
    fn what_the_library_refuses_is_refused_in_its_words() {
        for model in [
            // Of several missing fields the library names any.
            r#"{"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "", "vocab": {"a": 0}}"#,
            r#"{"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "", "max_input_chars_per_word": 1, "vocab": {"a": -1}}"#,
            "[]",
        ] {
            let json = format!(r#"{{"model": {model}}}"#);
            let expected = serde_json::from_str::<StoredVocabulary>(&json).expect_err("refused");
            let found =
                StoredVocabulary::read(json.as_bytes(), TokenizerClass::Bert).expect_err("refused");
            assert_eq!(found.to_string(), expected.to_string());
        }
    }
}
