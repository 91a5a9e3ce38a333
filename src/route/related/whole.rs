//! Which transactions of a batch are there with all of their changes.

use std::collections::HashMap;

use towpath_contract::Batch;

/// Follows the batches of one capture.
#[derive(Debug, Default)]
pub(in crate::route) struct Transactions {
    /// The id of the transaction that the last batch ended within; empty for none. `None`: the next may begin within any.
    unfinished: Option<String>,
}

impl Transactions {
    /// The source was opened anew.
    pub(in crate::route) fn opened(&mut self) {
        self.unfinished = None;
    }

    /// By a transaction's index. Rows of a snapshot, which stand between the changes of others, are of none.
    pub(in crate::route) fn whole(&mut self, batch: &Batch) -> impl Fn(usize) -> bool + use<> {
        let mut whole: HashMap<usize, bool> = HashMap::new();
        let mut by_id: HashMap<&str, usize> = HashMap::new();
        let mut last: Option<(&str, usize)> = None;
        for change in batch.changes().filter(|change| !change.transaction().id.is_empty()) {
            let (id, index) = (change.transaction().id.as_str(), change.transaction_index());
            if last.map(|(_, last)| last) == Some(index) {
                continue;
            }
            let is_first = last.is_none();
            last = Some((id, index));
            let goes_on = is_first && self.unfinished.as_ref().is_none_or(|unfinished| unfinished == id);
            // Interrupted by rows of a snapshot it may go on under another index.
            let other = by_id.insert(id, index).filter(|other| *other != index);
            if let Some(other) = other {
                whole.insert(other, false);
            }
            whole.insert(index, batch.has_ended(index) && !goes_on && other.is_none());
        }
        if let Some((id, index)) = last {
            self.unfinished = Some(if batch.has_ended(index) { String::new() } else { id.to_owned() });
        }
        move |index| whole.get(&index).copied().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use towpath_contract::{Column, KeyKind, Kind, Op, Position, TableSchema, Transaction, Value};

    use super::*;

    /// `a` is a change of the transaction a, `.` its end, `-` a row of a snapshot; a letter after a row begins its transaction again.
    fn batch(text: &str) -> Batch {
        let column = Column { name: "id".into(), kind: Kind::Int, type_name: "int".into(), key: true };
        let table = Arc::new(TableSchema::new("s".into(), "t".into(), vec![column], KeyKind::Columns));
        let mut batch = Batch::new();
        let mut current = ' ';
        for letter in text.chars() {
            if letter == '.' {
                batch.end_transaction();
                continue;
            }
            if letter != current {
                let id = if letter == '-' { String::new() } else { letter.to_string() };
                batch.begin_transaction(Transaction { id, commit_time_us: 0 });
                current = letter;
            }
            let nowhere = Position::from_bytes(&[]).expect("short");
            batch.change(Op::Insert, &table, nowhere).after([Value::Null]);
        }
        batch
    }

    /// The letters of the changes whose transaction is whole.
    fn whole(transactions: &mut Transactions, text: &str) -> String {
        let batch = batch(text);
        let is_whole = transactions.whole(&batch);
        let whole = batch.changes().filter(|change| is_whole(change.transaction_index()));
        whole.map(|change| change.transaction().id.clone()).collect()
    }

    #[test]
    fn only_what_began_and_ended_in_the_batch_is_whole() {
        let mut transactions = Transactions::default();
        for (text, expected) in [
            // Nobody knows where the first began.
            ("aa.bb.c", "bb"),
            ("cc.d.", "d"),
            ("e.f", "e"),
            // Rows between a transaction's changes, at the end of a batch and at the begin of one.
            ("ff-", ""),
            ("-f-f.g.", "g"),
            ("h-h.i.", "i"),
            ("j", ""),
            ("-", ""),
            ("j.k.", "k"),
        ] {
            assert_eq!(whole(&mut transactions, text), expected, "{text}");
        }
        transactions.opened();
        assert_eq!(whole(&mut transactions, "l.m."), "m");
    }
}
