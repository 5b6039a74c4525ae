//! Aliases: names of versions that move.

use sluice_protocol::{ModelName, ModelVersion};

use super::changes::Event;
use super::versions::{load_versions, version_id};
use super::{Store, model_id, now, signed};
use crate::domain::VersionMessage;
use crate::{RegistryError, Result};

impl Store {
    /// Lets an alias name a version. Naming the same one again is no change.
    pub(crate) async fn set_alias(
        &self,
        name: &ModelName,
        alias: &str,
        number: ModelVersion,
    ) -> Result<()> {
        let mut change = self.write().await?;
        version_id(&mut change, name, number).await?;
        let model = model_id(&mut change, name.as_str()).await?;
        let set = sqlx::query(
            "INSERT INTO aliases (model_id, alias, number) VALUES (?, ?, ?)
             ON CONFLICT (model_id, alias) DO UPDATE SET number = excluded.number
             WHERE number != excluded.number",
        )
        .bind(model)
        .bind(alias)
        .bind(signed(number.0))
        .execute(&mut *change)
        .await?;
        if set.rows_affected() == 0 {
            return Ok(());
        }
        touch(&mut change, model).await?;
        Event::AliasSet(name.as_str(), alias, signed(number.0)).append(&mut change).await?;
        self.commit(change).await
    }

    /// Lets an alias name nothing. One that named nothing is no change.
    pub(crate) async fn delete_alias(&self, name: &ModelName, alias: &str) -> Result<()> {
        let mut change = self.write().await?;
        let model = model_id(&mut change, name.as_str()).await?;
        let deleted = sqlx::query("DELETE FROM aliases WHERE model_id = ? AND alias = ?")
            .bind(model)
            .bind(alias)
            .execute(&mut *change)
            .await?;
        if deleted.rows_affected() == 0 {
            return Ok(());
        }
        touch(&mut change, model).await?;
        Event::AliasDeleted(name.as_str(), alias).append(&mut change).await?;
        self.commit(change).await
    }

    /// The version that an alias names.
    pub(crate) async fn version_by_alias(
        &self,
        name: &ModelName,
        alias: &str,
    ) -> Result<VersionMessage> {
        let mut view = self.read().await?;
        let model = model_id(&mut view, name.as_str()).await?;
        let id: Option<i64> = sqlx::query_scalar(
            "SELECT versions.id FROM aliases JOIN versions USING (model_id, number)
             WHERE model_id = ? AND alias = ?",
        )
        .bind(model)
        .bind(alias)
        .fetch_optional(&mut *view)
        .await?;
        // MLflow answers 400 here, and its callers look for this text.
        let missing =
            || RegistryError::InvalidArgument(format!("Registered model alias {alias} not found."));
        load_versions(&mut view, &[id.ok_or_else(missing)?]).await?.pop().ok_or_else(missing)
    }
}

async fn touch(connection: &mut sqlx::SqliteConnection, model: i64) -> Result<()> {
    sqlx::query("UPDATE models SET updated = ? WHERE id = ?")
        .bind(now())
        .bind(model)
        .execute(connection)
        .await?;
    Ok(())
}
