//! Looks at a live server and says everything that stands in the way, each with the statement that mends it.
//!
//! Reads the catalogue and the statistics views; changes nothing. A check that cannot be made becomes a finding itself,
//! so that one missing right never hides the rest.

mod identity;
mod publication;
mod resume;
mod server;
mod tables;
#[cfg(test)]
mod tests;

use tokio_postgres::Client;
use towpath_contract::{Finding, Known, Result, Severity};

use crate::catalog::{self, Captured};
use crate::config::PostgresConfig;
use crate::sql;

/// All findings, in the order of the checks: server, role, tables, publication, slot.
pub(crate) async fn examine(
    client: &Client,
    config: &PostgresConfig,
    source_name: &str,
    known: &Known,
) -> Vec<Finding> {
    let mut findings = Findings::default();
    let facts = match Facts::gather(client, config, source_name).await {
        Ok(facts) => facts,
        Err(error) => {
            findings.failed("the server's version and the role", &error);
            return findings.0;
        }
    };
    let subject = Subject { client, config, facts: &facts, known, source: source_name };
    findings.checked("the server's settings", server::settings(&subject).await);
    findings.checked("the free slots and senders", server::capacity(&subject).await);
    findings.checked("the role's rights", server::role(&subject).await);
    let captured = match catalog::captured(client, &config.tables, Some(&facts.publication)).await {
        Ok(captured) => captured,
        Err(error) => {
            findings.failed("the tables", &error);
            Captured::default()
        }
    };
    findings.add(tables::selection(&subject, &captured));
    findings.checked("the partitions", tables::unlogged_parts(&subject).await);
    findings.checked("the tables", tables::each(&subject, &captured).await);
    findings.checked("the publication", publication::publication(&subject, &captured).await);
    findings.checked("the replication slot", publication::slot(&subject).await);
    findings.checked("what was recorded against the server", resume::goes_on(&subject).await);
    findings.checked("transactions in progress", server::transactions(&subject).await);
    findings.0
}

/// What the checks look at.
struct Subject<'a> {
    client: &'a Client,
    config: &'a PostgresConfig,
    facts: &'a Facts,
    known: &'a Known,
    source: &'a str,
}

/// What nearly every check needs.
struct Facts {
    version: u32,
    role: String,
    superuser: bool,
    slot: String,
    publication: String,
    slot_exists: bool,
}

impl Facts {
    async fn gather(client: &Client, config: &PostgresConfig, source_name: &str) -> Result<Facts> {
        let slot = config.slot.clone().unwrap_or_else(|| format!("towpath_{}", source_name.replace('-', "_")));
        let publication = config.publication.clone().unwrap_or_else(|| slot.clone());
        let query = format!(
            "SET search_path = ''; SELECT current_user, \
             (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), \
             (SELECT count(*) FROM pg_replication_slots WHERE slot_name = {}) > 0",
            sql::literal(&slot)
        );
        let row = sql::row(client, "looking at the role", &query).await?;
        Ok(Facts {
            version: sql::server_version(client).await?,
            role: sql::text(&row, 0).to_owned(),
            superuser: sql::is_true(&row, 1),
            slot_exists: sql::is_true(&row, 2),
            slot,
            publication,
        })
    }

    fn role_ident(&self) -> String {
        sql::ident(&self.role)
    }
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, found: Vec<Finding>) {
        self.0.extend(found);
    }

    fn checked(&mut self, what: &str, result: Result<Vec<Finding>>) {
        match result {
            Ok(found) => self.add(found),
            Err(error) => self.failed(what, &error),
        }
    }

    fn failed(&mut self, what: &str, error: &towpath_contract::Error) {
        self.0.push(finding(Severity::Warning, "check_failed", format!("{what} could not be checked: {error}")));
    }
}

fn finding(severity: Severity, code: &'static str, message: impl Into<String>) -> Finding {
    Finding { severity, code, message: message.into(), fix: None, who: None }
}

/// The statement that mends it, and who must run it.
trait Mended {
    fn mended_by(self, fix: impl Into<String>, who: impl Into<String>) -> Self;
}

impl Mended for Finding {
    fn mended_by(mut self, fix: impl Into<String>, who: impl Into<String>) -> Finding {
        self.fix = Some(fix.into());
        self.who = Some(who.into());
        self
    }
}

const SUPERUSER: &str = "a superuser";

/// `1.5 GB`, for people.
fn bytes_text(bytes: u64) -> String {
    towpath_contract::ByteSize(bytes).to_string()
}
