//! Our columns as Arrow arrays and back.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType as ArrowType, Date32Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use datafusion::error::DataFusionError;

use crate::column::{Column, Values};
use crate::value::DataType;

/// The Arrow type that holds our type.
pub(super) const fn arrow_type(data_type: DataType) -> ArrowType {
    match data_type {
        DataType::Bool => ArrowType::Boolean,
        DataType::Int64 => ArrowType::Int64,
        DataType::Float64 => ArrowType::Float64,
        DataType::String => ArrowType::Utf8,
        DataType::Date => ArrowType::Date32,
        DataType::Timestamp => ArrowType::Timestamp(TimeUnit::Microsecond, None),
    }
}

/// The column as an array of [`arrow_type`].
pub(super) fn to_array(column: &Column) -> ArrayRef {
    match column {
        Column::Bool(values) => {
            Arc::new(values.iter().map(Option::<&bool>::copied).collect::<BooleanArray>())
        }
        Column::Int64(values) => {
            Arc::new(values.iter().map(Option::<&i64>::copied).collect::<Int64Array>())
        }
        Column::Float64(values) => {
            Arc::new(values.iter().map(Option::<&f64>::copied).collect::<Float64Array>())
        }
        Column::String(values) => Arc::new(values.iter().collect::<StringArray>()),
        Column::Date(values) => {
            Arc::new(values.iter().map(Option::<&i32>::copied).collect::<Date32Array>())
        }
        Column::Timestamp(values) => Arc::new(
            values.iter().map(Option::<&i64>::copied).collect::<TimestampMicrosecondArray>(),
        ),
    }
}

/// The array as a column of `data_type`, converted if it is of another Arrow type; what does
/// not fit becomes null.
pub(super) fn to_column(array: &ArrayRef, data_type: DataType) -> Result<Column, DataFusionError> {
    let wanted = arrow_type(data_type);
    let array =
        if *array.data_type() == wanted { Arc::clone(array) } else { cast(array, &wanted)? };
    Ok(match data_type {
        DataType::Bool => Column::Bool(array.as_boolean().iter().collect()),
        DataType::Int64 => Column::Int64(array.as_primitive::<Int64Type>().iter().collect()),
        DataType::Float64 => Column::Float64(array.as_primitive::<Float64Type>().iter().collect()),
        DataType::String => Column::String(
            array.as_string::<i32>().iter().map(|text| text.map(Arc::from)).collect::<Values<_>>(),
        ),
        DataType::Date => Column::Date(array.as_primitive::<Date32Type>().iter().collect()),
        DataType::Timestamp => {
            Column::Timestamp(array.as_primitive::<TimestampMicrosecondType>().iter().collect())
        }
    })
}
