//! A table of text on a terminal.

/// Longest cell; what is longer is cut.
const CELL_CHARS_MAX: usize = 60;

/// Rows below headings, in columns as wide as needed.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Only headings yet.
    pub(super) fn new(headings: &[&str]) -> Self {
        Self {
            rows: vec![headings.iter().map(|text| (*text).to_owned()).collect()],
        }
    }

    /// Adds a row. Control characters, which a peer may have chosen, would move the cursor.
    pub(super) fn push(&mut self, cells: Vec<String>) {
        let clean = |text: String| -> String {
            let shown = text
                .chars()
                .map(|c| if c.is_control() { '\u{fffd}' } else { c });
            let mut cell: String = shown.take(CELL_CHARS_MAX + 1).collect();
            if cell.chars().count() > CELL_CHARS_MAX {
                cell.pop();
                cell.pop();
                cell.push('…');
            }
            cell
        };
        self.rows.push(cells.into_iter().map(clean).collect());
    }

    /// Text with a line for each row.
    pub(super) fn text(&self) -> String {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:<width$}  "));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_control_characters_are_shown() {
        let mut table = Table::new(&["GROUP", "LAG"]);
        table.push(vec!["billing".to_owned(), "7".to_owned()]);
        table.push(vec!["\u{1b}[2J".to_owned(), "x".repeat(99)]);
        let text = table.text();
        assert!(
            text.starts_with("GROUP    LAG\nbilling  7\n\u{fffd}[2J"),
            "{text}"
        );
        assert_eq!(
            text.lines().nth(2).unwrap().chars().count(),
            9 + CELL_CHARS_MAX
        );
    }
}
