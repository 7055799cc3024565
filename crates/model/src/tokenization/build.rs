//! A tokenizer as the classes of transformers build it: of tokenizer.json they take the vocabulary, and not much else.

use super::added_tokens::AddedTokens;
use super::class::{TokenizerClass, VocabularyKind};
use super::settings::Settings;
use super::special_tokens::SpecialTokens;
use super::stored::StoredModelSettings;
use crate::ModelError;
use crate::byte_pairs::QWEN_WORDS;
use serde_json::Value;
use std::path::Path;
use tokenizers::models::ModelWrapper;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{
    BertNormalizer, Lowercase, NFC, NFKD, NormalizerWrapper, Replace, Sequence as Normalizers,
    Strip, StripAccents,
};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::punctuation::Punctuation;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::{AddedToken, Model, SplitDelimiterBehavior, Tokenizer};

/// The setting for a space before a text.
pub(super) const PREFIX: &str = "add_prefix_space";

/// The inputs of all steps.
pub(super) struct Builder<'a> {
    pub(super) class: TokenizerClass,
    pub(super) settings: &'a Settings,
    pub(super) special: &'a SpecialTokens,
    /// Where the vocabulary comes from, for messages.
    pub(super) file: &'a Path,
    /// `post_processor` of tokenizer.json, null or not; None without that file.
    pub(super) stored_processor: Option<&'a Value>,
}

impl Builder<'_> {
    /// The class's tokenizer for a vocabulary. `stored` are tokenizer.json's, if the vocabulary is; `table` is how sentencepiece
    /// normalizes texts, for the classes that have one.
    pub(super) fn build(
        &self,
        model: ModelWrapper,
        stored: &StoredModelSettings,
        table: Option<NormalizerWrapper>,
        added: &AddedTokens,
    ) -> Result<Tokenizer, ModelError> {
        let normalizer = self.normalizer(table)?;
        let pre_tokenizer = self.pre_tokenizer()?;
        let mut tokenizer = Tokenizer::new(self.model(model, stored)?);
        tokenizer.with_normalizer(normalizer);
        tokenizer.with_pre_tokenizer(Some(pre_tokenizer));
        added.add_to(&mut tokenizer, self.special)?;
        if self.class == TokenizerClass::Qwen2 {
            // This class adds its special tokens once more, without the spaces that they would take.
            let all = self.special.all();
            let plain = all.map(|token| AddedToken::from(token.content.clone(), true));
            tokenizer.add_special_tokens(&plain.collect::<Vec<_>>());
        }
        let processor = self.post_processor(&tokenizer)?;
        tokenizer.with_post_processor(Some(processor));
        tokenizer.with_decoder(Some(self.decoder()?));
        Ok(tokenizer)
    }

    /// The vocabulary with the settings that the class gives its model, whatever tokenizer.json says.
    fn model(
        &self,
        model: ModelWrapper,
        stored: &StoredModelSettings,
    ) -> Result<ModelWrapper, ModelError> {
        // Python's text for a token that is null.
        let unknown = self.special.content("unk_token").unwrap_or("None");
        Ok(match (self.class, model) {
            (class, ModelWrapper::WordPiece(mut model))
                if class.kind() == VocabularyKind::WordPieces =>
            {
                unknown.clone_into(&mut model.unk_token);
                "##".clone_into(&mut model.continuing_subword_prefix);
                model.max_input_chars_per_word = 100;
                model.into()
            }
            (class, ModelWrapper::BPE(mut model)) if class.kind() == VocabularyKind::BytePairs => {
                // The merges were looked up with the prefix in place.
                if let Some(prefix) = &stored.continuing_subword_prefix
                    && !prefix.is_empty()
                {
                    let found = format!("`continuing_subword_prefix` {prefix:?}");
                    return Err(self.foreign("no prefix of continuing pieces", &found));
                }
                model.continuing_subword_prefix = None;
                model.end_of_word_suffix = None;
                // Without an unknown token, what has no bytes in the vocabulary is left out.
                model.unk_token = (class == TokenizerClass::Gemma).then(|| unknown.to_owned());
                model.dropout = None;
                // Those of sentencepiece have tokens for single bytes, the others nothing but bytes.
                let of_sentencepiece =
                    matches!(class, TokenizerClass::Llama | TokenizerClass::Gemma);
                model.fuse_unk = of_sentencepiece;
                model.byte_fallback = of_sentencepiece;
                model.ignore_merges = false;
                model.into()
            }
            (TokenizerClass::XlmRoberta, ModelWrapper::Unigram(model)) => {
                self.unigram(model, stored, 3)?.into()
            }
            (TokenizerClass::Camembert, ModelWrapper::Unigram(model)) => {
                let mut pieces = model.iter();
                let unknown = pieces.position(|(piece, _)| piece == unknown).unwrap_or(0);
                self.unigram(model, stored, unknown)?.into()
            }
            (TokenizerClass::Albert, ModelWrapper::Unigram(model)) => {
                self.unigram(model, stored, 1)?.into()
            }
            (TokenizerClass::DebertaV2, ModelWrapper::Unigram(model)) => {
                let unknown = model
                    .iter()
                    .position(|(piece, score)| piece == unknown && *score == 0.0);
                let unknown = match (unknown, self.stored_processor) {
                    (Some(unknown), _) => unknown,
                    // Of sentencepiece's own file, which overrules the settings.
                    (None, None) => stored.unk_id.unwrap_or(1),
                    (None, Some(_)) => self.settings.of("unk_id").size(
                        "unk_id",
                        1,
                        0,
                        model.get_vocab_size().saturating_sub(1),
                    )?,
                };
                self.unigram(model, stored, unknown)?.into()
            }
            (_, model) => {
                let (expected, found) = (kind_of_class(self.class), kind_of_model(&model));
                return Err(self.foreign(expected, found));
            }
        })
    }

    fn unigram(
        &self,
        model: Unigram,
        stored: &StoredModelSettings,
        unknown: usize,
    ) -> Result<Unigram, ModelError> {
        if stored.unk_id == Some(unknown) && stored.byte_fallback != Some(true) {
            return Ok(model);
        }
        let pieces = model.iter().cloned().collect();
        Unigram::from(pieces, Some(unknown), false).map_err(|error| ModelError::Tokenizer {
            file: self.file.to_owned(),
            message: format!(
                "expected a vocabulary whose entry {unknown} is the unknown token, as {} has it: {error}",
                self.class.name()
            ),
            hint: "fetch the file again".to_owned(),
        })
    }

    fn normalizer(
        &self,
        table: Option<NormalizerWrapper>,
    ) -> Result<Option<NormalizerWrapper>, ModelError> {
        match self.class {
            class if class.kind() == VocabularyKind::WordPieces => {
                let strip_accents = match self.settings.of("strip_accents").get("strip_accents") {
                    None | Some(Value::Null) => None,
                    Some(_) => Some(self.flag("strip_accents", false)?),
                };
                let (chinese, lowercase) = (
                    self.flag("tokenize_chinese_chars", true)?,
                    self.flag("do_lower_case", true)?,
                );
                let normalizer = BertNormalizer::new(true, chinese, strip_accents, lowercase);
                Ok(Some(normalizer.into()))
            }
            TokenizerClass::XlmRoberta | TokenizerClass::Camembert => Ok(table),
            TokenizerClass::Gemma => {
                let spaces = Replace::new(" ", "▁").map_err(|error| self.broken(&*error))?;
                Ok(Some(spaces.into()))
            }
            TokenizerClass::Albert => {
                let quotes = |pattern: &str| {
                    Replace::new(pattern, "\"").map_err(|error| self.broken(&*error))
                };
                let mut steps: Vec<NormalizerWrapper> =
                    vec![quotes("``")?.into(), quotes("''")?.into()];
                if !self.truth("keep_accents", false)? {
                    steps.extend([NFKD.into(), StripAccents.into()]);
                }
                if self.truth("do_lower_case", true)? {
                    steps.push(Lowercase.into());
                }
                steps.extend(table);
                Ok(Some(Normalizers::new(steps).into()))
            }
            TokenizerClass::DebertaV2 => {
                let mut steps: Vec<NormalizerWrapper> = Vec::new();
                if self.truth("do_lower_case", false)? {
                    steps.push(Lowercase.into());
                }
                let blanks = ReplacePattern::Regex(r"\s{2,}|[\n\r\t]".to_owned());
                let blanks = Replace::new(blanks, " ").map_err(|error| self.broken(&*error))?;
                steps.extend([blanks.into(), NFC.into(), Strip::new(false, true).into()]);
                Ok(Some(Normalizers::new(steps).into()))
            }
            TokenizerClass::Qwen2 => Ok(Some(NFC.into())),
            _ => Ok(None),
        }
    }

    /// The first table of sentencepiece in tokenizer.json's normalizer, of which nothing else counts, for the classes that have one.
    pub(super) fn stored_table(
        &self,
        stored: &Value,
    ) -> Result<Option<NormalizerWrapper>, ModelError> {
        if !self.class.keeps_table() {
            return Ok(None);
        }
        let one = std::slice::from_ref(stored);
        let parts = match stored.get("normalizers").and_then(Value::as_array) {
            Some(parts) if stored["type"] == "Sequence" => parts,
            _ => stored.as_array().map_or(one, Vec::as_slice),
        };
        let table = parts.iter().find(|part| {
            part["type"] == "Precompiled" && part.get("precompiled_charsmap").is_some()
        });
        table
            .map(|table| serde_json::from_value(table.clone()))
            .transpose()
            .map_err(|error| ModelError::Tokenizer {
                file: self.file.to_owned(),
                message: format!(
                    "expected a normalizer of the type Precompiled, found something else: {error}"
                ),
                hint: "fetch the file again".to_owned(),
            })
    }

    fn pre_tokenizer(&self) -> Result<PreTokenizerWrapper, ModelError> {
        Ok(match self.class {
            TokenizerClass::Bert
            | TokenizerClass::DistilBert
            | TokenizerClass::MpNet
            | TokenizerClass::AsStored => BertPreTokenizer.into(),
            TokenizerClass::Roberta | TokenizerClass::Deberta | TokenizerClass::Gpt2 => {
                ByteLevel::new(self.flag(PREFIX, false)?, true, true).into()
            }
            TokenizerClass::Qwen2 => {
                // Here null is as good as nothing.
                let prefix = !self.is_null(PREFIX) && self.flag(PREFIX, false)?;
                let words = SplitPattern::Regex(QWEN_WORDS.to_owned());
                let words = Split::new(words, SplitDelimiterBehavior::Isolated, false)
                    .map_err(|error| self.broken(&*error))?;
                let bytes = ByteLevel::new(prefix, true, false);
                Sequence::new(vec![words.into(), bytes.into()]).into()
            }
            TokenizerClass::XlmRoberta | TokenizerClass::Camembert | TokenizerClass::Albert => {
                let metaspace = Metaspace::new('▁', self.prepend_scheme()?, true);
                Sequence::new(vec![WhitespaceSplit.into(), metaspace.into()]).into()
            }
            TokenizerClass::DebertaV2 => {
                let metaspace = Metaspace::new('▁', self.prepend_scheme()?, true);
                match self.truth("split_by_punct", false)? {
                    true => {
                        let marks = Punctuation::new(SplitDelimiterBehavior::Isolated);
                        Sequence::new(vec![marks.into(), metaspace.into()]).into()
                    }
                    false => Sequence::new(vec![metaspace.into()]).into(),
                }
            }
            TokenizerClass::Llama => Metaspace::new('▁', self.prepend_scheme()?, false).into(),
            TokenizerClass::Gemma => {
                // The normalizer leaves no space to cut at.
                Split::new(" ", SplitDelimiterBehavior::MergedWithPrevious, false)
                    .map_err(|error| self.broken(&*error))?
                    .into()
            }
        })
    }

    /// Where the classes of sentencepiece put a space that a text does not have.
    pub(super) fn prepend_scheme(&self) -> Result<PrependScheme, ModelError> {
        if self.class == TokenizerClass::Llama {
            // Here null is as good as nothing.
            let prefix = self.is_null(PREFIX) || self.flag(PREFIX, true)?;
            return Ok(match (prefix, self.truth("legacy", false)?) {
                (false, _) => PrependScheme::Never,
                (true, true) => PrependScheme::Always,
                (true, false) => PrependScheme::First,
            });
        }
        Ok(match (self.truth(PREFIX, true)?, self.class) {
            (true, _) => PrependScheme::Always,
            (false, TokenizerClass::DebertaV2) => PrependScheme::First,
            (false, _) => PrependScheme::Never,
        })
    }

    fn is_null(&self, key: &str) -> bool {
        self.settings.of(key).get(key) == Some(&Value::Null)
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, ModelError> {
        self.settings.of(key).flag(key, default)
    }

    /// The same, where the class asks for what Python takes for true: null is false.
    pub(super) fn truth(&self, key: &str, default: bool) -> Result<bool, ModelError> {
        match self.settings.of(key).get(key) {
            Some(Value::Null) => Ok(false),
            _ => self.flag(key, default),
        }
    }

    pub(super) fn broken(&self, error: &dyn std::fmt::Display) -> ModelError {
        ModelError::Tokenizer {
            file: self.file.to_owned(),
            message: format!("expected a tokenizer, found something else: {error}"),
            hint: "fetch the file again, or write it with a recent version of transformers"
                .to_owned(),
        }
    }

    /// The vocabulary is of another kind than the class's.
    pub(super) fn foreign(&self, expected: &str, found: &str) -> ModelError {
        ModelError::Tokenizer {
            file: self.file.to_owned(),
            message: format!(
                "expected {expected}, which {} is built from, found {found}",
                self.class.name()
            ),
            hint: "name the class of this tokenizer in `tokenizer_class` of tokenizer_config.json; \"PreTrainedTokenizerFast\" takes tokenizer.json as it stands".to_owned(),
        }
    }
}

pub(super) fn kind_of_class(class: TokenizerClass) -> &'static str {
    match class.kind() {
        VocabularyKind::WordPieces => "a WordPiece model",
        VocabularyKind::BytePairs => "a BPE model",
        VocabularyKind::Unigram => "a Unigram model",
        VocabularyKind::AsStored => "a Unigram or a BPE model",
    }
}

fn kind_of_model(model: &ModelWrapper) -> &'static str {
    match model {
        ModelWrapper::BPE(_) => "a BPE model",
        ModelWrapper::WordPiece(_) => "a WordPiece model",
        ModelWrapper::WordLevel(_) => "a WordLevel model",
        ModelWrapper::Unigram(_) => "a Unigram model",
    }
}
