//! Columns of text, aligned.

/// Rows whose cells stand under each other, indented. The last column may run on.
pub(super) fn aligned<const N: usize>(rows: &[[String; N]], indent: usize) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = " ".repeat(indent);
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(cell);
            line.push_str(&" ".repeat(width - cell.chars().count() + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::aligned;

    #[test]
    fn cells_stand_under_each_other_by_characters() {
        let rows = [["ä", "b", "c"], ["long", "", "end"]].map(|row| row.map(String::from));
        assert_eq!(aligned(&rows, 1), " ä     b  c\n long     end\n");
    }
}
