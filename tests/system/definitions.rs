//! `sluice features` refuses broken sources and definitions before anything is written.

use std::path::PathBuf;

use crate::support::{output_of, sluice, source_tree};

const SALES: &str = "store_id,date,units,revenue,orders,promo
1,2011-01-03,5,2.5,1,0
1,2011-01-04,7,3.5,2,1
";

/// The demo's definitions over two days of sales, applied and materialised.
struct Features {
    folder: tempfile::TempDir,
    definitions: String,
    /// What was recorded and stored.
    before: (Vec<u8>, String),
}

impl Features {
    fn applied() -> Self {
        let demo = std::fs::read_to_string(source_tree().join("demo/features.toml")).unwrap();
        let definitions = demo.replace("../data/online-retail/daily_sales.csv", "sales.csv");
        let folder = tempfile::tempdir().unwrap();
        let mut features = Self { folder, definitions, before: Default::default() };
        features.write("features.toml", &features.definitions);
        features.write("sales.csv", SALES);
        output_of(&features.command("apply", &[]));
        output_of(&features.command("materialize", &[]));
        features.before = features.now();
        assert!(features.before.1.contains("2011-01-04"), "{}", features.before.1);
        features
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn command(&self, verb: &str, more: &[&str]) -> Vec<String> {
        let path = |name| self.path(name).to_str().unwrap().to_owned();
        let (definitions, state) = (path("features.toml"), path("state"));
        let all = ["features", verb, "--features", &definitions, "--state", &state];
        all.iter().chain(more).map(|&word| word.to_owned()).collect()
    }

    fn recorded(&self) -> Vec<u8> {
        std::fs::read(self.path("state/features.json")).unwrap()
    }

    fn now(&self) -> (Vec<u8>, String) {
        let stored = output_of(&self.command("get", &["demand-forecast", "--key", "1", "--json"]));
        (self.recorded(), stored)
    }

    /// `command` fails, naming what `says`.
    fn refused(&self, command: &[String], says: &str) {
        let output = sluice(command).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(says), "{command:?}: {error}");
    }
}

#[test]
fn broken_sources_change_nothing() {
    let features = Features::applied();
    for (sales, says) in [
        (SALES.replace(",units,", ",unit,"), "units"),
        (SALES.replace(",7,", ",seven,"), "units"),
        (SALES.replace("2011-01-04", "2011-01-03"), "2011-01-03"),
        (SALES.replace("2011-01-04", "4.1.2011"), "date"),
        (SALES.replace("1,2011-01-04", ",2011-01-04"), "store_id"),
    ] {
        features.write("sales.csv", &sales);
        features.refused(&features.command("materialize", &[]), says);
        assert_eq!(features.now(), features.before, "{says}");
    }
}

#[test]
fn broken_definitions_change_nothing() {
    let features = Features::applied();
    for (from, to, says) in [
        ("lag(units, 1)", "lagg(units, 1)", "lagg"),
        ("\"avg(promo)", "\"avg(promotion)", "promotion"),
        ("format = 1", "format = 2", "newer"),
        ("stale = \"degrade\"", "stail = \"degrade\"", "stail"),
        ("store_sales@1\"]", "store_sale@1\"]", "store_sale@1"),
    ] {
        let broken = features.definitions.replace(from, to);
        assert_ne!(broken, features.definitions, "{from}");
        features.write("features.toml", &broken);
        features.refused(&features.command("apply", &[]), says);
        features.write("features.toml", &features.definitions);
        assert_eq!(features.now(), features.before, "{says}");
    }
}

#[test]
fn what_models_may_use_stays_and_new_names_come_beside_it() {
    let features = Features::applied();
    let (before, view) = features.definitions.split_once("[[feature_view]]").unwrap();
    let other = view
        .replace("lag(units, 1)", "lag(units, 3)")
        .replace("version = 1", "version = 2")
        .replace("sales@1", "sales@2");
    let service = |columns: &str| format!("{before}[[feature_view]]{columns}");
    for (changed, says) in [
        (view.replace("lag(units, 1)", "lag(units, 3)"), "view store_sales@1 (changed)"),
        (view.replace("extract(dow", "extract(doy"), "service demand-forecast (changed)"),
        (other.clone(), "view store_sales@1 (removed)"),
    ] {
        features.write("features.toml", &service(&changed));
        features.refused(&features.command("apply", &[]), says);
        features.refused(&features.command("apply", &["--check"]), says);
        assert_eq!(features.recorded(), features.before.0, "{says}");
    }

    let other = other.replace("name = \"demand-forecast\"", "name = \"demand-forecast-2\"");
    let beside = format!("{}[[feature_view]]{other}", features.definitions);
    features.write("features.toml", &beside);
    let plan = output_of(&features.command("apply", &[]));
    assert!(plan.contains("new        view store_sales@2"), "{plan}");
    assert!(plan.contains("unchanged  service demand-forecast\n"), "{plan}");

    features.write("features.toml", &beside.replace("lag(units, 3)", "lag(units, 4)"));
    let recorded = features.recorded();
    output_of(&features.command("apply", &["--allow-changed"]));
    assert_ne!(features.recorded(), recorded);
}

#[test]
fn a_gateway_that_is_away_is_told_before_any_work() {
    let features = Features::applied();
    features.write("sales.csv", "nothing that could be read");
    let path = features.path("features.toml");
    let address = "http://127.0.0.1:9";
    let words =
        ["features", "materialize", "--features", path.to_str().unwrap(), "--admin", address];
    features.refused(&words.map(str::to_owned), "ask the gateway");
}
