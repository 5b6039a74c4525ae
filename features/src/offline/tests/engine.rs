//! Our evaluator against DataFusion's own, where both mean the same.

use std::sync::Arc;

use datafusion::arrow::datatypes::{Field, Schema as ArrowSchema};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::prelude::SessionContext;
use proptest::prelude::*;

use crate::column::Column;
use crate::expression::{Expression, Node, Schema, Windows};
use crate::offline::array::{arrow_type, to_array, to_column};
use crate::value::{DataType, Value};

type Row = (Option<f64>, Option<i64>, Option<bool>, Option<i32>, Option<String>);

const COLUMNS: [(&str, DataType); 5] = [
    ("x", DataType::Float64),
    ("i", DataType::Int64),
    ("b", DataType::Bool),
    ("d", DataType::Date),
    ("s", DataType::String),
];

fn columns(rows: &[Row]) -> Vec<Column> {
    vec![
        Column::Float64(rows.iter().map(|row| row.0).collect()),
        Column::Int64(rows.iter().map(|row| row.1).collect()),
        Column::Bool(rows.iter().map(|row| row.2).collect()),
        Column::Date(rows.iter().map(|row| row.3).collect()),
        Column::String(rows.iter().map(|row| row.4.as_deref().map(Arc::from)).collect()),
    ]
}

/// DataFusion's result for `SELECT text FROM rows`, in the order of the rows.
fn engine(text: &str, columns: &[Column], data_type: DataType) -> Column {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let row_numbers: Vec<i64> = (0..i64::try_from(columns[0].len()).unwrap()).collect();
        let n = Column::Int64(crate::Values::new(row_numbers));
        let names = COLUMNS.iter().copied().chain([("n", DataType::Int64)]);
        let fields: Vec<Field> =
            names.map(|(name, data_type)| Field::new(name, arrow_type(data_type), true)).collect();
        let arrays = columns.iter().chain([&n]).map(to_array).collect();
        let batch = RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), arrays).unwrap();
        let session = SessionContext::new();
        session.register_batch("rows", batch).unwrap();
        let sql = format!("SELECT {text} AS result FROM rows ORDER BY n");
        let batches = session.sql(&sql).await.unwrap().collect().await.unwrap();
        let column = |batch: &RecordBatch| to_column(batch.column(0), data_type).unwrap();
        let values: Vec<Value> = batches
            .iter()
            .flat_map(|batch| {
                (0..batch.num_rows()).map(|row| column(batch).value(row)).collect::<Vec<_>>()
            })
            .collect();
        Column::from_values(data_type, values.iter()).unwrap()
    })
}

fn alike(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Float64(a), Value::Float64(b)) => {
            a.to_bits() == b.to_bits()
                || (a.is_nan() && b.is_nan())
                || (a - b).abs() <= 1e-12 * a.abs().max(b.abs())
        }
        _ => ours == theirs,
    }
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    // No -0: DataFusion's order tells it from 0, SQL's does not.
    let float = prop::option::of((-1e6..1e6f64).prop_map(|x| if x == 0.0 { 0.0 } else { x }));
    let row = (
        float,
        prop::option::of(-50i64..50),
        prop::option::of(any::<bool>()),
        prop::option::of(-20_000i32..40_000),
        prop::option::of("[a-zäß]{0,4}"),
    );
    prop::collection::vec(row, 1..12)
}

const ROW_BY_ROW: [&str; 23] = [
    "x + i * 2",
    "x / i",
    "i / nullif(i - 3, 0)",
    "i % 7",
    "-x - abs(i)",
    "CASE WHEN b THEN x WHEN i > 0 THEN 1 ELSE NULL END",
    "coalesce(x, i, 0)",
    "least(x, i) + greatest(x, i)",
    "nullif(i, 3)",
    "floor(x) + ceil(x)",
    "round(x)",
    "sqrt(abs(x)) + exp(x / 1000000) + ln(abs(x) + 1)",
    "x > i",
    "b AND i > 3",
    "b OR x < 0 OR NOT (i = 5)",
    "i IN (1, 2, NULL)",
    "i NOT BETWEEN -3 AND 3",
    "x IS NULL OR i IS NOT NULL",
    "CAST(x AS BIGINT)",
    "lower(s)",
    "length(s)",
    "s < 'm'",
    "d + INTERVAL '1' MONTH - INTERVAL '3' DAY",
];

/// Call, frame, and how many later rows it reads: where they are not all there, ours is null.
const WINDOWS: [(&str, &str, usize); 10] = [
    ("lag(x, 2)", "", 0),
    ("lead(i, 1)", "", 1),
    ("sum(i)", "ROWS BETWEEN 3 PRECEDING AND CURRENT ROW", 0),
    ("sum(x)", "ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING", 0),
    ("avg(x)", "ROWS BETWEEN 4 PRECEDING AND CURRENT ROW", 0),
    ("min(x)", "ROWS BETWEEN 2 PRECEDING AND CURRENT ROW", 0),
    ("max(s)", "ROWS BETWEEN 2 PRECEDING AND CURRENT ROW", 0),
    ("count(b)", "ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING", 1),
    ("sum(i)", "ROWS BETWEEN 1 FOLLOWING AND 3 FOLLOWING", 3),
    ("sum(i) FILTER (WHERE b)", "ROWS BETWEEN 3 PRECEDING AND CURRENT ROW", 0),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn rows_are_computed_as_the_engine_does(rows in rows()) {
        let columns = columns(&rows);
        let inputs: Vec<&Column> = columns.iter().collect();
        for text in ROW_BY_ROW {
            let schema = Schema::from_iter(COLUMNS);
            let expression = Expression::parse(text, &schema, Windows::Refused).unwrap();
            let ours = expression.evaluate(&inputs, rows.len()).unwrap();
            let theirs = engine(text, &columns, expression.data_type());
            for (at, row) in rows.iter().enumerate() {
                let (ours, theirs) = (ours.value(at), theirs.value(at));
                prop_assert!(alike(&ours, &theirs), "{text}: {ours} not {theirs} of {row:?}");
            }
        }
    }

    #[test]
    fn windows_are_computed_as_the_engine_does(rows in rows()) {
        let columns = columns(&rows);
        let inputs: Vec<&Column> = columns.iter().collect();
        for (call, frame, ahead) in WINDOWS {
            let schema = Schema::from_iter(COLUMNS);
            let expression =
                Expression::parse(&format!("{call} OVER ({frame})"), &schema, Windows::Both).unwrap();
            let Node::Window(window) = expression.node() else { panic!("{call}") };
            let input = |node: &Option<Node>| node.as_ref().map(|node| {
                Expression::from_node(node.clone()).evaluate(&inputs, rows.len()).unwrap()
            });
            let (argument, filter) = (input(&window.argument), input(&window.filter));
            let filter = match &filter { Some(Column::Bool(values)) => Some(values), _ => None };
            let times: Vec<i64> = (0..i64::try_from(rows.len()).unwrap()).collect();
            let ours = window.evaluate(argument.as_ref(), filter, &times);
            let sql = format!("{call} OVER (ORDER BY n {frame})");
            let theirs = engine(&sql, &columns, expression.data_type());
            for row in 0..rows.len() {
                let known = row + ahead < rows.len();
                let (ours, theirs) = (ours.value(row), theirs.value(row));
                let theirs = if known { theirs } else { Value::Null };
                // The engine's running sums round differently.
                let near = match (&ours, &theirs) {
                    (Value::Float64(a), Value::Float64(b)) => (a - b).abs() <= 1e-6,
                    _ => ours == theirs,
                };
                prop_assert!(near, "{call} {frame}, row {row}: {ours} not {theirs}");
            }
        }
    }
}
