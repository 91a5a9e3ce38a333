//! One record's values, as a format's reader leaves them.

use towpath_contract::{Kind, Value};

/// A column that a format has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    pub kind: Kind,
    /// As the format's own description says it: `S9(7)V99 COMP-3`, `N(8,2)`.
    pub type_name: String,
}

/// Values in column order. Filled anew for every record; its memory is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowBuffer {
    data: Vec<u8>,
    /// Where a value starts and ends; `None` is null.
    cells: Vec<Option<(u32, u32)>>,
}

impl RowBuffer {
    pub fn clear(&mut self) {
        // One huge row must not stay resident.
        self.data.clear();
        self.data.shrink_to(1 << 20);
        self.cells.clear();
    }

    pub fn null(&mut self) {
        self.cells.push(None);
    }

    pub fn value(&mut self, bytes: &[u8]) {
        let start = self.data.len() as u32;
        self.data.extend_from_slice(bytes);
        self.cells.push(Some((start, self.data.len() as u32)));
    }

    /// The value that `write` appends; null where it says `false`.
    pub fn write<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<bool, E>) -> Result<(), E> {
        let start = self.data.len() as u32;
        let given = write(&mut self.data)?;
        self.cells.push(given.then_some((start, self.data.len() as u32)));
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.cells.len()
    }

    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// `None`: null.
    pub fn get(&self, column: usize) -> Option<&[u8]> {
        self.cells[column].map(|(start, end)| &self.data[start as usize..end as usize])
    }

    pub fn values(&self) -> impl ExactSizeIterator<Item = Value<'_>> {
        (0..self.cells.len()).map(|column| self.get(column).map_or(Value::Null, Value::Data))
    }
}
