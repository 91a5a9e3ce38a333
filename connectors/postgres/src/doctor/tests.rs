//! What the doctor says of real servers; and that its statements work.

use std::time::Duration;

use towpath_contract::{OldRows, Secret, Span};
use towpath_test_support::Postgres;

use super::*;
use crate::testing::session;

fn config(postgres: &Postgres, tables: &[&str]) -> PostgresConfig {
    PostgresConfig {
        url: Secret::new(postgres.url("postgres")),
        password: None,
        tls: Default::default(),
        tables: tables.iter().map(|table| table.to_string()).collect(),
        slot: None,
        publication: None,
        create: true,
        snapshot: Default::default(),
        messages: Vec::new(),
        heartbeat: None,
        read_timeout: Span(Duration::from_secs(60)),
        spool_max: towpath_contract::ByteSize(1 << 30),
    }
}

async fn found(postgres: &Postgres, user: &str, config: &PostgresConfig) -> Vec<Finding> {
    let client = session(&postgres.url_as(user, "postgres")).await;
    examine(&client, config, "test-db", &Known::default()).await
}

fn codes(findings: &[Finding], least: Severity) -> Vec<&'static str> {
    findings.iter().filter(|finding| finding.severity >= least).map(|finding| finding.code).collect()
}

fn of<'a>(findings: &'a [Finding], code: &str) -> &'a Finding {
    findings.iter().find(|finding| finding.code == code).unwrap_or_else(|| panic!("no {code} in {findings:#?}"))
}

/// By the catalogue as it is, what the config needs of old rows.
#[tokio::test]
async fn old_rows_that_the_config_needs_and_the_log_lacks_are_found_and_the_sql_works() {
    let postgres = Postgres::start().await;
    postgres
        .sql(
            "CREATE TABLE one (id int PRIMARY KEY, v text); CREATE TABLE other (id int PRIMARY KEY, v text); \
             CREATE TABLE parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); \
             CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (9); ALTER TABLE part REPLICA IDENTITY NOTHING",
        )
        .await;
    let config = config(&postgres, &["public.*"]);
    let old_rows = ["one", "parts"].map(|table| OldRows {
        schema: "public".into(),
        table: table.into(),
        needed_by: "routes[0].transform[1].emit_when".into(),
    });
    let known = Known { old_rows: old_rows.into(), ..Known::default() };
    let examined = async || {
        let client = session(&postgres.url("postgres")).await;
        examine(&client, &config, "test-db", &known).await
    };
    let findings = examined().await;
    let of_identity = ["old_rows", "partition_without_identity", "replica_identity_full"];
    let seen = |findings: &[Finding]| -> Vec<&'static str> {
        codes(findings, Severity::Note).into_iter().filter(|code| of_identity.contains(code)).collect()
    };
    assert_eq!(seen(&findings), ["partition_without_identity", "old_rows", "old_rows"], "{findings:#?}");
    assert!(
        of(&findings, "old_rows")
            .message
            .starts_with("routes[0].transform[1].emit_when may need the row of public.parts")
    );
    for finding in findings.iter().filter(|finding| of_identity.contains(&finding.code)) {
        postgres.sql(finding.fix.as_deref().unwrap()).await;
    }
    let findings = examined().await;
    assert_eq!(seen(&findings), [] as [&str; 0], "FULL is what the config needs: {findings:#?}");
}

#[tokio::test]
async fn a_wrong_setting_a_missing_key_and_a_missing_grant_show_in_one_run_and_their_sql_works() {
    let mut postgres = Postgres::builder().wal_level("replica").start().await;
    postgres
        .sql(
            "CREATE ROLE \"tow path\" LOGIN; CREATE SCHEMA \"Old\"; CREATE TABLE \"Old\".\"Orders\" (id int PRIMARY KEY); \
             CREATE TABLE public.notes (v text); GRANT SELECT ON public.notes TO \"tow path\"",
        )
        .await;
    let config = config(&postgres, &["*.*"]);
    let user = "tow%20path";
    let findings = found(&postgres, user, &config).await;
    assert_eq!(
        codes(&findings, Severity::Error),
        ["wal_level", "role_replication", "schema_usage", "table_select", "table_without_key", "publication_missing"]
    );
    assert_eq!(
        of(&findings, "table_select").fix.as_deref(),
        Some("GRANT SELECT ON \"Old\".\"Orders\" TO \"tow path\";")
    );
    assert_eq!(of(&findings, "table_select").who.as_deref(), Some("the owner of Old.Orders (postgres)"));
    assert_eq!(
        of(&findings, "table_without_key").fix.as_deref(),
        Some("ALTER TABLE \"public\".\"notes\" REPLICA IDENTITY FULL;")
    );

    for finding in findings.iter().filter(|finding| finding.severity == Severity::Error) {
        // As pasted: one statement after another, the comment too.
        postgres.sql(finding.fix.as_deref().unwrap()).await;
    }
    postgres.stop().await;
    // The tests' own line in the file would win over ALTER SYSTEM's only if it came later: it does not.
    postgres.start_again().await;
    let findings = found(&postgres, user, &config).await;
    assert_eq!(codes(&findings, Severity::Warning), [] as [&str; 0], "{findings:#?}");
    let notes = codes(&findings, Severity::Note);
    assert!(notes.contains(&"table_without_key") && notes.contains(&"snapshot_as_a_whole"), "{notes:?}");
}

#[tokio::test]
async fn identities_filters_and_tables_left_out_are_told() {
    let postgres = Postgres::start().await;
    let filter = crate::testing::since(&postgres, 15, " (id) WHERE (id > 5)");
    postgres
        .sql(&format!(
            "CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING; \
             CREATE TABLE full_row (id int PRIMARY KEY); ALTER TABLE full_row REPLICA IDENTITY FULL; \
             CREATE TABLE lost_index (id int NOT NULL); CREATE UNIQUE INDEX u ON lost_index (id); \
             ALTER TABLE lost_index REPLICA IDENTITY USING INDEX u; DROP INDEX u; \
             CREATE UNLOGGED TABLE cache (id int PRIMARY KEY); CREATE VIEW v AS SELECT 1; \
             CREATE TABLE filtered (id int PRIMARY KEY, v int); CREATE TABLE unpublished (id int PRIMARY KEY); \
             CREATE PUBLICATION p FOR TABLE filtered{filter}, nothing, full_row, lost_index WITH (publish = 'insert, update')"
        ))
        .await;
    let mut config = config(&postgres, &["public.*", "public.v", "public.nosuch"]);
    config.publication = Some("p".into());
    config.create = false;
    let findings = found(&postgres, "postgres", &config).await;
    assert_eq!(
        codes(&findings, Severity::Error),
        [
            "replica_identity_index",
            "replica_identity_nothing",
            "publication_operations",
            "publication_tables",
            "slot_missing"
        ]
    );
    let rest = codes(&findings, Severity::Note);
    for code in ["pattern_without_table", "not_capturable", "replica_identity_full", "publication_filter", "superuser"]
    {
        let known = code != "publication_filter" || postgres.major() >= 15;
        assert!(rest.contains(&code) || !known, "{code} in {rest:?}");
    }
    // Twice: a table that is logged from now on must be published too.
    run_fixes(&postgres, &findings).await;
    let findings = found(&postgres, "postgres", &config).await;
    assert_eq!(codes(&findings, Severity::Error), ["publication_tables"]);
    run_fixes(&postgres, &findings).await;
    let findings = found(&postgres, "postgres", &config).await;
    assert_eq!(codes(&findings, Severity::Error), [] as [&str; 0], "{findings:#?}");
}

async fn run_fixes(postgres: &Postgres, findings: &[Finding]) {
    for fix in findings.iter().filter_map(|finding| finding.fix.as_deref()).filter(|fix| fix.ends_with(';')) {
        postgres.sql(fix).await;
    }
}

#[tokio::test]
async fn slots_that_are_full_foreign_or_at_risk_are_told() {
    let postgres =
        Postgres::builder().settings("max_replication_slots = 1\nmax_prepared_transactions = 2").start().await;
    postgres.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    postgres.sql("SELECT pg_create_physical_replication_slot('other')").await;
    let mut config = config(&postgres, &["public.t"]);
    let findings = found(&postgres, "postgres", &config).await;
    assert_eq!(codes(&findings, Severity::Error), ["replication_slots"]);
    assert!(
        of(&findings, "replication_slots")
            .fix
            .as_deref()
            .unwrap()
            .starts_with("ALTER SYSTEM SET max_replication_slots = 6;")
    );
    config.slot = Some("other".into());
    let findings = found(&postgres, "postgres", &config).await;
    assert_eq!(codes(&findings, Severity::Error), ["slot_foreign"]);

    postgres.sql("SELECT pg_drop_replication_slot('other')").await;
    postgres.sql("SELECT pg_create_logical_replication_slot('other', 'pgoutput')").await;
    let findings = found(&postgres, "postgres", &config).await;
    // Whoever made it said nothing of its being unused.
    assert_eq!(codes(&findings, Severity::Warning), ["gap"], "{findings:#?}");
    if postgres.major() < 13 {
        return;
    }
    postgres.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'").await;
    postgres.sql("SELECT pg_reload_conf()").await;
    for _ in 0..3 {
        postgres.sql("SELECT pg_switch_wal()").await;
        postgres.sql("INSERT INTO t SELECT coalesce(max(id), 0) + 1 FROM t").await;
    }
    postgres.sql("CHECKPOINT").await;
    let findings = found(&postgres, "postgres", &config).await;
    assert_eq!(codes(&findings, Severity::Error), ["slot_lost", "gap"], "{findings:#?}");
    // Nothing else is accepted of a source that is stopped by a gap.
    assert_eq!(of(&findings, "slot_lost").fix.as_deref(), Some("towpath snapshot test-db --after-gap"));
    config.create = false;
    let findings = found(&postgres, "postgres", &config).await;
    let lost = of(&findings, "slot_lost");
    assert!(lost.message.contains("then run `towpath snapshot test-db --after-gap`"), "{lost:?}");
    postgres.sql("CREATE PUBLICATION other FOR TABLE t").await;
    postgres.sql(lost.fix.as_deref().unwrap()).await;
    let findings = found(&postgres, "postgres", &config).await;
    assert_eq!(codes(&findings, Severity::Warning), [] as [&str; 0], "{findings:#?}");
}

#[tokio::test]
async fn a_role_without_rights_still_gets_all_the_findings() {
    let postgres = Postgres::start().await;
    postgres.sql("CREATE ROLE nobody_special LOGIN; CREATE TABLE t (id int PRIMARY KEY)").await;
    postgres.sql("REVOKE ALL ON pg_publication FROM PUBLIC; REVOKE ALL ON pg_replication_slots FROM PUBLIC").await;
    let findings = found(&postgres, "nobody_special", &config(&postgres, &["public.t"])).await;
    assert!(!findings.is_empty());
    assert!(findings.iter().any(|finding| finding.code == "check_failed"), "{findings:#?}");
}
