//! Where each item of a record lies.

use super::entry::{Entry, Occurs, Sign, Usage};
use super::picture::{Category, Picture};
use super::tree::Node;
use super::{CopybookError, Place, Result};

/// One record, with offsets.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The name of the level 01. Empty where the copybook has none.
    pub name: String,
    pub items: Vec<Item>,
    /// Bytes, where every table has all its entries.
    pub length: u32,
    /// A table in it has a DEPENDING ON.
    pub varies: bool,
}

/// One item of a group.
#[derive(Clone, Debug)]
pub struct Item {
    /// `None`: FILLER.
    pub name: Option<String>,
    /// Bytes from the start of the record, or of the table entry that the item is in, where every table before it has all its entries.
    pub offset: u32,
    /// Bytes of one occurrence.
    pub length: u32,
    pub kind: ItemKind,
    pub occurs: Option<Occurs>,
    /// The item beside this one, by index, whose bytes it describes anew.
    pub redefines: Option<usize>,
    pub place: Place,
}

#[derive(Clone, Debug)]
pub enum ItemKind {
    Group(Vec<Item>),
    Field {
        usage: Usage,
        /// `None` for COMP-1 and COMP-2.
        picture: Option<Picture>,
        sign: Option<Sign>,
    },
}

impl Item {
    /// It, or an item below it, has a DEPENDING ON.
    pub fn varies(&self) -> bool {
        let inner = matches!(&self.kind, ItemKind::Group(items) if items.iter().any(Item::varies));
        inner || self.occurs.as_ref().is_some_and(|occurs| occurs.depending_on.is_some())
    }

    pub fn title(&self) -> &str {
        self.name.as_deref().unwrap_or("FILLER")
    }
}

/// Longer than any record that a system has.
const LENGTH_MAX: u64 = 1 << 27;

pub(super) fn layout(record: Node) -> Result<Layout> {
    let name = record.entry.name.clone().unwrap_or_default();
    let mut placed = Placed { end: 0, alignment: 1 };
    let given = Given { usage: None, sign: None, sync: false };
    // A record that is one field is a group of that field.
    let nodes = if record.children.is_empty() { vec![record] } else { record.children_of_group(&given)? };
    let items = place_all(&nodes, &given, 0, 0, &mut placed)?;
    let varies = items.iter().any(Item::varies);
    Ok(Layout { name, items, length: placed.end as u32, varies })
}

impl Node {
    /// The record's own clauses reach its items through the group; a level 01 has no OCCURS.
    fn children_of_group(self, _: &Given) -> Result<Vec<Node>> {
        if self.entry.occurs.is_some() {
            return Err(CopybookError::new(self.entry.place, "OCCURS does not stand at level 01"));
        }
        let Entry { usage, sign, sync, picture, place, .. } = self.entry;
        if picture.is_some() {
            return Err(CopybookError::new(place, "an item with a PICTURE has no items below it"));
        }
        let inherit = |mut node: Node| {
            node.entry.usage = node.entry.usage.or(usage);
            node.entry.sign = node.entry.sign.or(sign);
            node.entry.sync |= sync;
            node
        };
        Ok(self.children.into_iter().map(inherit).collect())
    }
}

/// What a group's clauses say for the items below it.
#[derive(Clone, Copy)]
struct Given {
    usage: Option<Usage>,
    sign: Option<Sign>,
    sync: bool,
}

struct Placed {
    /// Where the next item goes, from the start of the scope.
    end: u64,
    /// The strictest of the items so far.
    alignment: u64,
}

/// `base`: the scope's own place in the record, for alignment. `start`: where in the scope the first item lies.
fn place_all(nodes: &[Node], given: &Given, base: u64, start: u64, placed: &mut Placed) -> Result<Vec<Item>> {
    let mut items: Vec<Item> = Vec::with_capacity(nodes.len());
    let mut end = start;
    for node in nodes {
        let redefines = match &node.entry.redefines {
            // A record that redefines another is another description of the same file.
            Some(_) if node.entry.level == 1 => None,
            Some(name) => Some(redefined(name, node, &items)?),
            None => None,
        };
        let from = redefines.map_or(end, |index| items[index].offset as u64);
        let mut item = place(node, given, base, from, placed)?;
        item.redefines = redefines;
        if redefines.is_some() {
            let first = &items[redefines.unwrap_or_default()];
            if item.varies() || first.varies() {
                return Err(CopybookError::new(item.place, "OCCURS DEPENDING ON within REDEFINES is not supported"));
            }
            if item.offset != first.offset {
                return Err(CopybookError::new(
                    item.place,
                    format!("SYNC moves {} away from what it redefines", item.title()),
                ));
            }
        }
        end = end
            .max(item.offset as u64 + item.length as u64 * item.occurs.as_ref().map_or(1, |occurs| occurs.max as u64));
        if end > LENGTH_MAX {
            return Err(CopybookError::new(item.place, format!("the record is longer than {LENGTH_MAX} bytes")));
        }
        items.push(item);
    }
    placed.end = end;
    Ok(items)
}

fn redefined(name: &str, node: &Node, items: &[Item]) -> Result<usize> {
    let at = node.entry.place;
    let found = items.iter().rposition(|item| item.name.as_deref() == Some(name));
    let index = found.ok_or_else(|| {
        CopybookError::new(
            at,
            format!("{} redefines {name}, which does not stand before it at the same level", node.entry.title()),
        )
    })?;
    let first = items[index].redefines.unwrap_or(index);
    if items[first + 1..].iter().any(|item| item.redefines != Some(first)) {
        return Err(CopybookError::new(at, format!("between {name} and what redefines it stand other items")));
    }
    if items[first].occurs.is_some() {
        return Err(CopybookError::new(at, format!("{name} has an OCCURS and cannot be redefined")));
    }
    Ok(first)
}

fn place(node: &Node, given: &Given, base: u64, from: u64, placed: &mut Placed) -> Result<Item> {
    let entry = &node.entry;
    let given =
        Given { usage: entry.usage.or(given.usage), sign: entry.sign.or(given.sign), sync: entry.sync || given.sync };
    let (offset, length, kind) = match node.children.is_empty() {
        true => {
            let (length, kind, alignment) = field(entry, &given)?;
            let alignment = if given.sync { alignment } else { 1 };
            placed.alignment = placed.alignment.max(alignment);
            // IBM, "SYNCHRONIZED clause", slack bytes within records: counted from the start of the record.
            ((base + from).next_multiple_of(alignment) - base, length, kind)
        }
        false if entry.picture.is_some() => {
            return Err(CopybookError::new(entry.place, format!("{} has a PICTURE and items below it", entry.title())));
        }
        false => group(node, &given, base, from, placed)?,
    };
    let item = Item {
        name: entry.name.clone(),
        offset: offset as u32,
        length: length as u32,
        kind,
        occurs: entry.occurs.clone(),
        redefines: None,
        place: entry.place,
    };
    let size = length * entry.occurs.as_ref().map_or(1, |occurs| u64::from(occurs.max));
    match offset + size > LENGTH_MAX {
        true => Err(CopybookError::new(entry.place, format!("the record is longer than {LENGTH_MAX} bytes"))),
        false => Ok(item),
    }
}

fn group(node: &Node, given: &Given, base: u64, from: u64, placed: &mut Placed) -> Result<(u64, u64, ItemKind)> {
    let mut inner = Placed { end: 0, alignment: 1 };
    let table = node.entry.occurs.is_some();
    // The entry of a table is a scope of its own: its items are placed from its start.
    let (base, start) = if table { (base + from, 0) } else { (base, from) };
    let items = place_all(&node.children, given, base, start, &mut inner)?;
    placed.alignment = placed.alignment.max(inner.alignment);
    let mut length = inner.end - start;
    if table {
        // IBM, "slack bytes between records" of a table: every entry is aligned as the first.
        length = length.next_multiple_of(inner.alignment);
    }
    Ok((from, length, ItemKind::Group(items)))
}

/// Length, kind, and the alignment under SYNC.
fn field(entry: &Entry, given: &Given) -> Result<(u64, ItemKind, u64)> {
    let national = entry.picture.is_some_and(|picture| picture.category == Category::National);
    let usage = match given.usage {
        Some(usage) if !(national && usage == Usage::Display) => usage,
        _ if national => Usage::National,
        _ => Usage::Display,
    };
    if let Some(fault) = entry.fault(usage) {
        return Err(CopybookError::new(entry.place, fault));
    }
    let picture = entry.picture;
    let (digits, positions) =
        picture.map_or((0, 0), |picture| (u64::from(picture.digits), u64::from(picture.positions)));
    let sign = given.sign.filter(|_| picture.is_some_and(|picture| picture.signed) && usage == Usage::Display);
    let (length, alignment) = match usage {
        Usage::Display => (positions + u64::from(sign.is_some_and(|sign| sign.separate)), 1),
        Usage::National => (positions * 2, 1),
        Usage::Packed => (digits / 2 + 1, 1),
        Usage::Float => (4, 4),
        Usage::Double => (8, 8),
        Usage::Binary | Usage::Native => match digits {
            0..=4 => (2, 2),
            5..=9 => (4, 4),
            10..=18 => (8, 4),
            _ => {
                return Err(CopybookError::new(
                    entry.place,
                    format!("a binary number of {digits} digits is not supported: 18 at most"),
                ));
            }
        },
    };
    Ok((length, ItemKind::Field { usage, picture, sign }, alignment))
}
