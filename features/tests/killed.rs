//! kill -9 in the middle of writing to the online store leaves a whole state: the last one
//! that was acknowledged, or the one that was being written.
#![expect(clippy::unwrap_used, reason = "a test's own helpers")]

#[expect(dead_code, reason = "this test needs some of them")]
#[path = "../src/fixtures.rs"]
mod fixtures;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use sluice_features::{
    Column, Definitions, EmbeddedStore, EntityKey, FeatureError, Fields, Value, Values, ViewHeader,
    ViewRows,
};

use crate::fixtures::{load, source, store, view, write};

const KEYS: i64 = 1000;
const FOLDER: &str = "SLUICE_TEST_KILLED_FOLDER";

fn definitions(folder: &Path) -> Definitions {
    let columns = r#"store_id = "INT64", day = "DATE", generation = "INT64""#;
    let feature = |name| format!(r#"{{ name = "{name}", expression = "generation" }}"#);
    let service = r#"
[[feature_service]]
name = "demand"
entity = "store"
views = ["sales@1", "stock@1"]
columns = ["generation", "level"]
"#;
    let text = store("INT64")
        + &source("sales", "day", columns)
        + &view("sales", "sales", &feature("generation"))
        + &view("stock", "sales", &feature("level"))
        + service;
    write(folder, &[("features.toml", &text)]);
    load(folder)
}

/// The generation that every stored row is of; 0 before the first.
fn stored_generation(folder: &Path) -> i64 {
    let store = EmbeddedStore::open(&folder.join("online.redb")).unwrap();
    let plan = definitions(folder).plan("demand").unwrap();
    let mut fields = Fields::new();
    fields.push("store_id", Column::Int64(Values::new((0..KEYS).collect()))).unwrap();
    let rows = match plan.evaluate(&store, &fields, SystemTime::now()) {
        Ok(rows) => rows,
        Err(FeatureError::NotMaterialized(_)) => return 0,
        Err(error) => panic!("{error}"),
    };
    let first = rows.values[0];
    assert!(
        rows.values.iter().all(|value| value.to_bits() == first.to_bits()),
        "half of what was written"
    );
    format!("{first}").parse().unwrap()
}

/// What the killed process does: writes one generation after the other and says so. Without a
/// folder, as in an ordinary test run, it has nothing to do.
#[test]
fn writer() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let definitions = definitions(folder);
    let headers: Vec<_> = definitions.views().map(ViewHeader::of).collect();
    let first = stored_generation(folder) + 1;
    let store = EmbeddedStore::open(&folder.join("online.redb")).unwrap();
    for generation in first.. {
        let row = |key| (EntityKey::Int64(key), generation, vec![Value::Int64(generation)]);
        let rows = |header: &ViewHeader| ViewRows::new(header.clone(), (0..KEYS).map(row)).unwrap();
        store.write_all(&headers.iter().map(rows).collect::<Vec<_>>()).unwrap();
        println!("wrote {generation}");
        std::io::stdout().flush().unwrap();
    }
}

#[test]
fn a_killed_writer_leaves_a_whole_state() {
    let folder = tempfile::tempdir().unwrap();
    let mut before = 0;
    for round in 0..6u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = lines
            .map_while(Result::ok)
            .filter_map(|line| line.rsplit_once("wrote ").and_then(|(_, n)| n.parse::<i64>().ok()));
        let first = acknowledged.next().unwrap();
        // Somewhere in the next batches, elsewhere each time.
        std::thread::sleep(Duration::from_micros(700 + 3_100 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let last = acknowledged.last().unwrap_or(first);
        let stored = stored_generation(folder.path());
        assert!(first > before, "the writer went on from {before}");
        assert!(
            stored == last || stored == last + 1,
            "{stored} is stored, {last} was acknowledged"
        );
        before = stored;
    }
}
