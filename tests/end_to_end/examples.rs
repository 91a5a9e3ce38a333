//! What a reader of the documents does: every file of `config/` captures and publishes, every command of the README works, and
//! the demo counts what it promises.

use std::path::{Path, PathBuf};
use std::process::Output;

use towpath_test_support::{Towpath, TowpathBuilder};

use crate::rig::{PATIENCE, QUEUE, Rig};

/// The tables that the examples name.
const TABLES: &str = "CREATE TABLE orders (id int PRIMARY KEY, status text);
     CREATE TABLE order_lines (order_id int, line int, article text, PRIMARY KEY (order_id, line));
     CREATE TABLE custmst (cusno char(10) PRIMARY KEY, cusnam char(30), cussts char(2), cussin int, cusmail varchar(60));
     CREATE TABLE ordhdr (ordno int PRIMARY KEY, ordtot int, filler1 char(8)); CREATE TABLE orddtl (ordno int, linno int, PRIMARY KEY (ordno, linno))";

/// Where the examples of files look for them, in the folder of their process.
const DROP: &str = "drop";

/// As a legacy system does: written beside, then renamed.
fn drop_files(folder: &Path) {
    for entry in std::fs::read_dir(root().join("examples/files")).expect("the examples' data") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name");
        let unfinished = folder.with_extension("unfinished");
        std::fs::copy(&path, &unfinished).expect("copied");
        std::fs::rename(unfinished, folder.join(name)).expect("renamed");
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// With everything that an example takes from the environment.
fn towpath(rig: &Rig) -> TowpathBuilder {
    let builder = Towpath::binary(env!("CARGO_BIN_EXE_towpath"));
    let (outbox, folder) = (builder.folder().join("outbox.db"), builder.folder().to_owned());
    std::fs::create_dir(folder.join(DROP)).expect("a folder");
    let mut builder = builder
        .env("RABBITMQ_URL", rig.rabbit.url())
        .env("OUTBOX", outbox)
        .env("DROP_FOLDER", folder.join(DROP))
        .env("COPYBOOKS", root().join("examples/files"))
        .env("TOWPATH_STATE", folder)
        .env("MASK_KEY", "0123456789abcdef0123456789abcdef")
        .env("TOWPATH__ADMIN__LISTEN", format!("127.0.0.1:{}", rig.admin.number()));
    for name in ["ORDERS_DB_URL", "SOURCE_URL"] {
        builder = builder.env(name, rig.postgres.url("postgres"));
    }
    builder
}

#[tokio::test]
async fn every_file_of_config_captures_and_publishes() {
    let mut files: Vec<_> = std::fs::read_dir(root().join("config"))
        .expect("the folder of examples")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert!(files.len() >= 4);
    let mut rig = Rig::new().await;
    rig.rabbit.declare_exchange("legacy.events").await;
    rig.rabbit.bind(QUEUE, "legacy.events", "#").await;
    rig.postgres.sql(TABLES).await;
    for (round, file) in files.iter().enumerate() {
        let (name, id) = (file.display(), round + 1);
        let mut towpath = towpath(&rig).config_file(file).run();
        towpath.wait_for_log("capturing", PATIENCE).await;
        drop_files(&towpath.folder().join(DROP));
        rig.postgres
            .sql(&format!("INSERT INTO orders VALUES ({id}, 'A'); INSERT INTO ordhdr VALUES ({id}, 1234)"))
            .await;
        let (changed, text) = match file.file_stem().and_then(|stem| stem.to_str()) {
            Some("demo") => ("public.ordhdr", format!(r#""key":{{"ordno":{id}}}"#)),
            Some("legacy") => ("public.ordhdr", format!(r#""after":{{"order_no":{id},"total":"12.34"}}"#)),
            Some("files") => (
                "files.accounts",
                r#""after":{"acct_id":17,"acct_owner":"MÜLLER","acct_balance":"-1234.56","acct_opened":19980401}"#
                    .to_owned(),
            ),
            _ => ("public.orders", format!(r#""key":{{"id":{id}}}"#)),
        };
        rig.inbox
            .until(&format!("the insert of {name}"), PATIENCE, |all| {
                let found = all.iter().any(|event| {
                    let body = String::from_utf8_lossy(&event.body);
                    body.contains(&text) && body.contains(changed) && body.contains(r#""op":"insert""#)
                });
                if found { Ok(()) } else { Err(all.len()) }
            })
            .await;
        rig.inbox.take();
        assert!(towpath.terminate(PATIENCE).await.success(), "{name}: {}", towpath.log());
        // The next one is a first run, too.
        rig.postgres.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots").await;
        rig.postgres
            .sql("DO $$ DECLARE p text; BEGIN FOR p IN SELECT pubname FROM pg_publication LOOP EXECUTE 'DROP PUBLICATION ' || quote_ident(p); END LOOP; END $$")
            .await;
    }
}

/// Every `towpath …` that the README names, in its order, once.
fn commands_of_the_readme(readme: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    for line in readme.lines() {
        let line = line.strip_prefix("    ").or_else(|| line.strip_prefix("| `")).unwrap_or_default();
        let Some(command) = line.strip_prefix("towpath ") else { continue };
        let name: String = command.chars().take_while(|c| c.is_ascii_lowercase()).collect();
        if !commands.contains(&name) {
            commands.push(name);
        }
    }
    commands
}

const CASES: &str = "
from: orders_db.public.orders
columns: { id: int, status: text }
key: [id]
cases:
  - insert: { id: 7, status: A }
    events: [{ routing_key: orders_db.public.orders.insert, body: { after: { id: 7, status: A } } }]
";

#[tokio::test]
async fn every_command_of_the_readme_works_with_its_config() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("the README");
    let yaml = readme.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a config");
    let mut rig = Rig::new().await;
    rig.postgres.sql(TABLES).await;
    rig.postgres.sql("INSERT INTO orders VALUES (1, 'A')").await;
    let builder = towpath(&rig);
    let outbox = builder.folder().join("outbox.db");
    let builder = builder.config(yaml).env("TOWPATH__OUTBOX__SQLITE", outbox);

    std::fs::create_dir(builder.folder().join("tests")).expect("a folder");
    std::fs::write(builder.folder().join("tests/orders.yaml"), CASES).expect("a file");

    let mut running: Option<Towpath> = None;
    for name in commands_of_the_readme(&readme) {
        let calls: &[&[&str]] = match name.as_str() {
            "check" => &[&["check"], &["check", "--json"]],
            "discover" => {
                &[&["discover", "${ORDERS_DB_URL}", "--table", "public.*"], &["discover", "${ORDERS_DB_URL}", "--json"]]
            }
            "doctor" => &[&["doctor"], &["doctor", "--json"]],
            "preview" => &[&["preview", "orders_db.public.orders"], &["preview", "orders_db.public.orders", "--json"]],
            "test" => &[&["test"], &["test", "tests/orders.yaml", "--json"]],
            "run" => {
                running = Some(builder.clone().run());
                rig.inbox.until_count(1, PATIENCE).await;
                continue;
            }
            "status" => &[&["status"], &["status", "--json"]],
            "pause" => &[&["pause", "orders_db"], &["resume", "orders_db"]],
            "snapshot" => &[&["snapshot", "orders_db", "public.orders"]],
            "parked" => &[&["parked", "list"], &["parked", "list", "--json"]],
            other => panic!("the README names `towpath {other}`, and this test does not know how to call it"),
        };
        let logged = running.as_ref().map_or(0, |towpath| towpath.log().len());
        for call in calls {
            let Output { status, stdout, stderr } = builder.command(call).await;
            let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
            assert!(status.success() && !stdout.is_empty(), "towpath {call:?}: {status}\n{stdout}\n{stderr}");
            if call.contains(&"--json") {
                assert!(serde_json::from_str::<serde_json::Value>(&stdout).is_ok(), "{call:?}: {stdout}");
            }
        }
        if let ("pause", Some(towpath)) = (name.as_str(), &mut running) {
            // It goes on capturing a moment after it was resumed.
            towpath.wait_for_log_after(logged, "capturing", PATIENCE).await;
        }
    }
    let snapshot_came = |all: &[towpath_test_support::Delivery]| {
        let reads = all.iter().filter(|event| event.routing_key == "orders_db.public.orders.read").count();
        if reads == 2 { Ok(()) } else { Err(reads) }
    };
    rig.inbox.until("the row, read again by `towpath snapshot`", PATIENCE, snapshot_came).await;
    assert!(running.expect("the README runs it").terminate(PATIENCE).await.success());
}

#[tokio::test]
async fn the_demo_loses_nothing_and_says_so() {
    // Built beside the tests, as every example is.
    let demo = Path::new(env!("CARGO_BIN_EXE_towpath")).with_file_name("examples").join("demo");
    let output = tokio::process::Command::new(&demo).kill_on_drop(true).output().await.expect("the demo is built");
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{errors}");
    let missing = said.lines().find(|line| line.contains("missing")).unwrap_or_default();
    assert_eq!(missing.split_whitespace().last(), Some("0"), "{said}");
}
