//! The file behind the online store (redb): one table a view, keys in Feast's serialisation.

use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use sluice_protocol::Format;

use super::row::Row;
use super::rows::{ViewHeader, ViewRows};
use super::store::Change;
use crate::entity::EntityKey;
use crate::error::FeatureError;

/// The newest format of the file that this binary reads, and the one that it writes.
const FORMAT: u32 = 1;
const META: TableDefinition<'_, &str, u32> = TableDefinition::new("meta");
/// A view's header, as a batch without rows.
const VIEWS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("views");
type Rows<'a> = TableDefinition<'a, &'static [u8], &'static [u8]>;

/// The open file. It is locked against other processes.
#[derive(Debug)]
pub(super) struct StoreFile {
    path: PathBuf,
    database: Database,
}

impl StoreFile {
    pub(super) fn open(path: &Path) -> Result<Self, FeatureError> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)
                .map_err(|reason| FeatureError::Io { path: directory.to_owned(), reason })?;
        }
        let database = Database::create(path).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => {
                FeatureError::StoreBusy { path: path.to_owned() }
            }
            other => failed(path, other),
        })?;
        let file = Self { path: path.to_owned(), database };
        file.check_format()?;
        Ok(file)
    }

    fn check_format(&self) -> Result<(), FeatureError> {
        let transaction = self.database.begin_write().map_err(|e| self.failed(e))?;
        let found = {
            let mut meta = transaction.open_table(META).map_err(|e| self.failed(e))?;
            let found = meta.get("format").map_err(|e| self.failed(e))?.map(|value| value.value());
            if found.is_none() {
                meta.insert("format", FORMAT).map_err(|e| self.failed(e))?;
            }
            found
        };
        match found {
            Some(found) => Format::<FORMAT>::new(found).map(drop).map_err(|reason| {
                FeatureError::Format { what: self.path.display().to_string(), reason }
            }),
            None => transaction.commit().map_err(|e| self.failed(e)),
        }
    }

    /// All views and their rows.
    pub(super) fn read(&self) -> Result<Vec<ViewRows>, FeatureError> {
        let transaction = self.database.begin_read().map_err(|e| self.failed(e))?;
        let table = match transaction.open_table(VIEWS) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(self.failed(error)),
        };
        let mut views = Vec::new();
        for entry in table.iter().map_err(|e| self.failed(e))? {
            let (_, bytes) = entry.map_err(|e| self.failed(e))?;
            let header = ViewRows::decode(bytes.value())?.header().clone();
            let rows = self.read_rows(&transaction, &header)?;
            views.push(ViewRows::stored(header, rows));
        }
        Ok(views)
    }

    fn read_rows(
        &self,
        transaction: &redb::ReadTransaction,
        header: &ViewHeader,
    ) -> Result<Vec<(EntityKey, Row)>, FeatureError> {
        let name = table_name(header);
        let table = transaction.open_table(Rows::new(&name)).map_err(|e| self.failed(e))?;
        let types = header.types();
        let mut rows = Vec::new();
        for entry in table.iter().map_err(|e| self.failed(e))? {
            let (key, row) = entry.map_err(|e| self.failed(e))?;
            let key = EntityKey::from_feast_bytes(key.value());
            let key = key.filter(|key| key.data_type() == header.key_type);
            let read = key.zip(Row::from_bytes(row.value(), &types));
            rows.push(read.ok_or_else(|| FeatureError::Damaged {
                what: format!("online store {}", self.path.display()),
                reason: format!("a row of view {} does not fit its columns", header.view),
            })?);
        }
        Ok(rows)
    }

    /// Makes changes in one transaction.
    pub(super) fn write(&self, changes: &[Change<'_>]) -> Result<(), FeatureError> {
        let transaction = self.database.begin_write().map_err(|e| self.failed(e))?;
        for change in changes {
            self.write_view(&transaction, change)?;
        }
        transaction.commit().map_err(|e| self.failed(e))
    }

    fn write_view(
        &self,
        transaction: &redb::WriteTransaction,
        Change { header, stored, fresh }: &Change<'_>,
    ) -> Result<(), FeatureError> {
        let name = table_name(header);
        if stored.is_none() {
            transaction.delete_table(Rows::new(&name)).map_err(|e| self.failed(e))?;
            let mut views = transaction.open_table(VIEWS).map_err(|e| self.failed(e))?;
            let id = header.view.to_string();
            let bytes = ViewRows::empty(header).encode();
            views.insert(id.as_str(), bytes.as_slice()).map_err(|e| self.failed(e))?;
        }
        let mut table = transaction.open_table(Rows::new(&name)).map_err(|e| self.failed(e))?;
        for (key, row) in fresh {
            let key = key.to_feast_bytes(&header.join_key);
            table.insert(key.as_slice(), row.as_bytes()).map_err(|e| self.failed(e))?;
        }
        Ok(())
    }

    fn failed(&self, error: impl Into<redb::Error>) -> FeatureError {
        failed(&self.path, error)
    }
}

fn table_name(header: &ViewHeader) -> String {
    format!("rows/{}", header.view)
}

fn failed(path: &Path, error: impl Into<redb::Error>) -> FeatureError {
    FeatureError::Store { path: path.display().to_string(), reason: error.into().to_string() }
}
