//! A layout and its options, made into readers.

use std::collections::BTreeSet;

use towpath_contract::Kind;

use crate::copybook::{Category, CopybookError, Item, ItemKind, Layout, Place, Sign, Usage};
use crate::row::Field;

use super::decode::{Area, Count, Decoder, Node, Reader, Rule, Slot, Step, Table};
use super::number::SignAt;
use super::{ByteOrder, DependingOn, Floats, RecordOptions};

type Result<T> = std::result::Result<T, CopybookError>;

fn fault<T>(place: Place, message: impl Into<String>) -> Result<T> {
    Err(CopybookError { place, message: message.into() })
}

impl Decoder {
    /// The error says what in the copybook needs a word in the config, or is not supported.
    pub fn compile(layout: &Layout, options: &RecordOptions) -> Result<Decoder> {
        let mut compiler =
            Compiler { options, scopes: vec![Scope::default()], areas: Vec::new(), names: vec![BTreeSet::new()] };
        let mut nodes = Vec::new();
        let mut path = Vec::new();
        compiler.items(&layout.items, &mut path, &[], &mut nodes)?;
        for name in options.charsets.keys() {
            if !named(&layout.items, name) {
                return fault(Place::default(), format!("`charsets` names {name}, which is no item of the record"));
            }
        }
        for variant in &options.variants {
            if !compiler.areas.iter().any(|area| area.rules.iter().any(|rule| rule.name == variant.item)) {
                return fault(
                    Place::default(),
                    format!("`variants` names {}, which is redefined by nothing and redefines nothing", variant.item),
                );
            }
        }
        if nodes.is_empty() {
            return fault(Place::default(), "the record has FILLER alone");
        }
        let fields = nodes.iter().map(|node| node.field.clone()).collect();
        Ok(Decoder {
            fields,
            nodes,
            areas: compiler.areas,
            length: layout.length as usize,
            depending_on: options.depending_on,
            varies: layout.varies,
            space: options.charset.space(),
        })
    }
}

fn named(items: &[Item], name: &str) -> bool {
    items.iter().any(|item| {
        let below = matches!(&item.kind, ItemKind::Group(items) if named(items, name));
        below || item.name.as_deref() == Some(name)
    })
}

struct Compiler<'a> {
    options: &'a RecordOptions,
    /// The record, and the tables that the present item is in.
    scopes: Vec<Scope>,
    areas: Vec<Area>,
    names: Vec<BTreeSet<String>>,
}

/// The elementary items of a scope so far: what DEPENDING ON and `when` may name.
#[derive(Default)]
struct Scope {
    fields: Vec<(String, Slot)>,
    /// A table whose length varies was passed: what follows has no place of its own.
    moved: bool,
}

impl Compiler<'_> {
    fn items(
        &mut self,
        items: &[Item],
        path: &mut Vec<String>,
        guards: &[(usize, usize)],
        nodes: &mut Vec<Node>,
    ) -> Result<()> {
        for (index, item) in items.iter().enumerate() {
            let redefined = items.iter().any(|other| other.redefines == Some(index));
            let mut guards = guards.to_vec();
            if redefined {
                let area = self.area(items, index)?;
                self.areas.push(area);
            }
            if redefined || item.redefines.is_some() {
                let first = &items[item.redefines.unwrap_or(index)];
                let area = self.areas.iter().rposition(|area| area.place == first.place);
                let area = area.expect("an area is made with its first item");
                match self.areas[area].rules.iter().position(|rule| Some(rule.name.as_str()) == item.name.as_deref()) {
                    Some(_) => guards.push((area, index)),
                    // No rule chooses it: it is not captured.
                    None => continue,
                }
            }
            self.item(item, path, &guards, nodes)?;
        }
        Ok(())
    }

    /// The rules for the item at `first` and those that redefine it.
    fn area(&self, items: &[Item], first: usize) -> Result<Area> {
        let base = &items[first];
        let variant = |name: &str| {
            items.iter().enumerate().position(|(index, item)| {
                (index == first || item.redefines == Some(first)) && item.name.as_deref() == Some(name)
            })
        };
        if self.scopes.len() > 1 {
            return fault(base.place, format!("{}: REDEFINES within a table is not supported", base.title()));
        }
        let mut rules = Vec::new();
        for given in &self.options.variants {
            let Some(index) = variant(&given.item) else { continue };
            let mut when = Vec::new();
            for (name, values) in &given.when {
                let found = self.scopes[0].fields.iter().find(|(known, _)| known == name);
                let Some((_, slot)) = found else {
                    return fault(
                        base.place,
                        format!("`variants` of {}: {name} is no field that stands before it", given.item),
                    );
                };
                when.push((slot.clone(), values.iter().map(|value| value.clone().into_bytes()).collect()));
            }
            rules.push(Rule { name: given.item.clone(), variant: index, when });
        }
        if rules.is_empty() {
            let others: Vec<_> = items.iter().filter(|item| item.redefines == Some(first)).map(Item::title).collect();
            let message = format!(
                "{} is redefined by {}: say with `variants` which of them holds when, for example `variants: [{{ item: {}, when: {{ FIELD: [VALUE] }} }}]`",
                base.title(),
                others.join(", "),
                base.title()
            );
            return fault(base.place, message);
        }
        Ok(Area { name: base.title().to_owned(), place: base.place, rules })
    }

    fn item(
        &mut self,
        item: &Item,
        path: &mut Vec<String>,
        guards: &[(usize, usize)],
        nodes: &mut Vec<Node>,
    ) -> Result<()> {
        if item.name.is_none() && !self.options.filler && matches!(item.kind, ItemKind::Field { .. }) {
            if item.varies() {
                return fault(item.place, "FILLER with DEPENDING ON is not supported");
            }
            return Ok(());
        }
        match (&item.kind, &item.occurs) {
            (_, Some(_)) => {
                let node = self.table(item, path, guards)?;
                nodes.push(node);
                self.scope().moved |= item.varies() && self.options.depending_on == DependingOn::Sliding;
                Ok(())
            }
            (ItemKind::Group(items), None) => {
                path.push(column_name(item.title()));
                self.items(items, path, guards, nodes)?;
                path.pop();
                Ok(())
            }
            (ItemKind::Field { .. }, None) => {
                let (reader, kind, type_name) = self.reader(item)?;
                let slot = Slot {
                    depth: self.scopes.len() - 1,
                    offset: item.offset as usize,
                    length: item.length as usize,
                    reader: reader.clone(),
                };
                if let (Some(name), false, true) = (&item.name, self.scope().moved, guards.is_empty()) {
                    self.scope().fields.push((name.clone(), slot));
                }
                let field = Field { name: self.unique(item.title(), path), kind, type_name };
                nodes.push(Node {
                    field,
                    offset: item.offset as usize,
                    guards: guards.to_vec(),
                    step: Step::Field { length: item.length as usize, reader },
                });
                Ok(())
            }
        }
    }

    fn table(&mut self, item: &Item, path: &[String], guards: &[(usize, usize)]) -> Result<Node> {
        let occurs = item.occurs.as_ref().expect("a table occurs");
        let count = match &occurs.depending_on {
            None => Count::Fixed(occurs.max as usize),
            Some(name) => {
                let known = self
                    .scopes
                    .iter()
                    .rev()
                    .find_map(|scope| scope.fields.iter().rev().find(|(known, _)| known == name));
                let Some((_, slot)) = known else {
                    return fault(
                        item.place,
                        format!("{} depends on {name}, which is no field at a fixed place before it", item.title()),
                    );
                };
                if !slot.reader.is_number() {
                    return fault(item.place, format!("{} depends on {name}, which is no number", item.title()));
                }
                Count::Depending {
                    slot: slot.clone(),
                    name: name.clone(),
                    min: occurs.min as usize,
                    max: occurs.max as usize,
                }
            }
        };
        self.scopes.push(Scope::default());
        self.names.push(BTreeSet::new());
        let (nodes, kind, type_name, single) = match &item.kind {
            ItemKind::Field { .. } => {
                let (reader, kind, type_name) = self.reader(item)?;
                let field = Field { name: String::new(), kind: kind.clone(), type_name: type_name.clone() };
                let step = Step::Field { length: item.length as usize, reader };
                (
                    vec![Node { field, offset: 0, guards: Vec::new(), step }],
                    Kind::Array(Box::new(kind)),
                    type_name,
                    true,
                )
            }
            ItemKind::Group(items) => {
                let mut nodes = Vec::new();
                self.items(items, &mut Vec::new(), &[], &mut nodes)?;
                (nodes, Kind::Json, "group".to_owned(), false)
            }
        };
        self.scopes.pop();
        self.names.pop();
        let field = Field {
            name: self.unique(item.title(), path),
            kind,
            type_name: format!("{type_name} OCCURS {}", occurs.max),
        };
        let table = Table { count, stride: item.length as usize, nodes, single };
        Ok(Node { field, offset: item.offset as usize, guards: guards.to_vec(), step: Step::Table(Box::new(table)) })
    }

    fn scope(&mut self) -> &mut Scope {
        self.scopes.last_mut().expect("the record is a scope")
    }

    /// The item's name as a column's; with the names of its groups in front where another has it already, then with a number.
    fn unique(&mut self, name: &str, path: &[String]) -> String {
        let names = self.names.last_mut().expect("the record has names");
        let own = column_name(name);
        let qualified = (0..=path.len())
            .rev()
            .map(|from| path[from..].iter().map(|group| format!("{group}_")).collect::<String>() + &own);
        let counted = (2..).map(|number| format!("{own}_{number}"));
        let free = qualified.chain(counted).find(|name| !names.contains(name)).expect("numbers do not end");
        names.insert(free.clone());
        free
    }

    fn reader(&self, item: &Item) -> Result<(Reader, Kind, String)> {
        let ItemKind::Field { usage, picture, sign } = &item.kind else {
            return fault(item.place, "a group has no reader");
        };
        let charset =
            item.name.as_ref().and_then(|name| self.options.charsets.get(name)).unwrap_or(&self.options.charset);
        let (usage, sign) = (*usage, *sign);
        let Some(picture) = picture else {
            let name = if usage == Usage::Float { "COMP-1" } else { "COMP-2" };
            let ibm = self.options.floats == Floats::Ibm;
            let little_endian = !ibm && self.options.binary == ByteOrder::Little;
            return Ok((Reader::Float { ibm, little_endian }, Kind::Float, name.into()));
        };
        let number = |suffix: &str| {
            let mut text = format!("{}9({})", if picture.signed { "S" } else { "" }, picture.digits);
            if picture.scale != 0 {
                text = format!("{text} scale {}", picture.scale);
            }
            (if picture.scale > 0 { Kind::Decimal } else { Kind::Int }, format!("{text}{suffix}"))
        };
        let with = |reader, (kind, name)| Ok((reader, kind, name));
        let (count, scale, signed) = (picture.digits, picture.scale, picture.signed);
        let blank = self.options.blank_numbers;
        match usage {
            Usage::National => {
                Ok((Reader::Utf16 { trim: self.options.trim }, Kind::Text, format!("N({})", picture.positions)))
            }
            Usage::Packed => {
                with(Reader::Packed { digits: count, scale, space: charset.space(), blank }, number(" COMP-3"))
            }
            Usage::Binary | Usage::Native => {
                let order = if usage == Usage::Binary { self.options.binary } else { self.options.native };
                let suffix = if usage == Usage::Binary { " COMP" } else { " COMP-5" };
                with(Reader::Binary { signed, scale, little_endian: order == ByteOrder::Little }, number(suffix))
            }
            _ if picture.category == Category::Numeric => with(
                Reader::Zoned {
                    sign: sign_at(signed, sign),
                    scale,
                    ebcdic: charset.ebcdic,
                    overpunch: self.options.overpunch,
                    blank,
                },
                number(""),
            ),
            _ => {
                let name = if picture.category == Category::NumericEdited { "edited" } else { "X" };
                let trim = self.options.trim.then_some(charset.space());
                Ok((Reader::Text { charset: *charset, trim }, Kind::Text, format!("{name}({})", picture.positions)))
            }
        }
    }
}

fn sign_at(signed: bool, sign: Option<Sign>) -> SignAt {
    match (signed, sign) {
        (false, _) => SignAt::None,
        (true, None) => SignAt::Overpunched { leading: false },
        (true, Some(Sign { leading, separate: false })) => SignAt::Overpunched { leading },
        (true, Some(Sign { leading, separate: true })) => SignAt::Separate { leading },
    }
}

/// `ACCT-CURR-BAL` as `acct_curr_bal`: a name that templates and expressions take.
pub(crate) fn column_name(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}
