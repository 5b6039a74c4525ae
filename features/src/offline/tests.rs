//! The offline half on small files and on the demo's data.

use std::time::{Duration, SystemTime};

use chrono::NaiveDate;

use super::{FrameRequest, materialize, training_frame};
use crate::{Column, Definitions, EmbeddedStore, Fields, Value, Values};

#[tokio::test]
async fn thin() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let definitions = Definitions::load(&root.join("demo/features.toml")).unwrap();
    let start = std::time::Instant::now();
    let batches = materialize(&definitions, None, NaiveDate::from_ymd_opt(2011, 9, 30)).await.unwrap();
    println!("materialize {:?} {}", start.elapsed(), batches[0].rows().len());
    let store = EmbeddedStore::in_memory();
    println!("{:?}", store.write(&batches[0]).unwrap());
    let plan = definitions.plan("demand-forecast").unwrap();
    let fields = [("date".to_owned(), "2025-01-15".to_owned()), ("promo".to_owned(), "1".to_owned())];
    let vector = plan.vector(&store, "42", &fields, SystemTime::now()).unwrap();
    println!("{}", serde_json::to_string_pretty(&vector).unwrap());
    let start = std::time::Instant::now();
    let request = FrameRequest {
        service: "demand-forecast".into(),
        label_source: "daily_sales".into(),
        label: "units".into(),
        request_fields: [("date".to_owned(), "date".to_owned()), ("promo".to_owned(), "promo".to_owned())].into(),
        filter: None,
        horizon: Duration::from_secs(86_400),
        from: None,
        until: None,
        known_until: None,
    };
    let frame = training_frame(&definitions, &request).await.unwrap();
    println!("frame {:?} {} rows", start.elapsed(), frame.rows());
    for column in &frame.columns {
        println!("{} {:?}", column.name, &column.values[22000]);
    }
    let mut fields = Fields::new();
    fields.push("store_id", Column::Int64(Values::new(vec![42]))).unwrap();
    fields.push("date", Column::repeat(&Value::String("2011-12-09".into()), crate::DataType::String, 1)).unwrap();
    fields.push("promo", Column::Int64(Values::new(vec![1]))).unwrap();
    let start = std::time::Instant::now();
    for _ in 0..10000 {
        plan.evaluate(&store, &fields, SystemTime::now()).unwrap();
    }
    println!("evaluate {:?}", start.elapsed() / 10000);
    println!("{:?}", plan.evaluate(&store, &fields, SystemTime::now()).unwrap());
}
