//! Tables that are put together column by column.

use super::numbers::decimals;
use super::table::{self, Column, number};

/// A column and its cells.
pub(crate) type Filled = (Column, Vec<String>);

/// The columns of a table that has a row for each item.
pub(crate) struct Columns<'a, T> {
    items: Vec<&'a T>,
    pub(crate) filled: Vec<Filled>,
}

impl<'a, T> Columns<'a, T> {
    pub(crate) fn of(items: impl IntoIterator<Item = &'a T>) -> Self {
        Columns {
            items: items.into_iter().collect(),
            filled: Vec::new(),
        }
    }

    pub(crate) fn with(mut self, column: Column, show: impl Fn(&T) -> String) -> Self {
        let cells = self.items.iter().map(|item| show(item));
        self.filled.push((column, cells.collect()));
        self
    }

    /// A column of numbers; a dash where there is none.
    pub(crate) fn optional(
        self,
        header: &'static str,
        show: impl Fn(&T) -> Option<String>,
    ) -> Self {
        self.with(number(header), |item| {
            show(item).unwrap_or_else(|| "-".to_owned())
        })
    }

    /// A column of numbers with so many digits after the point, or as many as the smallest one needs.
    pub(crate) fn numbers(
        self,
        header: &'static str,
        digits: Option<usize>,
        value: fn(&T) -> f64,
    ) -> Self {
        let digits = digits.unwrap_or_else(|| self.decimals(value));
        self.with(number(header), |item| format!("{:.digits$}", value(item)))
    }

    /// Digits after the point that the smallest value needs.
    pub(crate) fn decimals(&self, value: fn(&T) -> f64) -> usize {
        decimals(self.items.iter().map(|item| value(item)))
    }
}

/// The table of columns that are as long as one another.
pub(crate) fn render(columns: Vec<Filled>) -> String {
    let (columns, cells): (Vec<Column>, Vec<Vec<String>>) = columns.into_iter().unzip();
    let rows = cells.first().map_or(0, Vec::len);
    let row = |index: usize| cells.iter().map(|cells| cells[index].clone()).collect();
    table::render(&columns, (0..rows).map(row))
}
