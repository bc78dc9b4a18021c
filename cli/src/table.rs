//! Tables for people: no borders, columns aligned, colour where it matters.

use comfy_table::{Attribute, Cell, CellAlignment, Color, Row, Table, presets};

use crate::humane::printable;

/// A table with these headings; those that end in `>` head columns of numbers.
pub(crate) fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).enforce_styling();
    // Trailing spaces with a style could not be trimmed.
    table.style_text_only();
    let heading = |text: &&str| Cell::new(text.trim_end_matches('>')).add_attribute(Attribute::Dim);
    table.set_header(headings.iter().map(heading).collect::<Vec<_>>());
    for (column, heading) in table.column_iter_mut().zip(headings) {
        column.set_padding((0, 2));
        if heading.ends_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A cell of text, with control characters escaped.
pub(crate) fn cell(text: impl AsRef<str>) -> Cell {
    Cell::new(printable(text.as_ref()))
}

/// A cell in green or red.
pub(crate) fn judged(text: impl AsRef<str>, good: bool) -> Cell {
    cell(text).fg(if good { Color::Green } else { Color::Red })
}

/// The table with its rows; if there are none, a sentence that says so.
pub(crate) fn filled(
    mut table: Table,
    rows: impl Iterator<Item = Vec<Cell>>,
    what: &str,
) -> String {
    table.add_rows(rows.map(Row::from));
    if table.is_empty() {
        return format!("no {what}\n");
    }
    table.trim_fmt() + "\n"
}

/// The text without its colours, as a pipe receives it.
#[cfg(test)]
pub(crate) fn uncoloured(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_without_borders() {
        let mut rows = table(&["NAME", "USED>"]);
        rows.add_row(vec![cell("devices"), cell("5")]);
        let text = filled(
            rows,
            [vec![judged("a\tb", false), cell("1000")]].into_iter(),
            "tables",
        );
        assert_eq!(
            uncoloured(&text),
            "NAME     USED\ndevices     5\na\\tb     1000\n"
        );
    }

    #[test]
    fn an_empty_table_says_so() {
        assert_eq!(
            filled(table(&["NAME"]), std::iter::empty(), "flows"),
            "no flows\n"
        );
    }
}
