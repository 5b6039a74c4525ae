//! Expressions: tables of text -> value and text -> complaint, windows, and their laws.

use proptest::prelude::*;

use super::{Expression, Node, Schema, Windows};
use crate::column::{Column, Values};
use crate::timestamp::parse_date;
use crate::value::{DataType, Value};

const COLUMNS: [(&str, DataType); 7] = [
    ("x", DataType::Float64),
    ("i", DataType::Int64),
    ("b", DataType::Bool),
    ("s", DataType::String),
    ("d", DataType::Date),
    ("t", DataType::Timestamp),
    ("none", DataType::Int64),
];

/// x = 2.5, i = 7, b = true, s = 'Ab', d = 2024-02-29 (a Thursday), t = that day 13:30, none = null.
fn row() -> Vec<Column> {
    let day = parse_date("2024-02-29").unwrap();
    let moment = Value::parse("2024-02-29T13:30:00Z", DataType::Timestamp).unwrap();
    let values = [
        Value::Float64(2.5),
        Value::Int64(7),
        Value::Bool(true),
        Value::String("Ab".into()),
        Value::Date(day),
        moment,
        Value::Null,
    ];
    let columns = values.iter().zip(COLUMNS);
    columns.map(|(value, (_, data_type))| Column::repeat(value, data_type, 1)).collect()
}

fn parse(text: &str, windows: Windows) -> Result<Expression, String> {
    Expression::parse(text, &Schema::from_iter(COLUMNS), windows)
}

/// Evaluates over [`row`] and shows type and value.
fn shown(text: &str) -> String {
    let expression = parse(text, Windows::Refused).unwrap_or_else(|e| panic!("{text}: {e}"));
    let columns = row();
    let inputs: Vec<&Column> = columns.iter().collect();
    match expression.evaluate(&inputs, 1) {
        Ok(column) => {
            assert_eq!(column.data_type(), expression.data_type(), "{text}");
            format!("{} {}", column.data_type(), column.value(0))
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn values() {
    let check = |text: &str, expected: &str| assert_eq!(shown(text), expected, "{text}");
    check("1 + 2 * 3 - 4", "INT64 3");
    check("(1 + 2) * x", "FLOAT64 7.5");
    check("7 / 2", "INT64 3");
    check("i / 2.0", "FLOAT64 3.5");
    check("-7 / 2", "INT64 -3");
    check("-i % 4", "INT64 -3");
    check("i / 0", "INT64 null");
    check("i % 0", "INT64 null");
    check("x / 0", "FLOAT64 inf");
    check("0.0 / 0.0", "FLOAT64 NaN");
    check("9223372036854775807 + 1", "INT64 null");
    check("i + none", "INT64 null");
    check("x + NULL", "FLOAT64 null");
    check("-x", "FLOAT64 -2.5");
    check("abs(-i)", "INT64 7");
    check("abs(-x)", "FLOAT64 2.5");
    check("ln(1)", "FLOAT64 0.0");
    check("ln(-1)", "FLOAT64 NaN");
    check("exp(0)", "FLOAT64 1.0");
    check("sqrt(16)", "FLOAT64 4.0");
    check("pow(2, 10)", "FLOAT64 1024.0");
    check("floor(-x)", "FLOAT64 -3.0");
    check("ceil(x)", "FLOAT64 3.0");
    check("round(x)", "FLOAT64 3.0");
    check("round(-x)", "FLOAT64 -3.0");
    check("round(1.005 * 100, 1)", "FLOAT64 100.5");
    check("round(1234.5, -2)", "FLOAT64 1200.0");
    check("least(3, i, none)", "INT64 3");
    check("greatest(3, x)", "FLOAT64 3.0");
    check("least(none, NULL)", "INT64 null");
    check("coalesce(none, i, 1)", "INT64 7");
    check("coalesce(none, x)", "FLOAT64 2.5");
    check("nullif(i, 7)", "INT64 null");
    check("nullif(i, 8)", "INT64 7");
    check("nullif(none, 8)", "INT64 null");
    check("lower(s)", "STRING ab");
    check("upper('straße')", "STRING STRASSE");
    check("length('Grüße')", "INT64 5");
}

#[test]
fn logic_has_three_values() {
    let check = |text: &str, expected: &str| {
        assert_eq!(shown(text), format!("BOOL {expected}"), "{text}");
    };
    check("i > 6 AND NOT b", "false");
    check("none > 6", "null");
    check("none > 6 AND false", "false");
    check("none > 6 AND true", "null");
    check("none > 6 OR true", "true");
    check("none > 6 OR false", "null");
    check("NOT (none = 1)", "null");
    check("none IS NULL AND i IS NOT NULL", "true");
    check("i BETWEEN 7 AND 8", "true");
    check("i NOT BETWEEN 7 AND 8", "false");
    check("i BETWEEN none AND 6", "false");
    check("i IN (1, 7)", "true");
    check("i IN (1, none)", "null");
    check("i NOT IN (1, 2)", "true");
    check("i = 7.0", "true");
    check("s = 'Ab'", "true");
    check("s < 'b'", "true");
    check("d = '2024-02-29'", "true");
    check("d >= DATE '2024-03-01'", "false");
    check("t > d", "true");
    check("0.0 / 0.0 = 0.0 / 0.0", "true");
    check("0.0 / 0.0 > 1e300", "true");
    check("0.0 = -0.0", "true");
    check("CASE WHEN none = 1 THEN false ELSE true END", "true");
}

#[test]
fn branches_are_computed_only_for_their_rows() {
    let check = |text: &str, expected: &str| assert_eq!(shown(text), expected, "{text}");
    check("CASE WHEN i = 7 THEN 'seven' WHEN i = 8 THEN 'eight' END", "STRING seven");
    check("CASE i WHEN 8 THEN 1 WHEN 7 THEN 2.5 END", "FLOAT64 2.5");
    check("CASE WHEN i = 8 THEN 1 END", "INT64 null");
    check("CASE WHEN b THEN 1 ELSE CAST(s AS INT) END", "INT64 1");
    check(
        "CASE WHEN NOT b THEN 1 ELSE CAST(s AS INT) END",
        "CAST of Ab to INT64 failed; TRY_CAST gives null instead",
    );
}

#[test]
fn casts() {
    let check = |text: &str, expected: &str| assert_eq!(shown(text), expected, "{text}");
    check("CAST(i AS DOUBLE)", "FLOAT64 7.0");
    check("CAST(-x AS BIGINT)", "INT64 -2");
    check("CAST('12' AS INT64)", "INT64 12");
    check("CAST('1e3' AS FLOAT64)", "FLOAT64 1000.0");
    check("CAST('2024-02-29' AS DATE)", "DATE 2024-02-29");
    check("CAST(d AS TIMESTAMP)", "TIMESTAMP 2024-02-29");
    check("CAST(t AS DATE)", "DATE 2024-02-29");
    check("CAST(b AS INT)", "INT64 1");
    check("CAST(i AS BOOLEAN)", "BOOL true");
    check("CAST(d AS VARCHAR)", "STRING 2024-02-29");
    check("CAST(NULL AS DATE)", "DATE null");
    check("TRY_CAST(s AS INT)", "INT64 null");
    check("TRY_CAST(1e300 AS INT)", "INT64 null");
    check("TRY_CAST(0.0 / 0.0 AS INT)", "INT64 null");
    check("s::INT", "CAST of Ab to INT64 failed; TRY_CAST gives null instead");
}

#[test]
fn calendar() {
    let check = |text: &str, expected: &str| assert_eq!(shown(text), expected, "{text}");
    check("extract(year FROM d)", "INT64 2024");
    check("extract(month FROM d)", "INT64 2");
    check("extract(day FROM t)", "INT64 29");
    check("extract(dow FROM d)", "INT64 4");
    check("extract(dow FROM DATE '2024-03-03')", "INT64 0");
    check("date_part('isodow', DATE '2024-03-03')", "INT64 7");
    check("extract(doy FROM d)", "INT64 60");
    check("extract(week FROM DATE '2021-01-03')", "INT64 53");
    check("extract(quarter FROM DATE '2024-10-01')", "INT64 4");
    check("extract(epoch FROM DATE '1970-01-02')", "FLOAT64 86400.0");
    check("extract(hour FROM t)", "INT64 13");
    check("extract(hour FROM d)", "INT64 0");
    check("date_trunc('month', d)", "DATE 2024-02-01");
    check("date_trunc('week', d)", "DATE 2024-02-26");
    check("date_trunc('quarter', DATE '2024-12-31')", "DATE 2024-10-01");
    check("date_trunc('hour', t)", "TIMESTAMP 2024-02-29T13:00:00Z");
    check("d + INTERVAL '1' DAY", "DATE 2024-03-01");
    check("d - INTERVAL '1' MONTH", "DATE 2024-01-29");
    check("d + INTERVAL '1 year'", "DATE 2025-02-28");
    check("d + INTERVAL '2' WEEK", "DATE 2024-03-14");
    check("t + INTERVAL '12' HOUR", "TIMESTAMP 2024-03-01T01:30:00Z");
    check("d + 1", "DATE 2024-03-01");
    check("i + d", "DATE 2024-03-07");
    check("d - 60", "DATE 2023-12-31");
    check("d - DATE '2024-01-01'", "INT64 59");
    check("extract(month FROM CAST(NULL AS DATE))", "INT64 null");
}

#[test]
fn wrong_expressions_are_explained() {
    let check = |text: &str, windows, part: &str| {
        let complaint = parse(text, windows).expect_err(text);
        assert!(complaint.contains(part), "{text}: {complaint}");
    };
    let refused = |text: &str, part: &str| check(text, Windows::Refused, part);
    refused("unit", "column unit is unknown");
    refused("I + 1", "did you mean i?");
    refused("ruond(x)", "did you mean round?");
    refused("sqroot(x)", "function sqroot is unknown");
    refused("x +", "not a SQL expression");
    refused("x 1", "unexpected 1 after its end");
    refused("", "not a SQL expression");
    refused("SELECT 1", "");
    refused("(SELECT 1)", "not supported");
    refused("x + s", "mixes FLOAT64 and STRING");
    refused("i = 'seven'", "mixes INT64 and STRING");
    refused("d = 'tomorrow'", "is not a DATE");
    refused("d + INTERVAL '1' HOUR", "whole days");
    refused("d * 2", "d is DATE, a number is needed");
    refused("x AND b", "a condition must be BOOL");
    refused("lower(x)", "lower needs a STRING, got FLOAT64");
    refused("round(x, i)", "constant number of digits");
    refused("abs(1, 2)", "abs takes 1 arguments, got 2");
    refused("extract(fortnight FROM d)", "calendar unit");
    refused("extract(year FROM x)", "needs a DATE or TIMESTAMP");
    refused("CAST(x AS UUID)", "type UUID is unknown");
    refused("CAST(d AS INT)", "DATE cannot be cast to INT64");
    refused("CASE WHEN b THEN 1 ELSE 'one' END", "CASE mixes");
    refused("99999999999999999999", "out of range");
    refused("avg(x)", "write avg(...) OVER (...)");
    refused("lag(x, 1) OVER ()", "only a view's features may do");
    refused(&format!("x{}", " + x".repeat(200)), "nested deeper than 128");
    refused(&"x".repeat(5000), "longer than 4096");
    let backward = |text: &str, part: &str| check(text, Windows::Backward, part);
    backward("avg(x) OVER ()", "avg needs a frame");
    backward("avg(x) OVER (PARTITION BY s ROWS 3 PRECEDING)", "PARTITION BY and ORDER BY are not");
    backward("avg(x) OVER (ORDER BY d ROWS 3 PRECEDING)", "PARTITION BY and ORDER BY are not");
    backward("sum(x) OVER (ROWS UNBOUNDED PRECEDING)", "must be bounded");
    backward("sum(x) OVER (ROWS BETWEEN CURRENT ROW AND 1 FOLLOWING)", "reads later rows");
    backward("sum(x) OVER (ROWS BETWEEN CURRENT ROW AND 2 PRECEDING)", "ends before it starts");
    backward("sum(x) OVER (RANGE BETWEEN 3 PRECEDING AND CURRENT ROW)", "INTERVAL '28' DAY");
    backward("sum(s) OVER (ROWS 3 PRECEDING)", "sum needs a number, s is STRING");
    backward("lead(x, 1) OVER ()", "reads later rows");
    let by_time = "sum(x) OVER (RANGE BETWEEN CURRENT ROW AND INTERVAL '1' DAY FOLLOWING)";
    backward(by_time, "reads later rows");
    let to_the_end = "sum(x) OVER (ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING)";
    backward(to_the_end, "must be bounded");
    check(to_the_end, Windows::Both, "must be bounded");
    backward("lag(x, i) OVER ()", "constant number of rows");
    backward("lag(x, -1) OVER ()", "constant number of rows");
    backward("lag(x) OVER (ROWS 3 PRECEDING)", "neither a FILTER nor a frame");
    backward("lag(lag(x) OVER ()) OVER ()", "only a view's features may do");
    backward("abs(x) OVER ()", "works row by row");
}

/// A window's values over one entity's rows, of which row `n` is on day `n` but for gaps.
fn windowed(text: &str, times: &[i64], x: &Column, promo: &Column) -> Vec<Value> {
    let schema = Schema::from_iter([("x", x.data_type()), ("promo", DataType::Int64)]);
    let expression = Expression::parse(text, &schema, Windows::Both).unwrap();
    let Node::Window(window) = expression.node() else { panic!("{text} is no window") };
    let inputs = [x, promo];
    let input = |node: &Option<Node>| {
        let node = node.as_ref()?;
        Some(Expression::from_node(node.clone()).evaluate(&inputs, times.len()).unwrap())
    };
    let (argument, filter) = (input(&window.argument), input(&window.filter));
    let filter = match &filter {
        Some(Column::Bool(values)) => Some(values),
        _ => None,
    };
    let column = window.evaluate(argument.as_ref(), filter, times);
    assert_eq!(column.data_type(), expression.data_type(), "{text}");
    (0..times.len()).map(|row| column.value(row)).collect()
}

fn days(days: &[i64]) -> Vec<i64> {
    days.iter().map(|day| day * 86_400_000_000).collect()
}

#[test]
fn windows_look_at_their_own_rows() {
    let times = days(&[1, 2, 3, 6, 7]);
    let x = Column::Int64([Some(5), None, Some(1), Some(1), Some(8)].into_iter().collect());
    let promo = Column::Int64(Values::new(vec![0, 1, 1, 0, 1]));
    let check = |text: &str, expected: &str| {
        let values = windowed(text, &times, &x, &promo);
        let shown: Vec<String> = values.iter().map(ToString::to_string).collect();
        assert_eq!(shown.join(" "), expected, "{text}");
    };
    check("lag(x, 1) OVER ()", "null 5 null 1 1");
    check("lag(x, 0) OVER ()", "5 null 1 1 8");
    check("lag(x) OVER ()", "null 5 null 1 1");
    check("lead(x, 2) OVER ()", "1 1 8 null null");
    check("run_length(x) OVER ()", "1 1 1 2 1");
    check("run_length(x > 4) OVER ()", "1 1 1 2 1");
    check("sum(x) OVER (ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)", "5 5 1 2 9");
    check("sum(x) OVER (ROWS BETWEEN 2 PRECEDING AND 1 PRECEDING)", "null 5 5 1 2");
    // Where the rows end before the frame does, what is in it is not all.
    check("sum(x) OVER (ROWS BETWEEN CURRENT ROW AND 1 FOLLOWING)", "5 1 2 9 null");
    check("count(*) OVER (ROWS BETWEEN 1 FOLLOWING AND 2 FOLLOWING)", "2 2 2 null null");
    check("max(x) OVER (ROWS BETWEEN 1 PRECEDING AND 9 FOLLOWING)", "null null null null null");
    check("sum(x) OVER (RANGE BETWEEN CURRENT ROW AND INTERVAL '1' DAY FOLLOWING)", "5 1 1 9 null");
    check("count(x) OVER (ROWS 1 PRECEDING)", "1 1 1 2 2");
    check("count(*) OVER (ROWS 1 PRECEDING)", "1 2 2 2 2");
    check("count(*) FILTER (WHERE promo = 1) OVER (ROWS 2 PRECEDING)", "0 1 2 2 2");
    check("avg(x) OVER (ROWS 2 PRECEDING)", "5.0 5.0 3.0 1.0 3.3333333333333335");
    check("avg(x) FILTER (WHERE promo = 1) OVER (ROWS 1 PRECEDING)", "null null 1.0 1.0 8.0");
    check("max(x) OVER (ROWS 2 PRECEDING)", "5 5 5 1 8");
    check("min(x) OVER (ROWS 4 PRECEDING)", "5 5 1 1 1");
    check(
        "stddev(x) OVER (ROWS 2 PRECEDING)",
        "null null 2.8284271247461903 0.0 4.041451884327381",
    );
    check("sum(x) OVER (RANGE BETWEEN INTERVAL '2' DAY PRECEDING AND CURRENT ROW)", "5 5 6 1 9");
    check("count(*) OVER (RANGE INTERVAL '3' DAY PRECEDING)", "1 2 3 2 2");
}

#[test]
fn windows_know_the_last_row_that_they_read() {
    let times = days(&[1, 2, 3, 6, 7]);
    let check = |text: &str, expected: [usize; 5]| {
        let expression = parse(text, Windows::Both).unwrap();
        let Node::Window(window) = expression.node() else { panic!("{text} is no window") };
        assert_eq!(window.last_read(&times), expected, "{text}");
    };
    check("lag(x, 2) OVER ()", [0, 1, 2, 3, 4]);
    check("run_length(x) OVER ()", [0, 1, 2, 3, 4]);
    check("sum(x) OVER (ROWS BETWEEN 2 PRECEDING AND 1 PRECEDING)", [0, 1, 2, 3, 4]);
    check("lead(x, 2) OVER ()", [2, 3, 4, 4, 4]);
    check("sum(x) OVER (ROWS BETWEEN 1 FOLLOWING AND 3 FOLLOWING)", [3, 4, 4, 4, 4]);
    let by_time = "sum(x) OVER (RANGE BETWEEN CURRENT ROW AND INTERVAL '2' DAY FOLLOWING)";
    check(by_time, [2, 2, 2, 4, 4]);
}

#[test]
fn canonical_forms_tell_expressions_apart() {
    let shown = |text: &str| parse(text, Windows::Both).unwrap().to_string();
    assert_eq!(shown("x+1"), "add(\"x\", 1.0)");
    assert_eq!(shown("i  + 1"), shown("(i)+1"));
    let texts = [
        "i + 1",
        "i - 1",
        "1 + i",
        "i + 2",
        "x + 1",
        "lag(x, 1) OVER ()",
        "lag(x, 2) OVER ()",
        "lead(x, 1) OVER ()",
        "sum(x) OVER (ROWS 3 PRECEDING)",
        "sum(x) OVER (ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING)",
        "sum(x) OVER (RANGE INTERVAL '3' DAY PRECEDING)",
        "sum(x) FILTER (WHERE b) OVER (ROWS 3 PRECEDING)",
        "avg(x) OVER (ROWS 3 PRECEDING)",
        "CAST(x AS INT)",
        "TRY_CAST(x AS INT)",
        "CASE WHEN b THEN 1 ELSE 2 END",
        "CASE WHEN b THEN 2 ELSE 1 END",
        "date_trunc('month', d)",
        "date_trunc('week', d)",
        "round(x)",
        "round(x, 1)",
        "s = 'a'",
        "s = 'b'",
    ];
    let forms: std::collections::BTreeSet<String> = texts.iter().map(|text| shown(text)).collect();
    assert_eq!(forms.len(), texts.len());
}

proptest! {
    #[test]
    fn no_text_panics(text in "[-+*/()a-z0-9 ',.<>=]{0,60}") {
        let _ = parse(&text, Windows::Both);
    }

    /// History before a window's frame changes no bit of its value.
    #[test]
    fn windows_forget_what_is_before_their_frame(
        history in prop::collection::vec(prop::option::of(-1e9..1e9f64), 0..30),
        recent in prop::collection::vec(prop::option::of(-1e9..1e9f64), 8..20),
    ) {
        let whole: Vec<Option<f64>> = history.iter().chain(&recent).copied().collect();
        let last = |values: &[Option<f64>], first_day: usize, text: &str| {
            let days: Vec<i64> =
                (first_day..first_day + values.len()).map(|day| i64::try_from(day).unwrap()).collect();
            let x = Column::Float64(values.iter().copied().collect());
            let promo = Column::Int64(Values::new(days.iter().map(|day| day % 2).collect()));
            let times: Vec<i64> = days.iter().map(|day| day * 86_400_000_000).collect();
            windowed(text, &times, &x, &promo).pop().unwrap()
        };
        for text in [
            "avg(x) OVER (ROWS 7 PRECEDING)",
            "stddev(x) OVER (ROWS 5 PRECEDING)",
            "sum(x) FILTER (WHERE promo = 1) OVER (ROWS 7 PRECEDING)",
            "avg(x) OVER (RANGE INTERVAL '6' DAY PRECEDING)",
            "max(x) OVER (ROWS 7 PRECEDING)",
            "lag(x, 7) OVER ()",
        ] {
            let (long, short) = (last(&whole, 0, text), last(&recent, history.len(), text));
            prop_assert_eq!(format!("{:?}", long), format!("{:?}", short), "{}", text);
        }
    }

    /// Rows are computed alike one by one and together.
    #[test]
    fn a_row_does_not_depend_on_its_neighbours(
        rows in prop::collection::vec((prop::option::of(any::<f64>()), prop::option::of(-9i64..9)), 1..20),
    ) {
        let x = Column::Float64(rows.iter().map(|(x, _)| *x).collect());
        let i = Column::Int64(rows.iter().map(|(_, i)| *i).collect());
        let schema = Schema::from_iter([("x", DataType::Float64), ("i", DataType::Int64)]);
        for text in [
            "CASE WHEN i > 3 THEN x WHEN i > 0 THEN -x ELSE coalesce(x, i, 1) END",
            "greatest(x, i) / nullif(i, 0) + TRY_CAST(x AS INT)",
            "i % 3 = 0 OR x < i AND NOT (i IN (1, 2, 3))",
        ] {
            let expression = Expression::parse(text, &schema, Windows::Refused).unwrap();
            let together = expression.evaluate(&[&x, &i], rows.len()).unwrap();
            for row in 0..rows.len() {
                let (x, i) = (x.take([Some(row)].into_iter()), i.take([Some(row)].into_iter()));
                let alone = expression.evaluate(&[&x, &i], 1).unwrap();
                let (alone, together) = (alone.value(0), together.value(row));
                prop_assert_eq!(format!("{:?}", alone), format!("{:?}", together), "{}", text);
            }
        }
    }
}
