//! One row of a file.

use std::fmt;

use crate::{Column, DataError};

/// The place of a row in its file, for messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'p> {
    pub(crate) file: &'p str,
    /// The word for a row in messages: `line`, `row`, or `element` of a JSON array.
    pub(crate) row_word: &'static str,
    /// From 1.
    pub(crate) number: u64,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}: {} {}",
            self.file, self.row_word, self.number
        )
    }
}

/// The value of one row in one column.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Of a column of texts.
    Text(String),
    /// Of a column of numbers; finite.
    Number(f64),
    /// Of a column of lists.
    Integers(Vec<i64>),
    /// The row is without the column, which is optional.
    Absent,
}

/// The cells of a row, in the order of the columns that were asked for.
#[derive(Debug)]
pub struct Row<'r> {
    pub(crate) place: Place<'r>,
    /// The word for a column in messages; none for lines, which have no columns.
    pub(crate) word: Option<&'static str>,
    pub(crate) columns: &'r [Column],
    pub(crate) cells: Vec<Cell>,
    pub(crate) remark: Option<String>,
}

impl Row<'_> {
    /// The cells.
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// A warning about a row that can be read but looks as if the file were of another kind than its name says. Only the first such row of a
    /// reading has one.
    pub fn remark(&self) -> Option<&str> {
        self.remark.as_deref()
    }

    /// The text in column `index`, a required column of texts.
    ///
    /// # Panics
    /// The column is not one.
    pub fn text(&self, index: usize) -> &str {
        match &self.cells[index] {
            Cell::Text(text) => text,
            other => panic!("column {index} is no required column of texts: {other:?}"),
        }
    }

    /// The number in column `index`, a required column of numbers.
    ///
    /// # Panics
    /// The column is not one.
    pub fn number(&self, index: usize) -> f64 {
        match &self.cells[index] {
            Cell::Number(number) => *number,
            other => panic!("column {index} is no required column of numbers: {other:?}"),
        }
    }

    /// The list in column `index`, a column of lists; none where it is absent.
    ///
    /// # Panics
    /// The column is of another kind.
    pub fn integers(&self, index: usize) -> Option<&[i64]> {
        match &self.cells[index] {
            Cell::Integers(values) => Some(values),
            Cell::Absent => None,
            other => panic!("column {index} is no column of lists: {other:?}"),
        }
    }

    /// An error about column `index` of this row.
    pub fn error(
        &self,
        index: usize,
        expected: impl Into<String>,
        found: impl Into<String>,
        hint: impl Into<String>,
    ) -> DataError {
        let place = match self.word {
            Some(word) => column_place(self.place, word, &self.columns[index].name),
            None => self.place.to_string(),
        };
        DataError::content(place, expected, found, hint)
    }
}

/// A row's place and the name of the column.
pub(crate) fn column_place(place: impl fmt::Display, word: &str, name: &str) -> String {
    format!("{place}: {word} `{name}`")
}
