//! The keys of a source of `type: postgres`.

use towpath_contract::ByteSize;
use towpath_postgres::PostgresConfig;

use super::{Checker, seconds, url};
use crate::config::path::KeyPath;

/// PostgreSQL's manual, section "Replication Slots": lower-case letters, digits and underscores, within NAMEDATALEN - 1 bytes.
const SLOT_BYTES_MAX: usize = 63;

const CHUNK_ROWS_MAX: u32 = 1_000_000;

impl Checker<'_> {
    pub(super) fn postgres(&mut self, path: &KeyPath, config: &PostgresConfig) {
        // The connector knows more of its URLs, and less of what breaks one apart.
        match (url::fault(config.url.reveal(), &["postgres", "postgresql"]), towpath_postgres::check_url(config)) {
            (Some(fault), _) => self.problem(&path.key("url"), fault, url::FAULT_HELP),
            (None, Err(error)) => self.problem(&path.key("url"), error.message, error.help.unwrap_or_default()),
            (None, Ok(())) => {}
        }
        let tls = &config.tls;
        self.tls_files(&path.key("tls"), tls.ca.as_deref(), tls.certificate.as_deref(), tls.key.as_deref());
        self.tables(&path.key("tables"), &config.tables);
        if let Some(slot) = &config.slot {
            let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            if slot.is_empty() || slot.len() > SLOT_BYTES_MAX || !slot.bytes().all(allowed) {
                let found = self.origins.quote(&path.key("slot"), slot);
                let help = "1 to 63 characters: lower-case letters, digits, `_`";
                self.problem(&path.key("slot"), format!("{found} is no name for a slot"), help);
            }
        }
        if let Some(publication) = &config.publication
            && (publication.is_empty() || publication.len() > SLOT_BYTES_MAX)
        {
            self.problem(&path.key("publication"), "this is no name for a publication", "1 to 63 bytes");
        }
        let snapshot = path.key("snapshot");
        if !(1..=CHUNK_ROWS_MAX).contains(&config.snapshot.chunk_rows) {
            let found = self.origins.quote(&snapshot.key("chunk_rows"), &config.snapshot.chunk_rows.to_string());
            self.problem(&snapshot.key("chunk_rows"), format!("found {found}"), "1 to 1000000");
        }
        if config.snapshot.rows_per_second_max == Some(0) {
            self.problem(
                &snapshot.key("rows_per_second_max"),
                "0 would read nothing",
                "leave the key out for no limit",
            );
        }
        if let Some(heartbeat) = &config.heartbeat {
            self.at_least(&path.key("heartbeat").key("every"), heartbeat.every, seconds(1));
        }
        self.at_least(&path.key("read_timeout"), config.read_timeout, seconds(2));
        self.at_least(&path.key("spool_max"), config.spool_max, ByteSize(1 << 20));
    }

    fn tables(&mut self, path: &KeyPath, tables: &[String]) {
        if tables.is_empty() {
            self.problem(path, "the list is empty: nothing would be captured", "leave the key out for every table");
        }
        for (index, pattern) in tables.iter().enumerate() {
            let path = path.index(index);
            let found = self.origins.quote(&path, pattern);
            match pattern.split_once('.') {
                None => {
                    let help = format!(
                        "write the schema too: `public.{}`",
                        if self.origins.may_show(&path) { pattern } else { "…" }
                    );
                    self.problem(&path, format!("{found} names no schema"), help);
                }
                Some((schema, table)) if schema.is_empty() || table.is_empty() => {
                    self.problem(&path, format!("{found} is no table"), "`schema.table`, with `*` for any");
                }
                Some(_) if tables[..index].contains(pattern) => {
                    self.problem(&path, format!("{found} is in the list twice"), "keep one");
                }
                Some(_) => {}
            }
        }
    }
}
