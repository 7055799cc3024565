//! A token as JSON files write it: a text, or an object with the flags of an `AddedToken`.

use crate::ModelError;
use crate::config_fields::ConfigFields;
use serde_json::Value;
use tokenizers::AddedToken;

/// A token before it is decided whether it is special.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct WrittenToken {
    pub(super) content: String,
    /// None for a text alone.
    flags: Option<Flags>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Flags {
    single_word: bool,
    left_strip: bool,
    right_strip: bool,
    /// Unless written: whether the token is not special.
    normalized: Option<bool>,
    special: bool,
}

impl WrittenToken {
    /// A text alone.
    pub(super) fn text(content: &str) -> Self {
        Self {
            content: content.to_owned(),
            flags: None,
        }
    }

    /// What `mask_token` is to some classes: it takes the space before it.
    pub(super) fn left_strip(content: &str, special: bool) -> Self {
        let flags = Flags {
            left_strip: true,
            special,
            ..Flags::default()
        };
        Self {
            content: content.to_owned(),
            flags: Some(flags),
        }
    }

    /// An entry of added_tokens.json, which has no flags: `normalized` follows from `special`.
    pub(super) fn of_added_tokens(content: &str, special: bool) -> Self {
        let flags = Flags {
            normalized: Some(!special),
            special,
            ..Flags::default()
        };
        Self {
            content: content.to_owned(),
            flags: Some(flags),
        }
    }

    /// A symbol of a sentencepiece file.
    pub(super) fn symbol(content: &str, special: bool) -> Self {
        let flags = Flags {
            normalized: Some(false),
            special,
            ..Flags::default()
        };
        Self {
            content: content.to_owned(),
            flags: Some(flags),
        }
    }

    /// A text or, where it is written as an `AddedToken`, an object.
    pub(super) fn from_value(
        fields: &ConfigFields<'_>,
        field: &str,
        value: &Value,
    ) -> Result<Self, ModelError> {
        match value {
            Value::String(content) => Ok(Self::text(content)),
            Value::Object(object)
                if object.get("__type").and_then(Value::as_str) == Some("AddedToken") =>
            {
                Self::from_object(fields, field, value, false)
            }
            _ => Err(fields.invalid(
                field,
                "expected a token, or an object with `content` and with `__type` \"AddedToken\"",
                value,
            )),
        }
    }

    /// An object; `special` where it does not say.
    pub(super) fn from_object(
        fields: &ConfigFields<'_>,
        field: &str,
        value: &Value,
        special: bool,
    ) -> Result<Self, ModelError> {
        let content = value
            .as_object()
            .and_then(|object| object.get("content"))
            .and_then(Value::as_str)
            .ok_or_else(|| {
                let expected = "expected an object with the token as `content`";
                fields.invalid(field, expected, value)
            })?;
        let flag = |name: &str| match value.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => {
                Err(fields.invalid(&format!("{field}.{name}"), "expected true or false", other))
            }
        };
        Ok(Self {
            content: content.to_owned(),
            flags: Some(Flags {
                single_word: flag("single_word")?.unwrap_or(false),
                left_strip: flag("lstrip")?.unwrap_or(false),
                right_strip: flag("rstrip")?.unwrap_or(false),
                normalized: flag("normalized")?,
                special: flag("special")?.unwrap_or(special),
            }),
        })
    }

    /// The same, marked as special whatever was written.
    pub(super) fn into_special(mut self) -> Self {
        if let Some(flags) = &mut self.flags {
            flags.special = true;
        }
        self
    }

    /// The token of the tokenizers crate; `named` is whether one of the special tokens has this text. A text alone is
    /// special.
    pub(super) fn to_added(&self, named: bool) -> AddedToken {
        let Some(flags) = self.flags else {
            return AddedToken::from(self.content.clone(), true);
        };
        let special = flags.special || named;
        AddedToken {
            content: self.content.clone(),
            single_word: flags.single_word,
            lstrip: flags.left_strip,
            rstrip: flags.right_strip,
            normalized: flags.normalized.unwrap_or(!special),
            special,
        }
    }
}

impl From<&AddedToken> for WrittenToken {
    fn from(token: &AddedToken) -> Self {
        Self {
            content: token.content.clone(),
            flags: Some(Flags {
                single_word: token.single_word,
                left_strip: token.lstrip,
                right_strip: token.rstrip,
                normalized: Some(token.normalized),
                special: token.special,
            }),
        }
    }
}
