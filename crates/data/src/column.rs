//! Which columns of a file are read.

use crate::DataError;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// A text in each row.
    Text,
    /// A finite number in each row.
    Number,
    /// A text or a whole number in each row, either as a text.
    Label,
    /// A list of integers in each row.
    Integers,
}

impl ColumnKind {
    /// A value of it, in words.
    pub(crate) fn value(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Number => "a number",
            Self::Label => "a string or a whole number",
            Self::Integers => "a list of integers",
        }
    }
}

/// A column of a file, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name, as the file spells it.
    pub name: String,
    /// What it holds.
    pub kind: ColumnKind,
    /// Whether a file or a row may be without it, or have null there.
    pub optional: bool,
    /// The flag that names it, for hints.
    flag: &'static str,
}

impl Column {
    /// A column of texts that every row has.
    pub fn text(name: impl Into<String>) -> Self {
        Self::new(name, ColumnKind::Text)
    }

    /// A column of finite numbers that every row has.
    pub fn number(name: impl Into<String>) -> Self {
        Self::new(name, ColumnKind::Number)
    }

    /// A column of labels that every row has: texts or whole numbers, read as texts.
    pub fn label(name: impl Into<String>) -> Self {
        Self::new(name, ColumnKind::Label)
    }

    /// A column of lists of integers that every row has.
    pub fn integers(name: impl Into<String>) -> Self {
        Self::new(name, ColumnKind::Integers)
    }

    fn new(name: impl Into<String>, kind: ColumnKind) -> Self {
        Self {
            name: name.into(),
            kind,
            optional: false,
            flag: "--field",
        }
    }

    /// This column, made optional: a row may be without it.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// This column, which the command line names with `flag` instead of `--field`.
    #[must_use]
    pub fn named_by(mut self, flag: &'static str) -> Self {
        self.flag = flag;
        self
    }

    /// The error of a place without this column; `word` is what the format calls one, `found` are the names there are.
    pub(crate) fn missing<S: AsRef<str>>(
        &self,
        place: String,
        word: &str,
        found: &[S],
    ) -> DataError {
        let names: Vec<String> = found
            .iter()
            .map(|name| format!("`{}`", name.as_ref()))
            .collect();
        let found = if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        };
        let hint = match self.kind {
            ColumnKind::Text => {
                format!("name the {word} that holds the text with {}", self.flag)
            }
            ColumnKind::Number => {
                format!("name the {word} that holds the number with {}", self.flag)
            }
            ColumnKind::Label => {
                format!("name the {word} that holds the label with {}", self.flag)
            }
            ColumnKind::Integers => {
                format!(
                    "name the {word} with --input-ids-column, that of the mask with --attention-mask-column"
                )
            }
        };
        DataError::content(place, format!("a {word} `{}`", self.name), found, hint)
    }
}
