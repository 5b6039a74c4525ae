//! The point-in-time join against a naive one, and what a frame request may say.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::day;
use crate::fixtures::{definitions, shown, source, store, view};
use crate::offline::{FrameRequest, materialize, training_frame};
use crate::{DataType, EntityKey, FeatureError, Timestamp, Value};

/// Sales with a time of day and of writing under this ttl, stock by day, and labels.
fn demand(ttl: &str) -> String {
    let sales =
        r#"store_id = "STRING", time = "TIMESTAMP", written = "TIMESTAMP", units = "INT64""#;
    let stock = r#"store_id = "STRING", day = "DATE", pieces = "FLOAT64""#;
    let labels = r#"store_id = "STRING", time = "TIMESTAMP", label = "FLOAT64", promo = "INT64""#;
    [
        store("STRING"),
        source("sales", "time", sales) + "created_timestamp_field = \"written\"\n",
        source("stock", "day", stock),
        source("labels", "time", labels),
        view("sales", "sales", r#"{ name = "units", expression = "units" }"#),
        format!("ttl = \"{ttl}\"\n"),
        view("stock", "stock", r#"{ name = "pieces", expression = "pieces" }"#),
        SERVICE.to_owned(),
    ]
    .concat()
}

const SERVICE: &str = r#"
[[feature_service]]
name = "demand"
entity = "store"
views = ["sales@1", "stock@1"]
request_fields = [
    { name = "promo", type = "INT64" },
    { name = "boost", type = "FLOAT64", required = false, default = 2.5 },
]
columns = ["units", "pieces", "promo", { name = "boosted", expression = "boost * units" }]
"#;

const HOUR: i64 = 3_600_000_000;

/// A source row: store, hour, hour of writing, units.
type Sale = (u8, i64, i64, Option<i64>);

fn hour(hour: i64) -> String {
    Timestamp(hour * HOUR).to_string()
}

fn csv(header: &str, rows: impl Iterator<Item = String>) -> String {
    let mut text = format!("{header}\n");
    rows.for_each(|row| text += &(row + "\n"));
    text
}

fn sales_csv(sales: &[Sale]) -> String {
    let row = |(store, at, written, units): &Sale| {
        let units = units.map_or(String::new(), |units| units.to_string());
        format!("s{store},{},{},{units}", hour(*at), hour(*written))
    };
    csv("store_id,time,written,units", sales.iter().map(row))
}

fn labels_csv(labels: &[(u8, i64)]) -> String {
    let row = |(at, (store, time)): (usize, &(u8, i64))| format!("s{store},{},{at},1", hour(*time));
    csv("store_id,time,label,promo", labels.iter().enumerate().map(row))
}

fn request(horizon_days: u64) -> FrameRequest {
    super::request("demand", ("labels", "label"), &["promo"], horizon_days)
}

/// The first and the last hour of the rows that a label of an hour may get: those of the day
/// that the horizon leaves, and those within `ttl` before it.
fn range(label: i64, horizon_days: i64, ttl: i64) -> (i64, i64) {
    if horizon_days == 0 {
        return (label - ttl, label);
    }
    let start = (label.div_euclid(24) - horizon_days) * 24;
    (start - ttl, start + 23)
}

/// The units of the latest sale in range, by looking at every one.
fn naive(sales: &[Sale], store: u8, (first, last): (i64, i64)) -> Option<i64> {
    let in_range = |sale: &&(usize, &Sale)| sale.1.0 == store && (first..=last).contains(&sale.1.1);
    let rows: Vec<(usize, &Sale)> = sales.iter().enumerate().collect();
    let best = rows.iter().filter(in_range).max_by_key(|(place, sale)| (sale.1, sale.2, *place));
    best.and_then(|(_, sale)| sale.3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn the_join_finds_what_a_naive_one_does(
        sales in prop::collection::vec((0u8..3, -30i64..60, 0i64..3, prop::option::of(0i64..100)), 0..40),
        labels in prop::collection::vec((0u8..4, -30i64..100), 0..40),
        horizon_days in 0u64..3,
        ttl in 1i64..40,
    ) {
        let files = [
            ("features.toml", demand(&format!("{ttl}h"))),
            ("sales.csv", sales_csv(&sales)),
            ("stock.csv", "store_id,day,pieces\ns0,1970-01-02,4\n".into()),
            ("labels.csv", labels_csv(&labels)),
        ];
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let (_folder, definitions) = definitions(&files);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let frame = runtime.block_on(training_frame(&definitions, &request(horizon_days))).unwrap();
        prop_assert_eq!(frame.rows(), labels.len());
        let horizon = i64::try_from(horizon_days).unwrap();
        for (row, label) in labels.iter().enumerate() {
            prop_assert_eq!(frame.labels[row].to_bits(), (row as f64).to_bits(), "label order");
            prop_assert_eq!(&frame.keys[row], &EntityKey::String(format!("s{}", label.0).into()));
            prop_assert_eq!(frame.times[row], label.1 * HOUR);
            prop_assert_eq!(frame.label_ends[row], frame.times[row]);
            let in_range = range(label.1, horizon, ttl);
            let units = naive(&sales, label.0, in_range).map_or("null".into(), |u| format!("{u}.0"));
            let pieces = if label.0 == 0 && in_range.1 >= 24 { "4.0" } else { "null" };
            let shown = |at: usize| match frame.columns[at].values[row] {
                value if value.is_nan() => "null".to_owned(),
                value => format!("{value:?}"),
            };
            prop_assert_eq!(shown(0), units, "row {} of {:?}", row, labels);
            prop_assert_eq!(shown(1), pieces);
            prop_assert_eq!(shown(2), "1.0");
        }
    }
}

fn small() -> (tempfile::TempDir, crate::Definitions) {
    definitions(&[
        ("features.toml", &demand("24h")),
        // The second row of hour 5 was written later and stands.
        ("sales.csv", &sales_csv(&[(0, 5, 2, Some(9)), (0, 5, 1, Some(7)), (1, 30, 0, Some(3))])),
        ("stock.csv", "store_id,day,pieces\n"),
        ("labels.csv", &labels_csv(&[(0, 4), (0, 5), (0, 29), (0, 30), (0, 29), (1, 40)])),
    ])
}

#[tokio::test]
async fn bounds_are_closed_and_duplicates_stay() {
    let (_folder, definitions) = small();
    let frame = training_frame(&definitions, &request(0)).await.unwrap();
    // Hour 4 is before the sale, 5 is at it, 29 a whole ttl after it, 30 past that.
    assert_eq!(shown(&frame.columns[0].values), "- 9 9 - 9 3");
    assert_eq!(shown(&frame.columns[3].values), "- 22.5 22.5 - 22.5 7.5");
    assert_eq!(frame.schema_hash, definitions.plan("demand").unwrap().schema_hash());
}

/// With a horizon, what an example has learned from is what was online after the day before.
#[tokio::test]
async fn a_day_is_read_to_its_end_as_it_is_materialised() {
    let sale = |store: u8, day: i64, hour: i64| {
        (store, day * 24 + hour, 0, Some(1000 * i64::from(store) + day * 24 + hour))
    };
    // Store 1 sells nothing on day 1 and closes early on day 2.
    let sales = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 3)]
        .into_iter()
        .flat_map(|(store, day)| [sale(store, day, 9), sale(store, day, 18)])
        .chain([sale(1, 2, 9)]);
    // Every midnight, and one label within a day.
    let labels = (0..=4).flat_map(|day| [(0, day * 24), (1, day * 24)]).chain([(0, 3 * 24 + 12)]);
    let (_folder, definitions) = definitions(&[
        ("features.toml", &demand("1000h")),
        ("sales.csv", &sales_csv(&sales.collect::<Vec<Sale>>())),
        ("stock.csv", "store_id,day,pieces\n"),
        ("labels.csv", &labels_csv(&labels.collect::<Vec<_>>())),
    ]);
    let check = async |horizon: u64, expected: &str| {
        let frame = training_frame(&definitions, &request(horizon)).await.unwrap();
        assert_eq!(shown(&frame.columns[0].values), expected, "{horizon} days");
        for row in 0..frame.rows() {
            let label_day = Timestamp(frame.times[row]).date();
            let until = label_day - chrono::Days::new(horizon);
            let online = materialize(&definitions, None, Some(until)).await.unwrap();
            let sales = online.iter().find(|batch| batch.header().view.name.as_ref() == "sales");
            let stored = sales.unwrap().rows().iter().find(|(key, _)| *key == frame.keys[row]);
            let units = match stored.map(|(_, stored)| stored.value(0, 1, DataType::Int64)) {
                Some(Value::Int64(units)) => units.to_string(),
                _ => "-".into(),
            };
            assert_eq!(shown(&frame.columns[0].values[row..=row]), units, "row {row}");
        }
    };
    check(1, "- - 18 1018 42 1018 66 1057 90 1090 66").await;
    check(2, "- - - - 18 1018 42 1018 66 1057 42").await;
}

#[tokio::test]
async fn a_ttl_is_counted_from_the_start_of_the_day() {
    let (_folder, definitions) = definitions(&[
        ("features.toml", &demand("24h")),
        ("sales.csv", &sales_csv(&[(0, 24, 0, Some(1)), (1, 23, 0, Some(2)), (2, 71, 0, Some(3))])),
        ("stock.csv", "store_id,day,pieces\n"),
        ("labels.csv", &labels_csv(&[(0, 72), (0, 95), (1, 72), (2, 72), (0, 96), (2, 120)])),
    ]);
    let frame = training_frame(&definitions, &request(1)).await.unwrap();
    // Labels of day 3 look back from day 2: its last hour counts, and day 1 from its first.
    assert_eq!(shown(&frame.columns[0].values), "1 1 - 3 - -");
}

#[tokio::test]
async fn labels_that_look_ahead_are_whole_and_say_how_far_they_read() {
    let labels = [(0, 96), (0, 0), (1, 24), (0, 24), (0, 48), (0, 120)];
    let (_folder, definitions) = definitions(&[
        ("features.toml", &demand("24h")),
        ("sales.csv", "store_id,time,written,units\n"),
        ("stock.csv", "store_id,day,pieces\n"),
        ("labels.csv", &labels_csv(&labels)),
    ]);
    let check = async |label: &str, known_until: Option<&str>, expected: &str, ends: &str| {
        let known_until = known_until.map(day);
        let request = FrameRequest { label: label.into(), known_until, ..request(1) };
        let frame = training_frame(&definitions, &request).await.unwrap();
        let labels: Vec<String> = frame.labels.iter().map(ToString::to_string).collect();
        assert_eq!(labels.join(" "), expected, "{label}");
        let hours = frame.label_ends.iter().map(|end| (end / HOUR).to_string());
        assert_eq!(hours.collect::<Vec<_>>().join(" "), ends, "{label}");
    };
    let own = "96 0 24 24 48 120";
    // Store 0 has the labels 1 3 4 0 5 at the hours 0 24 48 96 120.
    check("label", None, "0 1 2 3 4 5", own).await;
    check("lag(label, 1) OVER ()", None, "4 NaN NaN 1 3 0", own).await;
    check("lead(label, 2) OVER ()", None, "NaN 4 NaN 0 5 NaN", "120 48 24 96 120 120").await;
    let three = "sum(label) OVER (ROWS BETWEEN CURRENT ROW AND 2 FOLLOWING)";
    check(three, None, "NaN 8 NaN 7 9 NaN", "120 48 24 96 120 120").await;
    // What lies after the last known day does not exist.
    check(three, Some("1970-01-05"), "NaN 8 NaN 7 NaN", "96 48 24 96 96").await;
    // The farthest of several windows.
    let two = "lead(label, 1) OVER () - avg(label) OVER (ROWS BETWEEN 1 FOLLOWING AND 2 FOLLOWING)";
    check(two, None, "NaN -0.5 NaN 2 -2.5 NaN", "120 48 24 96 120 120").await;
    // A day without a row is none that lacks, as long as there is a later one.
    let days = "count(*) OVER (RANGE BETWEEN CURRENT ROW AND INTERVAL '2' DAY FOLLOWING)";
    check(days, None, "NaN 3 NaN 2 2 NaN", "120 48 24 48 96 120").await;
    let guessed = "coalesce(lead(label, 1) OVER (), 9)";
    check(guessed, None, "5 3 9 4 0 9", "120 24 24 48 96 120").await;
}

#[tokio::test]
async fn of_label_rows_that_were_written_again_the_last_stands() {
    let (_folder, definitions) = small();
    let fields = BTreeMap::from([("promo".to_owned(), "1".to_owned())]);
    let corrected = FrameRequest {
        label_source: "sales".into(),
        label: "units".into(),
        request_fields: fields,
        ..request(1)
    };
    let frame = training_frame(&definitions, &corrected).await.unwrap();
    assert_eq!(frame.labels, [9.0, 3.0]);
}

#[tokio::test]
async fn a_request_selects_labels_and_may_look_ahead() {
    let (_folder, definitions) = small();
    let selected = FrameRequest {
        label: "lead(label, 1) OVER ()".into(),
        filter: Some("label <> 1".into()),
        from: Some(day("1970-01-02")),
        until: Some(day("1970-01-02")),
        request_fields: BTreeMap::from([(
            "promo".to_owned(),
            "run_length(promo) OVER ()".to_owned(),
        )]),
        ..request(0)
    };
    let frame = training_frame(&definitions, &selected).await.unwrap();
    // In time order store 0 has the labels 0 1 2 4 3: windows see rows that are filtered out.
    let labels: Vec<String> = frame.labels.iter().map(ToString::to_string).collect();
    assert_eq!(labels.join(" "), "4 NaN 3 NaN");
    assert_eq!(shown(&frame.columns[2].values), "3 5 4 1");
}

#[tokio::test]
async fn wrong_requests_are_explained() {
    let (_folder, definitions) = small();
    let check = async |request: FrameRequest, part: &str| {
        let error = training_frame(&definitions, &request).await.unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert!(!matches!(error, FeatureError::Offline(_)), "{error:?}");
    };
    let fields = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    };
    check(FrameRequest { service: "x".into(), ..request(0) }, "\"x\" is not defined").await;
    check(FrameRequest { label_source: "x".into(), ..request(0) }, "label source \"x\"").await;
    check(FrameRequest { label: "lable".into(), ..request(0) }, "did you mean label?").await;
    check(FrameRequest { label: "store_id".into(), ..request(0) }, "label: is STRING").await;
    check(FrameRequest { filter: Some("1".into()), ..request(0) }, "filter: is INT64, BOOL").await;
    check(FrameRequest { request_fields: fields(&[]), ..request(0) }, "promo: needs an expression")
        .await;
    let unknown = fields(&[("promo", "promo"), ("price", "1")]);
    check(FrameRequest { request_fields: unknown, ..request(0) }, "no request field price").await;
    let text = fields(&[("promo", "store_id")]);
    check(FrameRequest { request_fields: text, ..request(0) }, "promo: is STRING, INT64").await;
    let endless = "sum(label) OVER (ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING)";
    check(FrameRequest { label: endless.into(), ..request(0) }, "label: a frame must be bounded")
        .await;
    let hours = FrameRequest { horizon: Duration::from_secs(3600), ..request(0) };
    check(hours, "not whole days").await;
}
