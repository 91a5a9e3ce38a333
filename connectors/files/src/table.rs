//! The tables of a source, with what could be settled from the config.

use std::sync::Arc;

use towpath_contract::{Column, KeyKind, Kind, Op, TableSchema, Value};

use crate::config::{BadRecords, FilesConfig, FormatConfig, Numbers, TableConfig};
use crate::format::Format;
use crate::row::{Field, RowBuffer};

/// The schema of every table of this connector.
pub(crate) const SCHEMA: &str = "files";

pub(crate) struct Table {
    pub(crate) config: TableConfig,
    pub(crate) format: Format,
}

impl Table {
    /// The number in a file's name, where the names have numbers that matter.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        if self.config.checks.numbers == Numbers::Any {
            return None;
        }
        let (before, after) = self.config.files.split_once('*')?;
        name.strip_prefix(before)?.strip_suffix(after)?.parse().ok()
    }

    /// Why a file of this name does not follow the last one.
    pub(crate) fn out_of_order(&self, name: &str, last: Option<&str>) -> Option<String> {
        let numbers = self.config.checks.numbers;
        if numbers == Numbers::Any {
            return None;
        }
        let Some(number) = self.number(name) else {
            return Some(format!("there is no number in its name where {} has its `*`", self.config.files));
        };
        let last_name = last?;
        let last = self.number(last_name)?;
        let follows = match numbers {
            Numbers::Consecutive => last.checked_add(1) == Some(number),
            _ => number > last,
        };
        let missing = numbers == Numbers::Consecutive && number > last;
        (!follows).then(|| match missing {
            true => format!("the last file was {last_name}: number {} is missing", last + 1),
            false => format!("the last file was {last_name}: number {number} does not come after it"),
        })
    }
}

/// What in the config cannot work: the path of the key below the source, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFault {
    /// `tables[0].format.delimited.columns`.
    pub path: String,
    pub message: String,
}

pub(crate) fn tables(config: &FilesConfig) -> Result<Vec<Table>, Vec<ConfigFault>> {
    let mut faults = Vec::new();
    let mut tables: Vec<Table> = Vec::new();
    if config.tables.is_empty() {
        faults.push(ConfigFault {
            path: "tables".into(),
            message: "the list is empty: nothing would be captured".into(),
        });
    }
    for (index, table) in config.tables.iter().enumerate() {
        let mut fault = |key: &str, message: String| {
            faults.push(ConfigFault {
                path: format!("tables[{index}]{}{key}", if key.is_empty() { "" } else { "." }),
                message,
            });
        };
        if table.name.is_empty() || config.tables[..index].iter().any(|other| other.name == table.name) {
            fault("name", format!("{:?} is no name, or another table's", table.name));
        }
        if table.files.is_empty() || table.files.contains('/') {
            fault(
                "files",
                format!("{:?} is no pattern for names in the folder: it is empty or leads out of it", table.files),
            );
        }
        check_trailer(table, &mut fault);
        check_extract(table, &mut fault);
        if table.checks.numbers != Numbers::Any && table.files.matches('*').count() != 1 {
            fault("checks.numbers", "`files` needs one `*`, which stands for the number".into());
        }
        let trailer = table.checks.trailer.as_ref().map(|trailer| trailer.starts_with.as_str());
        match Format::new(&table.format, trailer) {
            Err((key, message)) => fault(&format!("format.{}.{key}", format_name(&table.format)), message),
            Ok(format) => {
                if let Some(fields) = format.fields()
                    && let Err((key, message)) = Shape::new(table, &fields)
                {
                    fault(key, message);
                }
                tables.push(Table { config: table.clone(), format });
            }
        }
    }
    if faults.is_empty() { Ok(tables) } else { Err(faults) }
}

fn format_name(format: &FormatConfig) -> &'static str {
    match format {
        FormatConfig::Delimited(_) => "delimited",
        FormatConfig::FixedWidth(_) => "fixed_width",
        FormatConfig::JsonLines(_) => "json_lines",
        FormatConfig::Copybook(_) => "copybook",
        FormatConfig::Dbf(_) => "dbf",
    }
}

fn check_extract(table: &TableConfig, fault: &mut impl FnMut(&str, String)) {
    let Some(extract) = &table.extract else { return };
    if table.key.is_empty() {
        fault("key", "an extract is compared by its key: name its columns".into());
    }
    if table.operation.is_some() {
        fault("operation", "a full extract has no operations: leave out `operation` or `extract`".into());
    }
    if table.bad_records == BadRecords::Deliver {
        fault(
            "bad_records",
            "a record of an extract that cannot be read would look like a deleted row: `refuse_file` alone".into(),
        );
    }
    if extract.deletes_max_percent > 100 {
        fault("extract.deletes_max_percent", format!("found {}, expected 0 to 100", extract.deletes_max_percent));
    }
}

fn check_trailer(table: &TableConfig, fault: &mut impl FnMut(&str, String)) {
    let Some(trailer) = &table.checks.trailer else { return };
    let delimited = matches!(table.format, FormatConfig::Delimited(_));
    if matches!(table.format, FormatConfig::JsonLines(_) | FormatConfig::Dbf(_)) {
        fault("checks.trailer", "`json_lines` and `dbf` have no trailer".into());
    }
    if trailer.starts_with.is_empty() {
        fault("checks.trailer.starts_with", "every record begins with nothing".into());
    }
    for part in trailer.count.iter().chain(trailer.sums.values()) {
        if part.at == 0 || part.length.is_some() == delimited || part.scale > 30 {
            let expected = if delimited {
                "`at`, the field from 1, and no `length`"
            } else {
                "`at`, the first byte from 1, and `length`"
            };
            fault("checks.trailer", format!("a part of the trailer needs {expected}; `scale` is at most 30"));
        }
    }
}

type Codes = Vec<(Vec<u8>, Op)>;

/// How the fields of a format become the row of a change.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) schema: Arc<TableSchema>,
    /// The fields of the row, by index.
    columns: Vec<usize>,
    /// The fields of the key, by index.
    pub(crate) key: Vec<usize>,
    /// The field, and what each code in it stands for.
    operation: Option<(usize, Codes)>,
    /// Column (for messages), field.
    pub(crate) sums: Vec<(String, usize)>,
}

impl Shape {
    /// The error names the key of the table's config that does not fit.
    pub(crate) fn new(table: &TableConfig, fields: &[Field]) -> Result<Shape, (&'static str, String)> {
        let names = || fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>().join(", ");
        let find = |key: &'static str, name: &str| {
            let found = fields.iter().position(|field| field.name == name);
            found.ok_or_else(|| (key, format!("there is no column {name:?}; there are {}", names())))
        };
        if let Some((index, field)) = fields
            .iter()
            .enumerate()
            .find(|(index, field)| fields[..*index].iter().any(|other| other.name == field.name))
        {
            return Err(("format", format!("column {} has the name of an earlier one: {:?}", index + 1, field.name)));
        }
        let key = table.key.iter().map(|name| find("key", name)).collect::<Result<Vec<_>, _>>()?;
        let operation = match &table.operation {
            None => None,
            Some(operation) => {
                let codes =
                    [(Op::Insert, &operation.insert), (Op::Update, &operation.update), (Op::Delete, &operation.delete)];
                let codes: Vec<_> = codes
                    .iter()
                    .flat_map(|(op, list)| list.iter().map(|code| (code.clone().into_bytes(), *op)))
                    .collect();
                let twice = codes
                    .iter()
                    .enumerate()
                    .any(|(index, (code, _))| codes[..index].iter().any(|(other, _)| other == code));
                if codes.is_empty() || twice {
                    return Err(("operation", "there is no code, or one stands for two operations".into()));
                }
                if key.is_empty() && !(operation.update.is_empty() && operation.delete.is_empty()) {
                    return Err(("key", "updates and deletes need a key: name its columns".into()));
                }
                Some((find("operation", &operation.column)?, codes))
            }
        };
        let sums = table.checks.trailer.iter().flat_map(|trailer| trailer.sums.keys());
        let sums = sums
            .map(|name| Ok((name.clone(), find("checks.trailer.sums", name)?)))
            .collect::<Result<Vec<_>, (&'static str, String)>>()?;
        if table.checks.unique_key && key.is_empty() {
            return Err(("checks.unique_key", "there is no key to be unique".into()));
        }
        let columns: Vec<usize> =
            (0..fields.len()).filter(|index| operation.as_ref().is_none_or(|(op, _)| op != index)).collect();
        let column = |index: &usize| Column {
            name: fields[*index].name.clone(),
            kind: fields[*index].kind.clone(),
            type_name: fields[*index].type_name.clone(),
            key: key.contains(index),
        };
        let kind = if key.is_empty() { KeyKind::None } else { KeyKind::Columns };
        let schema = TableSchema::new(SCHEMA.into(), table.name.clone(), columns.iter().map(column).collect(), kind);
        Ok(Shape { schema: Arc::new(schema), columns, key, operation, sums })
    }

    /// What the record says happened. The error is a reason to call it bad.
    pub(crate) fn op(&self, row: &RowBuffer) -> Result<Op, String> {
        for field in &self.key {
            if row.get(*field).is_none() {
                return Err("a column of the key is null".into());
            }
        }
        let Some((field, codes)) = &self.operation else { return Ok(Op::Insert) };
        let found = row.get(*field).and_then(|code| codes.iter().find(|(known, _)| known == code));
        found.map(|(_, op)| *op).ok_or_else(|| "its operation is none of the codes of the config".into())
    }

    pub(crate) fn values<'a>(&'a self, row: &'a RowBuffer) -> impl Iterator<Item = Value<'a>> {
        self.columns.iter().map(|field| row.get(*field).map_or(Value::Null, Value::Data))
    }

    /// The key; the other columns are not known of a deleted row.
    pub(crate) fn key_values<'a>(&'a self, row: &'a RowBuffer) -> impl Iterator<Item = Value<'a>> {
        let value = |field: &usize| match self.key.contains(field) {
            true => row.get(*field).map_or(Value::Null, Value::Data),
            false => Value::Unavailable,
        };
        self.columns.iter().map(value)
    }
}

/// The table of records that cannot be read.
pub(crate) fn bad_schema(table: &str) -> Arc<TableSchema> {
    let column = |name: &str, kind, key| Column { name: name.into(), kind, type_name: "files".into(), key };
    let columns = vec![
        column("file", Kind::Text, true),
        column("record", Kind::Int, true),
        column("offset", Kind::Int, false),
        column("bytes", Kind::Bytes, false),
        column("reason", Kind::Text, false),
    ];
    Arc::new(TableSchema::new(SCHEMA.into(), format!("{table}.bad"), columns, KeyKind::Columns))
}
