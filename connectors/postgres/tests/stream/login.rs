//! Who may come in, and how.

use serde_json::json;
use towpath_contract::{Action, Error, ErrorKind, Resume, Source};
use towpath_test_support::{Certificates, Postgres};

use crate::harness::{Db, Tap};

const T: &str = "CREATE TABLE t (id int PRIMARY KEY)";
const ROLE: &str =
    "SET password_encryption = 'scram-sha-256'; CREATE ROLE scram LOGIN SUPERUSER PASSWORD 'scram-secret';
    SET password_encryption = 'md5'; CREATE ROLE old LOGIN SUPERUSER PASSWORD 'md5-secret';
    CREATE ROLE plain LOGIN PASSWORD 'plain-secret'; CREATE ROLE nobody LOGIN; CREATE ROLE barred LOGIN SUPERUSER";

async fn failure(source: &impl Source) -> Error {
    let error = source.open(Resume::default()).await.err().expect("it is refused");
    assert!(!error.to_string().contains("secret"), "{error}");
    error
}

async fn passes(db: &Db, more: serde_json::Value) {
    let mut tap = Tap::open(db.source(more), Resume::default()).await;
    tap.drain(db).await;
    tap.close().await;
    db.sql(&format!("SELECT pg_drop_replication_slot('towpath_{}')", db.name)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_password_method_works_and_refusals_are_explained() {
    let server = Postgres::builder()
        .hba("host all scram 127.0.0.1/32 scram-sha-256")
        .hba("host all old 127.0.0.1/32 md5")
        .hba("host all plain 127.0.0.1/32 password")
        .hba("host all barred 127.0.0.1/32 reject")
        .start()
        .await;
    let db = Db::on(&server, T).await;
    db.sql(ROLE).await;
    let url = |user: &str| server.url_as(user, &db.name);
    passes(&db, json!({ "url": url("scram:scram-secret") })).await;
    passes(&db, json!({ "url": url("scram"), "password": "scram-secret" })).await;
    passes(&db, json!({ "url": url("old:md5-secret") })).await;

    for (user, kind, says) in [
        ("scram:wrong-secret", ErrorKind::Authentication, "password authentication failed"),
        ("old:wrong-secret", ErrorKind::Authentication, "password authentication failed"),
        ("scram", ErrorKind::Authentication, "password of scram"),
        ("barred", ErrorKind::Authentication, "pg_hba.conf"),
        ("nobody", ErrorKind::Privilege, "42501"),
        ("plain:plain-secret", ErrorKind::Privilege, "42501"),
    ] {
        let error = failure(&db.source(json!({ "url": url(user) }))).await;
        assert_eq!((error.kind, error.action), (kind, Action::Operator), "{user}: {error}");
        assert!(error.message.contains(says), "{user}: {error}");
        assert!(error.help.is_some(), "{user}");
    }
    let error = failure(&db.source(json!({ "url": server.url("nowhere") }))).await;
    assert_eq!((error.kind, error.action), (ErrorKind::Setup, Action::Operator), "{error}");
    let error = failure(&db.source(json!({ "url": "postgres://u@127.0.0.1:1/d" }))).await;
    assert_eq!((error.kind, error.action), (ErrorKind::Connection, Action::Retry), "{error}");
    let error = failure(&db.source(json!({ "url": "postgres://u@host.invalid/d" }))).await;
    assert!(error.message.contains("host.invalid"), "{error}");

    // The next host is tried where one does not answer.
    let two = server.url(&db.name).replace("127.0.0.1:", "127.0.0.1:1,127.0.0.1:");
    passes(&db, json!({ "url": two })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_verified_and_binds_the_login() {
    let certificates = Certificates::new("certified");
    let server = Postgres::builder()
        .tls(&certificates)
        .hba("hostssl all scram 127.0.0.1/32 scram-sha-256")
        .hba("hostssl all certified 127.0.0.1/32 cert")
        .hba("hostnossl all scram 127.0.0.1/32 reject")
        .start()
        .await;
    let db = Db::on(&server, T).await;
    db.sql(ROLE).await;
    db.sql("CREATE ROLE certified LOGIN SUPERUSER").await;
    let url = |user: &str| server.url_as(user, &db.name);
    let trusted = json!({ "mode": "verify", "ca": certificates.ca });
    passes(&db, json!({ "url": url("scram:scram-secret"), "tls": trusted })).await;
    let certified = json!({
        "mode": "verify", "ca": certificates.ca, "certificate": certificates.client, "key": certificates.client_key
    });
    passes(&db, json!({ "url": url("certified"), "tls": certified })).await;

    let stranger = Certificates::new("stranger");
    let error = failure(&db.source(json!({
        "url": url("scram:scram-secret"), "tls": { "mode": "verify", "ca": stranger.ca }
    })))
    .await;
    assert_eq!((error.kind, error.action), (ErrorKind::Setup, Action::Operator), "{error}");
    assert!(error.message.contains("certificate"), "{error}");
    let wrong_name = url("scram:scram-secret").replace("127.0.0.1", "localhost.localdomain");
    let wrong_name = format!("{wrong_name}?hostaddr=127.0.0.1");
    let error = failure(&db.source(json!({ "url": wrong_name, "tls": trusted }))).await;
    assert!(error.message.contains("not valid for name"), "{error}");
    let error = failure(&db.source(json!({ "url": url("scram:scram-secret") }))).await;
    assert_eq!(error.kind, ErrorKind::Authentication, "loopback is plain unless asked for: {error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_tls_is_refused_where_tls_is_asked_for() {
    let db = Db::new(T).await;
    let certificates = Certificates::new("anyone");
    let error = failure(&db.source(json!({ "tls": { "mode": "verify", "ca": certificates.ca } }))).await;
    assert_eq!((error.kind, error.action), (ErrorKind::Setup, Action::Operator), "{error}");
    assert!(error.message.contains("does not offer TLS"), "{error}");
}
