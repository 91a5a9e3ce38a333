//! Towpath's connector for files that a legacy system drops: delimited, fixed width, JSON lines, DBF, COBOL records by copybook.
//!
//! The way of a file: [`worker`] finds it in the [`folder`] once it is complete, [`inspect`] reads all of it before anything goes out,
//! [`format`] makes rows of its records ([`copybook`] and [`record`] know those of COBOL), [`capture`] hands them over. Once it is
//! recorded, it is moved to the archive.

mod capture;
mod config;
pub mod copybook;
mod doctor;
mod extract;
mod folder;
mod format;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod history;
mod inspect;
mod json;
mod position;
mod probe;
pub mod record;
pub mod row;
mod table;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;

use towpath_contract::{
    Batch, Capabilities, Capture, Error, ErrorKind, Finding, Fut, Known, Result, Resume, Source, TableSchema,
};

pub use config::{BadRecords, Complete, FilesConfig, FormatConfig};
pub use probe::{Guess, probe};
pub use table::ConfigFault;

use table::{Shape, Table};

/// What in the config cannot work. Reads the copybooks that it names, and nothing else.
pub fn check(config: &FilesConfig) -> Vec<ConfigFault> {
    table::tables(config).err().unwrap_or_default()
}

/// Whether the config makes such a table.
pub fn captures(config: &FilesConfig, schema: &str, table: &str) -> bool {
    let one = |config: &config::TableConfig| {
        let bad = table.strip_suffix(".bad").filter(|_| config.bad_records == BadRecords::Deliver);
        table == config.name || bad == Some(&config.name)
    };
    schema == table::SCHEMA && config.tables.iter().any(one)
}

/// Reads all of a file and counts its records, as fast as the format goes: for benchmarks. The error says what cannot be read.
#[doc(hidden)]
pub fn count_records(format: &FormatConfig, file: Box<dyn std::io::Read + Send>) -> std::result::Result<u64, String> {
    let format = format::Format::new(format, None).map_err(|(key, message)| format!("{key}: {message}"))?;
    let mut reader = format.open(file, 1 << 20).map_err(|fault| fault.to_string())?;
    let (mut row, mut records) = (row::RowBuffer::default(), 0);
    loop {
        row.clear();
        match reader.next(&mut row).map_err(|fault| fault.to_string())? {
            format::Next::Record => records += 1,
            format::Next::End => return Ok(records),
            other => return Err(format!("{other:?}")),
        }
    }
}

/// A folder of files, configured and not yet opened.
pub struct FilesSource {
    config: FilesConfig,
    spool: PathBuf,
    tables: std::result::Result<Arc<Vec<Table>>, Vec<ConfigFault>>,
}

impl FilesSource {
    /// `name`: the source's name in the config. `spool_dir`: a folder on a local disk for what is known of full extracts; a folder of the
    /// source's name is made in it.
    pub fn new(name: &str, config: FilesConfig, spool_dir: PathBuf) -> FilesSource {
        let tables = table::tables(&config).map(Arc::new);
        FilesSource { config, spool: spool_dir.join(name), tables }
    }

    fn tables(&self) -> Result<Arc<Vec<Table>>> {
        self.tables.clone().map_err(|faults| {
            let lines: Vec<_> = faults.iter().map(|fault| format!("{}: {}", fault.path, fault.message)).collect();
            Error::operator(ErrorKind::Setup, "reading the config of the files", lines.join("; "))
        })
    }

    /// Of a table whose files name their columns: as the first of its files that can be read says.
    fn found_shape(&self, index: usize, tables: &[Table]) -> Option<Shape> {
        let folders = [self.config.folder.clone(), self.config.folder.join(&self.config.archive)];
        for folder in folders {
            let mut names: Vec<_> = std::fs::read_dir(&folder)
                .ok()?
                .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                .collect();
            names.sort();
            for name in names.iter().rev() {
                // In the archive a generation stands before the name.
                let own = name.get(13..).filter(|_| name.as_bytes().get(12) == Some(&b'-')).unwrap_or(name);
                if folder::table_of(tables, own) != Some(index) {
                    continue;
                }
                let file = std::fs::File::open(folder.join(name)).ok()?;
                let reader = tables[index].format.open(Box::new(file), self.config.record_max.0 as usize).ok()?;
                return Shape::new(&tables[index].config, reader.fields()).ok();
            }
        }
        None
    }
}

impl Source for FilesSource {
    fn capabilities(&self) -> Capabilities {
        let deletes = |table: &config::TableConfig| {
            table.extract.is_some() || table.operation.as_ref().is_some_and(|operation| !operation.delete.is_empty())
        };
        Capabilities {
            sees_deletes: self.config.tables.iter().any(deletes),
            sees_before_images: false,
            sees_transactions: true,
            snapshots: false,
        }
    }

    fn open(&self, resume: Resume) -> Fut<'_, Result<Box<dyn Capture>>> {
        Box::pin(async move {
            Ok(Box::new(capture::open(&self.config, self.spool.clone(), self.tables()?, resume)?) as Box<dyn Capture>)
        })
    }

    fn tables(&self) -> Fut<'_, Result<Vec<TableSchema>>> {
        Box::pin(async move {
            let tables = self.tables()?;
            let mut schemas = Vec::new();
            for (index, table) in tables.iter().enumerate() {
                let shape = match table.format.fields() {
                    Some(fields) => Shape::new(&table.config, &fields).ok(),
                    None => self.found_shape(index, &tables),
                };
                schemas.extend(shape.map(|shape| (*shape.schema).clone()));
                if table.config.bad_records == BadRecords::Deliver {
                    schemas.push((*table::bad_schema(&table.config.name)).clone());
                }
            }
            Ok(schemas)
        })
    }

    /// Files hold changes, and no rows to look at.
    fn sample<'a>(&'a self, _: &'a str, _: &'a str, _: usize) -> Fut<'a, Result<Batch>> {
        Box::pin(async { Ok(Batch::new()) })
    }

    fn doctor(&self, known: Known) -> Fut<'_, Vec<Finding>> {
        Box::pin(async move {
            match &self.tables {
                Err(faults) => doctor::config_faults(faults),
                Ok(tables) => doctor::examine(&self.config, tables, &known),
            }
        })
    }
}
