//! Computes windows. Each value comes from its own frame in time order, never from a running
//! sum, so it does not depend on how much history was read before.

use std::ops::Range;

use super::super::compare::compare_values;
use super::{Aggregate, Frame, Window, WindowFunction};
use crate::column::{Column, Values};
use crate::value::{DataType, Value};

impl Window {
    /// The window's value at each row of one entity, whose rows come in time order. `argument`
    /// is its value in each row (none for `count(*)`), `filter` says which rows count.
    pub(crate) fn evaluate(
        &self,
        argument: Option<&Column>,
        filter: Option<&Values<bool>>,
        times: &[i64],
    ) -> Column {
        let rows = times.len();
        match (self.function, argument) {
            (WindowFunction::Lag(offset), Some(column)) => {
                column.take((0..rows).map(|row| row.checked_sub(offset)))
            }
            (WindowFunction::Lead(offset), Some(column)) => {
                column.take((0..rows).map(|row| row.checked_add(offset).filter(|at| *at < rows)))
            }
            (WindowFunction::RunLength, Some(column)) => run_lengths(column, rows),
            (WindowFunction::Aggregate(aggregate, frame), column) => {
                let counts = |row: &usize| filter.is_none_or(|f| f.get(*row) == Some(&true));
                let frames = frame.ranges(times);
                let frames = frames.map(|range| range.filter(counts));
                aggregate_frames(aggregate, column, frames)
            }
            (_, None) => Column::nulls(self.data_type(), rows),
        }
    }
}

impl Frame {
    /// The rows that each row's frame holds.
    fn ranges(self, times: &[i64]) -> Box<dyn Iterator<Item = Range<usize>> + '_> {
        let rows = times.len();
        match self {
            Self::Rows { start, end } => Box::new((0..rows).map(move |row| {
                let at =
                    |offset: i64| i64::try_from(row).unwrap_or(i64::MAX).saturating_add(offset);
                let first = usize::try_from(at(start)).unwrap_or(0);
                let past = usize::try_from(at(end).saturating_add(1)).unwrap_or(0).min(rows);
                first.min(past)..past
            })),
            Self::Range { start, end } => {
                let (mut first, mut past) = (0, 0);
                Box::new(times.iter().map(move |time| {
                    while first < rows && times[first] < time.saturating_add(start) {
                        first += 1;
                    }
                    while past < rows && times[past] <= time.saturating_add(end) {
                        past += 1;
                    }
                    first.min(past)..past
                }))
            }
        }
    }
}

fn run_lengths(column: &Column, rows: usize) -> Column {
    let mut length = 0i64;
    let lengths = (0..rows).map(|row| {
        let same = row > 0 && same_value(&column.value(row - 1), &column.value(row));
        length = if same { length + 1 } else { 1 };
        length
    });
    Column::Int64(Values::new(lengths.collect()))
}

fn same_value(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Null, _) | (_, Value::Null) => false,
        _ => compare_values(a, b).is_eq(),
    }
}

fn aggregate_frames<F: Iterator<Item = usize>>(
    aggregate: Aggregate,
    column: Option<&Column>,
    frames: impl Iterator<Item = F>,
) -> Column {
    match (aggregate, column) {
        (Aggregate::Count, None) => {
            Column::Int64(frames.map(|frame| i64::try_from(frame.count()).ok()).collect())
        }
        (Aggregate::Count, Some(column)) => {
            let known = |frame: F| frame.filter(|row| !column.is_null(*row)).count();
            Column::Int64(frames.map(|frame| i64::try_from(known(frame)).ok()).collect())
        }
        (Aggregate::Sum, Some(Column::Int64(values))) => {
            Column::Int64(frames.map(|frame| sum_whole(known(values, frame))).collect())
        }
        (Aggregate::Min | Aggregate::Max, Some(column)) => {
            let best = |frame: F| extreme(column, frame, aggregate == Aggregate::Max);
            let rows: Vec<_> = frames.map(best).collect();
            column.take(rows.into_iter())
        }
        (_, Some(Column::Float64(values))) => {
            let mut frame_values = Vec::new();
            let of_frame = |frame: F| {
                frame_values.clear();
                frame_values.extend(known(values, frame));
                aggregate_floats(aggregate, &frame_values)
            };
            Column::Float64(frames.map(of_frame).collect())
        }
        _ => Column::nulls(DataType::Float64, frames.count()),
    }
}

fn known<T>(values: &Values<T>, frame: impl Iterator<Item = usize>) -> impl Iterator<Item = &T> {
    frame.filter_map(|row| values.get(row))
}

/// Null when the sum leaves the range of INT64.
fn sum_whole<'a>(mut values: impl Iterator<Item = &'a i64>) -> Option<i64> {
    let first = *values.next()?;
    values.try_fold(first, |sum, value| sum.checked_add(*value))
}

fn extreme(column: &Column, frame: impl Iterator<Item = usize>, max: bool) -> Option<usize> {
    frame.filter(|row| !column.is_null(*row)).reduce(|best, row| {
        let ordering = compare_values(&column.value(row), &column.value(best));
        if (max && ordering.is_gt()) || (!max && ordering.is_lt()) { row } else { best }
    })
}

fn aggregate_floats(aggregate: Aggregate, values: &[f64]) -> Option<f64> {
    let count = values.len() as f64;
    let mean = || values.iter().sum::<f64>() / count;
    match aggregate {
        _ if values.is_empty() => None,
        Aggregate::Sum => Some(values.iter().sum()),
        Aggregate::Avg => Some(mean()),
        Aggregate::Stddev if values.len() > 1 => {
            let mean = mean();
            let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
            Some((squares / (count - 1.0)).sqrt())
        }
        _ => None,
    }
}
