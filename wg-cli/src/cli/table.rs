//! Tables that fit 80 columns, and a narrower terminal.

use crate::columns;
use crate::report::one_line;

/// Space between two columns.
const GAP: usize = 2;
/// What the first column keeps on any terminal: the name there is typed again.
const NAME: usize = 24;

/// Rows under headings; the widest column gives way where the line would be too long.
#[derive(Debug)]
pub(super) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Returns an empty table with these headings.
    #[must_use]
    pub(super) fn new(headings: &[&'static str]) -> Self {
        Self {
            headings: headings.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, one cell for each heading.
    pub(super) fn row(&mut self, cells: &[String]) {
        debug_assert_eq!(
            cells.len(),
            self.headings.len(),
            "one cell for each heading"
        );
        self.rows
            .push(cells.iter().map(|cell| one_line(cell)).collect());
    }

    /// Returns the lines; `paint` may colour a cell, given its column and its text, after its width is fixed.
    #[must_use]
    pub(super) fn to_text(&self, paint: impl Fn(usize, &str) -> String) -> String {
        self.to_text_within(columns::available(), paint)
    }

    /// As [`Table::to_text`], for another width.
    #[must_use]
    pub(super) fn to_text_within(
        &self,
        limit: usize,
        paint: impl Fn(usize, &str) -> String,
    ) -> String {
        let mut widths: Vec<usize> = self.headings.iter().map(|heading| heading.len()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(columns::of(cell));
            }
        }
        // The widest column pays first, so that ids and states stay whole.
        while widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1) > limit {
            let may_shrink = |&column: &usize| widths[column] > if column == 0 { NAME } else { 4 };
            let shrinking = (0..widths.len()).filter(may_shrink);
            let Some(widest) = shrinking.max_by_key(|&column| widths[column]) else {
                break;
            };
            widths[widest] -= 1;
        }
        let mut text = String::new();
        let headings: Vec<String> = self
            .headings
            .iter()
            .map(|heading| (*heading).to_owned())
            .collect();
        push_row(&mut text, &headings, &widths, |_, cell| cell.to_owned());
        for row in &self.rows {
            push_row(&mut text, row, &widths, &paint);
        }
        text
    }
}

fn push_row(
    text: &mut String,
    cells: &[String],
    widths: &[usize],
    paint: impl Fn(usize, &str) -> String,
) {
    let mut line = String::new();
    let mut owed = 0;
    for (column, (cell, &width)) in cells.iter().zip(widths).enumerate() {
        let cell = columns::clip(cell, width);
        line.push_str(&" ".repeat(owed));
        owed = width - columns::of(&cell) + GAP;
        if !cell.is_empty() {
            line.push_str(&paint(column, &cell));
        }
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::Table;
    use crate::columns::{self, WIDTH};

    #[test]
    fn a_table_fits_the_width_and_cuts_its_widest_column() {
        let mut table = Table::new(&["CHAT", "STATE", "TITLE"]);
        table.row(&[
            "chat-0".into(),
            "running".into(),
            "a title that is much longer than any terminal ".repeat(4),
        ]);
        table.row(&[
            "chat-1000000".into(),
            "idle".into(),
            "short\nand two lines".into(),
        ]);
        table.row(&[
            "chat-2".into(),
            "idle".into(),
            "日本語の名前のチャット".repeat(6),
        ]);
        let text = table.to_text_within(WIDTH, |_, cell| cell.to_owned());
        assert!(
            text.lines().all(|line| columns::of(line) <= WIDTH),
            "{text}"
        );
        assert!(
            text.contains("chat-1000000  idle     short and two lines\n"),
            "{text}"
        );
        assert!(text.contains('…'));
    }

    #[test]
    fn a_narrow_terminal_never_cuts_what_is_typed_again() {
        let mut table = Table::new(&["CHAT", "STATE", "TITLE"]);
        table.row(&["chat-1000000".into(), "running".into(), "a title".into()]);
        for limit in [0, 12, 20, 30] {
            let text = table.to_text_within(limit, |_, cell| cell.to_owned());
            assert!(text.contains("\nchat-1000000  "), "{limit}: {text}");
        }
    }

    #[test]
    fn colour_does_not_change_where_columns_stand() {
        let mut table = Table::new(&["A", "B"]);
        table.row(&["x".into(), "y".into()]);
        assert_eq!(
            table.to_text_within(WIDTH, |column, cell| if column == 0 {
                format!("<{cell}>")
            } else {
                cell.to_owned()
            }),
            "A  B\n<x>  y\n"
        );
    }
}
