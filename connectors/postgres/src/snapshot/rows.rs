//! A chunk's rows, as COPY's text format has them.

use towpath_contract::{Error, ErrorKind, Result};

/// The server's text of each value, unescaped: one arena of bytes, one of cells.
#[derive(Debug, Default)]
pub(super) struct Rows {
    data: Vec<u8>,
    cells: Vec<Cell>,
    /// Columns per row.
    width: usize,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    start: u32,
    /// `NULL` or a length.
    len: u32,
}

const NULL: u32 = u32::MAX;

impl Rows {
    pub(super) fn new(width: usize) -> Rows {
        Rows { width, ..Rows::default() }
    }

    pub(super) fn len(&self) -> usize {
        // A table without columns has rows too, but nothing to tell of them.
        self.cells.len().checked_div(self.width).unwrap_or(0)
    }

    pub(super) fn bytes(&self) -> usize {
        self.data.len() + self.cells.len() * size_of::<Cell>()
    }

    pub(super) fn value(&self, row: usize, column: usize) -> Option<&[u8]> {
        let cell = self.cells[row * self.width + column];
        (cell.len != NULL).then(|| &self.data[cell.start as usize..][..cell.len as usize])
    }

    /// Adds a line of COPY's text format (manual, page COPY, section "Text Format"): one row, its end of line included.
    pub(super) fn push_copied(&mut self, line: &[u8]) -> Result<()> {
        let damaged = |what| Err(Error::retry(ErrorKind::Protocol, "reading a table's rows", what));
        let Some(mut rest) = line.strip_suffix(b"\n") else { return damaged("a row without an end of line") };
        let before = self.cells.len();
        loop {
            let start = self.data.len();
            let ended = self.push_field(rest)?;
            let len = match ended {
                // Only a whole field of `\N` is NULL; a backslash in data is doubled.
                Field { null: true, .. } => NULL,
                Field { .. } => (self.data.len() - start) as u32,
            };
            self.cells.push(Cell { start: start as u32, len });
            match ended.tab {
                Some(tab) => rest = &rest[tab + 1..],
                None => break,
            }
        }
        match self.cells.len() - before == self.width {
            true => Ok(()),
            false => damaged("a row with another number of columns than was asked for"),
        }
    }

    /// Unescapes up to the next tab or the end.
    fn push_field(&mut self, text: &[u8]) -> Result<Field> {
        let mut from = 0;
        let mut null = false;
        while let Some(found) = memchr::memchr2(b'\t', b'\\', &text[from..]) {
            let at = from + found;
            self.data.extend_from_slice(&text[from..at]);
            if text[at] == b'\t' {
                return Ok(Field { tab: Some(at), null });
            }
            let byte = match text.get(at + 1) {
                Some(b'N') => {
                    null = true;
                    from = at + 2;
                    continue;
                }
                Some(b'b') => 8,
                Some(b't') => b'\t',
                Some(b'n') => b'\n',
                Some(b'v') => 11,
                Some(b'f') => 12,
                Some(b'r') => b'\r',
                Some(other) => *other,
                None => {
                    return Err(Error::retry(ErrorKind::Protocol, "reading a table's rows", "a row cut in an escape"));
                }
            };
            self.data.push(byte);
            from = at + 2;
        }
        self.data.extend_from_slice(&text[from..]);
        Ok(Field { tab: None, null })
    }
}

struct Field {
    tab: Option<usize>,
    null: bool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the manual's page COPY says.
    fn copied(row: &[Option<Vec<u8>>]) -> Vec<u8> {
        let field = |value: &Option<Vec<u8>>| match value {
            None => b"\\N".to_vec(),
            Some(bytes) => bytes
                .iter()
                .flat_map(|byte| match byte {
                    b'\\' => b"\\\\".to_vec(),
                    b'\t' => b"\\t".to_vec(),
                    b'\n' => b"\\n".to_vec(),
                    b'\r' => b"\\r".to_vec(),
                    8 => b"\\b".to_vec(),
                    11 => b"\\v".to_vec(),
                    12 => b"\\f".to_vec(),
                    other => vec![*other],
                })
                .collect(),
        };
        let mut line = row.iter().map(field).collect::<Vec<_>>().join(&b'\t');
        line.push(b'\n');
        line
    }

    proptest! {
        #[test]
        fn copied_rows_read_back(lines in proptest::collection::vec(proptest::collection::vec(
            proptest::option::of(proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\\'), Just(b'N'), Just(b'\t')], 0..8)), 3), 0..10)) {
            let mut rows = Rows::new(3);
            for line in &lines {
                rows.push_copied(&copied(line)).unwrap();
            }
            prop_assert_eq!(rows.len(), lines.len());
            for (index, line) in lines.iter().enumerate() {
                for (column, value) in line.iter().enumerate() {
                    prop_assert_eq!(rows.value(index, column), value.as_deref());
                }
            }
        }

        #[test]
        fn no_bytes_make_it_panic(line in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\\'), Just(b'\t'), Just(b'\n')], 0..20)) {
            let _ = Rows::new(2).push_copied(&line);
        }
    }

    #[test]
    fn damage_is_an_error() {
        for line in [&b""[..], b"1\t2", b"1\n", b"1\t2\t3\n", b"1\t2\\\n"] {
            assert!(Rows::new(2).push_copied(line).is_err(), "{line:?}");
        }
    }
}
