//! Sources: the files that feature views and labels are read from.

use std::path::PathBuf;

use super::file;
use super::load::{Complaining, Place, data_type, plain_name};
use crate::expression::Schema;
use crate::value::DataType;

/// How a source's file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceFormat {
    /// Comma-separated values with a header line; an empty field is null.
    Csv,
    /// Apache Parquet.
    Parquet,
}

/// A file with one row per entity and moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The source's name.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// How it is written.
    pub format: SourceFormat,
    /// The column that says when a row holds, a DATE or TIMESTAMP.
    pub timestamp_field: String,
    /// The column that says when a row was written: the latest of several rows for the same
    /// key and time stands. Without it there may be only one.
    pub created_timestamp_field: Option<String>,
    /// The columns that may be used, by name.
    pub columns: Vec<(String, DataType)>,
}

impl Source {
    /// The type of a column.
    pub fn column_type(&self, name: &str) -> Option<DataType> {
        self.columns.iter().find(|(known, _)| known == name).map(|(_, data_type)| *data_type)
    }

    pub(crate) fn schema(&self) -> Schema {
        self.columns.iter().map(|(name, data_type)| (name.as_str(), *data_type)).collect()
    }
}

pub(super) fn build(
    place: &Place,
    written: file::Source,
    complaining: &mut Complaining,
) -> Option<Source> {
    let name = complaining.check(place, plain_name(written.name));
    let directory = place.file.parent().unwrap_or(std::path::Path::new(""));
    let path = directory.join(&written.path);
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_owned();
    let format = written.format.unwrap_or(ending);
    let format = complaining.check(
        place,
        match format.as_str() {
            "csv" => Ok(SourceFormat::Csv),
            "parquet" => Ok(SourceFormat::Parquet),
            other => Err(format!("format {other:?} is not known, write csv or parquet")),
        },
    );
    let mut columns = Vec::new();
    for (column, type_name) in &written.schema {
        let typed = data_type(type_name).map_err(|reason| format!("column {column}: {reason}"));
        if let Some(typed) = complaining.check(place, typed) {
            columns.push((column.clone(), typed));
        }
    }
    let source = Source {
        name: name?,
        path,
        format: format?,
        timestamp_field: written.timestamp_field,
        created_timestamp_field: written.created_timestamp_field,
        columns,
    };
    check_times(&source, place, complaining);
    Some(source)
}

fn check_times(source: &Source, place: &Place, complaining: &mut Complaining) {
    let named = [
        ("timestamp_field", Some(&source.timestamp_field)),
        ("created_timestamp_field", source.created_timestamp_field.as_ref()),
    ];
    for (key, column) in named {
        let Some(column) = column else { continue };
        match source.column_type(column) {
            Some(DataType::Date | DataType::Timestamp) => {}
            Some(other) => {
                complaining.add(place, format!("{key} {column} is {other}, not DATE or TIMESTAMP"));
            }
            None => complaining.add(place, format!("{key} {column} is not in the schema")),
        }
    }
}
