//! A table as the stream describes it: the shape of the rows that follow, and how their values are read.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::Client;
use towpath_contract::{Column, Error, Fut, KeyKind, Result, TableSchema};

use crate::catalog;
use crate::decode;
use crate::selection::Selection;
use crate::sql;
use crate::types::TypeCatalog;
use crate::value::Plan;

#[derive(Debug)]
pub(crate) struct Relation {
    pub(crate) oid: u32,
    pub(crate) table: Arc<TableSchema>,
    pub(crate) plans: Vec<Plan>,
    /// A column needs more than a copy.
    pub(crate) converts: bool,
    /// The config asks for it.
    pub(crate) captured: bool,
    /// The how-manieth Relation message of the connection it came with: a later one was sent later.
    pub(crate) arrival: u64,
}

/// What is needed to turn a Relation message into a [`Relation`]: the catalogue is asked for what the message does not
/// say (names of types, the primary key under FULL), and never for what it does.
pub(crate) struct RelationReader {
    client: Arc<Client>,
    types: TypeCatalog,
    selection: Selection,
    /// Before PostgreSQL 13 the changes of a partition come under its own name.
    partitions_by_own_name: bool,
    /// Names from the stream's Type messages.
    type_names: HashMap<u32, String>,
}

impl RelationReader {
    pub(crate) fn new(client: Arc<Client>, selection: Selection, server_version: u32) -> RelationReader {
        RelationReader {
            client,
            types: TypeCatalog::default(),
            selection,
            partitions_by_own_name: server_version < 130_000,
            type_names: HashMap::new(),
        }
    }

    fn note_type(&mut self, oid: u32, schema: &[u8], name: &[u8]) {
        let (schema, name) = (String::from_utf8_lossy(schema), String::from_utf8_lossy(name));
        let full = if schema.is_empty() { name.into_owned() } else { format!("{schema}.{name}") };
        self.type_names.insert(oid, full);
    }

    async fn read(&mut self, message: &decode::Relation<'_>, arrival: u64) -> Result<Relation> {
        let schema = match message.schema {
            b"" => "pg_catalog".to_owned(),
            schema => String::from_utf8_lossy(schema).into_owned(),
        };
        let name = String::from_utf8_lossy(message.name).into_owned();
        let captured = self.selection.matches(&schema, &name)
            || (self.partitions_by_own_name && self.ancestor_selected(message.oid).await?);

        let mut columns = Vec::with_capacity(message.columns().len());
        for column in message.columns() {
            let hint = self.type_names.get(&column.type_oid).map(String::as_str);
            let info = self.types.resolve(&self.client, column.type_oid, column.type_modifier, hint).await?;
            columns.push((String::from_utf8_lossy(column.name), info, column.key));
        }
        // FULL marks every column, NOTHING none: the key is the primary key, if there is one.
        let primary_key = match message.identity {
            b'f' | b'n' => catalog::primary_key(&self.client, message.oid).await?,
            _ => Vec::new(),
        };
        let plans: Vec<Plan> = columns.iter().map(|(_, info, _)| info.plan.clone()).collect();
        let converts = plans.iter().any(|plan| *plan != Plan::AsIs);
        let described = columns.iter().map(|(name, info, key)| (&**name, &**info, *key));
        let table = Arc::new(catalog::assemble(&schema, &name, message.identity, described, &primary_key));
        Ok(Relation { oid: message.oid, table, plans, converts, captured, arrival })
    }

    async fn ancestor_selected(&self, oid: u32) -> Result<bool> {
        let query = format!(
            "WITH RECURSIVE up(oid) AS (SELECT inhparent FROM pg_catalog.pg_inherits WHERE inhrelid = {oid} \
             UNION SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN up ON i.inhrelid = up.oid) \
             SELECT n.nspname, c.relname FROM up JOIN pg_catalog.pg_class c ON c.oid = up.oid \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'p'"
        );
        let rows = sql::rows(&self.client, "looking up a partition's table", &query).await?;
        Ok(rows.iter().any(|row| self.selection.matches(sql::text(row, 0), sql::text(row, 1))))
    }
}

/// A reader of which one call can be interrupted: the next call goes on with the same look-up, however often the engine
/// drops ours.
pub(crate) struct Describer {
    reader: Option<RelationReader>,
    under_way: Option<Fut<'static, (RelationReader, Result<Relation>)>>,
}

impl Describer {
    pub(crate) fn new(reader: RelationReader) -> Describer {
        Describer { reader: Some(reader), under_way: None }
    }

    pub(crate) fn note_type(&mut self, oid: u32, schema: &[u8], name: &[u8]) {
        if let Some(reader) = &mut self.reader {
            reader.note_type(oid, schema, name);
        }
    }

    /// `message`: a whole Relation message. Cancel-safe: to be called with the same one until it is done.
    pub(crate) async fn describe(&mut self, message: &[u8], in_stream: bool, arrival: u64) -> Result<Relation> {
        if let Some(mut reader) = self.reader.take() {
            let message = message.to_vec();
            self.under_way = Some(Box::pin(async move {
                let read = match decode::decode(&message, in_stream).map(|decoded| decoded.message) {
                    Ok(decode::Message::Relation(relation)) => reader.read(&relation, arrival).await,
                    _ => Err(Error::bug("reading a table's description", "the message is none")),
                };
                (reader, read)
            }));
        }
        let Some(under_way) = &mut self.under_way else {
            return Err(Error::bug("reading a table's description", "no look-up is under way"));
        };
        let (reader, read) = under_way.await;
        (self.reader, self.under_way) = (Some(reader), None);
        read
    }
}

/// The relations that the stream has described, by the rules of pgoutput: a message counts for everything after it, until
/// the next for the same table. Within a transaction that is streamed in progress it counts for that transaction alone,
/// and for the others from its commit on (pgoutput.c keeps `streamed_txns` per table for this, and describes the table
/// again after a rollback to a savepoint).
#[derive(Default)]
pub(crate) struct Relations {
    settled: HashMap<u32, Arc<Relation>>,
    /// Of the streamed transaction that is being delivered.
    own: HashMap<u32, Arc<Relation>>,
    /// The last one asked for: mostly the next one too.
    recent: Option<Arc<Relation>>,
}

impl Relations {
    pub(crate) fn get(&mut self, oid: u32) -> Option<&Arc<Relation>> {
        if self.recent.as_ref().is_none_or(|recent| recent.oid != oid) {
            self.recent = Some(self.own.get(&oid).or_else(|| self.settled.get(&oid))?.clone());
        }
        self.recent.as_ref()
    }

    pub(crate) fn insert(&mut self, relation: Relation, streamed: bool) {
        let relations = if streamed { &mut self.own } else { &mut self.settled };
        relations.insert(relation.oid, Arc::new(relation));
        self.recent = None;
    }

    /// The streamed transaction was committed. What was described outside of it later than in it stays: the server
    /// takes the later description for known, too.
    pub(crate) fn settle(&mut self) {
        self.recent = None;
        for (oid, relation) in self.own.drain() {
            if self.settled.get(&oid).is_none_or(|known| known.arrival < relation.arrival) {
                self.settled.insert(oid, relation);
            }
        }
    }
}

/// The table of logical messages.
pub(crate) fn message_table() -> Arc<TableSchema> {
    use towpath_contract::Kind;
    let column = |name: &str, kind, type_name: &str| Column {
        name: name.to_owned(),
        kind,
        type_name: type_name.to_owned(),
        key: false,
    };
    let columns = vec![
        column("prefix", Kind::Text, "text"),
        column("content", Kind::Bytes, "bytea"),
        column("transactional", Kind::Bool, "boolean"),
    ];
    Arc::new(TableSchema::new("pg_logical".to_owned(), "message".to_owned(), columns, KeyKind::None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use towpath_contract::Kind;

    fn relation(oid: u32, arrival: u64) -> Relation {
        let column = Column { name: "a".into(), kind: Kind::Text, type_name: "text".into(), key: true };
        let table = Arc::new(TableSchema::new("s".into(), format!("t{arrival}"), vec![column], KeyKind::Columns));
        Relation { oid, table, plans: vec![Plan::AsIs], converts: false, captured: true, arrival }
    }

    #[test]
    fn a_streamed_description_counts_for_its_transaction_and_then_for_all_unless_a_later_one_came() {
        let mut relations = Relations::default();
        relations.insert(relation(1, 1), false);
        relations.insert(relation(2, 4), false);
        // Streamed at 2 and 3, delivered now.
        relations.insert(relation(1, 2), true);
        relations.insert(relation(2, 3), true);
        assert_eq!(relations.get(1).unwrap().arrival, 2);
        assert_eq!(relations.get(2).unwrap().arrival, 3);
        relations.settle();
        assert_eq!(relations.get(1).unwrap().arrival, 2);
        assert_eq!(relations.get(2).unwrap().arrival, 4);
        assert!(relations.get(3).is_none());
    }
}
