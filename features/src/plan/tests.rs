//! Serving plans: fields in, model inputs out, with what is wrong or old said.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sluice_protocol::Code;

use super::{Fields, ServicePlan};
use crate::column::{Column, Values};
use crate::entity::EntityKey;
use crate::error::FeatureError;
use crate::fixtures::{definitions, shown, source, store, view};
use crate::online::{EmbeddedStore, ViewHeader, ViewRows};
use crate::value::{DataType, Value};

const SERVICE: &str = r#"
[[feature_service]]
name = "demand"
entity = "store"
views = ["sales@1", "prices@1"]
request_fields = [
    { name = "date", type = "DATE" },
    { name = "promo", type = "INT64" },
    { name = "boost", type = "FLOAT64", required = false, default = 1.5 },
]
columns = [
    "promo",
    "units",
    "busy",
    "price",
    { name = "month", expression = "extract(month FROM date)" },
    { name = "boosted", expression = "units * boost" },
    { name = "town_length", expression = "length(town)" },
    { name = "price_again", expression = "price + 0" },
]
"#;

fn demand() -> String {
    let columns = r#"store_id = "INT64", day = "DATE", units = "INT64", town = "STRING""#;
    let sales = r#"
    { name = "units", expression = "units" },
    { name = "busy", expression = "units > 5" },
    { name = "town", expression = "town" },
"#;
    let prices = r#"{ name = "price", expression = "units / 2.0", default = 99.5 }"#;
    [
        store("INT64"),
        source("sales", "day", columns),
        view("sales", "sales", sales),
        view("prices", "sales", prices) + "stale = \"default\"\n",
        SERVICE.to_owned(),
    ]
    .concat()
}

const DAY: i64 = 86_400_000_000;

fn setup() -> (ServicePlan, EmbeddedStore) {
    let (_folder, definitions) = definitions(&[("features.toml", &demand())]);
    let store = EmbeddedStore::in_memory();
    let header = |name: &str| {
        ViewHeader::of(definitions.views().find(|view| view.id.name.as_ref() == name).unwrap())
    };
    let sale = |key: i64, day: i64, units: i64, town: &str| {
        let values = vec![Value::Int64(units), Value::Bool(units > 5), Value::String(town.into())];
        (EntityKey::Int64(key), day * DAY, values)
    };
    let sales = [sale(1, 100, 7, "Graz"), sale(2, 80, 3, "")];
    store.write(&ViewRows::new(header("sales"), sales).unwrap()).unwrap();
    let price = |key: i64, day: i64, price: f64| {
        (EntityKey::Int64(key), day * DAY, vec![Value::Float64(price)])
    };
    let prices = [price(1, 80, 3.5), price(3, 100, 4.5)];
    store.write(&ViewRows::new(header("prices"), prices).unwrap()).unwrap();
    (definitions.plan("demand").unwrap(), store)
}

/// Noon of the day.
fn at_day(day: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(86_400 * day + 43_200)
}

fn texts(texts: &[&str]) -> Column {
    Column::String(texts.iter().map(|text| Some((*text).into())).collect())
}

fn whole(numbers: &[i64]) -> Column {
    Column::Int64(Values::new(numbers.to_vec()))
}

fn fields(columns: Vec<(&str, Column)>) -> Fields {
    let mut fields = Fields::new();
    columns.into_iter().for_each(|(name, column)| fields.push(name, column).unwrap());
    fields
}

#[test]
fn rows_are_filled_in_the_services_order() {
    let (plan, store) = setup();
    let request = fields(vec![
        ("date", texts(&["2025-01-15", "2025-12-31", "2025-06-01"])),
        ("store_id", whole(&[1, 3, 2])),
        ("promo", Column::Float64(Values::new(vec![1.0, 0.0, 2.0]))),
    ]);
    let rows = plan.evaluate(&store, &request, at_day(105)).unwrap();
    assert_eq!(rows.rows, 3);
    let lines: Vec<String> = rows.values.chunks(8).map(shown).collect();
    // Store 1's price is stale and so its default; store 3 has no sales, store 2 no price.
    assert_eq!(lines, ["1 7 1 99.5 1 10.5 4 99.5", "0 - - 4.5 12 - - 4.5", "2 3 0 - 6 4.5 0 -"]);
    let degraded: Vec<String> = rows
        .degraded
        .iter()
        .map(|d| format!("{} {} {}", d.view, d.as_of, d.age.as_secs() / 3600))
        .collect();
    assert_eq!(degraded, ["sales@1 1970-03-22 612", "prices@1 1970-03-22 612"]);
    assert_eq!(rows.as_of.unwrap().to_string(), "1970-03-22");
}

#[test]
fn fresh_rows_are_not_degraded() {
    let (plan, store) = setup();
    let request = fields(vec![
        ("store_id", whole(&[1])),
        ("date", texts(&["2025-01-15"])),
        ("promo", whole(&[1])),
        ("boost", whole(&[2])),
    ]);
    // The price is exactly as old as its view allows.
    let bound = UNIX_EPOCH + Duration::from_secs(86_400 * 90);
    let rows = plan.evaluate(&store, &request, bound).unwrap();
    assert_eq!(shown(&rows.values), "1 7 1 3.5 1 14 4 3.5");
    assert_eq!(rows.degraded, []);
}

/// A request for two stores that lacks nothing.
fn two_stores() -> Vec<(&'static str, Column)> {
    vec![
        ("store_id", whole(&[1, 2])),
        ("date", texts(&["2025-01-15"; 2])),
        ("promo", whole(&[0, 1])),
    ]
}

/// What is said about [`two_stores`] with another column `name`, or without it.
fn complaint(name: &'static str, column: Option<Column>) -> FeatureError {
    let (plan, store) = setup();
    let mut columns = two_stores();
    columns.retain(|(known, _)| *known != name);
    columns.extend(column.map(|column| (name, column)));
    plan.evaluate(&store, &fields(columns), SystemTime::now()).unwrap_err()
}

#[test]
fn wrong_values_are_named_with_field_and_row() {
    let floats = |second: f64| Column::Float64(Values::new(vec![1.0, second]));
    let cases = [
        (
            "date",
            texts(&["2025-01-15", "soon"]),
            "field \"date\", row 1: \"soon\" is not a DATE (YYYY-MM-DD)",
        ),
        ("date", texts(&["2025-02-30"; 2]), "row 0: \"2025-02-30\" is not a DATE"),
        ("date", whole(&[20250115; 2]), "field \"date\", row 0: 20250115 is not a DATE"),
        ("promo", texts(&["1", "1"]), "field \"promo\", row 0: \"1\" is not an INT64"),
        ("promo", floats(0.5), "row 1: 0.5 is not an INT64"),
        ("store_id", floats(9_007_199_254_740_992.0), "row 1: 9007199254740992, which floats hold"),
        ("store_id", floats(-1e300), "which floats hold for its neighbours too, is not an INT64"),
        ("promo", floats(f64::NAN), "row 1: NaN is not an INT64"),
        ("promo", Column::nulls(DataType::Int64, 2), "row 0: null is not an INT64"),
        ("store_id", texts(&["1", "2"]), "field \"store_id\", row 0: \"1\" is not an INT64"),
    ];
    for (name, column, part) in cases {
        let error = complaint(name, Some(column));
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn missing_and_unknown_fields_and_keys_are_named() {
    let check = |name: &'static str, column: Option<Column>, code: Code, part: &str| {
        let error = complaint(name, column);
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    let wrong = Code::InvalidArgument;
    check("store_id", None, wrong, "field \"store_id\" is missing");
    check("promo", None, wrong, "field \"promo\" is missing, it must be an INT64");
    let takes = "feature service demand takes: store_id, date, promo, boost";
    let unknown = format!("field \"price\" is unknown, {takes}");
    check("price", Some(whole(&[1, 2])), wrong, &unknown);
    let absent = Code::NotFound;
    check("store_id", Some(whole(&[1, 99])), absent, "store_id 99 is not in the online store");
    check("store_id", Some(whole(&[98, 99])), absent, "store_id 98, 99 is not");
}

#[test]
fn fields_of_other_lengths_and_fields_given_twice_are_refused() {
    let mut request = fields(two_stores());
    assert!(matches!(request.push("boost", whole(&[1])), Err(FeatureError::RowCount { .. })));
    assert!(request.push("promo", whole(&[1, 1])).unwrap_err().to_string().contains("given twice"));
}

#[test]
fn many_unknown_keys_are_cut_short() {
    let (plan, store) = setup();
    let request = fields(vec![
        ("store_id", whole(&[11, 12, 13, 13, 14, 15, 16, 17])),
        ("date", texts(&["2025-01-15"; 8])),
        ("promo", whole(&[0; 8])),
    ]);
    let error = plan.evaluate(&store, &request, SystemTime::now()).unwrap_err();
    assert!(error.to_string().starts_with("store_id 11, 12, 13, 14, 15, ... is not"), "{error}");
}

#[test]
fn an_unfilled_or_outdated_store_is_said() {
    let (plan, store) = setup();
    let request = || {
        fields(vec![
            ("store_id", whole(&[1])),
            ("date", texts(&["2025-01-15"])),
            ("promo", whole(&[1])),
        ])
    };
    let error =
        plan.evaluate(&EmbeddedStore::in_memory(), &request(), SystemTime::now()).unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.to_string().contains("view sales@1 is not in the online store"), "{error}");
    let mut header = ViewHeader::of(&plan.service.views[0]);
    header.definition = sluice_protocol::Digest::of(b"another");
    store.write(&ViewRows::new(header, []).unwrap()).unwrap();
    let error = plan.evaluate(&store, &request(), SystemTime::now()).unwrap_err();
    assert!(matches!(error, FeatureError::OtherDefinition(_)), "{error}");
}

#[test]
fn no_rows_are_an_answer() {
    let (plan, store) = setup();
    let request =
        fields(vec![("store_id", whole(&[])), ("date", texts(&[])), ("promo", whole(&[]))]);
    let rows = plan.evaluate(&store, &request, SystemTime::now()).unwrap();
    assert_eq!((rows.rows, rows.values.len(), rows.as_of), (0, 0, None));
}

#[test]
fn a_vector_shows_what_is_stored_and_computed() {
    let (plan, store) = setup();
    let field = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let given = [field("date", "2025-01-15"), field("promo", "1")];
    let vector = plan.vector(&store, "1", &given, at_day(105)).unwrap();
    let json = serde_json::to_string(&vector).unwrap();
    assert_eq!(
        json,
        "{\"service\":\"demand\",\"entity\":\"store\",\"join_key\":\"store_id\",\"key\":1,\"views\":[\
         {\"view\":\"sales@1\",\"as_of\":\"1970-04-11\",\"degraded\":false,\"features\":{\"units\":7,\"busy\":true,\"town\":\"Graz\"}},\
         {\"view\":\"prices@1\",\"as_of\":\"1970-03-22\",\"degraded\":true,\"features\":{\"price\":99.5}}],\
         \"columns\":{\"promo\":1.0,\"units\":7.0,\"busy\":1.0,\"price\":99.5,\"month\":1.0,\"boosted\":10.5,\"town_length\":4.0,\"price_again\":99.5}}"
    );
    assert_eq!(serde_json::from_str::<super::ServiceVector>(&json).unwrap(), vector);
    let stored = plan.vector(&store, "3", &[field("promo", "1")], at_day(105)).unwrap();
    assert_eq!((stored.columns, stored.views[0].as_of.clone()), (None, None));
    let check = |key: &str, given: (String, String), part: &str| {
        let error = plan.vector(&store, key, &[given], at_day(105)).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    check("99", field("promo", "1"), "store_id 99 is not in the online store");
    check("one", field("promo", "1"), "field \"store_id\"");
    check("1", field("promo", "x"), "field \"promo\", row 0: \"x\"");
    check("1", field("prom", "1"), "field \"prom\" is unknown");
}
