//! Aligns text in columns as Go's tabwriter does with Docker's settings.
//!
//! A cell ends with a tab; a column is a run of lines that have a cell there; the text after the
//! last tab of a line belongs to no column.

/// Narrowest column, its padding counted.
const MIN_WIDTH: usize = 10;
/// Blanks after the widest cell.
const PADDING: usize = 3;

/// Aligns `text`.
pub(crate) fn align(text: &str) -> String {
    align_with(text, MIN_WIDTH, PADDING)
}

/// Aligns `text` with other settings.
pub(crate) fn align_with(text: &str, min_width: usize, padding: usize) -> String {
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    let mut widths: Vec<Vec<usize>> = lines
        .iter()
        .map(|cells| vec![0; cells.len().saturating_sub(1)])
        .collect();
    let columns = widths.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..columns {
        let mut start = 0;
        while start < lines.len() {
            if widths[start].len() <= column {
                start += 1;
                continue;
            }
            let mut end = start;
            let mut width = min_width;
            while end < lines.len() && widths[end].len() > column {
                width = width.max(lines[end][column].chars().count() + padding);
                end += 1;
            }
            for row in &mut widths[start..end] {
                row[column] = width;
            }
            start = end;
        }
    }
    let mut out = String::with_capacity(text.len() * 2);
    for (cells, widths) in lines.iter().zip(&widths) {
        for (index, cell) in cells.iter().enumerate() {
            out.push_str(cell);
            if let Some(width) = widths.get(index) {
                out.extend(std::iter::repeat_n(
                    ' ',
                    width.saturating_sub(cell.chars().count()),
                ));
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn align_pads_to_the_widest_cell_and_ten() {
        assert_eq!(
            align("ID\tNAME\nabcdefghijkl\tx\n"),
            "ID             NAME\nabcdefghijkl   x\n"
        );
        assert_eq!(
            align("A\tB\tC\n1\t2\t3\n"),
            "A         B         C\n1         2         3\n"
        );
    }

    #[test]
    fn align_empty_last_cell_is_padded_before_it() {
        assert_eq!(align("A\t\n"), "A         \n");
        assert_eq!(align(""), "");
    }
}
