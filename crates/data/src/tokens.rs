//! Rows that are tokenized already.

use std::ops::Range;

use crate::{Column, DataError, DataFile, Row};

/// Name of the column of token ids, unless another is given.
pub const INPUT_IDS: &str = "input_ids";
const ATTENTION_MASK: &str = "attention_mask";
const TOKEN_TYPE_IDS: &str = "token_type_ids";

/// The columns of tokenized rows.
///
/// The names of mask and types follow from that of the ids, which is how data sets of several models name them:
///
/// ```
/// use fewbit_data::TokenColumns;
///
/// let columns = TokenColumns::new("student_input_ids", None);
/// assert_eq!(columns.attention_mask(), "student_attention_mask");
/// assert_eq!(columns.token_type_ids(), "student_token_type_ids");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenColumns {
    input_ids: String,
    attention_mask: String,
    token_type_ids: String,
    /// Whether the mask was named, so that it has to be there.
    names_mask: bool,
}

impl TokenColumns {
    /// Ids in the column `input_ids`, the mask in `attention_mask` or else, where there is one, in the column whose name has
    /// `attention_mask` for `input_ids`; token types likewise. A name without `input_ids` in it has neither.
    pub fn new(input_ids: impl Into<String>, attention_mask: Option<String>) -> Self {
        let input_ids = input_ids.into();
        let derived = |name: &str| match input_ids.rsplit_once(INPUT_IDS) {
            Some((before, after)) => format!("{before}{name}{after}"),
            None => String::new(),
        };
        Self {
            names_mask: attention_mask.is_some(),
            attention_mask: attention_mask.unwrap_or_else(|| derived(ATTENTION_MASK)),
            token_type_ids: derived(TOKEN_TYPE_IDS),
            input_ids,
        }
    }

    /// The column of token ids.
    pub fn input_ids(&self) -> &str {
        &self.input_ids
    }

    /// The column of the mask; empty if there is none.
    pub fn attention_mask(&self) -> &str {
        &self.attention_mask
    }

    /// The column of token types; empty if there is none.
    pub fn token_type_ids(&self) -> &str {
        &self.token_type_ids
    }

    fn columns(&self) -> [Column; 3] {
        let mask = Column::integers(&self.attention_mask);
        [
            Column::integers(&self.input_ids),
            if self.names_mask {
                mask
            } else {
                mask.optional()
            },
            Column::integers(&self.token_type_ids).optional(),
        ]
    }
}

/// The limits of a model, which rows must keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenLimits {
    /// Token ids are below this.
    pub vocabulary_size: usize,
    /// Tokens of the longest row.
    pub max_tokens: usize,
    /// Token types are below this; 1 for a model without them.
    pub token_types: usize,
}

/// One tokenized row without its padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// At least one.
    pub token_ids: Vec<u32>,
    /// One for each id, or none: all 0.
    pub token_type_ids: Vec<u32>,
}

const IDS: usize = 0;
const MASK: usize = 1;
const TYPES: usize = 2;

/// Calls `take` with every row of a file, in order. Tokens with a mask of 0 at the start and the end of a row are padding and left out.
///
/// # Errors
/// Those of `take` and of [`DataFile::for_each_row`]; [`DataError::Content`] for a row that `limits` does not allow, one without a token,
/// a mask or types of another length, a mask of other numbers than 0 and 1, and one with a 0 between tokens: leaving out what stands there
/// would move the tokens after it to other positions.
pub fn for_each_token_row(
    file: &DataFile,
    columns: &TokenColumns,
    limits: TokenLimits,
    take: &mut dyn FnMut(TokenRow) -> Result<(), DataError>,
) -> Result<(), DataError> {
    if !file.format().has_columns() {
        return Err(DataError::content(
            file.name(),
            "JSONL or Parquet, where tokenized rows are",
            "a file of lines",
            "name the file *.jsonl, *.json or *.parquet",
        ));
    }
    file.for_each_row(&columns.columns(), &mut |row| take(token_row(row, limits)?))
}

fn token_row(row: &Row<'_>, limits: TokenLimits) -> Result<TokenRow, DataError> {
    let ids = row.integers(IDS).unwrap_or_default();
    let kept = kept(row, ids.len())?;
    if kept.is_empty() {
        return Err(row.error(
            if ids.is_empty() { IDS } else { MASK },
            "at least one token",
            if ids.is_empty() {
                "an empty list"
            } else {
                "a mask of zeros only"
            },
            "remove the row",
        ));
    }
    if kept.len() > limits.max_tokens {
        return Err(row.error(
            IDS,
            format!("at most {} tokens", limits.max_tokens),
            kept.len().to_string(),
            "the model has no positions beyond that: tokenize with truncation",
        ));
    }
    let token_ids = bounded(
        row,
        IDS,
        ids,
        &kept,
        limits.vocabulary_size,
        "the ids are those of another model's tokenizer, or damaged",
    )?;
    let token_type_ids = match row.integers(TYPES) {
        None => Vec::new(),
        Some(types) => {
            same_length(row, TYPES, types.len(), ids.len())?;
            let hint = "leave the column out where the model has no such types";
            bounded(row, TYPES, types, &kept, limits.token_types, hint)?
        }
    };
    Ok(TokenRow {
        token_ids,
        token_type_ids: if limits.token_types > 1 {
            token_type_ids
        } else {
            Vec::new()
        },
    })
}

/// The tokens of a row that are no padding.
fn kept(row: &Row<'_>, tokens: usize) -> Result<Range<usize>, DataError> {
    let Some(mask) = row.integers(MASK) else {
        return Ok(0..tokens);
    };
    same_length(row, MASK, mask.len(), tokens)?;
    if let Some(index) = mask.iter().position(|&value| value != 0 && value != 1) {
        return Err(row.error(
            MASK,
            "0 for padding and 1 for a token",
            format!("{} at position {}", mask[index], index + 1),
            "name the mask with --attention-mask-column",
        ));
    }
    let start = mask.iter().position(|&value| value == 1).unwrap_or(tokens);
    let end = mask
        .iter()
        .rposition(|&value| value == 1)
        .map_or(start, |last| last + 1);
    if let Some(hole) = mask[start..end].iter().position(|&value| value == 0) {
        return Err(row.error(
            MASK,
            "zeros at the start and the end only",
            format!("0 at position {}, between tokens", start + hole + 1),
            "fewbit runs the tokens of a text without gaps: remove the row, or fill the gap",
        ));
    }
    Ok(start..end)
}

fn same_length(
    row: &Row<'_>,
    index: usize,
    found: usize,
    expected: usize,
) -> Result<(), DataError> {
    if found == expected {
        return Ok(());
    }
    Err(row.error(
        index,
        format!("{expected} numbers, one for each token id"),
        found.to_string(),
        "ids, mask and types of a row have one length",
    ))
}

/// The kept values, each of which must be below `limit`.
fn bounded(
    row: &Row<'_>,
    column: usize,
    values: &[i64],
    kept: &Range<usize>,
    limit: usize,
    hint: &str,
) -> Result<Vec<u32>, DataError> {
    let checked = |index: usize| {
        let value = values[index];
        let fits = usize::try_from(value).is_ok_and(|value| value < limit);
        u32::try_from(value).ok().filter(|_| fits).ok_or_else(|| {
            row.error(
                column,
                format!("numbers from 0 to {}", limit.saturating_sub(1)),
                format!("{value} at position {}", index + 1),
                hint,
            )
        })
    };
    kept.clone().map(checked).collect()
}
