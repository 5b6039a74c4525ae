//! Definition files: what is read, and that every mistake is named with its place.

use std::path::Path;

use super::Definitions;
use crate::error::FeatureError;
use crate::fixtures::folder;

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
    Definitions::load(folder(files).path())
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

/// Each case is what stands in [`GOOD`], what stands there instead, and what a line that names
/// the file and `place` says of it.
fn check(place: &str, cases: &[(&str, &str, &str)]) {
    for (from, to, part) in cases {
        let text = complaints(from, to);
        let said = text.lines().any(|line| {
            line.contains("features.toml") && line.contains(place) && line.contains(part)
        });
        assert!(said, "{from} -> {to}: {text}");
    }
}

#[test]
fn mistakes_in_a_file_are_named_with_their_line() {
    let cases = [
        ("format = 1", "format = 2", "newer than 1"),
        ("format = 1", "", "missing field `format`"),
    ];
    check("", &cases);
    check("line 4", &[("[[entity]]", "[[entities]]", "entities")]);
    let twice = "join_key = \"store_id\"\njoin_key = \"x\"";
    check("line 7", &[("join_key = \"store_id\"", twice, "duplicate key")]);
}

#[test]
fn mistakes_in_an_entity_or_a_source_are_named_with_it() {
    let entity = [
        ("join_key = ", "joinkey = ", "unknown field `joinkey`"),
        (r#"value_type = "INT64""#, r#"value_type = "FLOAT64""#, "cannot be a key"),
    ];
    check("entity store", &entity);
    let (time, units) = (r#"timestamp_field = "day""#, r#"units = "INT64" }"#);
    let source = [
        (units, r#"units = "INT32" }"#, "column units: type \"INT32\""),
        ("sales.csv", "sales.xlsx", "format \"xlsx\""),
        (time, r#"timestamp_field = "date""#, "date is not in the schema"),
        (time, r#"timestamp_field = "units""#, "units is INT64"),
    ];
    check("source sales", &source);
}

#[test]
fn mistakes_in_a_view_are_named_with_it() {
    let cases = [
        (r#"value_type = "INT64""#, r#"value_type = "STRING""#, "entity store says STRING"),
        (
            "entity = \"store\"\nsource",
            "entity = \"shop\"\nsource",
            "entity \"shop\" is not defined, known are: store",
        ),
        (r#"source = "sales""#, r#"source = "sale""#, "source \"sale\" is not defined"),
        (r#"store_id = "INT64", day"#, r#"id = "INT64", day"#, "no column store_id"),
        (r#"freshness = "3d""#, r#"freshness = "soon""#, "no duration"),
        (r#"stale = "default""#, r#"stale = "ignore""#, "write degrade or default"),
    ];
    check("feature_view sales@2", &cases);
    check("feature_view sales@0", &[("version = 2", "version = 0", "counts from 1")]);
}

#[test]
fn mistakes_in_a_feature_are_named_with_its_view() {
    let typo = "feature mean: column unit is unknown, did you mean units?";
    let later = "ROWS BETWEEN CURRENT ROW AND 1 FOLLOWING";
    let cases = [
        ("avg(units)", "avg(unit)", typo),
        ("avg(units)", "avgg(units)", "did you mean avg?"),
        ("avg(units)", "avg(trend)", "by way of itself"),
        ("default = 1.0", r#"default = "one""#, "feature trend: default \"one\" is not a FLOAT64"),
        (r#""mean""#, r#""trend""#, "feature trend is defined twice"),
        ("mean / nullif", "lag(mean) OVER () / nullif", "another window's values"),
        ("ROWS 2 PRECEDING", later, "feature mean: avg reads later rows"),
        ("mean / nullif", "lead(units) OVER () / nullif", "feature trend: lead reads later rows"),
    ];
    check("feature_view sales@2", &cases);
}

#[test]
fn mistakes_in_a_service_are_named_with_it() {
    let views = r#"views = ["sales@2"]"#;
    let month = "extract(month FROM day)";
    let typo = "column trent: column trent is unknown, did you mean trend?";
    let promo = r#"name = "promo""#;
    let cases = [
        (views, r#"views = ["sales@1"]"#, "view sales@1 is not defined"),
        (views, r#"views = ["sales"]"#, "written name@version"),
        (views, r#"views = ["sales@2", "sales@2"]"#, "used twice"),
        (r#""trend", {"#, r#""trent", {"#, typo),
        (month, "day", "column month: is DATE"),
        (month, "lag(trend) OVER ()", "only a view's features"),
        (r#"name = "month""#, r#"name = "trend""#, "column trend is defined twice"),
        (promo, r#"name = "day""#, "request field day is defined twice"),
        ("required = false, default", "default", "is required and has a default"),
        (promo, r#"name = "trend""#, "trend may mean request.trend or sales.trend"),
    ];
    check("feature_service demand", &cases);
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
