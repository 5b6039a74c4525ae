//! Computes windows. Each aggregate comes from its own frame in time order, never from a running
//! sum, so it does not depend on how much history was read before. `run_length` does: it has no
//! frame and counts back through all the rows that it is given.

use std::ops::Range;

use super::super::compare::compare_values;
use super::{Aggregate, Frame, Window, WindowFunction};
use crate::column::{Column, Values};
use crate::value::{DataType, Value};

impl Window {
    /// The window's value at each row of one entity, whose rows come in time order. `argument`
    /// is its value in each row (none for `count(*)`), `filter` says which rows count. A window
    /// that looks ahead is null where the rows end before it does.
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
                let frames = frame.ranges(times).map(|range| range.filter(counts));
                let values = aggregate_frames(aggregate, column, frames);
                if !frame.looks_ahead() {
                    return values;
                }
                values.take((0..rows).map(|row| frame.is_whole(row, times).then_some(row)))
            }
            (_, None) => Column::nulls(self.data_type(), rows),
        }
    }

    /// For each row of one entity the last row that the window reads: the row itself, unless the
    /// window looks ahead and there are later rows.
    pub(crate) fn last_read(&self, times: &[i64]) -> Vec<usize> {
        let frame = match self.function {
            WindowFunction::Lead(offset) => {
                Frame::Rows { start: 0, end: i64::try_from(offset).unwrap_or(i64::MAX) }
            }
            WindowFunction::Aggregate(_, frame) => frame,
            WindowFunction::Lag(_) | WindowFunction::RunLength => Frame::Rows { start: 0, end: 0 },
        };
        let ranges = frame.ranges(times).enumerate();
        ranges.map(|(row, range)| range.end.saturating_sub(1).max(row)).collect()
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
    /// Whether the rows go on to the frame's end: for a frame by time, whether any row is at or
    /// after it, since one that is still to come could lie within.
    fn is_whole(self, row: usize, times: &[i64]) -> bool {
        match self {
            Self::Rows { end, .. } => {
                let after = i64::try_from(times.len() - row - 1).unwrap_or(i64::MAX);
                end <= after
            }
            Self::Range { end, .. } => {
                times.last().is_some_and(|last| *last >= times[row].saturating_add(end))
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
