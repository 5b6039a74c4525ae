//! Definition files: what is read, and that every mistake is named with its place.

use std::path::Path;

use super::Definitions;
use crate::error::FeatureError;

const GOOD: &str = r#"
format = 1

[[entity]]
name = "store"
join_key = "store_id"
value_type = "INT64"

[[source]]
name = "sales"
path = "data/sales.csv"
timestamp_field = "day"
schema = { store_id = "INT64", day = "DATE", units = "INT64" }

[[feature_view]]
name = "sales"
version = 2
entity = "store"
source = "sales"
freshness = "3d"
stale = "default"
ttl = "90d"
features = [
    { name = "units", expression = "units" },
    { name = "trend", expression = "mean / nullif(units, 0)", default = 1.0 },
    { name = "mean", expression = "avg(units) OVER (ROWS 2 PRECEDING)" },
]

[[feature_service]]
name = "demand"
entity = "store"
views = ["sales@2"]
request_fields = [
    { name = "day", type = "DATE" },
    { name = "promo", type = "INT64", required = false, default = 0 },
]
columns = ["store_id", "trend", { name = "month", expression = "extract(month FROM day)" }]
"#;

fn load(files: &[(&str, &str)]) -> Result<Definitions, FeatureError> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    Definitions::load(folder.path())
}

#[test]
fn good_definitions_are_read() {
    let definitions = load(&[("features.toml", GOOD), ("readme.md", "not a definition")]).unwrap();
    let view = definitions.views().next().unwrap();
    assert_eq!(view.id.to_string(), "sales@2");
    assert!(view.source.path.ends_with("data/sales.csv"));
    let trend = view.features[1].expression.to_string();
    assert!(trend.contains("avg(") && trend.contains("nullif"), "{trend}");
    let plan = definitions.plan("demand").unwrap();
    assert_eq!(plan.columns(), ["store_id", "trend", "month"]);
    assert_eq!(plan.views(), ["sales@2"]);
    assert_eq!(plan.entity_key().name, "store_id");
    assert_eq!(plan.request_fields().len(), 2);
}

#[test]
fn the_repositorys_own_definitions_are_right() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/features.toml");
    let plan = Definitions::load(&demo).unwrap().plan("demand-forecast").unwrap();
    assert_eq!(plan.columns().len(), 31);
}

/// The complaints about [`GOOD`] with `from` replaced by `to`.
fn complaints(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    match load(&[("features.toml", &GOOD.replace(from, to))]) {
        Err(error @ FeatureError::Definitions(_)) => error.to_string(),
        other => panic!("{from} -> {to}: {other:?}"),
    }
}

#[test]
fn every_mistake_is_named_with_its_place() {
    let check = |from: &str, to: &str, place: &str, part: &str| {
        let text = complaints(from, to);
        let said = text.lines().any(|line| {
            line.contains("features.toml") && line.contains(place) && line.contains(part)
        });
        assert!(said, "{from} -> {to}: {text}");
    };
    check("format = 1", "format = 2", "", "newer than 1");
    check("format = 1", "", "", "missing field `format`");
    check("[[entity]]", "[[entities]]", "line 4", "entities");
    check(
        "join_key = \"store_id\"",
        "join_key = \"store_id\"\njoin_key = \"x\"",
        "line 7",
        "duplicate key",
    );
    check("join_key = ", "joinkey = ", "entity store", "unknown field `joinkey`");
    check("value_type = \"INT64\"", "value_type = \"FLOAT64\"", "entity store", "cannot be a key");
    check(
        "value_type = \"INT64\"",
        "value_type = \"STRING\"",
        "feature_view sales@2",
        "entity store says STRING",
    );
    check(
        "units = \"INT64\" }",
        "units = \"INT32\" }",
        "source sales",
        "column units: type \"INT32\"",
    );
    check("sales.csv", "sales.xlsx", "source sales", "format \"xlsx\"");
    check(
        "timestamp_field = \"day\"",
        "timestamp_field = \"date\"",
        "source sales",
        "date is not in the schema",
    );
    check(
        "timestamp_field = \"day\"",
        "timestamp_field = \"units\"",
        "source sales",
        "units is INT64",
    );
    check(
        "entity = \"store\"\nsource",
        "entity = \"shop\"\nsource",
        "feature_view sales@2",
        "entity \"shop\" is not defined, known are: store",
    );
    check(
        "source = \"sales\"",
        "source = \"sale\"",
        "feature_view sales@2",
        "source \"sale\" is not defined",
    );
    check(
        "store_id = \"INT64\", day",
        "id = \"INT64\", day",
        "feature_view sales@2",
        "no column store_id",
    );
    check("freshness = \"3d\"", "freshness = \"soon\"", "feature_view sales@2", "no duration");
    check(
        "stale = \"default\"",
        "stale = \"ignore\"",
        "feature_view sales@2",
        "write degrade or default",
    );
    check("version = 2", "version = 0", "feature_view sales@0", "counts from 1");
    check(
        "avg(units)",
        "avg(unit)",
        "feature_view sales@2",
        "feature mean: column unit is unknown, did you mean units?",
    );
    check("avg(units)", "avgg(units)", "feature_view sales@2", "did you mean avg?");
    check("avg(units)", "avg(trend)", "feature_view sales@2", "by way of itself");
    check(
        "default = 1.0",
        "default = \"one\"",
        "feature_view sales@2",
        "feature trend: default \"one\" is not a FLOAT64",
    );
    check("\"mean\"", "\"trend\"", "feature_view sales@2", "feature trend is defined twice");
    check(
        "mean / nullif",
        "lag(mean) OVER () / nullif",
        "feature_view sales@2",
        "another window's values",
    );
    check(
        "views = [\"sales@2\"]",
        "views = [\"sales@1\"]",
        "feature_service demand",
        "view sales@1 is not defined",
    );
    check(
        "views = [\"sales@2\"]",
        "views = [\"sales\"]",
        "feature_service demand",
        "written name@version",
    );
    check(
        "views = [\"sales@2\"]",
        "views = [\"sales@2\", \"sales@2\"]",
        "feature_service demand",
        "used twice",
    );
    check(
        "\"trend\", {",
        "\"trent\", {",
        "feature_service demand",
        "column trent: column trent is unknown, did you mean trend?",
    );
    check("extract(month FROM day)", "day", "feature_service demand", "column month: is DATE");
    check(
        "extract(month FROM day)",
        "lag(trend) OVER ()",
        "feature_service demand",
        "only a view's features",
    );
    check(
        "name = \"month\"",
        "name = \"trend\"",
        "feature_service demand",
        "column trend is defined twice",
    );
    check(
        "name = \"promo\"",
        "name = \"day\"",
        "feature_service demand",
        "request field day is defined twice",
    );
    check(
        "required = false, default",
        "default",
        "feature_service demand",
        "is required and has a default",
    );
    check(
        "name = \"promo\"",
        "name = \"trend\"",
        "feature_service demand",
        "trend may mean request.trend or sales.trend",
    );
}

#[test]
fn complaints_come_all_at_once_from_all_files() {
    let broken = GOOD
        .replace("freshness = \"3d\"", "freshness = \"x\"")
        .replace("avg(units)", "avg(unit)")
        .replace("format = 1", "format = 1\n[[source]]\nname = \"empty\"");
    let error =
        load(&[("a.toml", &broken), ("b.toml", GOOD), ("c.toml", "format = ")]).unwrap_err();
    let text = error.to_string();
    for part in [
        "c.toml: line 1",
        "source empty",
        "no duration",
        "column unit is unknown",
        "b.toml: source sales: defined twice",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn a_missing_file_is_not_found() {
    let error = Definitions::load(Path::new("/nonexistent/features.toml")).unwrap_err();
    assert_eq!(error.code(), sluice_protocol::Code::NotFound);
    assert!(load(&[("readme.md", "")]).unwrap_err().to_string().contains("no .toml file"));
}

/// The hash of service `demand` with `from` replaced by `to`.
fn hash(from: &str, to: &str) -> String {
    let definitions = load(&[("features.toml", &GOOD.replace(from, to))]).unwrap();
    definitions.plan("demand").unwrap().schema_hash().to_string()
}

#[test]
fn the_schema_hash_follows_what_decides_a_value() {
    let same = hash("", "");
    assert_eq!(same, hash("ROWS 2 PRECEDING", "rows between 2 preceding and current row"));
    assert_eq!(same, hash("freshness = \"3d\"", "freshness = \"9d\""));
    assert_eq!(same, hash("data/sales.csv", "other/place.csv"));
    for (from, to) in [
        ("ROWS 2", "ROWS 3"),
        ("default = 1.0", "default = 2.0"),
        ("default = 0", "default = 1"),
        ("stale = \"default\"", "stale = \"degrade\""),
        ("ttl = \"90d\"", "ttl = \"91d\""),
        ("\"store_id\", \"trend\"", "\"trend\", \"store_id\""),
        ("month FROM", "year FROM"),
        ("units = \"INT64\" }", "units = \"FLOAT64\" }"),
        ("nullif(units, 0)", "nullif(units, 1)"),
    ] {
        assert_ne!(same, hash(from, to), "{from} -> {to}");
    }
}
