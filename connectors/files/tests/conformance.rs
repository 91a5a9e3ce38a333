//! A folder of JSON lines with operation codes passes the suite.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use serde_json::json;
use towpath_conformance::{Harness, Write};
use towpath_contract::Source;
use towpath_files::{FilesConfig, FilesSource};

struct Folder {
    outer: tempfile::TempDir,
    files: AtomicU64,
}

impl Folder {
    fn path(&self) -> PathBuf {
        self.outer.path().join("drop")
    }
}

impl Harness for Folder {
    async fn start() -> Self {
        let folder = Folder { outer: tempfile::tempdir().expect("a folder"), files: AtomicU64::new(0) };
        fs::create_dir(folder.path()).expect("a folder");
        folder
    }

    fn source(&self) -> Box<dyn Source> {
        let columns = json!([{ "name": "op" }, { "name": "id", "type": "int" }, { "name": "note" }]);
        let config = json!({
            "folder": self.path(),
            "scan_every": "100ms",
            "tables": [{
                "name": "items",
                "files": "items_*.jsonl",
                "format": { "json_lines": { "columns": columns } },
                "key": ["id"],
                "operation": { "column": "op", "insert": ["I"], "update": ["U"], "delete": ["D"] },
            }],
        });
        Box::new(FilesSource::new(
            "items",
            FilesConfig::deserialize(config).expect("a config"),
            self.outer.path().join("spool"),
        ))
    }

    fn table(&self) -> (&str, &str) {
        ("files", "items")
    }

    async fn commit(&self, writes: &[Write]) {
        let line = |write: &Write| match write {
            Write::Insert { id, note } => json!({ "op": "I", "id": id, "note": note }),
            Write::Update { id, note } => json!({ "op": "U", "id": id, "note": note }),
            Write::Delete { id } => json!({ "op": "D", "id": id }),
        };
        let text: String = writes.iter().map(|write| format!("{}\n", line(write))).collect();
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.outer.path().join("unfinished");
        fs::write(&unfinished, text).expect("written");
        fs::rename(unfinished, self.path().join(format!("items_{number:06}.jsonl"))).expect("renamed");
    }

    async fn disconnect(&self) {
        // As when a file system is unmounted and mounted again.
        let (aside, path) = (self.outer.path().join("aside"), self.path());
        fs::rename(&path, &aside).expect("renamed");
        fs::create_dir(&path).expect("a folder");
        for entry in fs::read_dir(&aside).expect("a folder") {
            let entry = entry.expect("an entry");
            fs::rename(entry.path(), path.join(entry.file_name())).expect("renamed");
        }
        fs::remove_dir(aside).expect("removed");
    }
}

#[tokio::test]
async fn a_folder_passes_the_suite() {
    towpath_conformance::run::<Folder>().await;
}
