//! A tokenizer as the classes of transformers build it: of tokenizer.json they take the vocabulary, and not much else.

use super::added_tokens::AddedTokens;
use super::class::TokenizerClass;
use super::settings::Settings;
use super::special_tokens::SpecialTokens;
use super::stored::StoredModelSettings;
use crate::ModelError;
use serde_json::Value;
use std::path::Path;
use tokenizers::Tokenizer;
use tokenizers::models::ModelWrapper;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::{BertNormalizer, NormalizerWrapper};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::processors::template::TemplateProcessing;

/// The inputs of all steps.
pub(super) struct Builder<'a> {
    pub(super) class: TokenizerClass,
    pub(super) settings: &'a Settings,
    pub(super) special: &'a SpecialTokens,
    /// Where the vocabulary comes from, for messages.
    pub(super) file: &'a Path,
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
        let processor = self.post_processor(&tokenizer)?;
        tokenizer.with_post_processor(Some(processor));
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
            (TokenizerClass::Bert | TokenizerClass::MpNet, ModelWrapper::WordPiece(mut model)) => {
                unknown.clone_into(&mut model.unk_token);
                "##".clone_into(&mut model.continuing_subword_prefix);
                model.max_input_chars_per_word = 100;
                model.into()
            }
            (TokenizerClass::Roberta, ModelWrapper::BPE(mut model)) => {
                // The merges were looked up with the prefix in place.
                if let Some(prefix) = &stored.continuing_subword_prefix
                    && !prefix.is_empty()
                {
                    let found = format!("`continuing_subword_prefix` {prefix:?}");
                    return Err(self.foreign("no prefix of continuing pieces", &found));
                }
                model.continuing_subword_prefix = None;
                model.end_of_word_suffix = None;
                model.unk_token = None;
                model.dropout = None;
                model.fuse_unk = false;
                model.byte_fallback = false;
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
            TokenizerClass::Bert | TokenizerClass::MpNet => {
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
            TokenizerClass::Roberta | TokenizerClass::AsStored => Ok(None),
        }
    }

    /// The first table of sentencepiece in tokenizer.json's normalizer, of which nothing else counts, for the classes that have one.
    pub(super) fn stored_table(
        &self,
        stored: &Value,
    ) -> Result<Option<NormalizerWrapper>, ModelError> {
        if !self.class.is_sentencepiece() {
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
        const PREFIX: &str = "add_prefix_space";
        Ok(match self.class {
            TokenizerClass::Bert | TokenizerClass::MpNet | TokenizerClass::AsStored => {
                BertPreTokenizer.into()
            }
            TokenizerClass::Roberta => ByteLevel::new(self.flag(PREFIX, false)?, true, true).into(),
            TokenizerClass::XlmRoberta | TokenizerClass::Camembert => {
                // These two ask whether it is true, and take null for no.
                let is_null = self.settings.of(PREFIX).get(PREFIX) == Some(&Value::Null);
                let scheme = match !is_null && self.flag(PREFIX, true)? {
                    true => PrependScheme::Always,
                    false => PrependScheme::Never,
                };
                let metaspace = Metaspace::new('▁', scheme, true);
                Sequence::new(vec![WhitespaceSplit.into(), metaspace.into()]).into()
            }
        })
    }

    /// The special tokens around a text.
    fn post_processor(&self, tokenizer: &Tokenizer) -> Result<PostProcessorWrapper, ModelError> {
        let token = |role: &str| self.special.content(role);
        let unknown = token("unk_token").and_then(|unknown| tokenizer.token_to_id(unknown));
        let id = |content: &str| tokenizer.token_to_id(content).or(unknown);
        // BERT and MPNet have ids for special tokens that are null; the others do not work then.
        let pair = |role: &str, id_of_null: Option<u32>| match (token(role), id_of_null) {
            (Some(content), _) => id(content)
                .map(|id| (content.to_owned(), id))
                .ok_or_else(|| self.not_a_token(role)),
            (None, Some(id)) => Ok(("None".to_owned(), id)),
            (None, None) => Err(self.not_a_token(role)),
        };
        match self.class {
            TokenizerClass::Bert | TokenizerClass::AsStored => {
                self.template(&pair("cls_token", Some(2))?, &pair("sep_token", Some(3))?)
            }
            TokenizerClass::XlmRoberta | TokenizerClass::Camembert => {
                self.template(&pair("bos_token", None)?, &pair("eos_token", None)?)
            }
            TokenizerClass::MpNet => {
                let (cls, sep) = (pair("cls_token", Some(0))?, pair("sep_token", Some(2))?);
                Ok(RobertaProcessing::new(sep, cls)
                    .add_prefix_space(false)
                    .into())
            }
            TokenizerClass::Roberta => {
                let (cls, sep) = (pair("cls_token", None)?, pair("sep_token", None)?);
                // Neither of these changes an id.
                let trim = self.flag("trim_offsets", true)?;
                Ok(RobertaProcessing::new(sep, cls).trim_offsets(trim).into())
            }
        }
    }

    fn template(
        &self,
        first: &(String, u32),
        last: &(String, u32),
    ) -> Result<PostProcessorWrapper, ModelError> {
        let refused = |error: String| ModelError::Tokenizer {
            file: self.file.to_owned(),
            message: format!(
                "expected special tokens that can stand in a template, found `{}` and `{}`: {error}",
                first.0, last.0
            ),
            hint: "tokens with spaces, `$` or `:` cannot".to_owned(),
        };
        let pieces = vec![first.0.as_str(), "$A", last.0.as_str()];
        let template = TemplateProcessing::builder()
            .try_single(pieces)
            .map_err(refused)?
            .special_tokens(vec![first.clone(), last.clone()])
            .build();
        template
            .map(Into::into)
            .map_err(|error| refused(error.to_string()))
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, ModelError> {
        self.settings.of(key).flag(key, default)
    }

    fn not_a_token(&self, role: &str) -> ModelError {
        let fields = self.settings.of(role);
        let found = fields.get(role).unwrap_or(&Value::Null);
        let expected = format!(
            "expected the token that {} puts around a text",
            self.class.name()
        );
        fields.invalid(role, &expected, found)
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
    match class {
        TokenizerClass::Bert | TokenizerClass::MpNet => "a WordPiece model",
        TokenizerClass::Roberta => "a BPE model",
        TokenizerClass::XlmRoberta | TokenizerClass::Camembert => "a Unigram model",
        TokenizerClass::AsStored => "any model",
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
