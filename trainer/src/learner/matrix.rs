//! Rows to learn from or to predict: named columns of f32, where NaN is a missing value.

use crate::error::Error;

/// Column-major numbers. All columns have the same length; there may be no rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    names: Vec<String>,
    columns: Vec<Vec<f32>>,
}

impl Matrix {
    /// Checks that every column has a name of its own and all have the same length.
    pub fn new(names: Vec<String>, columns: Vec<Vec<f32>>) -> Result<Self, Error> {
        if names.is_empty() {
            return Err(Error::Data("there is no column".into()));
        }
        if names.len() != columns.len() {
            let problem = format!("{} names for {} columns", names.len(), columns.len());
            return Err(Error::Data(problem));
        }
        let mut seen = std::collections::HashSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(Error::Data(format!("column {twice:?} is there twice")));
        }
        let rows = columns[0].len();
        if let Some(odd) = columns.iter().position(|column| column.len() != rows) {
            return Err(Error::Data(format!(
                "column {:?} has {} rows, column {:?} has {rows}",
                names[odd],
                columns[odd].len(),
                names[0],
            )));
        }
        Ok(Self { names, columns })
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.columns[0].len()
    }

    /// The columns' names, in the order of the model's inputs.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The columns, in the order of the names.
    pub fn columns(&self) -> &[Vec<f32>] {
        &self.columns
    }

    /// A copy of one row; `row` must be below [`rows`](Self::rows).
    pub fn row(&self, row: usize) -> Vec<f32> {
        self.columns.iter().map(|column| column[row]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Matrix;

    #[test]
    fn columns_must_fit_together() {
        let check = |names: &[&str], columns: Vec<Vec<f32>>, expected: &str| {
            let names = names.iter().map(|&name| name.into()).collect();
            let error = Matrix::new(names, columns).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&[], vec![], "there is no column");
        check(&["a"], vec![], "1 names for 0 columns");
        check(&["a", "a"], vec![vec![], vec![]], "column \"a\" is there twice");
        check(&["a", "b"], vec![vec![1.0], vec![]], "column \"b\" has 0 rows");
    }
}
