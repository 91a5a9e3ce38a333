//! Files on their way: complete or not, good or bad, new or known, and what a stop at any point leaves behind.

#![allow(clippy::unwrap_used)] // clippy knows tests by their attribute, and not what they call

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value as Json, json};
use towpath_conformance::{Seen, seen};
use towpath_contract::{AFTER_GAP, Action, Batch, Capture, Error, ErrorKind, Resume, Source};
use towpath_files::{FilesConfig, FilesSource};

const DEADLINE: Duration = Duration::from_secs(30);

struct Rig {
    outer: tempfile::TempDir,
    table: Json,
    resume: Resume,
}

impl Rig {
    /// A table of `id,amount` with a header; `more` are keys of the table's config.
    fn new(more: Json) -> Rig {
        let outer = tempfile::tempdir().unwrap();
        fs::create_dir(outer.path().join("drop")).unwrap();
        let columns = json!([{ "name": "id", "type": "int" }, { "name": "amount", "type": "decimal" }]);
        let mut table = json!({ "name": "items", "files": "*.csv", "format": { "delimited": { "columns": columns } }, "key": ["id"] });
        for (key, value) in more.as_object().unwrap() {
            table[key] = value.clone();
        }
        Rig { outer, table, resume: Resume::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.outer.path().join("drop").join(name)
    }

    fn put(&self, name: &str, text: &str) {
        let unfinished = self.outer.path().join("unfinished");
        fs::write(&unfinished, text).unwrap();
        fs::rename(unfinished, self.path(name)).unwrap();
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn source(&self) -> FilesSource {
        let config = json!({ "folder": self.path(""), "scan_every": "100ms", "tables": [self.table] });
        FilesSource::new("nightly", FilesConfig::deserialize(config).unwrap(), self.outer.path().join("spool"))
    }

    async fn open(&mut self) -> Run<'_> {
        let capture = self.source().open(self.resume.clone()).await.unwrap();
        self.resume.identity = Some(capture.identity().to_owned());
        Run { capture, rig: self, seen: Vec::new(), batches: 0 }
    }

    async fn refused(&self) -> Error {
        let mut capture = match self.source().open(self.resume.clone()).await {
            Err(error) => return error,
            Ok(capture) => capture,
        };
        let mut batch = Batch::new();
        tokio::time::timeout(DEADLINE, capture.next(&mut batch)).await.expect("an error").expect_err("this must fail")
    }
}

struct Run<'a> {
    capture: Box<dyn Capture>,
    rig: &'a mut Rig,
    seen: Vec<Seen>,
    batches: usize,
}

impl Run<'_> {
    /// Takes a batch and records it.
    async fn step(&mut self) {
        let mut batch = Batch::new();
        tokio::time::timeout(DEADLINE, self.capture.next(&mut batch)).await.expect("a batch").expect("no error");
        self.batches += 1;
        self.seen.extend(seen(&batch));
        for entry in &batch.state {
            match &entry.value {
                Some(value) => self.rig.resume.state.insert(entry.key.clone(), value.clone()),
                None => self.rig.resume.state.remove(&entry.key),
            };
        }
        if let Some(position) = batch.position {
            self.rig.resume.position = Some(position);
            self.capture.recorded(&position);
        }
    }

    fn ids(&self) -> Vec<String> {
        let id = |seen: &Seen| seen.after.as_ref().or(seen.before.as_ref()).unwrap()[0].clone().unwrap();
        self.seen.iter().map(id).collect()
    }

    /// Lets the thread hear what was recorded until the folder looks so.
    async fn until(&mut self, what: &str, holds: impl Fn(&Rig) -> bool) {
        let reached = async {
            while !holds(self.rig) {
                self.capture.keep_alive().await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, reached).await.unwrap_or_else(|_| panic!("waited for {what}"));
    }
}

#[tokio::test]
async fn a_file_is_archived_once_it_is_recorded_and_known_when_it_comes_again() {
    let mut rig = Rig::new(json!({}));
    rig.put("b.csv", "id,amount\n2,0.20\n");
    rig.put("a.csv", "id,amount\n1,0.10\n");
    rig.put("ignored.txt", "x");
    let mut run = rig.open().await;
    run.step().await;
    run.step().await;
    assert_eq!(run.ids(), ["1", "2"], "in the order of their names");
    run.until("the archive", |rig| rig.names("archive") == ["000000000001-a.csv", "000000000002-b.csv"]).await;
    run.rig.put("again.csv", "id,amount\n1,0.10\n");
    run.until("the archive", |rig| rig.names("archive").contains(&"000000000001-again-again.csv".to_owned())).await;
    run.rig.put("a.csv", "id,amount\n3,0.10\n");
    run.step().await;
    assert_eq!(run.ids(), ["1", "2", "3"], "the content that was delivered twice came once");
    assert_eq!(run.seen[0].after.as_ref().unwrap()[1].as_deref(), Some("0.10"));
}

#[tokio::test]
async fn a_refused_file_stops_itself_and_says_why() {
    for (more, text, reason) in [
        (json!({}), "id,amount\n1,1\nx,1\n", "record 2, which ends at byte 18: id: expected an integer"),
        (json!({}), "id,amount\n1,\"1\n", "a quote opens in this record and never closes"),
        (json!({}), "id\n1\n", "missing [\"amount\"]"),
        (
            json!({ "checks": { "unique_key": true } }),
            "id,amount\n1,1\n1,2\n",
            "record 2 has the key of an earlier one",
        ),
        (json!({ "checks": { "records_min": 1 } }), "id,amount\n", "it has 0 records, expected at least 1"),
        (trailer(), "id,amount\n1,1.5\n2,0.5\nT,3,2.0\n", "the trailer says 3 records, and there are 2"),
        (
            trailer(),
            "id,amount\n1,1.5\n2,0.5\nT,2,2.1\n",
            "the trailer says that amount sums to 2.1, and it sums to 2.0",
        ),
        (trailer(), "id,amount\n1,1.5\n", "there is no trailer"),
        (trailer(), "id,amount\nT,0,0\n1,1.5\n", "after the trailer there are more records"),
    ] {
        let mut rig = Rig::new(more);
        rig.put("bad.csv", text);
        rig.put("good.csv", "id,amount\n7,7\n8,1\nT,2,8\n");
        if rig.table["checks"].get("trailer").is_none() {
            rig.put("good.csv", "id,amount\n7,7\n8,1\n");
        }
        let mut run = rig.open().await;
        run.step().await;
        assert_eq!(run.ids(), ["7", "8"], "{reason}");
        assert_eq!(run.rig.names("errors"), ["bad.csv", "bad.csv.reason"]);
        let said = fs::read_to_string(run.rig.path("errors/bad.csv.reason")).unwrap();
        assert!(said.contains(reason), "{said}expected: {reason}");
        assert!(run.capture.progress().uncaptured[0].contains(reason));
        assert_eq!(fs::read_to_string(run.rig.path("errors/bad.csv")).unwrap(), text, "as it was");
    }
}

fn trailer() -> Json {
    json!({ "checks": { "trailer": { "starts_with": "T", "count": { "at": 2 }, "sums": { "amount": { "at": 3 } } } } })
}

#[tokio::test]
async fn a_missing_generation_and_a_late_date_stop_their_file() {
    let mut rig = Rig::new(json!({ "files": "g*.csv", "checks": { "numbers": "consecutive" } }));
    rig.put("g10.csv", "id,amount\n10,1\n");
    rig.put("g9.csv", "id,amount\n9,1\n");
    let mut run = rig.open().await;
    run.step().await;
    run.step().await;
    assert_eq!(run.ids(), ["9", "10"]);
    run.rig.put("g12.csv", "id,amount\n12,1\n");
    run.until("a refusal", |rig| rig.names("errors").len() == 2).await;
    assert!(run.capture.progress().uncaptured[0].contains("the last file was g10.csv: number 11 is missing"));
    run.rig.put("g11.csv", "id,amount\n11,1\n");
    run.step().await;
    fs::rename(run.rig.path("errors/g12.csv"), run.rig.path("g12.csv")).unwrap();
    run.step().await;
    assert_eq!(run.ids(), ["9", "10", "11", "12"]);
    let mut rig = Rig::new(json!({ "files": "d*.csv", "checks": { "numbers": "ascending" } }));
    rig.put("d20260201.csv", "id,amount\n2,1\n");
    let mut run = rig.open().await;
    run.step().await;
    run.rig.put("d20260131.csv", "id,amount\n1,1\n");
    run.rig.put("dx.csv", "id,amount\n1,1\n");
    run.until("two refusals", |rig| rig.names("errors").len() == 4).await;
    let said = fs::read_to_string(run.rig.path("errors/d20260131.csv.reason")).unwrap();
    assert!(said.contains("number 20260131 does not come after it"), "{said}");
}

#[tokio::test]
async fn bad_records_are_delivered_where_that_is_asked_for() {
    let mut rig = Rig::new(json!({ "bad_records": "deliver" }));
    rig.put("a.csv", "id,amount\n1,1\nx,1\n3,3\n");
    let mut run = rig.open().await;
    run.step().await;
    let bad = &run.seen[1];
    assert_eq!(bad.table, "items.bad");
    let row: Vec<_> = bad.after.as_ref().unwrap().iter().map(|value| value.as_deref().unwrap()).collect();
    assert_eq!(row, ["a.csv", "2", "14", "x,1\n", "id: expected an integer"]);
    assert_eq!([run.ids()[0].as_str(), run.ids()[2].as_str()], ["1", "3"]);
    let tables = run.rig.source().tables().await.unwrap();
    assert_eq!(tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>(), ["items", "items.bad"]);
}

#[tokio::test]
async fn a_file_is_taken_when_its_marker_is_there() {
    let mut rig = Rig::new(json!({ "complete": { "marker": ".done" } }));
    rig.put("a.csv", "id,amount\n1,1\n");
    rig.put("b.csv", "id,amount\n2,2\n");
    rig.put("b.csv.done", "");
    let mut run = rig.open().await;
    run.step().await;
    run.until("the archive", |rig| rig.names("archive") == ["000000000001-b.csv"]).await;
    assert_eq!(run.rig.names(""), ["a.csv", "archive", "errors"], "the marker went with its file");
    run.rig.put("a.csv.done", "");
    run.step().await;
    assert_eq!(run.ids(), ["2", "1"]);
}

#[tokio::test]
async fn a_file_that_grows_is_not_taken_before_it_rests() {
    let mut rig = Rig::new(json!({ "complete": { "stable": "1s" } }));
    rig.put("a.csv", "id,amount\n1,1\n");
    let started = std::time::Instant::now();
    let mut run = rig.open().await;
    let mut grown = fs::OpenOptions::new().append(true).open(run.rig.path("a.csv")).unwrap();
    std::io::Write::write_all(&mut grown, b"2,2\n").unwrap();
    run.step().await;
    assert_eq!(run.ids(), ["1", "2"]);
    assert!(started.elapsed() >= Duration::from_secs(1));
}

/// 3 MB in rows of a kilobyte: several batches.
fn large() -> String {
    let row = |id: u32| format!("{id},{}\n", "1".repeat(1000));
    std::iter::once("id,amount\n".to_owned()).chain((1..=3000).map(row)).collect()
}

#[tokio::test]
async fn a_stop_within_a_file_loses_nothing_and_repeats_nothing() {
    let mut rig = Rig::new(json!({}));
    rig.put("large.csv", &large());
    let mut run = rig.open().await;
    run.step().await;
    let first = run.seen.clone();
    assert!(first.len() < 3000);
    drop(run);
    // What arrives meanwhile comes after it, whatever its name.
    rig.put("a.csv", "id,amount\n9999,1\n");
    let mut run = rig.open().await;
    while run.ids().last().is_none_or(|id| id != "9999") {
        run.step().await;
    }
    let ids: Vec<u32> = first
        .iter()
        .chain(&run.seen)
        .map(|seen| seen.after.as_ref().unwrap()[0].as_ref().unwrap().parse().unwrap())
        .collect();
    assert_eq!(ids, (1..=3000).chain([9999]).collect::<Vec<_>>());
    let positions: Vec<_> = first.iter().chain(&run.seen).map(|seen| seen.position).collect();
    assert!(positions.is_sorted(), "no record came under another position");
}

#[tokio::test]
async fn a_file_that_is_gone_or_another_within_is_a_gap_until_a_person_accepts_it() {
    let mut rig = Rig::new(json!({}));
    rig.put("large.csv", &large());
    let mut run = rig.open().await;
    run.step().await;
    drop(run);
    rig.put("large.csv", "id,amount\n1,1\n");
    let error = rig.refused().await;
    assert_eq!((error.kind, error.action), (ErrorKind::Gap, Action::Operator), "{error}");
    assert!(error.to_string().contains("its content is another now"), "{error}");
    fs::remove_file(rig.path("large.csv")).unwrap();
    let error = rig.refused().await;
    assert_eq!(error.kind, ErrorKind::Gap, "{error}");
    assert!(error.to_string().contains("going on with large.csv after record"), "{error}");
    rig.resume.state.insert(AFTER_GAP.into(), Vec::new());
    rig.put("next.csv", "id,amount\n5,5\n");
    let mut run = rig.open().await;
    run.step().await;
    assert_eq!(run.ids(), ["5"]);
    assert!(!run.rig.resume.state.contains_key(AFTER_GAP));
}

#[tokio::test]
async fn a_recorded_file_that_was_not_moved_yet_is_moved_after_the_stop() {
    let mut rig = Rig::new(json!({}));
    rig.put("a.csv", "id,amount\n1,1\n");
    let mut run = rig.open().await;
    run.step().await;
    drop(run);
    assert_eq!(rig.names("archive"), Vec::<String>::new());
    let mut run = rig.open().await;
    run.until("the archive", |rig| rig.names("archive") == ["000000000001-a.csv"]).await;
    assert_eq!(run.batches, 0);
}

#[tokio::test]
async fn links_hidden_files_and_folders_are_left_alone() {
    let mut rig = Rig::new(json!({}));
    fs::write(rig.outer.path().join("secret"), "id,amount\n666,1\n").unwrap();
    std::os::unix::fs::symlink(rig.outer.path().join("secret"), rig.path("a.csv")).unwrap();
    fs::create_dir(rig.path("b.csv")).unwrap();
    rig.put(".c.csv", "id,amount\n666,1\n");
    rig.put("d.csv", "id,amount\n1,1\n");
    let found = rig.source().doctor(Default::default()).await;
    assert!(found.iter().any(|finding| finding.code == "symbolic_link"), "{found:?}");
    let wanted =
        towpath_contract::OldRows { schema: "files".into(), table: "items".into(), needed_by: "routes[0]".into() };
    let known = towpath_contract::Known { old_rows: vec![wanted], ..Default::default() };
    let found = rig.source().doctor(known).await;
    assert!(
        found.iter().any(|finding| finding.message.starts_with("routes[0] looks at rows of files.items")),
        "{found:?}"
    );
    let mut run = rig.open().await;
    run.step().await;
    assert_eq!(run.ids(), ["1"]);
    let shown = |run: &Run<'_>| {
        run.capture
            .progress()
            .uncaptured
            .iter()
            .any(|line| line.starts_with("a.csv is not taken: it is a symbolic link"))
    };
    let told = async {
        while !shown(&run) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, told).await.expect("what is left alone is told");
    drop(run);
    rig.table["files"] = json!("../*.csv");
    let error = rig.refused().await;
    assert!(error.to_string().contains("leads out of it"), "{error}");
}

#[test]
fn a_config_that_cannot_work_names_its_key() {
    let faults = |table: Json| {
        let mut rig = Rig::new(json!({}));
        for (key, value) in table.as_object().unwrap() {
            rig.table[key] = value.clone();
        }
        let config = FilesConfig::deserialize(json!({ "folder": "x", "tables": [rig.table] })).unwrap();
        let faults: BTreeMap<_, _> =
            towpath_files::check(&config).into_iter().map(|fault| (fault.path, fault.message)).collect();
        faults
    };
    assert_eq!(faults(json!({})), BTreeMap::new());
    assert!(faults(json!({ "key": ["no"] }))["tables[0].key"].contains("there are id, amount"));
    assert!(faults(json!({ "files": "" })).contains_key("tables[0].files"));
    assert!(
        faults(json!({ "format": { "delimited": { "encoding": "x" } } }))
            .contains_key("tables[0].format.delimited.encoding")
    );
    assert!(
        faults(json!({ "format": { "copybook": { "file": "/no/such.cpy" } } }))
            .contains_key("tables[0].format.copybook.file")
    );
    let operation = json!({ "operation": { "column": "id", "delete": ["D"] }, "key": [] });
    assert!(faults(operation).contains_key("tables[0].key"));
}

fn ops(seen: &[Seen]) -> Vec<(towpath_contract::Op, &str)> {
    seen.iter()
        .map(|seen| (seen.op, seen.after.as_ref().or(seen.before.as_ref()).unwrap()[0].as_deref().unwrap()))
        .collect()
}

#[tokio::test]
async fn an_extract_gives_what_changed_since_the_one_before() {
    use towpath_contract::Op::{Delete, Insert, Update};
    let mut rig = Rig::new(json!({ "extract": { "deletes_max_percent": 40 } }));
    rig.put("day1.csv", "id,amount\n1,1.0\n2,2.0\n3,3.0\n");
    let mut run = rig.open().await;
    run.step().await;
    assert_eq!(ops(&run.seen), [(Insert, "1"), (Insert, "2"), (Insert, "3")]);
    run.until("the archive", |rig| rig.names("archive").len() == 1).await;
    drop(run);
    rig.put("day2.csv", "id,amount\n4,4.0\n2,2.5\n1,1.0\n");
    let mut run = rig.open().await;
    run.step().await;
    assert_eq!(ops(&run.seen), [(Insert, "4"), (Update, "2"), (Delete, "3")]);
    assert_eq!(run.seen[2].before.as_ref().unwrap()[1], None, "of a deleted row only the key is known");
    run.until("the archive", |rig| rig.names("archive").len() == 2).await;
    assert_eq!(fs::read_dir(run.rig.outer.path().join("spool/nightly")).unwrap().count(), 1, "one state is kept");
    // Too much is missing, or a key stands twice: the file stops, and the state stays what it was.
    run.rig.put("day3.csv", "id,amount\n4,4.0\n");
    run.rig.put("day4.csv", "id,amount\n4,4.0\n4,5.0\n");
    run.until("two refusals", |rig| rig.names("errors").len() == 4).await;
    let said = fs::read_to_string(run.rig.path("errors/day3.csv.reason")).unwrap();
    assert!(said.contains("2 of the 3 rows of the extract before are missing, more than 40 percent"), "{said}");
    run.rig.put("day5.csv", "id,amount\n1,1.0\n2,2.0\n4,4.0\n");
    run.step().await;
    assert_eq!(ops(&run.seen[3..]), [(Update, "2")]);
    drop(run);
    fs::remove_dir_all(rig.outer.path().join("spool")).unwrap();
    rig.put("day6.csv", "id,amount\n1,1.0\n");
    let error = rig.refused().await;
    assert_eq!(error.kind, ErrorKind::Gap, "{error}");
    assert!(error.to_string().contains("what the extract before held is not known"), "{error}");
}

#[tokio::test]
async fn a_stop_within_an_extract_repeats_nothing() {
    let mut rig = Rig::new(json!({ "extract": { "deletes_max_percent": 100 } }));
    rig.put("day1.csv", &large());
    let mut run = rig.open().await;
    while run.seen.len() < 3000 {
        run.step().await;
    }
    drop(run);
    rig.put("day2.csv", &large().replace(",111", ",211").replacen("id,amount\n", "id,amount\n5000,1\n", 1));
    let mut all = Vec::new();
    while all.len() < 3001 {
        let mut run = rig.open().await;
        run.step().await;
        all.append(&mut run.seen);
    }
    let ids: Vec<u32> = ops(&all).iter().map(|(_, id)| id.parse().unwrap()).collect();
    assert_eq!(ids, [5000].into_iter().chain(1..=3000).collect::<Vec<_>>());
    assert!(all.iter().map(|seen| seen.position).is_sorted());
}
