//! Tags of models and versions. Followers of the feed don't act on them, so they are no change
//! of the feed.

use sluice_protocol::{ModelName, ModelVersion};
use sqlx::SqliteConnection;

use super::versions::version_id;
use super::{Store, model_id};
use crate::domain::TagMessage;
use crate::{RegistryError, Result};

/// What a tag is put on.
#[derive(Debug, Clone)]
pub(crate) enum Owner {
    Model(ModelName),
    Version(ModelName, ModelVersion),
}

impl Store {
    /// Sets a tag, replacing one of the same key.
    pub(crate) async fn set_tag(&self, owner: &Owner, tag: &TagMessage) -> Result<()> {
        let mut change = self.write().await?;
        let id = owner.id(&mut change).await?;
        let insert = match owner {
            Owner::Model(_) => {
                "INSERT OR REPLACE INTO model_tags (model_id, key, value) VALUES (?, ?, ?)"
            }
            Owner::Version(..) => {
                "INSERT OR REPLACE INTO version_tags (version_id, key, value) VALUES (?, ?, ?)"
            }
        };
        sqlx::query(insert).bind(id).bind(&tag.key).bind(&tag.value).execute(&mut *change).await?;
        self.commit(change).await
    }

    /// Deletes a tag; it is fine if it was not there.
    pub(crate) async fn delete_tag(&self, owner: &Owner, key: &str) -> Result<()> {
        let mut change = self.write().await?;
        let id = owner.id(&mut change).await?;
        let delete = match owner {
            Owner::Model(_) => "DELETE FROM model_tags WHERE model_id = ? AND key = ?",
            Owner::Version(..) => "DELETE FROM version_tags WHERE version_id = ? AND key = ?",
        };
        sqlx::query(delete).bind(id).bind(key).execute(&mut *change).await?;
        self.commit(change).await
    }
}

impl Owner {
    async fn id(&self, connection: &mut SqliteConnection) -> Result<i64, RegistryError> {
        match self {
            Self::Model(name) => model_id(connection, name.as_str()).await,
            Self::Version(name, number) => version_id(connection, name, *number).await,
        }
    }
}
