//! A stream for the tests: pgoutput, fetched by SQL. Only what the snapshot's side needs of it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio_postgres::Client;
use towpath_contract::TableSchema;

use crate::catalog;
use crate::position::Lsn;
use crate::sql;
use crate::testing::session;
use crate::types::TypeCatalog;

/// `None`: unchanged TOAST. `Some(None)`: NULL.
pub(super) type StreamRow = Vec<Option<Option<Vec<u8>>>>;

pub(super) struct StreamTransaction {
    pub(super) xid: u32,
    pub(super) commit: Lsn,
    pub(super) end: Lsn,
    pub(super) changes: Vec<StreamChange>,
}

pub(super) enum StreamChange {
    Insert { oid: u32, table: Arc<TableSchema>, new: StreamRow },
    Update { oid: u32, table: Arc<TableSchema>, old: Option<StreamRow>, new: StreamRow },
    Delete { oid: u32, table: Arc<TableSchema>, old: StreamRow },
    Truncate { tables: Vec<(u32, Arc<TableSchema>)> },
}

pub(super) struct Stream {
    client: Client,
    /// Older servers' pgoutput leaks a callback per call, of which a session has few: a new session for each.
    url: Option<String>,
    slot: String,
    types: TypeCatalog,
    relations: HashMap<u32, Arc<TableSchema>>,
    open: Option<(u32, Lsn, Vec<StreamChange>)>,
    pub(super) queue: VecDeque<StreamTransaction>,
    /// Everything below was fetched.
    pub(super) fetched: Lsn,
}

impl Stream {
    pub(super) async fn create(url: &str, slot: &str) -> Stream {
        let client = session(url).await;
        let version = sql::server_version(&client).await.unwrap();
        let via_root = if version >= 130_000 { " WITH (publish_via_partition_root = true)" } else { "" };
        client.batch_execute(&format!("CREATE PUBLICATION {slot} FOR ALL TABLES{via_root}")).await.unwrap();
        let create = format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')");
        client.batch_execute(&create).await.unwrap();
        Stream {
            client,
            url: (version < 150_000).then(|| url.to_owned()),
            slot: slot.to_owned(),
            types: TypeCatalog::default(),
            relations: HashMap::new(),
            open: None,
            queue: VecDeque::new(),
            fetched: Lsn(0),
        }
    }

    /// Fetches about `count` changes more, whole transactions.
    pub(super) async fn fetch(&mut self, count: usize) {
        if let Some(url) = &self.url {
            self.client = session(url).await;
        }
        let flushed = sql::row(&self.client, "test", "SELECT pg_current_wal_flush_lsn()").await.unwrap();
        let flushed: Lsn = sql::text(&flushed, 0).parse().unwrap();
        let slot = &self.slot;
        let query = format!(
            "SELECT encode(data, 'hex') FROM pg_logical_slot_get_binary_changes('{slot}', NULL, {count}, \
             'proto_version', '1', 'publication_names', '{slot}')"
        );
        let rows = sql::rows(&self.client, "test", &query).await.unwrap();
        if rows.is_empty() {
            self.fetched = self.fetched.max(flushed);
        }
        for row in rows {
            let bytes: Vec<u8> = sql::text(&row, 0)
                .as_bytes()
                .chunks(2)
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
                .collect();
            self.message(&mut Bytes(&bytes)).await;
        }
    }

    async fn message(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.u8() {
            b'B' => {
                let commit = Lsn(bytes.u64());
                bytes.u64();
                self.open = Some((bytes.u32(), commit, Vec::new()));
            }
            b'C' => {
                bytes.u8();
                bytes.u64();
                let end = Lsn(bytes.u64());
                let (xid, commit, changes) = self.open.take().unwrap();
                self.fetched = end;
                self.queue.push_back(StreamTransaction { xid, commit, end, changes });
            }
            b'R' => self.relation(bytes).await,
            b'I' => {
                let (oid, table) = self.table(bytes.u32());
                bytes.u8();
                let new = bytes.tuple();
                self.change(StreamChange::Insert { oid, table, new });
            }
            b'U' => {
                let (oid, table) = self.table(bytes.u32());
                let mut old = None;
                if bytes.u8() != b'N' {
                    old = Some(bytes.tuple());
                    bytes.u8();
                }
                let new = bytes.tuple();
                self.change(StreamChange::Update { oid, table, old, new });
            }
            b'D' => {
                let (oid, table) = self.table(bytes.u32());
                bytes.u8();
                let old = bytes.tuple();
                self.change(StreamChange::Delete { oid, table, old });
            }
            b'T' => {
                let count = bytes.u32();
                bytes.u8();
                let tables = (0..count).map(|_| self.table(bytes.u32())).collect();
                self.change(StreamChange::Truncate { tables });
            }
            _ => {}
        }
    }

    fn table(&self, oid: u32) -> (u32, Arc<TableSchema>) {
        (oid, self.relations[&oid].clone())
    }

    fn change(&mut self, change: StreamChange) {
        self.open.as_mut().unwrap().2.push(change);
    }

    async fn relation(&mut self, bytes: &mut Bytes<'_>) {
        let oid = bytes.u32();
        let (schema, name, identity) = (bytes.text(), bytes.text(), bytes.u8());
        let mut columns = Vec::new();
        for _ in 0..bytes.u16() {
            let flags = bytes.u8();
            let (name, type_oid, modifier) = (bytes.text(), bytes.u32(), bytes.u32() as i32);
            columns.push((
                name,
                self.types.resolve(&self.client, type_oid, modifier, None).await.unwrap(),
                flags & 1 == 1,
            ));
        }
        let primary_key = catalog::primary_key(&self.client, oid).await.unwrap();
        let columns = columns.iter().map(|(name, info, flagged)| (name.as_str(), info.as_ref(), *flagged));
        let table = catalog::assemble(&schema, &name, identity, columns, &primary_key);
        self.relations.insert(oid, Arc::new(table));
    }
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn u8(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take(8).try_into().unwrap())
    }

    fn text(&mut self) -> String {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap();
        let text = String::from_utf8(self.take(end).to_vec()).unwrap();
        self.take(1);
        text
    }

    fn tuple(&mut self) -> StreamRow {
        let columns = self.u16();
        (0..columns)
            .map(|_| match self.u8() {
                b'n' => Some(None),
                b'u' => None,
                _ => {
                    let length = self.u32() as usize;
                    Some(Some(self.take(length).to_vec()))
                }
            })
            .collect()
    }
}
