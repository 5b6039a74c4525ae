//! kill -9 of the server in the middle of uploads and creations, again and again over one
//! folder: what was answered is there, and what is there is whole.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sluice_protocol::{ModelName, ModelVersion};
use sluice_registry::{ChangeKind, Client, PackageFile};
use tokio::net::TcpListener;

use crate::harness::{Running, file, name, open};

/// Names the data folder to the process that this test starts of its own binary.
const FOLDER: &str = "SLUICE_TEST_REGISTRY_FOLDER";
const ROUNDS: u64 = 8;

/// A version that was answered, and its files.
type Answered = Arc<Mutex<BTreeMap<ModelVersion, Vec<PackageFile>>>>;

/// The server process of the test below; without its variable there is nothing to do.
#[tokio::test]
async fn server_process() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let folder = Path::new(&folder);
    let server = open(folder).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    std::fs::write(folder.join("address.tmp"), listener.local_addr().unwrap().to_string()).unwrap();
    std::fs::rename(folder.join("address.tmp"), folder.join("address")).unwrap();
    server.serve(listener, std::future::pending()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_and_what_survives_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let model = name("m");
    let answered = Answered::default();
    for round in 0..ROUNDS {
        let (mut process, client) = start(folder.path()).await;
        client.ensure_model(&model, "").await.unwrap();
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let (client, model, answered) =
                    (client.clone(), model.clone(), Arc::clone(&answered));
                tokio::spawn(write_until_killed(client, model, round * 10 + writer, answered))
            })
            .collect();
        // Early and late in the life of the process alike.
        tokio::time::sleep(Duration::from_millis(20 + round * 45)).await;
        process.kill().unwrap();
        process.wait().unwrap();
        for writer in writers {
            writer.await.unwrap();
        }
    }
    let answered = std::mem::take(&mut *answered.lock().unwrap());
    assert!(!answered.is_empty(), "the test made no version at all");
    check(Running::start_in(folder).await, &model, answered).await;
}

async fn check(
    server: Running,
    model: &ModelName,
    answered: BTreeMap<ModelVersion, Vec<PackageFile>>,
) {
    let snapshot = server.client.snapshot().await.unwrap();
    let versions = &snapshot.models[0].versions;
    let unbroken: Vec<_> = (1..=versions.len() as u64).map(ModelVersion).collect();
    assert_eq!(*versions, unbroken, "numbers have no gaps");
    for version in versions {
        let files = server.client.fetch_version(model, *version).await.unwrap();
        assert_eq!(files.len(), 3, "version {version} is whole");
        if let Some(sent) = answered.get(version) {
            assert_eq!(files, *sent, "version {version}");
        }
    }
    assert!(
        answered.keys().all(|version| versions.contains(version)),
        "an answered version is gone"
    );
    let mut told = Vec::new();
    let mut cursor = 0;
    while cursor < snapshot.sequence {
        let changes = server.client.changes(cursor, Duration::ZERO).await.unwrap();
        cursor = changes.next;
        told.extend(changes.events.into_iter().filter_map(|change| match change.kind {
            ChangeKind::VersionCreated { version, .. } => Some(version),
            _ => None,
        }));
    }
    assert_eq!(told, *versions, "the feed tells every version once, in order");
}

async fn start(folder: &Path) -> (Child, Client) {
    let address = folder.join("address");
    drop(std::fs::remove_file(&address));
    let process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::server_process", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !address.exists() {
        assert!(Instant::now() < deadline, "the server process did not start");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let address = std::fs::read_to_string(address).unwrap();
    (process, Client::new(&format!("http://{address}")).unwrap())
}

async fn write_until_killed(client: Client, model: ModelName, seed: u64, answered: Answered) {
    for count in 0.. {
        let unique = format!("{seed}/{count}");
        // Sorted by path, as they come back.
        let files = vec![
            file("large", unique.repeat(40_000).as_bytes()),
            file("same", b"the same in every version"),
            file("small", unique.as_bytes()),
        ];
        match client.create_version(&model, &files, &unique, &BTreeMap::new()).await {
            Ok(version) => {
                let before = answered.lock().unwrap().insert(version, files);
                assert!(before.is_none(), "version {version} was given twice");
            }
            Err(error) => {
                assert_eq!(error.code(), sluice_protocol::Code::Unavailable, "{error}");
                return;
            }
        }
    }
}
