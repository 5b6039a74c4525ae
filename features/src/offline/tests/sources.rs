//! Broken sources are refused by name, row and column, before anything is computed; sources in
//! Parquet give what the same rows in CSV do.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float32Array, Int32Array, TimestampNanosecondArray};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::prelude::SessionContext;

use super::day;
use crate::fixtures::{definitions, folder, load, source, store, view};
use crate::offline::{check_sources, materialize};
use crate::{EntityKey, FeatureError, Value, ViewRows};
use sluice_protocol::Code;

fn sales() -> String {
    let columns = r#"store_id = "INT64", day = "DATE", units = "FLOAT64""#;
    let features = r#"
    { name = "units", expression = "units" },
    { name = "mean", expression = "avg(units) OVER (ROWS 1 PRECEDING)" },
"#;
    store("INT64") + &source("sales", "day", columns) + &view("sales", "sales", features)
}

async fn complaint(csv: &str) -> String {
    let (_folder, definitions) = definitions(&[("features.toml", &sales()), ("sales.csv", csv)]);
    let error = materialize(&definitions, None, None).await.unwrap_err();
    assert!(matches!(error, FeatureError::Source { .. }), "{error:?}");
    assert_eq!(error.code(), Code::InvalidArgument);
    error.to_string()
}

#[tokio::test]
async fn broken_sources_are_refused() {
    let check = async |csv: &str, part: &str| {
        let complaint = complaint(csv).await;
        assert!(complaint.contains(part) && complaint.contains("sales.csv"), "{complaint}");
    };
    check("store_id,day\n1,2024-01-01\n", "has no column units; it has: store_id, day").await;
    check("store_id\n1\n", "has no columns day, units; it has: store_id").await;
    check("", "is empty; its first line must name the columns").await;
    check("store_id,day,day,units\n", "two columns named \"day\"").await;
    check(
        "store_id,day,units\n1,2024-01-01,4\n1,2024-01-02,four\n",
        "row 2, column units: \"four\" is not a FLOAT64",
    )
    .await;
    check(
        "store_id,day,units\n1,2024-13-01,4\n",
        "row 1, column day: \"2024-13-01\" is not a DATE",
    )
    .await;
    check(
        "store_id,day,units\n1.5,2024-01-01,4\n",
        "row 1, column store_id: \"1.5\" is not an INT64",
    )
    .await;
    check("store_id,day,units\n,2024-01-01,4\n", "row 1, column store_id: the key is missing")
        .await;
    check("store_id,day,units\n1,,4\n", "row 1, column day: the timestamp is missing").await;
    let short = "store_id,day,units\n1,2024-01-01\n";
    check(short, "cannot be read: incorrect number of fields for line 2").await;
    let twice = "store_id,day,units\n1,2024-01-01,4\n2,2024-01-01,4\n1,2024-01-01,5\n";
    check(twice, "store_id 1 has several rows for 2024-01-01").await;
}

#[tokio::test]
async fn a_missing_file_and_a_missing_column_are_found_by_apply() {
    let (folder, definitions) = definitions(&[("features.toml", &sales())]);
    let error = check_sources(&definitions).await.unwrap_err();
    assert!(error.to_string().contains("source sales: cannot be read"), "{error}");
    std::fs::write(folder.path().join("sales.csv"), "store_id,units\n").unwrap();
    let error = check_sources(&definitions).await.unwrap_err();
    assert!(error.to_string().contains("has no column day"), "{error}");
    std::fs::write(folder.path().join("sales.csv"), "store_id,units,day,more\n").unwrap();
    check_sources(&definitions).await.unwrap();
}

fn shown(batch: &ViewRows) -> Vec<String> {
    let types = batch.header().types();
    let row = |(key, row): &(EntityKey, crate::Row)| {
        let values: Vec<Value> =
            (0..types.len()).map(|at| row.value(at, types.len(), types[at])).collect();
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        format!("{key} {}: {}", crate::Timestamp(row.time()), values.join(" "))
    };
    batch.rows().iter().map(row).collect()
}

#[tokio::test]
async fn the_last_row_on_or_before_the_day_is_materialised() {
    let csv = "store_id,day,units\n2,2024-01-03,8\n1,2024-01-01,4\n1,2024-01-03,\n1,2024-01-02,6\n3,2024-01-04,1\n";
    let (_folder, definitions) = definitions(&[("features.toml", &sales()), ("sales.csv", csv)]);
    let check = async |until, expected: &[&str]| {
        let batches = materialize(&definitions, None, until).await.unwrap();
        assert_eq!(shown(&batches[0]), expected, "{until:?}");
    };
    check(Some(day("2023-12-31")), &[]).await;
    check(Some(day("2024-01-02")), &["1 2024-01-02: 6.0 5.0"]).await;
    // A null in the newest row is not looked through.
    check(Some(day("2024-01-03")), &["1 2024-01-03: null 6.0", "2 2024-01-03: 8.0 8.0"]).await;
    check(None, &["1 2024-01-03: null 6.0", "2 2024-01-03: 8.0 8.0", "3 2024-01-04: 1.0 1.0"])
        .await;
    let unknown = materialize(&definitions, Some(&["slaes".into()]), None).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test]
async fn parquet_gives_the_same_rows() {
    let day_nanos = 86_400_000_000_000i64;
    let columns: [(&str, ArrayRef); 3] = [
        ("store_id", Arc::new(Int32Array::from(vec![1, 1, 2]))),
        ("day", Arc::new(TimestampNanosecondArray::from(vec![0, day_nanos, 5]))),
        ("units", Arc::new(Float32Array::from(vec![Some(1.5), Some(2.5), None]))),
    ];
    let text = sales().replace("sales.csv", "sales.parquet");
    let folder = folder(&[("features.toml", &text), ("sales.parquet", "no Parquet")]);
    let definitions = load(folder.path());
    let error = materialize(&definitions, None, None).await.unwrap_err().to_string();
    assert!(error.contains("sales.parquet): cannot be read: "), "{error}");
    assert_eq!(error.matches("error").count(), 1, "{error}");
    let file = folder.path().join("sales.parquet");
    std::fs::remove_file(&file).unwrap();
    let session = SessionContext::new();
    let frame = session.read_batch(RecordBatch::try_from_iter(columns).unwrap()).unwrap();
    frame.write_parquet(file.to_str().unwrap(), DataFrameWriteOptions::new(), None).await.unwrap();
    let batches = materialize(&definitions, None, None).await.unwrap();
    assert_eq!(shown(&batches[0]), ["1 1970-01-02: 2.5 2.0", "2 1970-01-01: null null"]);
}
