//! What is trained on is what is served, to the bit: on the demo's own data and definitions.

use std::path::Path;
use std::time::SystemTime;

use super::day;
use crate::offline::{FrameRequest, materialize, training_frame};
use crate::{
    Column, Definitions, EmbeddedStore, EntityKey, FeatureError, Fields, Frame, ServicePlan,
    Timestamp, Value,
};

fn demo() -> Definitions {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    Definitions::load(&root.join("demo/features.toml")).unwrap()
}

fn request(horizon_days: u64) -> FrameRequest {
    let label = ("daily_sales", "units");
    super::request("demand-forecast", label, &["date", "promo"], horizon_days)
}

/// The model's inputs that the store gives for an example of the frame; none for a store that
/// has not sold anything yet.
fn served(
    plan: &ServicePlan,
    store: &EmbeddedStore,
    frame: &Frame,
    row: usize,
) -> Option<Vec<f32>> {
    let EntityKey::Int64(key) = &frame.keys[row] else { panic!("stores have numbers") };
    let mut fields = Fields::new();
    let one = |value: Value| Column::repeat(&value, value.data_type().unwrap(), 1);
    let date = Timestamp(frame.times[row]).date().to_string();
    fields.push("store_id", one(Value::Int64(*key))).unwrap();
    fields.push("date", one(Value::String(date.into()))).unwrap();
    // The frame's first column is the promotion flag itself.
    fields.push("promo", one(Value::Float64(f64::from(frame.columns[0].values[row])))).unwrap();
    match plan.evaluate(store, &fields, SystemTime::now()) {
        Ok(rows) => Some(rows.values),
        Err(FeatureError::UnknownEntity { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_training_row_is_what_the_store_serves() {
    let definitions = demo();
    let plan = definitions.plan("demand-forecast").unwrap();
    let horizon = 2;
    let frame = training_frame(&definitions, &request(horizon)).await.unwrap();
    assert_eq!(
        frame.columns.iter().map(|c| &c.name).collect::<Vec<_>>(),
        plan.columns().iter().collect::<Vec<_>>()
    );
    for text in ["2010-01-04", "2010-06-30", "2011-02-14", "2011-11-20"] {
        let day = day(text);
        let store = EmbeddedStore::in_memory();
        for batch in materialize(&definitions, None, Some(day)).await.unwrap() {
            store.write(&batch).unwrap();
        }
        let asked = Timestamp::from_date(day).0 + 86_400_000_000 * i64::try_from(horizon).unwrap();
        let mut compared = 0;
        for row in (0..frame.rows()).filter(|row| frame.times[*row] == asked) {
            let trained: Vec<u32> = frame.columns.iter().map(|c| c.values[row].to_bits()).collect();
            let Some(served) = served(&plan, &store, &frame, row) else {
                let last = plan.columns().iter().position(|name| name == "units_last").unwrap();
                assert!(frame.columns[last].values[row].is_nan());
                continue;
            };
            let served: Vec<u32> = served.iter().map(|v| v.to_bits()).collect();
            assert_eq!(trained, served, "store {} on {day}", frame.keys[row]);
            compared += 1;
        }
        assert!(compared > 15, "{compared} stores on {day} plus {horizon} days");
    }
}

#[tokio::test]
async fn a_frame_is_the_same_every_time() {
    let (definitions, request) = (demo(), request(1));
    let shown = |frame: &Frame| format!("{frame:?}");
    let first = training_frame(&definitions, &request).await.unwrap();
    let second = training_frame(&definitions, &request).await.unwrap();
    assert_eq!(shown(&first), shown(&second));
}

#[tokio::test]
async fn what_is_not_known_yet_changes_nothing() {
    let definitions = demo();
    let until = day("2011-03-31");
    let all = FrameRequest { until: Some(until), ..request(7) };
    let known = FrameRequest { known_until: Some(until), ..request(7) };
    let all = training_frame(&definitions, &all).await.unwrap();
    let known = training_frame(&definitions, &known).await.unwrap();
    assert!(all.rows() > 10_000);
    assert_eq!(format!("{all:?}"), format!("{known:?}"));
}
