//! Sources as tables of typed columns. A value that is not of its declared type, a missing key
//! or a missing time is an error that names the row.
//!
//! The table has the declared columns as `s0`, `s1`, ... in their order, `key`, `time` and
//! `created` (microseconds) and `pos`, the row's place in the file.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use chrono::NaiveDate;
use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::datatypes::{DataType as ArrowType, Field, Schema};
use datafusion::common::Result as EngineResult;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{
    ColumnarValue, ExprFunctionExt, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::prelude::{
    CsvReadOptions, DataFrame, Expr, ParquetReadOptions, SessionContext, lit,
};

use super::array::{arrow_type, to_array, to_column};
use super::fault::{Fault, reason};
use super::session::column;
use crate::column::Column;
use crate::definitions::{Source, SourceFormat};
use crate::error::FeatureError;
use crate::expression::cast_column;
use crate::timestamp::Timestamp;
use crate::value::{DataType, Value};

/// The name that a declared column has in the table.
pub(super) fn column_name(index: usize) -> String {
    format!("s{index}")
}

/// Opens a source whose entities are in the column `key`. Rows after the day `until` are left
/// out, and so are rows that a later written one for the same key and time replaces.
pub(super) async fn open(
    session: &SessionContext,
    source: &Arc<Source>,
    key: &str,
    until: Option<NaiveDate>,
) -> Result<DataFrame, FeatureError> {
    let table = typed(raw(session, source).await?, source, key)?;
    let table = match until {
        Some(day) => table.filter(column("time").lt_eq(lit(Timestamp::end_of(day).0)))?,
        None => table,
    };
    if source.created_timestamp_field.is_none() {
        return Ok(table);
    }
    let latest = vec![column("created").sort(false, false), column("pos").sort(false, false)];
    let place = row_number()
        .partition_by(vec![column("key"), column("time")])
        .order_by(latest)
        .build()?
        .alias("place");
    Ok(table
        .window(vec![place])?
        .filter(column("place").eq(lit(1u64)))?
        .drop_columns(&["place"])?)
}

/// Checks that the file is there and has the declared columns.
pub(super) async fn check(session: &SessionContext, source: &Source) -> Result<(), FeatureError> {
    raw(session, source).await.map(drop)
}

/// Reads the whole source and reports the first value that is not of its type and, with
/// `unique`, the first two rows for the same key and time of which none is the later written.
pub(super) async fn validate(
    session: &SessionContext,
    source: &Arc<Source>,
    key: &str,
    unique: bool,
) -> Result<(), FeatureError> {
    match check_rows(session, source, key, unique).await {
        // Nothing but the source is read here, so what fails is the source.
        Err(FeatureError::Offline(reason)) => {
            Err(Fault::of(source, format!("cannot be read: {reason}")).into())
        }
        other => other,
    }
}

async fn check_rows(
    session: &SessionContext,
    source: &Arc<Source>,
    key: &str,
    unique: bool,
) -> Result<(), FeatureError> {
    let table = typed(raw(session, source).await?, source, key)?;
    let declared = (0..source.columns.len()).map(column_name);
    let all = declared.chain(["key", "time", "created"].map(str::to_owned));
    let counts = all.map(|name| count(column(&name)).alias(name)).collect();
    table.clone().aggregate(Vec::new(), counts)?.collect().await?;
    if !unique || source.created_timestamp_field.is_some() {
        return Ok(());
    }
    let twice = table
        .aggregate(vec![column("key"), column("time")], vec![count(lit(1)).alias("rows")])?
        .filter(column("rows").gt(lit(1)))?
        .sort(vec![column("key").sort(true, false), column("time").sort(true, false)])?
        .limit(0, Some(1))?
        .collect()
        .await?;
    let Some(found) = twice.iter().find(|batch| batch.num_rows() > 0) else { return Ok(()) };
    let key_type = source.column_type(key).unwrap_or(DataType::Int64);
    let key_value = to_column(found.column(0), key_type)?.value(0);
    let time = match to_column(found.column(1), DataType::Int64)?.value(0) {
        Value::Int64(micros) => Timestamp(micros).to_string(),
        other => other.to_string(),
    };
    Err(Fault::of(
        source,
        format!(
            "{key} {key_value} has several rows for {time}; remove the duplicate, or declare a \
             created_timestamp_field that says which stands"
        ),
    )
    .into())
}

/// The file's rows as they are, those columns at least that are declared.
async fn raw(session: &SessionContext, source: &Source) -> Result<DataFrame, FeatureError> {
    let fault = |reason: String| FeatureError::from(Fault::of(source, reason));
    if let Err(error) = std::fs::File::open(&source.path) {
        return Err(fault(format!("cannot be read: {error}")));
    }
    let path = std::fs::canonicalize(&source.path).unwrap_or_else(|_| source.path.clone());
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_owned();
    let path = path.to_str().ok_or_else(|| fault("its path is not UTF-8".into()))?;
    let table = match source.format {
        SourceFormat::Csv => {
            let schema = header(source)?;
            let options = CsvReadOptions::new()
                .schema(&schema)
                .file_extension(&ending)
                .newlines_in_values(true);
            session.read_csv(path, options).await
        }
        SourceFormat::Parquet => {
            let options = ParquetReadOptions::default().file_extension(&ending);
            session.read_parquet(path, options).await
        }
    }
    .map_err(|error| fault(format!("cannot be read: {}", reason(&error))))?;
    let schema = table.schema();
    let missing = |name: &&str| schema.field_with_unqualified_name(name).is_err();
    let missing: Vec<&str> =
        source.columns.iter().map(|(name, _)| name.as_str()).filter(missing).collect();
    if !missing.is_empty() {
        let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        return Err(fault(format!(
            "has no column{} {}; it has: {}",
            if missing.len() == 1 { "" } else { "s" },
            missing.join(", "),
            known.join(", ")
        )));
    }
    Ok(table)
}

/// A CSV file's columns, all texts: values are read by our own rules.
fn header(source: &Source) -> Result<Schema, FeatureError> {
    let fault = |reason: String| FeatureError::from(Fault::of(source, reason));
    let mut reader = csv::Reader::from_path(&source.path)
        .map_err(|error| fault(format!("cannot be read: {error}")))?;
    let header = reader.headers().map_err(|error| fault(format!("cannot be read: {error}")))?;
    if header.is_empty() {
        return Err(fault("is empty; its first line must name the columns".into()));
    }
    for (at, name) in header.iter().enumerate() {
        if header.iter().take(at).any(|other| other == name) {
            return Err(fault(format!("has two columns named {name:?}")));
        }
    }
    let field = |name: &str| Field::new(name, ArrowType::Utf8, true);
    Ok(Schema::new(header.iter().map(field).collect::<Vec<_>>()))
}

fn typed(raw: DataFrame, source: &Arc<Source>, key: &str) -> Result<DataFrame, FeatureError> {
    let numbered = raw.window(vec![row_number().alias("pos")])?;
    let read = |name: &str, role: Role| -> Result<Expr, FeatureError> {
        let data_type = source.column_type(name).ok_or_else(|| {
            FeatureError::from(Fault::of(source, format!("has no declared column {name}")))
        })?;
        let function = SourceColumn {
            source: Arc::clone(source),
            name: name.to_owned(),
            data_type,
            role,
            signature: Signature::any(2, Volatility::Immutable),
        };
        Ok(ScalarUDF::from(function).call(vec![column(name), column("pos")]))
    };
    let mut columns: Vec<Expr> = Vec::new();
    for (index, (name, _)) in source.columns.iter().enumerate() {
        columns.push(read(name, Role::Value)?.alias(column_name(index)));
    }
    columns.push(read(key, Role::Key)?.alias("key"));
    columns.push(read(&source.timestamp_field, Role::Time)?.alias("time"));
    columns.push(match &source.created_timestamp_field {
        Some(name) => read(name, Role::Created)?.alias("created"),
        None => lit(0i64).alias("created"),
    });
    columns.push(column("pos"));
    Ok(numbered.select(columns)?)
}

/// What a column is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Role {
    Value,
    /// As a value, never null.
    Key,
    /// In microseconds, never null.
    Time,
    /// In microseconds.
    Created,
}

/// Reads a raw column as its declared type; the second argument is the row's place.
#[derive(Debug)]
struct SourceColumn {
    source: Arc<Source>,
    name: String,
    data_type: DataType,
    role: Role,
    signature: Signature,
}

impl SourceColumn {
    fn fault(&self, positions: &ArrayRef, row: usize, reason: &str) -> Fault {
        let place = to_column(positions, DataType::Int64).map(|column| column.value(row));
        let place = place.map_or_else(|_| "?".into(), |place| place.to_string());
        Fault::of(&self.source, format!("row {place}, column {}: {reason}", self.name))
    }

    fn read(&self, raw: &ArrayRef, positions: &ArrayRef) -> EngineResult<Column> {
        let failed = |row: usize, shown: String| {
            self.fault(positions, row, &format!("{shown} is not {}", self.data_type.expected()))
        };
        if self.source.format == SourceFormat::Parquet {
            let column = to_column(raw, self.data_type)?;
            let lost = (0..column.len()).find(|row| column.is_null(*row) && !raw.is_null(*row));
            return match lost {
                Some(row) => Err(failed(row, "the value".into()).into()),
                None => Ok(column),
            };
        }
        let Column::String(texts) = to_column(raw, DataType::String)? else {
            return Err(self.fault(positions, 0, "the value is no text").into());
        };
        let parse = |(row, text): (usize, Option<&Arc<str>>)| match text {
            None => Ok(Value::Null),
            Some(text) if text.is_empty() => Ok(Value::Null),
            Some(text) => {
                Value::parse(text, self.data_type).ok_or_else(|| failed(row, format!("{text:?}")))
            }
        };
        let values = texts.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()?;
        Ok(Column::from_values(self.data_type, values.iter()).expect("parsed as this type"))
    }
}

/// A DATE or TIMESTAMP column in microseconds.
fn micros_of(column: &Column) -> Result<Column, Fault> {
    match cast_column(column, DataType::Timestamp, false)? {
        Column::Timestamp(micros) => Ok(Column::Int64(micros)),
        other => Ok(other),
    }
}

impl PartialEq for SourceColumn {
    fn eq(&self, other: &Self) -> bool {
        (&self.source.name, &self.name, self.role) == (&other.source.name, &other.name, other.role)
    }
}

impl Eq for SourceColumn {}

impl Hash for SourceColumn {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.source.name, &self.name, self.role).hash(state);
    }
}

impl ScalarUDFImpl for SourceColumn {
    fn name(&self) -> &str {
        "source_column"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[ArrowType]) -> EngineResult<ArrowType> {
        Ok(match self.role {
            Role::Value | Role::Key => arrow_type(self.data_type),
            Role::Time | Role::Created => ArrowType::Int64,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> EngineResult<ColumnarValue> {
        let raw = args.args[0].to_array(args.number_rows)?;
        let positions = args.args[1].to_array(args.number_rows)?;
        let column = self.read(&raw, &positions)?;
        let null = (0..column.len()).find(|row| column.is_null(*row));
        if let (Some(row), Role::Key | Role::Time) = (null, self.role) {
            let what = if self.role == Role::Key { "key" } else { "timestamp" };
            return Err(self.fault(&positions, row, &format!("the {what} is missing")).into());
        }
        let column = match self.role {
            Role::Value | Role::Key => column,
            Role::Time | Role::Created => micros_of(&column)?,
        };
        Ok(ColumnarValue::Array(to_array(&column)))
    }
}
