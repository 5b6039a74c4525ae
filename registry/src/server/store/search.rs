//! Search over models and versions: MLflow's filters compiled to SQL with bound values.

use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::Store;
use super::models::load_models;
use super::versions::load_versions;
use crate::domain::{
    Clause, Comparison, Direction, Field, ModelMessage, Operand, VersionMessage, parse_filter,
    parse_order,
};
use crate::{RegistryError, Result};

/// The tag by which MLflow tells prompts from models. Its client asks for models with
/// `!= 'true'` and means those without the tag as well.
const PROMPT_TAG: &str = "mlflow.prompt.is_prompt";

/// A search as it was asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Search {
    pub(crate) filter: String,
    pub(crate) order_by: Vec<String>,
    pub(crate) max_results: u32,
    pub(crate) page_token: Option<String>,
}

/// One page of results.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    pub(crate) next_page_token: Option<String>,
}

/// What can be searched, and the columns behind its attributes.
struct Entity {
    from: &'static str,
    id: &'static str,
    tags: &'static str,
    texts: &'static [(&'static str, &'static str)],
    numbers: &'static [(&'static str, &'static str)],
    orders: &'static [(&'static str, &'static str)],
    /// The order that makes ties impossible, so that pages neither overlap nor skip.
    tie_break: &'static str,
}

const MODELS: Entity = Entity {
    from: "models",
    id: "models.id",
    tags: "model_tags WHERE model_id = models.id",
    texts: &[("name", "models.name")],
    numbers: &[],
    orders: &[
        ("name", "models.name"),
        ("creation_timestamp", "models.created"),
        ("last_updated_timestamp", "models.updated"),
        ("timestamp", "models.updated"),
    ],
    tie_break: "models.name",
};

const VERSIONS: Entity = Entity {
    from: "versions JOIN models ON models.id = versions.model_id",
    id: "versions.id",
    tags: "version_tags WHERE version_id = versions.id",
    texts: &[
        ("name", "models.name"),
        ("run_id", "COALESCE(versions.run_id, '')"),
        ("source_path", "versions.source"),
    ],
    numbers: &[("version_number", "versions.number")],
    orders: &[
        ("name", "models.name"),
        ("version_number", "versions.number"),
        ("creation_timestamp", "versions.created"),
        ("last_updated_timestamp", "versions.updated"),
    ],
    tie_break: "models.name, versions.number DESC",
};

impl Store {
    /// Searches registered models.
    pub(crate) async fn search_models(&self, search: &Search) -> Result<Page<ModelMessage>> {
        let mut view = self.read().await?;
        let (ids, next_page_token) = find(&mut view, &MODELS, search).await?;
        Ok(Page { items: load_models(&mut view, &ids).await?, next_page_token })
    }

    /// Searches model versions.
    pub(crate) async fn search_versions(&self, search: &Search) -> Result<Page<VersionMessage>> {
        let mut view = self.read().await?;
        let (ids, next_page_token) = find(&mut view, &VERSIONS, search).await?;
        Ok(Page { items: load_versions(&mut view, &ids).await?, next_page_token })
    }
}

async fn find(
    connection: &mut SqliteConnection,
    entity: &Entity,
    search: &Search,
) -> Result<(Vec<i64>, Option<String>)> {
    let offset = offset(search.page_token.as_deref())?;
    let mut query = QueryBuilder::new("SELECT ");
    query.push(entity.id).push(" FROM ").push(entity.from).push(" WHERE 1");
    for clause in parse_filter(&search.filter)? {
        query.push(" AND ");
        push_clause(&mut query, entity, clause)?;
    }
    push_order(&mut query, entity, &search.order_by)?;
    // One more than asked tells whether there is another page.
    query.push(" LIMIT ").push_bind(i64::from(search.max_results) + 1);
    query.push(" OFFSET ").push_bind(i64::from(offset));
    let mut ids: Vec<i64> = query.build_query_scalar().fetch_all(connection).await?;
    let page = usize::try_from(search.max_results).unwrap_or(usize::MAX);
    if ids.len() <= page {
        return Ok((ids, None));
    }
    ids.truncate(page);
    Ok((ids, Some(offset.saturating_add(search.max_results).to_string())))
}

fn offset(token: Option<&str>) -> Result<u32> {
    match token {
        None | Some("") => Ok(0),
        Some(token) => token.parse().map_err(|_| {
            let shown: String = token.chars().take(100).collect();
            RegistryError::InvalidArgument(format!("Invalid page token '{shown}'"))
        }),
    }
}

fn push_clause(query: &mut QueryBuilder<Sqlite>, entity: &Entity, clause: Clause) -> Result<()> {
    let Clause { field, comparison, operand } = clause;
    match field {
        Field::Tag(key) => push_tag(query, entity, &key, comparison, operand),
        Field::Attribute(key) => {
            if let Some(column) = column(entity.texts, &key) {
                push_text(query, column, &key, comparison, operand)
            } else if let Some(column) = column(entity.numbers, &key) {
                push_number(query, column, &key, comparison, operand)
            } else {
                Err(unknown("attribute key", &key, entity.texts.iter().chain(entity.numbers)))
            }
        }
    }
}

fn push_tag(
    query: &mut QueryBuilder<Sqlite>,
    entity: &Entity,
    key: &str,
    comparison: Comparison,
    operand: Operand,
) -> Result<()> {
    if matches!(comparison, Comparison::In | Comparison::NotIn) {
        return Err(RegistryError::InvalidArgument(format!(
            "Invalid comparator for tag: '{key}' does not take a list"
        )));
    }
    let absent_matches = key == PROMPT_TAG
        && matches!(
            (comparison, &operand),
            (Comparison::NotEqual, Operand::Text(text)) if text == "true"
        );
    query.push("(EXISTS (SELECT 1 FROM ").push(entity.tags).push(" AND key = ");
    query.push_bind(key.to_owned()).push(" AND ");
    push_text(query, "value", key, comparison, operand)?;
    query.push(")");
    if absent_matches {
        query.push(" OR NOT EXISTS (SELECT 1 FROM ").push(entity.tags).push(" AND key = ");
        query.push_bind(key.to_owned()).push(")");
    }
    query.push(")");
    Ok(())
}

fn push_text(
    query: &mut QueryBuilder<Sqlite>,
    column: &'static str,
    key: &str,
    comparison: Comparison,
    operand: Operand,
) -> Result<()> {
    let refuse =
        || Err(RegistryError::InvalidArgument(format!("'{key}' does not support this comparison")));
    let texts = match operand {
        Operand::Text(text) => vec![text],
        Operand::List(texts) => texts,
        Operand::Number(_) => return refuse(),
    };
    let operator = match comparison {
        Comparison::Equal => " = ",
        Comparison::NotEqual => " != ",
        // The connections have case_sensitive_like on.
        Comparison::Like => " LIKE ",
        Comparison::ILike => {
            query.push("LOWER(").push(column).push(") LIKE LOWER(");
            query.push_bind(texts.concat()).push(")");
            return Ok(());
        }
        Comparison::In => " IN (",
        Comparison::NotIn => " NOT IN (",
        _ => return refuse(),
    };
    query.push(column).push(operator);
    let mut list = query.separated(", ");
    for text in texts {
        list.push_bind(text);
    }
    if matches!(comparison, Comparison::In | Comparison::NotIn) {
        query.push(")");
    }
    Ok(())
}

fn push_number(
    query: &mut QueryBuilder<Sqlite>,
    column: &'static str,
    key: &str,
    comparison: Comparison,
    operand: Operand,
) -> Result<()> {
    let number = match operand {
        Operand::Number(number) => Some(number),
        Operand::Text(text) => text.parse().ok(),
        Operand::List(_) => None,
    };
    let operator = match comparison {
        Comparison::Equal => " = ",
        Comparison::NotEqual => " != ",
        Comparison::Less => " < ",
        Comparison::LessOrEqual => " <= ",
        Comparison::Greater => " > ",
        Comparison::GreaterOrEqual => " >= ",
        _ => "",
    };
    let (Some(number), false) = (number, operator.is_empty()) else {
        return Err(RegistryError::InvalidArgument(format!(
            "'{key}' is compared with a whole number"
        )));
    };
    query.push(column).push(operator).push_bind(number);
    Ok(())
}

fn push_order(query: &mut QueryBuilder<Sqlite>, entity: &Entity, terms: &[String]) -> Result<()> {
    query.push(" ORDER BY ");
    let mut seen = Vec::new();
    for term in terms {
        let (key, direction) = parse_order(term)?;
        let Some(column) = column(entity.orders, &key) else {
            return Err(unknown("order_by key", &key, entity.orders.iter()));
        };
        if seen.contains(&column) {
            return Err(RegistryError::InvalidArgument(format!(
                "order_by contains duplicate fields: '{key}'"
            )));
        }
        seen.push(column);
        let direction = match direction {
            Direction::Ascending => " ASC, ",
            Direction::Descending => " DESC, ",
        };
        query.push(column).push(direction);
    }
    query.push(entity.tie_break);
    Ok(())
}

fn column(columns: &[(&'static str, &'static str)], key: &str) -> Option<&'static str> {
    columns.iter().find(|(name, _)| *name == key).map(|(_, column)| *column)
}

fn unknown<'a>(
    what: &str,
    key: &str,
    valid: impl Iterator<Item = &'a (&'static str, &'static str)>,
) -> RegistryError {
    let valid: Vec<&str> = valid.map(|(name, _)| *name).collect();
    RegistryError::InvalidArgument(format!(
        "Invalid {what} '{key}' specified. Valid keys are {}",
        valid.join(", ")
    ))
}
