//! Tokens on top of the model's vocabulary, and the ids that the files promise for them.

use super::settings::Settings;
use super::special_tokens::SpecialTokens;
use super::stored::StoredToken;
use super::written_token::WrittenToken;
use crate::ModelError;
use crate::config_fields::ConfigFields;
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use tokenizers::{AddedToken, Tokenizer};

/// A token with the id that a file gives it.
#[derive(Debug)]
struct Declared {
    token: WrittenToken,
    file: PathBuf,
    field: String,
}

/// Tokens by the id that they should have.
#[derive(Debug)]
pub(super) struct AddedTokens(BTreeMap<u32, Declared>);

impl AddedTokens {
    /// Those of `added_tokens_decoder`; where tokenizer_config.json has none, those of added_tokens.json and of
    /// tokenizer.json (`stored`, from `file`) together.
    pub(super) fn read(
        settings: &Settings,
        special: &SpecialTokens,
        file: &Path,
        stored: &[StoredToken],
    ) -> Result<Self, ModelError> {
        const DECODER: &str = "added_tokens_decoder";
        let mut tokens = Self(BTreeMap::new());
        let config = settings.config();
        if let Some(value) = config.get(DECODER) {
            let object = value.as_object().ok_or_else(|| {
                config.invalid(
                    DECODER,
                    "expected an object with tokens by their ids",
                    value,
                )
            })?;
            for (key, value) in object {
                let field = format!("{DECODER}.{key}");
                let id = key.trim().parse().map_err(|_| {
                    config.error(
                        &field,
                        format!("expected a token id, found {key:?}"),
                        "correct the value or fetch the file again",
                    )
                })?;
                let token = WrittenToken::from_object(&config, &field, value, false)?;
                tokens.declare(id, token, &config, field)?;
            }
            return Ok(tokens);
        }
        if let Some((fields, object)) = settings.added_tokens() {
            for (content, value) in object {
                let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
                let id = id.ok_or_else(|| fields.invalid(content, "expected a token id", value))?;
                let is_special = special.is_in_settings(settings, content);
                let token = WrittenToken::of_added_tokens(content, is_special);
                tokens.declare(id, token, &fields, content.clone())?;
            }
        }
        let nothing = Value::Null;
        let fields = ConfigFields::new(file, &nothing);
        for StoredToken { id, token } in stored {
            tokens.declare(*id, token.into(), &fields, "added_tokens".to_owned())?;
        }
        Ok(tokens)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Their texts, by the ids that they should have.
    pub(super) fn contents(&self) -> impl Iterator<Item = (u32, &str)> {
        let declared = self.0.iter();
        declared.map(|(&id, declared)| (id, declared.token.content.as_str()))
    }

    fn declare(
        &mut self,
        id: u32,
        token: WrittenToken,
        fields: &ConfigFields<'_>,
        field: String,
    ) -> Result<(), ModelError> {
        if let Some(other) = self.0.get(&id)
            && other.token.content != token.content
        {
            let message = format!(
                "expected one token with the id {id}, found `{}` and, in {}, `{}`",
                token.content,
                other.file.display(),
                other.token.content
            );
            return Err(fields.error(&field, message, HINT));
        }
        let file = fields.file().to_owned();
        self.0.insert(id, Declared { token, file, field });
        Ok(())
    }

    /// Adds these tokens to the tokenizer, in the order of their ids, and then the special ones that it does not know.
    ///
    /// # Errors
    /// [`ModelError::Config`] if a token does not get the id that its file gives it: a token of the vocabulary keeps its
    /// id there, and any other gets the next free one.
    pub(super) fn add_to(
        &self,
        tokenizer: &mut Tokenizer,
        special: &SpecialTokens,
    ) -> Result<(), ModelError> {
        let of_tokenizer = tokenizer.get_added_vocabulary().get_vocab();
        let declared: HashSet<&str> = self.contents().map(|(_, content)| content).collect();
        let is_added =
            |content: &str| of_tokenizer.contains_key(content) || declared.contains(content);
        let mut tokens: Vec<&WrittenToken> =
            self.0.values().map(|declared| &declared.token).collect();
        let mut seen: HashSet<&WrittenToken> = tokens.iter().copied().collect();
        for token in special.all() {
            if !is_added(&token.content) && seen.insert(token) {
                tokens.push(token);
            }
        }
        let named: HashSet<&str> = special
            .named()
            .map(|token| token.content.as_str())
            .collect();
        let tokens: Vec<AddedToken> = tokens
            .into_iter()
            .map(|token| token.to_added(named.contains(token.content.as_str())))
            .collect();
        tokenizer.add_tokens(&tokens);
        for (&id, declared) in &self.0 {
            let content = &declared.token.content;
            let found = tokenizer.token_to_id(content);
            if found != Some(id) {
                let found = found.map_or("none".to_owned(), |id| id.to_string());
                let nothing = Value::Null;
                return Err(ConfigFields::new(&declared.file, &nothing).error(
                    &declared.field,
                    format!("expected the id {id} for the token `{content}` to be the next free one or the vocabulary's, found {found}"),
                    HINT,
                ));
            }
        }
        Ok(())
    }
}

const HINT: &str = "transformers would give the token another id than the file says; add it again with `add_tokens` and save the tokenizer";
