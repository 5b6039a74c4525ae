//! The point-in-time join against a naive one, and what a frame request may say.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::{day, definitions};
use crate::offline::{FrameRequest, training_frame};
use crate::{EntityKey, FeatureError, Timestamp};

const DEFINITIONS: &str = r#"
format = 1
[[entity]]
name = "store"
join_key = "store"
value_type = "STRING"

[[source]]
name = "sales"
path = "sales.csv"
timestamp_field = "time"
created_timestamp_field = "written"
schema = { store = "STRING", time = "TIMESTAMP", written = "TIMESTAMP", units = "INT64" }

[[source]]
name = "stock"
path = "stock.csv"
timestamp_field = "day"
schema = { store = "STRING", day = "DATE", pieces = "FLOAT64" }

[[source]]
name = "labels"
path = "labels.csv"
timestamp_field = "time"
schema = { store = "STRING", time = "TIMESTAMP", label = "FLOAT64", promo = "INT64" }

[[feature_view]]
name = "sales"
version = 1
entity = "store"
source = "sales"
freshness = "1d"
ttl = "TTL"
features = [{ name = "units", expression = "units" }]

[[feature_view]]
name = "stock"
version = 3
entity = "store"
source = "stock"
freshness = "1d"
features = [{ name = "pieces", expression = "pieces" }]

[[feature_service]]
name = "demand"
entity = "store"
views = ["sales@1", "stock@3"]
request_fields = [
    { name = "promo", type = "INT64" },
    { name = "boost", type = "FLOAT64", required = false, default = 2.5 },
]
columns = ["units", "pieces", "promo", { name = "boosted", expression = "boost * units" }]
"#;

/// A source row: store, hour, hour of writing, units.
type Sale = (u8, i64, i64, Option<i64>);

fn hour(hour: i64) -> String {
    Timestamp(hour * 3_600_000_000).to_string()
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
    csv("store,time,written,units", sales.iter().map(row))
}

fn labels_csv(labels: &[(u8, i64)]) -> String {
    let row = |(at, (store, time)): (usize, &(u8, i64))| format!("s{store},{},{at},1", hour(*time));
    csv("store,time,label,promo", labels.iter().enumerate().map(row))
}

fn request(horizon_days: u64) -> FrameRequest {
    FrameRequest {
        service: "demand".into(),
        label_source: "labels".into(),
        label: "label".into(),
        request_fields: BTreeMap::from([("promo".to_owned(), "promo".to_owned())]),
        filter: None,
        horizon: Duration::from_secs(86_400 * horizon_days),
        from: None,
        until: None,
        known_until: None,
    }
}

/// The units of the latest sale in range, by looking at every one.
fn naive(sales: &[Sale], label: (u8, i64), horizon: i64, ttl: i64) -> Option<i64> {
    let at = label.1 - horizon;
    let in_range =
        |sale: &&(usize, &Sale)| sale.1.0 == label.0 && (at - ttl..=at).contains(&sale.1.1);
    let rows: Vec<(usize, &Sale)> = sales.iter().enumerate().collect();
    let best = rows.iter().filter(in_range).max_by_key(|(place, sale)| (sale.1, sale.2, *place));
    best.and_then(|(_, sale)| sale.3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn the_join_finds_what_a_naive_one_does(
        sales in prop::collection::vec((0u8..3, 0i64..60, 0i64..3, prop::option::of(0i64..100)), 0..40),
        labels in prop::collection::vec((0u8..4, 0i64..100), 0..40),
        horizon_days in 0u64..2,
        ttl in 1i64..40,
    ) {
        let files = [
            ("features.toml", DEFINITIONS.replace("TTL", &format!("{ttl}h"))),
            ("sales.csv", sales_csv(&sales)),
            ("stock.csv", "store,day,pieces\ns0,1970-01-02,4\n".into()),
            ("labels.csv", labels_csv(&labels)),
        ];
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let (_folder, definitions) = definitions(&files);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let frame = runtime.block_on(training_frame(&definitions, &request(horizon_days))).unwrap();
        prop_assert_eq!(frame.rows(), labels.len());
        let horizon = i64::try_from(horizon_days).unwrap() * 24;
        for (row, label) in labels.iter().enumerate() {
            prop_assert_eq!(frame.labels[row].to_bits(), (row as f64).to_bits(), "label order");
            prop_assert_eq!(&frame.keys[row], &EntityKey::String(format!("s{}", label.0).into()));
            prop_assert_eq!(frame.times[row], label.1 * 3_600_000_000);
            let units = naive(&sales, *label, horizon, ttl).map_or("null".into(), |u| format!("{u}.0"));
            let pieces = if label.0 == 0 && label.1 - horizon >= 24 { "4.0" } else { "null" };
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
        ("features.toml", &DEFINITIONS.replace("TTL", "24h")),
        // The second row of hour 5 was written later and stands.
        ("sales.csv", &sales_csv(&[(0, 5, 2, Some(9)), (0, 5, 1, Some(7)), (1, 30, 0, Some(3))])),
        ("stock.csv", "store,day,pieces\n"),
        ("labels.csv", &labels_csv(&[(0, 4), (0, 5), (0, 29), (0, 30), (0, 29), (1, 40)])),
    ])
}

fn shown(values: &[f32]) -> String {
    values
        .iter()
        .map(|v| if v.is_nan() { "-".into() } else { v.to_string() })
        .collect::<Vec<_>>()
        .join(" ")
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
    check(FrameRequest { label: "store".into(), ..request(0) }, "label: is STRING").await;
    check(FrameRequest { filter: Some("1".into()), ..request(0) }, "filter: is INT64, BOOL").await;
    check(FrameRequest { request_fields: fields(&[]), ..request(0) }, "promo: needs an expression")
        .await;
    let unknown = fields(&[("promo", "promo"), ("price", "1")]);
    check(FrameRequest { request_fields: unknown, ..request(0) }, "no request field price").await;
    let text = fields(&[("promo", "store")]);
    check(FrameRequest { request_fields: text, ..request(0) }, "promo: is STRING, INT64").await;
    let hours = FrameRequest { horizon: Duration::from_secs(3600), ..request(0) };
    check(hours, "not whole days").await;
}
