//! The special tokens that settings and classes name.

use super::class::TokenizerClass;
use super::settings::Settings;
use super::written_token::WrittenToken;
use crate::ModelError;
use crate::config_fields::ConfigFields;
use serde_json::Value;

/// Roles in the order in which transformers adds tokens that a vocabulary lacks.
const ROLES: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// Special tokens of one tokenizer.
#[derive(Debug)]
pub(super) struct SpecialTokens {
    /// The seven roles, then names that only this tokenizer has; None for a role that is null or not set.
    named: Vec<(String, Option<WrittenToken>)>,
    /// Those without a role.
    extra: Vec<WrittenToken>,
    /// Whether the settings say them, under the newer name.
    extra_is_said: bool,
}

impl SpecialTokens {
    /// Of the settings, else of the class. `stored_padding` is the padding token of tokenizer.json, the last resort.
    pub(super) fn read(
        settings: &Settings,
        class: TokenizerClass,
        stored_padding: Option<&str>,
    ) -> Result<Self, ModelError> {
        let mut named = Vec::with_capacity(ROLES.len());
        for role in ROLES {
            let token = match settings.of(role).get(role) {
                Some(Value::Null) => None,
                Some(Value::String(content)) if role == "mask_token" => Some(mask(class, content)),
                Some(value) => Some(read_named(settings, role, value)?),
                None => default(class, role).or_else(|| {
                    let padding = stored_padding.filter(|_| role == "pad_token");
                    padding.map(WrittenToken::text)
                }),
            };
            named.push((role.to_owned(), token));
        }
        // Any other key that ends like a special token's is one, if it holds a token. Texts of tokenizer_config.json are
        // taken aside before special_tokens_map.json is read, and come last.
        let config = settings.config();
        let is_ours = |key: &&str| key.ends_with("_token") && !ROLES.contains(key);
        let is_text = |key: &&str| config.get(key).is_some_and(Value::is_string);
        let (texts, others): (Vec<&str>, Vec<&str>) = settings
            .keys()
            .into_iter()
            .filter(is_ours)
            .partition(is_text);
        for key in others {
            if let Some(value) = settings.of(key).get(key)
                && (value.is_string() || value.is_object())
                && (settings.is_of_the_map(key) || value.get("__type").is_some())
            {
                named.push((key.to_owned(), Some(read_named(settings, key, value)?)));
            }
        }
        for key in texts {
            let content = config.get(key).and_then(Value::as_str);
            named.push((key.to_owned(), content.map(WrittenToken::text)));
        }
        let mut tokens = Self {
            named,
            extra: Vec::new(),
            extra_is_said: false,
        };
        tokens.read_extra(settings, class)?;
        Ok(tokens)
    }

    /// `extra_special_tokens`, else the older `additional_special_tokens`, else those of the class.
    fn read_extra(&mut self, settings: &Settings, class: TokenizerClass) -> Result<(), ModelError> {
        const EXTRA: &str = "extra_special_tokens";
        const ADDITIONAL: &str = "additional_special_tokens";
        let (config, of_extra) = (settings.config(), settings.of(EXTRA));
        let is_said = |value: &&Value| match value {
            Value::Null => false,
            Value::Array(list) => !list.is_empty(),
            Value::Object(object) => !object.is_empty(),
            _ => true,
        };
        // The older name in tokenizer_config.json stands for the newer one where that says nothing.
        let in_config = match config.get(EXTRA).filter(is_said) {
            Some(value) => Some((EXTRA, value)),
            None => config
                .get(ADDITIONAL)
                .map(|value| (ADDITIONAL, value))
                .or_else(|| config.get(EXTRA).map(|value| (EXTRA, value))),
        };
        if let Some((field, Value::Object(object))) = in_config {
            self.add_named(&config, field, object)?;
        }
        let listed = |in_config: Option<(&str, &Value)>| match in_config {
            Some((field, value)) if !value.is_object() => read_list(&config, field, value),
            _ => Ok(Vec::new()),
        };
        if settings.is_of_the_map(EXTRA) {
            match of_extra.get(EXTRA) {
                Some(Value::Object(object)) => self.add_named(&of_extra, EXTRA, object)?,
                Some(value) => {
                    self.extra_is_said = true;
                    if value.is_array() {
                        self.extra = listed(in_config)?;
                    }
                    for token in read_list_of_the_map(&of_extra, EXTRA, value)? {
                        if !self.extra.contains(&token) {
                            self.extra.push(token);
                        }
                    }
                }
                None => {}
            }
        } else if let Some((_, value)) = in_config
            && !value.is_object()
        {
            self.extra_is_said = true;
            self.extra = listed(in_config)?;
        } else if settings.is_of_the_map(ADDITIONAL) {
            let fields = settings.of(ADDITIONAL);
            let value = fields.get(ADDITIONAL).unwrap_or(&Value::Null);
            self.extra = match value {
                Value::Null => default_extra(class),
                value => read_list(&fields, ADDITIONAL, value)?,
            };
        } else {
            self.extra = default_extra(class);
        }
        Ok(())
    }

    fn add_named(
        &mut self,
        fields: &ConfigFields<'_>,
        field: &str,
        object: &serde_json::Map<String, Value>,
    ) -> Result<(), ModelError> {
        for (name, value) in object {
            let token =
                WrittenToken::from_value(fields, &format!("{field}.{name}"), value)?.into_special();
            match self.named.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => *known = Some(token),
                None => self.named.push((name.clone(), Some(token))),
            }
        }
        Ok(())
    }

    /// The symbols of a sentencepiece file are the extra tokens where the settings do not say them under the newer name.
    pub(super) fn take_symbols(&mut self, symbols: Vec<WrittenToken>) {
        if !self.extra_is_said {
            self.extra = symbols;
        }
    }

    /// The roles that a sentencepiece file names, where no setting says anything of them.
    pub(super) fn take_roles(&mut self, settings: &Settings, roles: Vec<(&str, &str)>) {
        for (role, content) in roles {
            if settings.of(role).get(role).is_none()
                && let Some((_, token)) = self.named.iter_mut().find(|(name, _)| name == role)
            {
                *token = Some(WrittenToken::text(content));
            }
        }
    }

    /// The text of a role's token.
    pub(super) fn content(&self, role: &str) -> Option<&str> {
        let (_, token) = self.named.iter().find(|(name, _)| name == role)?;
        token.as_ref().map(|token| token.content.as_str())
    }

    /// Tokens with a name, in order.
    pub(super) fn named(&self) -> impl Iterator<Item = &WrittenToken> {
        self.named.iter().filter_map(|(_, token)| token.as_ref())
    }

    /// Named and extra ones, in order.
    pub(super) fn all(&self) -> impl Iterator<Item = &WrittenToken> {
        self.named().chain(&self.extra)
    }

    /// Texts that the settings themselves, not the class, make special.
    pub(super) fn is_in_settings(&self, settings: &Settings, content: &str) -> bool {
        let named = self.named.iter().any(|(role, token)| {
            let written = ROLES.contains(&role.as_str()) && settings.of(role).get(role).is_some();
            written && token.as_ref().is_some_and(|token| token.content == content)
        });
        // The older name in special_tokens_map.json is not looked at.
        let extra = settings.config().get("additional_special_tokens").is_some()
            || settings
                .of("extra_special_tokens")
                .get("extra_special_tokens")
                .is_some();
        named || extra && self.extra.iter().any(|token| token.content == content)
    }
}

fn read_named(settings: &Settings, role: &str, value: &Value) -> Result<WrittenToken, ModelError> {
    let fields = settings.of(role);
    if settings.is_of_the_map(role) && value.is_object() {
        return Ok(WrittenToken::from_object(&fields, role, value, true)?.into_special());
    }
    WrittenToken::from_value(&fields, role, value)
}

fn read_list(
    fields: &ConfigFields<'_>,
    field: &str,
    value: &Value,
) -> Result<Vec<WrittenToken>, ModelError> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .map(|(index, value)| {
                WrittenToken::from_value(fields, &format!("{field}.{index}"), value)
            })
            .collect(),
        other => Err(fields.invalid(field, "expected a list of tokens", other)),
    }
}

/// `extra_special_tokens` of special_tokens_map.json: any object there is a token, and a special one, which it must not say
/// itself.
fn read_list_of_the_map(
    fields: &ConfigFields<'_>,
    field: &str,
    value: &Value,
) -> Result<Vec<WrittenToken>, ModelError> {
    let Some(list) = value.as_array() else {
        return read_list(fields, field, value);
    };
    list.iter()
        .enumerate()
        .map(|(index, value)| {
            let field = format!("{field}.{index}");
            match value {
                Value::Object(object) if object.contains_key("special") => Err(fields.invalid(
                    &field,
                    "expected a token without the flag `special`, which transformers 5 sets itself",
                    value,
                )),
                Value::Object(_) => WrittenToken::from_object(fields, &field, value, true),
                _ => WrittenToken::from_value(fields, &field, value),
            }
        })
        .collect()
}

/// The token that the class has for a role that no file mentions.
fn default(class: TokenizerClass, role: &str) -> Option<WrittenToken> {
    const NONE: &str = "";
    // In the order of the roles.
    let tokens = match class {
        TokenizerClass::AsStored => return None,
        TokenizerClass::Bert | TokenizerClass::DistilBert => {
            [NONE, NONE, "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"]
        }
        TokenizerClass::MpNet => ["<s>", "</s>", "[UNK]", "</s>", "<pad>", "<s>", "<mask>"],
        TokenizerClass::Roberta | TokenizerClass::XlmRoberta | TokenizerClass::Camembert => {
            ["<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>"]
        }
        TokenizerClass::Albert => [
            "[CLS]", "[SEP]", "<unk>", "[SEP]", "<pad>", "[CLS]", "[MASK]",
        ],
        TokenizerClass::Deberta | TokenizerClass::DebertaV2 => [
            "[CLS]", "[SEP]", "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]",
        ],
        TokenizerClass::Llama => ["<s>", "</s>", "<unk>", NONE, NONE, NONE, NONE],
        TokenizerClass::Gemma => ["<bos>", "<eos>", "<unk>", NONE, "<pad>", NONE, "<mask>"],
        TokenizerClass::Qwen2 => [NONE, END, END, NONE, END, NONE, NONE],
        TokenizerClass::Gpt2 => [END, END, END, NONE, NONE, NONE, NONE],
    };
    const END: &str = "<|endoftext|>";
    let place = ROLES.iter().position(|known| *known == role)?;
    let content = Some(tokens[place]).filter(|content| *content != NONE)?;
    Some(match role {
        "mask_token" => mask(class, content),
        _ => WrittenToken::text(content),
    })
}

/// A mask that is written as a text: some classes let it take the space before it.
fn mask(class: TokenizerClass, content: &str) -> WrittenToken {
    match class {
        TokenizerClass::MpNet => WrittenToken::left_strip(content, false),
        TokenizerClass::Camembert => WrittenToken::left_strip(content, true),
        _ => WrittenToken::text(content),
    }
}

fn default_extra(class: TokenizerClass) -> Vec<WrittenToken> {
    match class {
        TokenizerClass::Camembert => ["<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"]
            .map(WrittenToken::text)
            .into(),
        _ => Vec::new(),
    }
}
