//! The embedded online store: a table in memory that look-ups read without a lock, and a file
//! behind it that holds the same rows durably.
//!
//! What is written together goes to the file in one transaction and is shown in memory after its commit. So
//! what was ever answered survives a crash, and a crash never leaves half of it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use papaya::HashMap;
use serde::{Deserialize, Serialize};
use sluice_protocol::Digest;

use super::file::StoreFile;
use super::row::Row;
use super::rows::{ViewHeader, ViewRows};
use crate::definitions::{FeatureView, ViewId};
use crate::entity::EntityKey;
use crate::error::FeatureError;

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteReport {
    /// Rows that were stored.
    pub written: usize,
    /// Rows that were left out, because the store has a newer one for their key.
    pub stale: usize,
}

/// The rows of one view in memory.
#[derive(Debug)]
pub(crate) struct ViewTable {
    pub(crate) header: ViewHeader,
    pub(crate) rows: HashMap<EntityKey, Row>,
}

/// What a batch changes in one view.
#[derive(Debug)]
pub(super) struct Change<'b> {
    pub(super) header: &'b ViewHeader,
    /// The view's rows of the same definition; without them the batch replaces all it has.
    pub(super) stored: Option<Arc<ViewTable>>,
    pub(super) fresh: Vec<&'b (EntityKey, Row)>,
}

/// The online store of one process.
#[derive(Debug)]
pub struct EmbeddedStore {
    pub(super) views: HashMap<ViewId, Arc<ViewTable>>,
    /// Writers take turns; readers never come here.
    file: Mutex<Option<StoreFile>>,
}

impl EmbeddedStore {
    /// Opens the file at `path`, which is made if need be, and reads all rows into memory.
    /// Fails with `FailedPrecondition` while another process has it open.
    pub fn open(path: &Path) -> Result<Self, FeatureError> {
        let file = StoreFile::open(path)?;
        let views = HashMap::new();
        for stored in file.read()? {
            let (header, rows) = stored.into_parts();
            let table = ViewTable::new(header, rows);
            views.pin().insert(table.header.view.clone(), Arc::new(table));
        }
        Ok(Self { views, file: Mutex::new(Some(file)) })
    }

    /// A store without a file, empty.
    pub fn in_memory() -> Self {
        Self { views: HashMap::new(), file: Mutex::new(None) }
    }

    /// Stores a batch, whole or not at all. A row replaces the stored one of its key unless
    /// that one is newer; one of the same event time is replaced, so that corrected data can
    /// be materialised again. A batch of another definition of the view replaces all its rows.
    pub fn write(&self, batch: &ViewRows) -> Result<WriteReport, FeatureError> {
        let mut reports = self.write_all(std::slice::from_ref(batch))?;
        Ok(reports.pop().expect("a report for each batch"))
    }

    /// Stores batches of several views as [`EmbeddedStore::write`] does, all of them or none, so
    /// that no crash leaves one view newer than another. No view may come twice.
    pub fn write_all(&self, batches: &[ViewRows]) -> Result<Vec<WriteReport>, FeatureError> {
        ViewRows::check_distinct(batches)?;
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let changes: Vec<Change<'_>> = batches.iter().map(|batch| self.change(batch)).collect();
        if let Some(file) = file.as_ref() {
            file.write(&changes)?;
        }
        let report = |(batch, change): (&ViewRows, Change<'_>)| {
            let written = change.fresh.len();
            self.show(change);
            WriteReport { written, stale: batch.rows().len() - written }
        };
        Ok(batches.iter().zip(changes).map(report).collect())
    }

    /// What a batch does to what is stored.
    fn change<'b>(&self, batch: &'b ViewRows) -> Change<'b> {
        let header = batch.header();
        let stored = self.views.pin().get(&header.view).map(Arc::clone);
        let stored = stored.filter(|table| table.header == *header);
        let fresh = |(key, row): &&(EntityKey, Row)| match &stored {
            Some(table) => table.rows.pin().get(key).is_none_or(|old| old.time() <= row.time()),
            None => true,
        };
        let fresh = batch.rows().iter().filter(fresh).collect();
        Change { header, stored, fresh }
    }

    /// Lets look-ups see a change.
    fn show(&self, Change { header, stored, fresh }: Change<'_>) {
        let fresh = fresh.into_iter().cloned();
        match stored {
            Some(table) => {
                let rows = table.rows.pin();
                fresh.for_each(|(key, row)| {
                    rows.insert(key, row);
                });
            }
            None => {
                let table = ViewTable::new(header.clone(), fresh);
                self.views.pin().insert(header.view.clone(), Arc::new(table));
            }
        }
    }

    /// The definition that a view's stored rows were computed from, if it has any.
    pub fn definition(&self, view: &FeatureView) -> Option<Digest> {
        self.views.pin().get(&view.id).map(|table| table.header.definition)
    }

    /// How many rows a view has.
    pub fn rows(&self, view: &ViewId) -> usize {
        self.views.pin().get(view).map_or(0, |table| table.rows.len())
    }

    /// Calls `read` with the view's table.
    pub(crate) fn with_view<T>(
        &self,
        view: &FeatureView,
        read: impl FnOnce(&ViewTable) -> T,
    ) -> Result<T, FeatureError> {
        let views = self.views.pin();
        let table = views
            .get(&view.id)
            .ok_or_else(|| FeatureError::NotMaterialized(view.id.to_string()))?;
        if table.header.definition != view.definition() {
            return Err(FeatureError::OtherDefinition(view.id.to_string()));
        }
        Ok(read(table))
    }
}

impl ViewTable {
    fn new(header: ViewHeader, rows: impl IntoIterator<Item = (EntityKey, Row)>) -> Self {
        Self { header, rows: rows.into_iter().collect() }
    }
}
