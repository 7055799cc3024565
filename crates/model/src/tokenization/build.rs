//! A tokenizer as the classes of transformers build it: of tokenizer.json they take the vocabulary, and not much else.

use super::added_tokens::AddedTokens;
use super::class::TokenizerClass;
use super::decoder::decoder_of;
use super::settings::Settings;
use super::special_tokens::SpecialTokens;
use super::stored::StoredModelSettings;
use crate::ModelError;
use serde_json::Value;
use std::path::Path;
use tokenizers::models::ModelWrapper;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::{BertNormalizer, NormalizerWrapper, Replace};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::Split;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{SplitDelimiterBehavior, Tokenizer};

/// Settings that ask for a special token before and behind a text, and the token's role.
const AROUND: [(&str, &str); 2] = [
    ("add_bos_token", "bos_token"),
    ("add_eos_token", "eos_token"),
];

/// What stands around a second text.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// The last token, and all is of type 1: `[CLS] A [SEP] B [SEP]`.
    Types,
    /// The last token before and behind it, and all is of type 0: `<s> A </s></s> B </s>`.
    TwoLast,
    /// What stands around the first, and all is of type 1: `<s> A </s><s> B </s>`.
    Twice,
}

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
        let processor = self.post_processor(&tokenizer)?;
        tokenizer.with_post_processor(Some(processor));
        let decoder = decoder_of(&tokenizer).map_err(|error| self.broken(&*error))?;
        tokenizer.with_decoder(Some(decoder));
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
            (
                TokenizerClass::Bert | TokenizerClass::DistilBert | TokenizerClass::MpNet,
                ModelWrapper::WordPiece(mut model),
            ) => {
                unknown.clone_into(&mut model.unk_token);
                "##".clone_into(&mut model.continuing_subword_prefix);
                model.max_input_chars_per_word = 100;
                model.into()
            }
            (
                class @ (TokenizerClass::Roberta | TokenizerClass::Llama | TokenizerClass::Gemma),
                ModelWrapper::BPE(mut model),
            ) => {
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
                model.fuse_unk = class != TokenizerClass::Roberta;
                model.byte_fallback = class != TokenizerClass::Roberta;
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
            TokenizerClass::Bert | TokenizerClass::DistilBert | TokenizerClass::MpNet => {
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
            TokenizerClass::Roberta | TokenizerClass::Llama | TokenizerClass::AsStored => Ok(None),
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
        const PREFIX: &str = "add_prefix_space";
        Ok(match self.class {
            TokenizerClass::Bert
            | TokenizerClass::DistilBert
            | TokenizerClass::MpNet
            | TokenizerClass::AsStored => BertPreTokenizer.into(),
            TokenizerClass::Roberta => ByteLevel::new(self.flag(PREFIX, false)?, true, true).into(),
            TokenizerClass::XlmRoberta | TokenizerClass::Camembert => {
                let scheme = match self.truth(PREFIX, true)? {
                    true => PrependScheme::Always,
                    false => PrependScheme::Never,
                };
                let metaspace = Metaspace::new('▁', scheme, true);
                Sequence::new(vec![WhitespaceSplit.into(), metaspace.into()]).into()
            }
            TokenizerClass::Llama => {
                // Here null is as good as nothing.
                let is_null = self.settings.of(PREFIX).get(PREFIX) == Some(&Value::Null);
                let scheme = match (
                    is_null || self.flag(PREFIX, true)?,
                    self.truth("legacy", false)?,
                ) {
                    (false, _) => PrependScheme::Never,
                    (true, true) => PrependScheme::Always,
                    (true, false) => PrependScheme::First,
                };
                Metaspace::new('▁', scheme, false).into()
            }
            TokenizerClass::Gemma => {
                // The normalizer leaves no space to cut at.
                Split::new(" ", SplitDelimiterBehavior::MergedWithPrevious, false)
                    .map_err(|error| self.broken(&*error))?
                    .into()
            }
        })
    }

    /// The special tokens around a text.
    fn post_processor(&self, tokenizer: &Tokenizer) -> Result<PostProcessorWrapper, ModelError> {
        let token = |role: &str| self.special.content(role);
        let id = |content: &str| self.id_or_unknown(tokenizer, content);
        // BERT and MPNet have ids for special tokens that are null; the others do not work then.
        let pair = |role: &str, id_of_null: Option<u32>| match (token(role), id_of_null) {
            (Some(content), _) => id(content)
                .map(|id| (content.to_owned(), id))
                .ok_or_else(|| self.not_a_token(role)),
            (None, Some(id)) => Ok(("None".to_owned(), id)),
            (None, None) => Err(self.not_a_token(role)),
        };
        match self.class {
            TokenizerClass::Bert | TokenizerClass::DistilBert | TokenizerClass::AsStored => {
                let (cls, sep) = (pair("cls_token", Some(2))?, pair("sep_token", Some(3))?);
                self.template(Some(cls), Some(sep), Form::Types)
            }
            TokenizerClass::XlmRoberta | TokenizerClass::Camembert => {
                let (bos, eos) = (pair("bos_token", None)?, pair("eos_token", None)?);
                self.template(Some(bos), Some(eos), Form::TwoLast)
            }
            TokenizerClass::MpNet => {
                let (cls, sep) = (pair("cls_token", Some(0))?, pair("sep_token", Some(2))?);
                Ok(RobertaProcessing::new(sep, cls)
                    .add_prefix_space(false)
                    .into())
            }
            TokenizerClass::Roberta => {
                let (cls, sep) = (pair("cls_token", None)?, pair("sep_token", None)?);
                // These change places in the text, and no id.
                let trim = self.flag("trim_offsets", true)?;
                let prefix = self.flag("add_prefix_space", false)?;
                Ok(RobertaProcessing::new(sep, cls)
                    .trim_offsets(trim)
                    .add_prefix_space(prefix)
                    .into())
            }
            TokenizerClass::Llama | TokenizerClass::Gemma => match self.stored_processor {
                Some(processor) if !processor.is_null() && !self.map_has_template() => {
                    serde_json::from_value(processor.clone()).map_err(|error| self.broken(&error))
                }
                _ => self.template_of_settings(tokenizer),
            },
        }
    }

    /// Whether special_tokens_map.json says what stands around a text, which overrules tokenizer.json.
    pub(super) fn map_has_template(&self) -> bool {
        AROUND
            .iter()
            .any(|(flag, _)| self.settings.is_of_the_map(flag))
    }

    /// The special tokens that the settings ask for, for the classes that leave it to them. tokenizer_config.json is not asked where
    /// there is a tokenizer.json; a role that is null is not put anywhere.
    pub(super) fn template_of_settings(
        &self,
        tokenizer: &Tokenizer,
    ) -> Result<PostProcessorWrapper, ModelError> {
        let [first, last] = AROUND.map(|(flag, role)| {
            let counts = self.stored_processor.is_none() || self.settings.is_of_the_map(flag);
            if !counts || !self.truth(flag, false)? {
                return Ok(None);
            }
            let Some(content) = self.special.content(role) else {
                return Ok(None);
            };
            match self.id_or_unknown(tokenizer, content) {
                Some(id) if !content.contains(' ') => Ok(Some((content.to_owned(), id))),
                _ => Err(self.not_a_token(role)),
            }
        });
        self.template(first?, last?, Form::Twice)
    }

    fn id_or_unknown(&self, tokenizer: &Tokenizer, content: &str) -> Option<u32> {
        let unknown = self.special.content("unk_token");
        tokenizer
            .token_to_id(content)
            .or_else(|| tokenizer.token_to_id(unknown?))
    }

    fn template(
        &self,
        first: Option<(String, u32)>,
        last: Option<(String, u32)>,
        form: Form,
    ) -> Result<PostProcessorWrapper, ModelError> {
        let content = |token: &Option<(String, u32)>| token.as_ref().map(|(text, _)| text.clone());
        let (before, behind) = (content(&first), content(&last));
        let around = |before: &Option<String>, sequence: &str, behind: &Option<String>| {
            let pieces = before.iter().map(String::as_str).chain([sequence]);
            let pieces = pieces.chain(behind.iter().map(String::as_str));
            pieces.map(str::to_owned).collect::<Vec<_>>()
        };
        let of_type = |token: &Option<String>| token.as_ref().map(|token| format!("{token}:1"));
        let pieces = around(&before, "$A", &behind);
        let second = match form {
            Form::Types => around(&None, "$B:1", &of_type(&behind)),
            Form::TwoLast => around(&behind, "$B", &behind),
            Form::Twice => around(&of_type(&before), "$B:1", &of_type(&behind)),
        };
        let refused = |error: String| ModelError::Tokenizer {
            file: self.file.to_owned(),
            message: format!(
                "expected special tokens that can stand in a template, found `{}`: {error}",
                pieces.join("` `")
            ),
            hint: "tokens with spaces, `$` or `:` cannot".to_owned(),
        };
        let template = TemplateProcessing::builder()
            .try_single(pieces.clone())
            .map_err(refused)?
            .try_pair([pieces.clone(), second].concat())
            .map_err(refused)?
            .special_tokens(first.into_iter().chain(last).collect::<Vec<_>>())
            .build();
        template
            .map(Into::into)
            .map_err(|error| refused(error.to_string()))
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, ModelError> {
        self.settings.of(key).flag(key, default)
    }

    /// The same, where the class asks for what Python takes for true: null is false.
    fn truth(&self, key: &str, default: bool) -> Result<bool, ModelError> {
        match self.settings.of(key).get(key) {
            Some(Value::Null) => Ok(false),
            _ => self.flag(key, default),
        }
    }

    fn broken(&self, error: &dyn std::fmt::Display) -> ModelError {
        ModelError::Tokenizer {
            file: self.file.to_owned(),
            message: format!("expected a tokenizer, found something else: {error}"),
            hint: "fetch the file again, or write it with a recent version of transformers"
                .to_owned(),
        }
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
        TokenizerClass::Bert | TokenizerClass::DistilBert | TokenizerClass::MpNet => {
            "a WordPiece model"
        }
        TokenizerClass::Roberta | TokenizerClass::Llama | TokenizerClass::Gemma => "a BPE model",
        TokenizerClass::XlmRoberta | TokenizerClass::Camembert => "a Unigram model",
        TokenizerClass::AsStored => "a Unigram or a BPE model",
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
