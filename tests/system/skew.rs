//! What a model learns from is what it is served with, bit for bit.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use chrono::{Days, NaiveDate};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use sluice_features::{
    Column, EmbeddedStore, EntityKey, Fields, Frame, FrameRequest, Timestamp, Values, materialize,
    training_frame,
};

use crate::support::definitions;

const PAIRS: usize = 1000;
/// Materialising is most of the test's time, so the pairs lie on this many random days.
const DAYS: usize = 60;
const HORIZON_DAYS: u64 = 7;

/// For 1,000 random (store, date) examples of the training frame: materialise up to the day
/// that the horizon leaves, ask the online store, and compare every input's bits.
#[tokio::test(flavor = "multi_thread")]
async fn online_features_are_the_training_frames() {
    let definitions = definitions();
    let request = FrameRequest {
        service: "demand-forecast".to_owned(),
        label_source: "daily_sales".to_owned(),
        label: "units".to_owned(),
        request_fields: BTreeMap::from(
            ["date", "promo"].map(|field| (field.to_owned(), field.to_owned())),
        ),
        filter: None,
        horizon: Duration::from_secs(HORIZON_DAYS * 86_400),
        from: None,
        until: None,
        known_until: None,
    };
    let frame = training_frame(&definitions, &request).await.unwrap();
    let promo = frame.columns.iter().position(|column| column.name == "promo").unwrap();
    let plan = definitions.plan("demand-forecast").unwrap();

    let mut random = Pcg64Mcg::seed_from_u64(7);
    let by_day = sample(&frame, &mut random);
    // Days ascend, as they do in production: an online row is never replaced by an older one.
    let store = EmbeddedStore::in_memory();
    let mut compared = 0;
    let mut unknown = 0;
    for (day, rows) in by_day {
        let known = day.checked_sub_days(Days::new(HORIZON_DAYS)).unwrap();
        for batch in materialize(&definitions, None, Some(known)).await.unwrap() {
            store.write(&batch).unwrap();
        }
        for row in rows {
            let EntityKey::Int64(key) = frame.keys[row] else { panic!("stores have numbers") };
            #[expect(clippy::cast_possible_truncation, reason = "0 or 1")]
            let promo = frame.columns[promo].values[row] as i64;
            let mut fields = Fields::new();
            fields.push("store_id", Column::Int64(Values::new(vec![key]))).unwrap();
            fields.push("date", Column::String(Values::new(vec![day.to_string().into()]))).unwrap();
            fields.push("promo", Column::Int64(Values::new(vec![promo]))).unwrap();
            let expected: Vec<u32> =
                frame.columns.iter().map(|column| column.values[row].to_bits()).collect();
            match plan.evaluate(&store, &fields, SystemTime::now()) {
                Ok(online) => {
                    let online: Vec<u32> =
                        online.values.iter().map(|value| value.to_bits()).collect();
                    assert_eq!(online, expected, "store {key}, {day}");
                    compared += 1;
                }
                // A storefront in its first days: nothing was known of it, and training says so.
                Err(error) => {
                    let features = &frame.columns[6..12];
                    assert!(features.iter().all(|column| column.values[row].is_nan()), "{error}");
                    unknown += 1;
                }
            }
        }
    }
    assert_eq!(compared + unknown, PAIRS);
    assert!(unknown < PAIRS / 20, "{unknown} of {PAIRS} had no features yet");
}

/// Random examples of random days, by day.
fn sample(frame: &Frame, random: &mut Pcg64Mcg) -> BTreeMap<NaiveDate, Vec<usize>> {
    let mut rows_of: BTreeMap<NaiveDate, Vec<usize>> = BTreeMap::new();
    for (row, time) in frame.times.iter().enumerate() {
        rows_of.entry(Timestamp(*time).date()).or_default().push(row);
    }
    while rows_of.len() > DAYS {
        let drop = random.random_range(0..rows_of.len());
        let day = *rows_of.keys().nth(drop).unwrap();
        rows_of.remove(&day);
    }
    let mut pairs: Vec<(NaiveDate, usize)> =
        rows_of.iter().flat_map(|(day, rows)| rows.iter().map(|row| (*day, *row))).collect();
    let mut by_day: BTreeMap<NaiveDate, Vec<usize>> = BTreeMap::new();
    for _ in 0..PAIRS {
        let (day, row) = pairs.swap_remove(random.random_range(0..pairs.len()));
        by_day.entry(day).or_default().push(row);
    }
    by_day
}
