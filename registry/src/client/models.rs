//! Registered models and their aliases.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use sluice_protocol::{ModelName, ModelVersion};

use super::Client;
use super::versions::tags_of;
use crate::domain::{ModelMessage, check_alias};
use crate::{RegistryError, Result};

/// A registered model, without its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredModel {
    /// Its name.
    pub name: ModelName,
    /// What people wrote about it.
    pub description: String,
    /// Its aliases and the versions that they name.
    pub aliases: BTreeMap<String, ModelVersion>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its newest version, if it has any.
    pub latest: Option<ModelVersion>,
}

impl Client {
    /// Registers a model. One that is there already is [`RegistryError::AlreadyExists`].
    pub async fn create_model(
        &self,
        name: &ModelName,
        description: &str,
    ) -> Result<RegisteredModel> {
        let body = json!({ "name": name, "description": description });
        let request = self.http.post(self.mlflow("registered-models", "create")).json(&body);
        model_of(self.json::<ModelReply>(request).await?)
    }

    /// Registers a model unless it is there already; an existing one is left as it is.
    pub async fn ensure_model(&self, name: &ModelName, description: &str) -> Result<()> {
        match self.create_model(name, description).await {
            Ok(_) | Err(RegistryError::AlreadyExists(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// One registered model.
    pub async fn model(&self, name: &ModelName) -> Result<RegisteredModel> {
        let url = self.mlflow("registered-models", "get");
        model_of(
            self.json::<ModelReply>(self.http.get(url).query(&[("name", name.as_str())])).await?,
        )
    }

    /// Deletes a model with its versions and aliases. The numbers of its versions are not given
    /// again, should a model of this name come back.
    pub async fn delete_model(&self, name: &ModelName) -> Result<()> {
        let url = self.mlflow("registered-models", "delete");
        self.json::<Value>(self.http.delete(url).json(&json!({ "name": name }))).await.map(drop)
    }

    /// Lets `alias` name `version` from now on.
    pub async fn set_alias(
        &self,
        name: &ModelName,
        alias: &str,
        version: ModelVersion,
    ) -> Result<()> {
        check_alias(alias)?;
        let body = json!({ "name": name, "alias": alias, "version": version.to_string() });
        let request = self.http.post(self.mlflow("registered-models", "alias")).json(&body);
        self.json::<Value>(request).await.map(drop)
    }

    /// Lets `alias` name nothing; it is fine if it did not before.
    pub async fn delete_alias(&self, name: &ModelName, alias: &str) -> Result<()> {
        check_alias(alias)?;
        let body = json!({ "name": name, "alias": alias });
        let request = self.http.delete(self.mlflow("registered-models", "alias")).json(&body);
        self.json::<Value>(request).await.map(drop)
    }

    /// The version that `alias` names, if it names one. An unknown model is an error.
    pub async fn alias(&self, name: &ModelName, alias: &str) -> Result<Option<ModelVersion>> {
        check_alias(alias)?;
        Ok(self.model(name).await?.aliases.remove(alias))
    }
}

#[derive(Deserialize)]
struct ModelReply {
    registered_model: ModelMessage,
}

fn model_of(reply: ModelReply) -> Result<RegisteredModel> {
    let message = reply.registered_model;
    let mut aliases = BTreeMap::new();
    for entry in message.aliases {
        aliases.insert(entry.alias, entry.version.parse()?);
    }
    let mut latest = None;
    for version in &message.latest_versions {
        latest = latest.max(Some(version.version.parse()?));
    }
    Ok(RegisteredModel {
        name: message.name.parse()?,
        description: message.description.unwrap_or_default(),
        aliases,
        tags: tags_of(message.tags),
        latest,
    })
}
