//! The change feed: order, resume, waiting, and the snapshot that it continues.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;
use sluice_protocol::{ModelName, ModelVersion};
use sluice_registry::{ChangeKind, Client, RegistryError, Snapshot, SnapshotModel};

use crate::harness::{Running, name, version};

const NO_WAIT: Duration = Duration::ZERO;

#[tokio::test]
async fn changes_come_in_the_order_in_which_they_were_made() {
    let server = Running::start().await;
    let (client, model, renamed) = (&server.client, name("m"), name("n"));
    client.create_model(&model, "").await.unwrap();
    let (one, two) = (ModelVersion(1), ModelVersion(2));
    version(client, &model, "1").await.unwrap();
    version(client, &model, "2").await.unwrap();
    client.set_alias(&model, "champion", one).await.unwrap();
    client.set_alias(&model, "champion", two).await.unwrap();
    server
        .call(
            "DELETE",
            "/api/2.0/mlflow/model-versions/delete",
            json!({ "name": "m", "version": "2" }),
        )
        .await;
    client.set_alias(&model, "old", one).await.unwrap();
    server
        .call(
            "POST",
            "/api/2.0/mlflow/registered-models/rename",
            json!({ "name": "m", "new_name": "n" }),
        )
        .await;
    client.delete_alias(&renamed, "old").await.unwrap();
    client.delete_model(&renamed).await.unwrap();

    let alias_set = |model: &ModelName, alias: &str, version| ChangeKind::AliasSet {
        model: model.clone(),
        alias: alias.into(),
        version,
    };
    let alias_deleted = |model: &ModelName, alias: &str| ChangeKind::AliasDeleted {
        model: model.clone(),
        alias: alias.into(),
    };
    let expected = [
        ChangeKind::ModelCreated { model: model.clone() },
        ChangeKind::VersionCreated { model: model.clone(), version: one },
        ChangeKind::VersionCreated { model: model.clone(), version: two },
        alias_set(&model, "champion", one),
        alias_set(&model, "champion", two),
        alias_deleted(&model, "champion"),
        ChangeKind::VersionDeleted { model: model.clone(), version: two },
        alias_set(&model, "old", one),
        ChangeKind::ModelDeleted { model: model.clone() },
        ChangeKind::ModelCreated { model: renamed.clone() },
        ChangeKind::VersionCreated { model: renamed.clone(), version: one },
        alias_set(&renamed, "old", one),
        alias_deleted(&renamed, "old"),
        ChangeKind::ModelDeleted { model: renamed },
    ];
    let all = client.changes(0, NO_WAIT).await.unwrap();
    let kinds: Vec<_> = all.events.iter().map(|change| change.kind.clone()).collect();
    assert_eq!(kinds, expected);
    let sequences: Vec<u64> = all.events.iter().map(|change| change.sequence).collect();
    assert_eq!(sequences, (1..=14).collect::<Vec<_>>());
    assert_eq!(all.next, 14);
    assert_eq!(all.registry, client.snapshot().await.unwrap().registry);
}

#[tokio::test]
async fn a_cursor_resumes_where_it_stopped_also_after_a_restart() {
    let server = Running::start().await;
    for number in 0..5 {
        server.client.create_model(&name(&format!("m{number}")), "").await.unwrap();
    }
    let (status, page) =
        server.call("GET", "/api/1.0/sluice/changes?after=1&limit=2", json!(null)).await;
    assert_eq!((status, &page["next"]), (200, &json!(3)));
    let server = Running::start_in(server.stop().await).await;
    server.client.create_model(&name("m5"), "").await.unwrap();
    let rest = server.client.changes(3, NO_WAIT).await.unwrap();
    assert_eq!(rest.events.iter().map(|change| change.sequence).collect::<Vec<_>>(), [4, 5, 6]);
    let end = server.client.changes(6, NO_WAIT).await.unwrap();
    assert_eq!((end.events.len(), end.next), (0, 6));
}

#[tokio::test]
async fn a_waiting_follower_hears_at_once() {
    let server = Running::start().await;
    let client = server.client.clone();
    let waiting = tokio::spawn(async move { client.changes(0, Duration::from_secs(30)).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    let start = Instant::now();
    server.client.create_model(&name("m"), "").await.unwrap();
    let heard = waiting.await.unwrap().unwrap();
    assert_eq!(heard.events.len(), 1);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_wait_ends_in_time_and_with_the_server() {
    let server = Running::start().await;
    let start = Instant::now();
    let none = server.client.changes(0, Duration::from_millis(200)).await.unwrap();
    assert!(none.events.is_empty() && start.elapsed() >= Duration::from_millis(200));

    let client = server.client.clone();
    let waiting = tokio::spawn(async move { client.changes(0, Duration::from_secs(30)).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let start = Instant::now();
    server.stop().await;
    assert!(waiting.await.unwrap().unwrap().events.is_empty());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_cursor_from_elsewhere_is_told_to_take_a_snapshot() {
    let server = Running::start().await;
    server.client.create_model(&name("m"), "").await.unwrap();
    for after in [2, u64::MAX] {
        let error = server.client.changes(after, NO_WAIT).await.unwrap_err();
        assert!(matches!(error, RegistryError::SnapshotRequired(_)), "{error}");
        assert!(error.to_string().contains("take a snapshot"), "{error}");
    }
    for query in ["after=-1", "after=x", "wait=1h", "limit=9999"] {
        let (status, body) =
            server.call("GET", &format!("/api/1.0/sluice/changes?{query}"), json!(null)).await;
        assert_eq!(
            (status, &body["error_code"]),
            (400, &json!("INVALID_PARAMETER_VALUE")),
            "{query}"
        );
    }
}

#[tokio::test]
async fn a_snapshot_and_the_changes_after_it_are_the_whole_story() {
    let server = Running::start().await;
    let writers: Vec<_> = (0..3)
        .map(|number| {
            let (client, model) = (server.client.clone(), name(&format!("m{number}")));
            tokio::spawn(async move {
                client.create_model(&model, "").await.unwrap();
                for round in 0..6 {
                    let made = version(&client, &model, &round.to_string()).await.unwrap();
                    client.set_alias(&model, "champion", made).await.unwrap();
                    if round == 3 {
                        client.delete_alias(&model, "champion").await.unwrap();
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(60)).await;
    let early = server.client.snapshot().await.unwrap();
    for writer in writers {
        writer.await.unwrap();
    }
    let end = server.client.snapshot().await.unwrap();
    assert_eq!(follow(&server.client, early, end.sequence).await, end);
}

/// What a follower knows that starts at `snapshot` and follows to `sequence`.
async fn follow(client: &Client, mut snapshot: Snapshot, sequence: u64) -> Snapshot {
    let mut models: BTreeMap<ModelName, SnapshotModel> =
        snapshot.models.drain(..).map(|model| (model.name.clone(), model)).collect();
    while snapshot.sequence < sequence {
        let changes = client.changes(snapshot.sequence, NO_WAIT).await.unwrap();
        for change in changes.events {
            match change.kind {
                ChangeKind::ModelCreated { model } => {
                    let empty = SnapshotModel {
                        name: model.clone(),
                        versions: vec![],
                        aliases: BTreeMap::new(),
                    };
                    assert!(models.insert(model, empty).is_none());
                }
                ChangeKind::VersionCreated { model, version } => {
                    models.get_mut(&model).unwrap().versions.push(version);
                }
                ChangeKind::AliasSet { model, alias, version } => {
                    models.get_mut(&model).unwrap().aliases.insert(alias, version);
                }
                ChangeKind::AliasDeleted { model, alias } => {
                    assert!(models.get_mut(&model).unwrap().aliases.remove(&alias).is_some());
                }
                other => panic!("{other:?} was never made"),
            }
        }
        snapshot.sequence = changes.next;
    }
    snapshot.models = models.into_values().collect();
    snapshot
}
