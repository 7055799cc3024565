//! Plain text tables: a header of one or more lines, a rule, rows; text to the left, numbers to the right.

use std::borrow::Cow;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, TableComponent, presets};

/// A column: its header (lines separated by `\n`) and how its cells are aligned.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    header: Cow<'static, str>,
    alignment: CellAlignment,
}

impl Column {
    /// Its header.
    pub(crate) fn header(&self) -> &str {
        &self.header
    }
}

/// A column of text.
pub(crate) fn text(header: impl Into<Cow<'static, str>>) -> Column {
    Column {
        header: header.into(),
        alignment: CellAlignment::Left,
    }
}

/// A column of numbers.
pub(crate) fn number(header: impl Into<Cow<'static, str>>) -> Column {
    Column {
        header: header.into(),
        alignment: CellAlignment::Right,
    }
}

/// The table as text that ends in a line end; no line ends in a space.
pub(crate) fn render(columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_style(TableComponent::HeaderLines, '-');
    table.set_style(TableComponent::MiddleHeaderIntersections, '-');
    let height = columns
        .iter()
        .map(|column| column.header.lines().count())
        .max()
        .unwrap_or(0);
    table.set_header(columns.iter().map(|column| {
        // A short header stands on the last line, next to its numbers.
        let missing = height - column.header.lines().count();
        Cell::new(format!("{}{}", "\n".repeat(missing), column.header))
            .set_alignment(column.alignment)
    }));
    for row in rows {
        table.add_row(
            row.into_iter()
                .zip(columns)
                .map(|(cell, column)| Cell::new(cell).set_alignment(column.alignment)),
        );
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if index + 1 == columns.len() { 0 } else { 1 }));
    }
    let mut out = String::new();
    for line in table.lines() {
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_short_headers_on_the_last_line() {
        let shown = render(
            &[text("part"), number("size\nMB"), text("dtype")],
            [
                vec!["embeddings".into(), "47.7".into(), "F32".into()],
                vec!["other".into(), "0.0".into(), String::new()],
            ],
        );
        insta::assert_snapshot!(shown, @"
                size
    part          MB  dtype
    -----------------------
    embeddings  47.7  F32
    other        0.0
    ");
    }
}
