//! Special tokens around a text, or around two: the last step of a class's tokenizer.

use super::build::{Builder, PREFIX};
use super::class::TokenizerClass;
use crate::ModelError;
use serde_json::Value;
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{Model, Tokenizer};

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

impl Builder<'_> {
    /// The special tokens around a text.
    pub(super) fn post_processor(
        &self,
        tokenizer: &Tokenizer,
    ) -> Result<PostProcessorWrapper, ModelError> {
        let token = |role: &str| self.special.content(role);
        let id = |content: &str| self.id_or_unknown(tokenizer, content);
        // BERT and MPNet have ids for special tokens that are null; the others do not work then.
        // These write their template as one text, in which a space ends a token.
        let is_text = matches!(
            self.class,
            TokenizerClass::Bert
                | TokenizerClass::DistilBert
                | TokenizerClass::Camembert
                | TokenizerClass::Deberta
                | TokenizerClass::DebertaV2
        );
        let pair = |role: &str, id_of_null: Option<u32>| match (token(role), id_of_null) {
            (Some(content), _) if is_text && content.contains(' ') => Err(self.not_a_token(role)),
            (Some(content), _) => id(content)
                .map(|id| (content.to_owned(), id))
                .ok_or_else(|| self.not_a_token(role)),
            (None, Some(id)) => Ok(("None".to_owned(), id)),
            (None, None) => Err(self.not_a_token(role)),
        };
        match self.class {
            TokenizerClass::Bert | TokenizerClass::DistilBert => {
                let (cls, sep) = (pair("cls_token", Some(2))?, pair("sep_token", Some(3))?);
                self.template(Some(cls), Some(sep), Form::Types)
            }
            TokenizerClass::XlmRoberta | TokenizerClass::Camembert => {
                let (bos, eos) = (pair("bos_token", None)?, pair("eos_token", None)?);
                self.template(Some(bos), Some(eos), Form::TwoLast)
            }
            TokenizerClass::DebertaV2 => {
                let (cls, sep) = (pair("cls_token", Some(0))?, pair("sep_token", Some(0))?);
                self.template(Some(cls), Some(sep), Form::Types)
            }
            TokenizerClass::Deberta => {
                let (cls, sep) = (pair("cls_token", None)?, pair("sep_token", None)?);
                self.template(Some(cls), Some(sep), Form::TwoLast)
            }
            TokenizerClass::MpNet => {
                let (cls, sep) = (pair("cls_token", Some(0))?, pair("sep_token", Some(2))?);
                Ok(RobertaProcessing::new(sep, cls)
                    .add_prefix_space(false)
                    .into())
            }
            TokenizerClass::Roberta => {
                let (cls, sep) = (pair("cls_token", None)?, pair("sep_token", None)?);
                // Neither of these changes an id; both change offsets.
                let trim = self.flag("trim_offsets", true)?;
                let prefix = self.flag(PREFIX, false)?;
                Ok(RobertaProcessing::new(sep, cls)
                    .trim_offsets(trim)
                    .add_prefix_space(prefix)
                    .into())
            }
            // These keep what tokenizer.json has, if the settings do not ask for special tokens.
            TokenizerClass::Llama
            | TokenizerClass::Gemma
            | TokenizerClass::Qwen2
            | TokenizerClass::Gpt2
            | TokenizerClass::AsStored => match self.template_of_the_files(tokenizer)? {
                Some(processor) => Ok(processor),
                None => self.template_of_settings(tokenizer),
            },
            TokenizerClass::Albert => {
                // The template calls them so, whatever they are, and knows only the vocabulary; it is made even where tokenizer.json
                // has another.
                let piece = |role: &str, name: &str| {
                    let content = token(role).unwrap_or("None");
                    let id = tokenizer.get_model().token_to_id(content);
                    let id = id.ok_or_else(|| self.not_a_token(role))?;
                    Ok::<_, ModelError>((name.to_owned(), id))
                };
                let (cls, sep) = (piece("cls_token", "[CLS]")?, piece("sep_token", "[SEP]")?);
                match self.template_of_the_files(tokenizer)? {
                    Some(processor) => Ok(processor),
                    None => self.template(Some(cls), Some(sep), Form::Types),
                }
            }
        }
    }

    /// What the settings ask for, else what tokenizer.json has.
    fn template_of_the_files(
        &self,
        tokenizer: &Tokenizer,
    ) -> Result<Option<PostProcessorWrapper>, ModelError> {
        if self.settings_have_template() {
            return self.template_of_settings(tokenizer).map(Some);
        }
        let stored = self.stored_processor.filter(|stored| !stored.is_null());
        stored
            .map(|stored| serde_json::from_value(stored.clone()))
            .transpose()
            .map_err(|error| self.broken(&error))
    }

    /// Whether the settings say what stands around a text, which overrules tokenizer.json: special_tokens_map.json may, and
    /// tokenizer_config.json where there is no tokenizer.json.
    fn settings_have_template(&self) -> bool {
        let config = self.settings.config();
        let in_config = |flag: &str| self.stored_processor.is_none() && config.get(flag).is_some();
        self.map_has_template() || AROUND.iter().any(|(flag, _)| in_config(flag))
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

    fn not_a_token(&self, role: &str) -> ModelError {
        let fields = self.settings.of(role);
        let found = fields.get(role).unwrap_or(&Value::Null);
        let expected = format!(
            "expected the token that {} puts around a text",
            self.class.name()
        );
        fields.invalid(role, &expected, found)
    }
}
