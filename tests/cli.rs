//! The real binary on the command line.

#![allow(clippy::unwrap_used)] // clippy knows tests by their attribute, and not what they call

use std::path::Path;
use std::process::Output;

use assert_cmd::Command;

const MINIMAL: &str = "\
sources:
  orders_db:
    type: postgres
    url: ${ORDERS_DB_URL}
outbox:
  sqlite: outbox.db
rabbitmq:
  url: ${RABBITMQ_URL}
";

/// In every value that must not be shown.
const SECRET: &str = "hunter2";

fn towpath(folder: &Path) -> Command {
    let mut command = Command::cargo_bin("towpath").expect("the binary is built");
    command.current_dir(folder).env_clear();
    command.env("ORDERS_DB_URL", format!("postgres://app:{SECRET}@db.example/orders"));
    command.env("SOURCE_URL", format!("postgres://app:{SECRET}@db.example/legacy"));
    command.env("RABBITMQ_URL", format!("amqp://app:{SECRET}@rabbit.example/"));
    command.env("OUTBOX", folder.join("outbox.db"));
    command.env("DROP_FOLDER", folder.join("drop"));
    command.env("COPYBOOKS", Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/files"));
    command
}

fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("runs");
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert!(!stdout.contains(SECRET) && !stderr.contains(SECRET), "a secret is shown:\n{stdout}\n{stderr}");
    (status.code().expect("exits"), stdout, stderr)
}

fn check(name: &str, text: &str) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(name), text).unwrap();
    run(towpath(folder.path()).args(["check", "-c", name]))
}

#[test]
fn a_file_of_records_is_probed() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/files");
    let folder = tempfile::tempdir().unwrap();
    let probe = |more: &[&str]| {
        let mut command = towpath(folder.path());
        command.args(["copybook", "probe"]).arg(data.join("ACCT_0001.dat"));
        run(command.arg("--copybook").arg(data.join("account.cpy")).args(more))
    };
    let (code, stdout, stderr) = probe(&[]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.contains("acct_owner=") && stdout.contains("acct_balance=-1234.56"), "{stdout}");
    let (code, stdout, _) = probe(&["--json"]);
    let guesses: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, guesses["guesses"][0]["framing"].as_str()), (0, Some("f")), "{stdout}");
    let (code, _, stderr) = probe(&["--record", "NOTHING"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("ACCOUNT-RECORD"), "{stderr}");
}

#[test]
fn every_example_is_valid() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let folder = tempfile::tempdir().unwrap();
    let mut count = 0;
    for example in std::fs::read_dir(examples).unwrap() {
        let path = example.unwrap().path();
        let (code, stdout, stderr) =
            run(towpath(folder.path()).env("MASK_KEY", "0123456789abcdef").arg("check").arg("--config").arg(&path));
        assert_eq!((code, stderr.as_str()), (0, ""), "{}", path.display());
        assert!(stdout.contains("is valid"), "{stdout}");
        count += 1;
    }
    assert!(count >= 3);
}

#[test]
fn a_valid_file_is_told_with_its_defaults() {
    let (code, stdout, _) = check("towpath.yaml", MINIMAL);
    assert_eq!(code, 0);
    insta::assert_snapshot!(stdout, @r"
    towpath.yaml is valid.

      source  orders_db       postgres, tables *.*
      route   orders_db       orders_db.*.* to exchange towpath, routing key {{ source }}.{{ schema }}.{{ table }}.{{ op }}
      outbox  outbox.db       at most 10 GiB, settled events kept for 7d
      admin   127.0.0.1:9187  loopback only

    No connection was made; `towpath doctor` looks at the live systems.
    ");
}

/// What to replace in the minimal file, by what, and the whole of what is said.
const WRONG: &[(&str, &str, &str)] = &[
    (
        "url: ${ORDERS_DB_URL}",
        "ulr: ${ORDERS_DB_URL}",
        "t.yaml:2:3: sources.orders_db.url: this key is missing\n    there is a key `ulr`: is that it?\n\
         t.yaml:4:5: sources.orders_db.ulr: unknown key\n    did you mean `url`?\n    allowed: create, heartbeat, messages, \
         password, publication, read_timeout, slot, snapshot, spool_max, tables, tls, type, url",
    ),
    (
        "type: postgres",
        "type: postgresql",
        "t.yaml:3:5: sources.orders_db.type: found `postgresql`, which is not one of the allowed words\n    did you mean \
         `postgres`?\n    allowed: postgres, files",
    ),
    (
        "rabbitmq:",
        "rabbitmq:\n  heartbeat: 10",
        "t.yaml:8:3: rabbitmq.heartbeat: found `10`, expected a span of time such as 500ms, 10s, 5m, 12h or 7d",
    ),
    (
        "outbox:\n  sqlite: outbox.db\n",
        "",
        "t.yaml:1:1: outbox: this key is missing\n    The durable store of events between capture and broker.",
    ),
    (
        "sqlite: outbox.db",
        "sqlite: outbox.db\n  max_size: 1MiB",
        "t.yaml:7:3: outbox.max_size: `1 MiB` is too little\n    at least 16 MiB",
    ),
    (
        "sqlite: outbox.db",
        "sqlite: /does/not/exist/outbox.db",
        "t.yaml:6:3: outbox.sqlite: the folder `/does/not/exist` does not exist\n    make the folder, owned by the user \
         that runs towpath, on a local disk",
    ),
    (
        "url: ${RABBITMQ_URL}",
        "url: ${RABBIT_URL}",
        "t.yaml:8:3: rabbitmq.url: the environment variable RABBIT_URL is not set\n    set it, or give a default: \
         `${RABBIT_URL:-default}`",
    ),
    (
        "url: ${RABBITMQ_URL}",
        "url: amqp://app:hunter2/x@rabbit",
        "t.yaml:8:3: rabbitmq.url: there is an `@` in the wrong place\n    in a user name or password write @ : / ? # % \
         as %40 %3A %2F %3F %23 %25 (the value itself is withheld here)",
    ),
    (
        "url: ${RABBITMQ_URL}",
        "url: https://app:hunter2@rabbit",
        "t.yaml:8:3: rabbitmq.url: the URL must start with `amqp://` or `amqps://`\n    in a user name or password write \
         @ : / ? # % as %40 %3A %2F %3F %23 %25 (the value itself is withheld here)",
    ),
    // What only the connector knows of its URLs.
    (
        "url: ${ORDERS_DB_URL}",
        "url: postgres://app:hunter2@db/orders?sslrootcert=/hunter2",
        "t.yaml:4:5: sources.orders_db.url: the option sslrootcert does not belong there\n    use the key `tls.ca`",
    ),
    (
        "url: ${ORDERS_DB_URL}",
        "url: postgres://app:hunter2@a,b:1,c:2/orders?port=1,2",
        "t.yaml:4:5: sources.orders_db.url: the numbers of hosts and ports differ\n    write \
         `postgres://user@host:5432/database`; in user, password and database write @ as %40, : as %3A, / as %2F, % as %25 \
         (or give the password as `password`)",
    ),
    (
        "url: ${ORDERS_DB_URL}",
        "url: postgres://db/hunter2",
        "t.yaml:4:5: sources.orders_db.url: it names no user\n    write `postgres://user@host:5432/database`; in user, \
         password and database write @ as %40, : as %3A, / as %2F, % as %25 (or give the password as `password`)",
    ),
    (
        "url: ${ORDERS_DB_URL}",
        "url: postgres://app@db/orders?hunter=hunter2",
        "t.yaml:4:5: sources.orders_db.url: it is no PostgreSQL URL (its text is withheld: it may hold a password)\n    write \
         `postgres://user@host:5432/database`; in user, password and database write @ as %40, : as %3A, / as %2F, % as %25 \
         (or give the password as `password`)",
    ),
    ("url: ${RABBITMQ_URL}", "url: [hunter2, hunter2]", "t.yaml:8:3: rabbitmq.url: found a list, expected text"),
    (
        "url: ${RABBITMQ_URL}",
        "url: a\n  urls: [b]",
        "t.yaml:9:3: rabbitmq.urls: `url` and `urls` are both given\n    keep one of them",
    ),
    (
        "rabbitmq:",
        "rabbitmq:\n  window: 70000",
        "t.yaml:8:3: rabbitmq.window: found `70000`, expected a whole number from 1 to 65535",
    ),
    (
        "rabbitmq:",
        "routes:\n  - from: order_db.public.orders\nrabbitmq:",
        "t.yaml:8:5: routes[0].from: there is no source `order_db`\n    did you mean `orders_db`?\n    allowed: orders_db",
    ),
    (
        "rabbitmq:",
        "routes:\n  - from: orders_db\n    event: { routing_key: \"orders.{{ opp }}\" }\nrabbitmq:",
        "t.yaml:9:14: routes[0].event.routing_key: the template uses `opp`, which it does not have\n    did you mean \
         `op`?\n    allowed: source, schema, \
         table, op, type\n    a column is written `row.opp`",
    ),
    (
        "rabbitmq:",
        "routes:\n  - from: orders_db\n    event: { type: \"orders.{{ op\" }\nrabbitmq:",
        "t.yaml:9:14: routes[0].event.type: the template cannot be read: syntax error: unexpected end of input, expected \
         end of variable block\n    for example `orders.{{ op }}`",
    ),
    (
        "rabbitmq:",
        "routes:\n  - { from: orders_db }\n  - { from: orders_db }\nrabbitmq:",
        "t.yaml:9:7: routes[1].from: routes[0] is called `orders_db` too\n    give one of them a `name` of its own",
    ),
    (
        "rabbitmq:",
        "admin:\n  listen: 0.0.0.0:9187\nrabbitmq:",
        "t.yaml:8:3: admin.listen: other machines can reach this address, and there is no `admin.token`\n    listen on \
         127.0.0.1, or set a token: `token: ${TOWPATH_ADMIN_TOKEN}`",
    ),
    (
        "type: postgres",
        "type: postgres\n    tables: [orders]",
        "t.yaml:4:14: sources.orders_db.tables[0]: `orders` names no schema\n    write the schema too: `public.orders`",
    ),
    (
        "type: postgres",
        "type: postgres\n    tls: { certificate: /does/not/exist.pem }",
        "t.yaml:4:12: sources.orders_db.tls.certificate: `/does/not/exist.pem` cannot be read: No such file or directory \
         (os error 2)\n    a PEM file that this user may read\n\
         t.yaml:4:12: sources.orders_db.tls.certificate: `certificate` without `key`\n    both or neither",
    ),
    (
        "  orders_db:\n",
        "  orders_db:\n  orders_db:\n",
        "t.yaml:3:3: the key `sources.orders_db` stands twice; the first is on line 2",
    ),
    (
        "rabbitmq:\n  url: ${RABBITMQ_URL}\n",
        "rabbitmq: { url: ${RABBITMQ_URL} }\n",
        "t.yaml:7:19: while parsing a flow mapping, did not find expected ',' or '}'\n    between { } and [ ], and in TOML, quote references: \"${NAME}\"",
    ),
];

#[test]
fn a_wrong_file_is_told_by_line_column_key_and_what_is_allowed() {
    for (found, replaced, expected) in WRONG {
        let text = MINIMAL.replacen(found, replaced, 1);
        assert_ne!(text, MINIMAL, "{found}");
        let (code, stdout, stderr) = check("t.yaml", &text);
        let said = stderr.split("\n\n").next().unwrap_or_default();
        assert_eq!((code, stdout.as_str()), (2, ""), "{text}\n{stderr}");
        assert_eq!(said, *expected, "\n{text}");
        assert!(stderr.contains("nothing was started."), "{stderr}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_told_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, stderr) = run(towpath(folder.path()).arg("run"));
    assert_eq!(code, 2);
    assert!(stderr.starts_with("towpath.yaml: there is no such file\n"), "{stderr}");
    let (code, _, stderr) = check("towpath.json", "{}");
    assert_eq!(code, 2);
    assert!(stderr.contains("end it in .yaml, .yml or .toml"), "{stderr}");
}

#[test]
fn machines_get_json() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("t.yaml"), MINIMAL.replace("outbox.db", "/does/not/exist/o.db")).unwrap();
    let (code, stdout, stderr) = run(towpath(folder.path()).args(["check", "--json", "-c", "t.yaml"]));
    assert_eq!((code, stderr.as_str()), (2, ""));
    let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(json["valid"], false);
    let problem = &json["problems"][0];
    assert_eq!((&problem["line"], &problem["column"]), (&6.into(), &3.into()));
    assert_eq!(problem["path"], "outbox.sqlite");

    std::fs::write(folder.path().join("towpath.yaml"), MINIMAL).unwrap();
    let (code, stdout, _) = run(towpath(folder.path()).args(["--json", "check"]));
    assert_eq!(code, 0);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&stdout).unwrap()["valid"], true);

    let (code, stdout, _) = run(towpath(folder.path()).args(["schema", "config"]));
    let schema: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &schema["properties"]["sources"]["type"]), (0, &"object".into()));
}

#[test]
fn the_config_is_named_by_flag_then_variable_then_custom() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["flag.yaml", "variable.yaml", "towpath.yaml"] {
        std::fs::write(folder.path().join(name), MINIMAL).unwrap();
    }
    let first_line = |command: &mut Command| run(command).1.lines().next().unwrap_or_default().to_owned();
    assert_eq!(first_line(towpath(folder.path()).arg("check")), "towpath.yaml is valid.");
    let variable = ("TOWPATH_CONFIG", "variable.yaml");
    assert_eq!(first_line(towpath(folder.path()).env(variable.0, variable.1).arg("check")), "variable.yaml is valid.");
    let mut both = towpath(folder.path());
    both.env(variable.0, variable.1).args(["check", "-c", "flag.yaml"]);
    assert_eq!(first_line(&mut both), "flag.yaml is valid.");
}

#[test]
fn a_wrong_call_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("towpath.yaml"), MINIMAL).unwrap();
    for call in [
        &["frobnicate"][..],
        &["pause"],
        &["pause", "a", "b"],
        &["parked", "retry"],
        &["parked", "discard", "1", "--all"],
        &["snapshot", "a", "public.t", "--after-gap"],
        &["run", "--log-level", "tower=of=babel"],
        &["check", "--config"],
    ] {
        let (code, _, stderr) = run(towpath(folder.path()).args(call));
        assert!(code == 2 && !stderr.is_empty(), "{call:?}: {code} {stderr}");
    }
}

#[test]
fn help_is_there_for_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let (code, stdout, _) = run(towpath(folder.path()).arg("--help"));
    assert_eq!(code, 0);
    for command in ["run", "check", "doctor", "status", "pause", "resume", "snapshot", "parked", "schema"] {
        assert!(stdout.contains(&format!("\n  {command} ")), "{command}: {stdout}");
        let (code, help, _) = run(towpath(folder.path()).args([command, "--help"]));
        assert!(code == 0 && help.contains("--json"), "{help}");
    }
}
