//! A full extract held against the one before it: inserts, updates and deletes by key and row hash.
//!
//! Each extract leaves a sorted file of its keys (SQLite) in the spool folder. It is written beside, synced and renamed, so that it is
//! whole or not there; the one before it goes once the extract that replaced it is recorded.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use ring::digest;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use towpath_contract::{Op, Value};

use crate::format::{Next, Reader};
use crate::row::RowBuffer;
use crate::table::Shape;

/// Where the extracts of a source's tables are kept.
pub(crate) struct Extracts {
    folder: PathBuf,
}

/// 128 bits of a row's SHA-256.
type RowHash = [u8; 16];

/// Pages of SQLite's own, in KiB.
const CACHE: i64 = 32 << 10;

/// Why an extract cannot be compared.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The file is to blame.
    Refused(String),
    /// The state of the extract before is not there, and must be.
    Lost(PathBuf),
    Storage(String),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        Fault::Storage(error.to_string())
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Storage(error.to_string())
    }
}

impl Extracts {
    pub(crate) fn new(folder: PathBuf) -> Extracts {
        Extracts { folder }
    }

    fn path(&self, table: &str, generation: u64) -> PathBuf {
        // A table's name may hold what a file's may not.
        let name: String = table
            .bytes()
            .map(|byte| if byte.is_ascii_alphanumeric() { (byte as char).to_string() } else { format!("%{byte:02x}") })
            .collect();
        self.folder.join(format!("{name}-{generation:016x}.extract"))
    }

    /// Reads the extract's keys, and holds them against those of the extract `before`.
    pub(crate) fn compare(
        &self,
        table: &str,
        before: Option<u64>,
        generation: u64,
        shape: &Shape,
        reader: &mut dyn Reader,
    ) -> Result<Comparison, Fault> {
        fs::create_dir_all(&self.folder)?;
        let path = self.path(table, generation);
        build(&path, shape, reader)?;
        let connection = open(&path, false)?;
        if let Some(before) = before {
            let old = self.path(table, before);
            if !old.try_exists()? {
                return Err(Fault::Lost(old));
            }
            connection.execute("ATTACH ?1 AS old", [uri(&old, "ro")])?;
        } else {
            connection.execute_batch(
                "ATTACH ':memory:' AS old; CREATE TABLE old.rows (key BLOB PRIMARY KEY, hash BLOB) WITHOUT ROWID",
            )?;
        }
        Ok(Comparison { connection })
    }

    /// Forgets the states of a table before this one, which is recorded.
    pub(crate) fn keep_from(&self, table: &str, generation: u64) -> io::Result<()> {
        let keep = self.path(table, generation);
        let prefix = keep
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.split_once('-'))
            .map(|(name, _)| format!("{name}-"));
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let own = entry
                .file_name()
                .to_str()
                .zip(prefix.as_deref())
                .is_some_and(|(name, prefix)| name.starts_with(prefix));
            // The generations in the names have equal lengths.
            if own && entry.path() < keep {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

fn uri(path: &Path, mode: &str) -> String {
    let encoded: String = path
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || b"/-_.".contains(byte) {
                (*byte as char).to_string()
            } else {
                format!("%{byte:02x}")
            }
        })
        .collect();
    format!("file:{encoded}?mode={mode}")
}

fn open(path: &Path, create: bool) -> rusqlite::Result<Connection> {
    // Not read only: what is attached would be so, too, and the empty state before a first extract is made there.
    let create = if create { OpenFlags::SQLITE_OPEN_CREATE } else { OpenFlags::empty() };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | create;
    let connection =
        Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.pragma_update(None, "cache_size", -CACHE)?;
    Ok(connection)
}

fn build(path: &Path, shape: &Shape, reader: &mut dyn Reader) -> Result<(), Fault> {
    let unfinished = path.with_extension("unfinished");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let connection = open(&unfinished, true)?;
    // A stop leaves an unfinished file, which is made anew: nothing needs to be undone.
    connection.execute_batch(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; CREATE TABLE rows (key BLOB PRIMARY KEY, hash BLOB) WITHOUT ROWID; BEGIN",
    )?;
    {
        let mut insert = connection.prepare("INSERT OR IGNORE INTO rows VALUES (?1, ?2)")?;
        let (mut row, mut key) = (RowBuffer::default(), Vec::new());
        let mut record = 0u64;
        loop {
            row.clear();
            match reader.next(&mut row).map_err(|fault| Fault::Refused(fault.to_string()))? {
                Next::End => break,
                Next::Trailer(_) => continue,
                Next::Bad { reason, .. } => return Err(Fault::Refused(reason)),
                Next::Record => {}
            }
            record += 1;
            encode_key(shape, &row, &mut key);
            if insert.execute(params![key, hash(shape, &row)])? == 0 {
                return Err(Fault::Refused(format!("record {record} has the key of an earlier one")));
            }
        }
    }
    connection.execute_batch("COMMIT")?;
    drop(connection);
    File::open(&unfinished)?.sync_all()?;
    fs::rename(&unfinished, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// An extract and the one before it.
pub(crate) struct Comparison {
    connection: Connection,
}

impl Comparison {
    /// Rows of the extract before, and how many of them are not in this one.
    pub(crate) fn deletes(&self) -> Result<(u64, u64), Fault> {
        let count =
            |sql: &str| self.connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(|count| count as u64);
        let before = count("SELECT count(*) FROM old.rows")?;
        Ok((
            before,
            count("SELECT count(*) FROM old.rows o WHERE NOT EXISTS (SELECT 1 FROM main.rows n WHERE n.key = o.key)")?,
        ))
    }

    /// What happened to the row since the extract before. `None`: nothing.
    pub(crate) fn op(&self, shape: &Shape, row: &RowBuffer, key: &mut Vec<u8>) -> Result<Option<Op>, Fault> {
        encode_key(shape, row, key);
        let mut select = self.connection.prepare_cached("SELECT hash FROM old.rows WHERE key = ?1")?;
        let known: Option<RowHash> = select.query_row([&key[..]], |row| row.get(0)).optional()?;
        Ok(match known {
            None => Some(Op::Insert),
            Some(known) if known != hash(shape, row) => Some(Op::Update),
            Some(_) => None,
        })
    }

    /// The keys that are not there any more, after the first `skip`, in the order of their bytes.
    pub(crate) fn each_deleted<E: From<Fault>>(
        &self,
        skip: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let failed = |error: rusqlite::Error| E::from(Fault::from(error));
        let sql = "SELECT key FROM old.rows o WHERE NOT EXISTS (SELECT 1 FROM main.rows n WHERE n.key = o.key) ORDER BY key LIMIT -1 OFFSET ?1";
        let mut select = self.connection.prepare(sql).map_err(failed)?;
        let mut rows = select.query([skip as i64]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let key = row.get_ref(0).and_then(|value| Ok(value.as_blob()?)).map_err(failed)?;
            take(key)?;
        }
        Ok(())
    }
}

/// Each value with its length before it.
fn encode_key(shape: &Shape, row: &RowBuffer, out: &mut Vec<u8>) {
    out.clear();
    for field in &shape.key {
        let value = row.get(*field).unwrap_or_default();
        out.extend_from_slice(&(value.len() as u32).to_be_bytes());
        out.extend_from_slice(value);
    }
}

/// The row of a deleted key: the other columns are not known.
pub(crate) fn deleted_row<'a>(shape: &Shape, key: &'a [u8]) -> Vec<Value<'a>> {
    let mut values = vec![Value::Unavailable; shape.schema.columns.len()];
    let mut rest = key;
    for field in &shape.key {
        let Some((length, after)) = rest.split_first_chunk::<4>() else { break };
        let (value, after) = after.split_at(u32::from_be_bytes(*length) as usize);
        values[*field] = Value::Data(value);
        rest = after;
    }
    values
}

fn hash(shape: &Shape, row: &RowBuffer) -> RowHash {
    let mut context = digest::Context::new(&digest::SHA256);
    for value in shape.values(row) {
        match value {
            Value::Data(bytes) => {
                context.update(&(bytes.len() as u64).to_be_bytes());
                context.update(bytes);
            }
            _ => context.update(&[0xff; 8]),
        }
    }
    let digest = context.finish();
    std::array::from_fn(|index| digest.as_ref()[index])
}
