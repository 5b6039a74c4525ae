//! What only the store itself can be made to do: run out of space, forget old changes.

use sluice_protocol::{Digest, ModelName};
use tempfile::TempDir;

use super::{Artifact, Store};
use crate::RegistryError;
use crate::domain::UPLOADS;

async fn store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("registry.db")).await.unwrap();
    (folder, store)
}

fn name(text: &str) -> ModelName {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_full_disk_refuses_changes_and_keeps_what_is_there() {
    let (_folder, store) = store().await;
    store.create_model(&name("before"), None, &[]).await.unwrap();
    let before = store.snapshot().await.unwrap();
    sqlx::query("PRAGMA max_page_count = 1").execute(&store.writer).await.unwrap();
    let long = "x".repeat(1 << 20);
    let error = store.create_model(&name("m"), Some(&long), &[]).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unavailable(_)), "{error}");
    assert_eq!(store.snapshot().await.unwrap(), before);
    // The connection with that limit was given up: there is space again.
    store.create_model(&name("m"), Some(&long), &[]).await.unwrap();
    let after = store.snapshot().await.unwrap();
    assert_eq!(
        (after.sequence, after.models.len()),
        (before.sequence + 1, 2),
        "no sequence is lost"
    );
}

#[tokio::test]
async fn a_cursor_older_than_kept_needs_a_snapshot() {
    let (_folder, store) = store().await;
    for number in 0..5 {
        store.create_model(&name(&format!("m{number}")), None, &[]).await.unwrap();
    }
    store.prune_changes(2).await.unwrap();
    assert_eq!(store.changes(3, 10).await.unwrap().events.len(), 2);
    for after in [0, 2] {
        let error = store.changes(after, 10).await.unwrap_err();
        assert!(error.to_string().contains("older than 4"), "{error}");
    }
    store.prune_changes(0).await.unwrap();
    assert!(store.changes(5, 10).await.unwrap().events.is_empty());
    assert!(store.changes(4, 10).await.is_err());
    assert_eq!(store.snapshot().await.unwrap().sequence, 5);
}

#[tokio::test]
async fn recorded_files_cannot_be_rewritten_even_by_sql() {
    let (_folder, store) = store().await;
    let path = "root/a".parse().unwrap();
    let artifact = Artifact { digest: Digest::of(b"a"), size: 1 };
    store.put_artifact(&path, artifact).await.unwrap();
    store.create_model(&name("m"), None, &[]).await.unwrap();
    store.create_version(&new_version("mlflow-artifacts:/root")).await.unwrap();
    let update = sqlx::query("UPDATE version_files SET digest = ''").execute(&store.writer).await;
    assert!(update.unwrap_err().to_string().contains("immutable"));
}

#[tokio::test]
async fn only_uploads_that_became_no_version_are_forgotten() {
    let (_folder, store) = store().await;
    store.create_model(&name("m"), None, &[]).await.unwrap();
    let artifact = Artifact { digest: Digest::of(b"a"), size: 1 };
    for path in [format!("{UPLOADS}/m/1/a"), format!("{UPLOADS}/m/11/a"), "other/m/2/a".into()] {
        store.put_artifact(&path.parse().unwrap(), artifact).await.unwrap();
    }
    store.create_version(&new_version(&format!("mlflow-artifacts:/{UPLOADS}/m/1"))).await.unwrap();
    assert_eq!(store.forget_uploads(0).await.unwrap(), 0, "none is that old");
    assert_eq!(store.forget_uploads(i64::MAX).await.unwrap(), 1);
    for (path, there) in [
        (format!("{UPLOADS}/m/1/a"), true),
        (format!("{UPLOADS}/m/11/a"), false),
        ("other/m/2/a".into(), true),
    ] {
        assert_eq!(store.artifact(&path.parse().unwrap()).await.is_ok(), there, "{path}");
    }
}

fn new_version(source: &str) -> super::NewVersion {
    super::NewVersion {
        name: name("m"),
        source_text: source.into(),
        source: source.parse().unwrap(),
        description: None,
        run_id: None,
        run_link: None,
        tags: Vec::new(),
    }
}
