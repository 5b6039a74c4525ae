//! The columns that an expression may name.

use std::sync::Arc;

use super::nearest;
use crate::value::DataType;

/// A column that expressions may name, under a qualifier (`view.feature`) or without.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SchemaColumn {
    pub(crate) qualifier: Option<Arc<str>>,
    pub(crate) name: Arc<str>,
    pub(crate) data_type: DataType,
}

impl SchemaColumn {
    /// The name with its qualifier, if it has one.
    pub(crate) fn full_name(&self) -> String {
        match &self.qualifier {
            Some(qualifier) => format!("{qualifier}.{}", self.name),
            None => self.name.to_string(),
        }
    }
}

/// The columns that an expression may name, by index.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Schema {
    columns: Vec<SchemaColumn>,
}

impl Schema {
    pub(crate) fn push(&mut self, qualifier: Option<&str>, name: &str, data_type: DataType) {
        let qualifier = qualifier.map(Arc::from);
        self.columns.push(SchemaColumn { qualifier, name: name.into(), data_type });
    }

    pub(crate) fn columns(&self) -> &[SchemaColumn] {
        &self.columns
    }

    /// The index of the one column of this name, or what is wrong with the name.
    pub(crate) fn resolve(&self, qualifier: Option<&str>, name: &str) -> Result<usize, String> {
        let matches = |column: &SchemaColumn| {
            column.name.as_ref() == name
                && qualifier.is_none_or(|q| column.qualifier.as_deref() == Some(q))
        };
        let mut found = self.columns.iter().enumerate().filter(|(_, column)| matches(column));
        match (found.next(), found.next()) {
            (Some((index, _)), None) => Ok(index),
            (Some((_, first)), Some((_, second))) => Err(format!(
                "{name} may mean {} or {}; write one of them",
                first.full_name(),
                second.full_name()
            )),
            (None, _) => Err(self.unknown(qualifier, name)),
        }
    }

    fn unknown(&self, qualifier: Option<&str>, name: &str) -> String {
        let written = qualifier.map_or_else(|| name.to_owned(), |q| format!("{q}.{name}"));
        let names: Vec<String> = self.columns.iter().map(SchemaColumn::full_name).collect();
        let bare = self.columns.iter().map(|column| column.name.as_ref());
        match nearest(&written, names.iter().map(String::as_str).chain(bare)) {
            Some(near) => format!("column {written} is unknown, did you mean {near}?"),
            None => format!("column {written} is unknown, known are: {}", names.join(", ")),
        }
    }
}

impl<'a> FromIterator<(&'a str, DataType)> for Schema {
    fn from_iter<I: IntoIterator<Item = (&'a str, DataType)>>(columns: I) -> Self {
        let mut schema = Self::default();
        columns.into_iter().for_each(|(name, data_type)| schema.push(None, name, data_type));
        schema
    }
}
