//! Groups out of level numbers.

use super::entry::Entry;
use super::{CopybookError, Result};

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) entry: Entry,
    pub(super) children: Vec<Node>,
}

/// The records of a copybook. One that starts below level 01 describes one record, whose level 01 stands in the program.
pub(super) fn records(entries: Vec<Entry>) -> Result<Vec<Node>> {
    let mut entries = entries.into_iter().peekable();
    let mut records: Vec<Node> = Vec::new();
    while let Some(entry) = entries.next() {
        match entry.level {
            66 => renames(entry, records.last())?,
            1 | 77 => {
                let children = if entry.level == 1 { children(&mut entries, 1)? } else { Vec::new() };
                records.push(Node { entry, children });
            }
            _ if records.is_empty() => {
                let mut record = entry.clone();
                (record.level, record.name, record.redefines, record.occurs) = (1, None, None, None);
                (record.picture, record.usage, record.sign, record.sync) = (None, None, None, false);
                let level = entry.level;
                let mut inner = vec![node(entry, &mut entries)?];
                inner.extend(siblings(&mut entries, level)?);
                records.push(Node { entry: record, children: inner });
            }
            level => {
                let message = format!("level {level:02} stands outside of any record");
                return Err(CopybookError::new(entry.place, message));
            }
        }
    }
    Ok(records)
}

type Entries = std::iter::Peekable<std::vec::IntoIter<Entry>>;

fn node(entry: Entry, entries: &mut Entries) -> Result<Node> {
    let children = children(entries, entry.level)?;
    Ok(Node { entry, children })
}

/// The items below one of level `above`.
fn children(entries: &mut Entries, above: u8) -> Result<Vec<Node>> {
    match entries.peek() {
        Some(first) if first.level > above && first.level <= 49 => {
            let level = first.level;
            siblings(entries, level)
        }
        _ => Ok(Vec::new()),
    }
}

fn siblings(entries: &mut Entries, level: u8) -> Result<Vec<Node>> {
    let mut nodes: Vec<Node> = Vec::new();
    while let Some(next) = entries.peek() {
        if next.level < level || next.level > 49 {
            break;
        }
        if next.level != level {
            let message = format!(
                "level {:02} fits no group here: the items beside it have level {level:02}, and {} has a PICTURE or other items below it",
                next.level,
                nodes.last().map_or("what stands before", |node| node.entry.title())
            );
            return Err(CopybookError::new(next.place, message));
        }
        let Some(entry) = entries.next() else { break };
        nodes.push(node(entry, entries)?);
    }
    Ok(nodes)
}

/// A level 66 names bytes that other items describe: nothing to capture, but the names must be there.
fn renames(entry: Entry, record: Option<&Node>) -> Result<()> {
    for name in &entry.renames {
        if !record.is_some_and(|record| has(record, name)) {
            return Err(CopybookError::new(entry.place, format!("there is no {name} in the record to be renamed")));
        }
    }
    match entry.renames.is_empty() {
        true => Err(CopybookError::new(entry.place, "level 66 has no RENAMES")),
        false => Ok(()),
    }
}

fn has(node: &Node, name: &str) -> bool {
    node.entry.name.as_deref() == Some(name) || node.children.iter().any(|child| has(child, name))
}
