//! kill -9 at random moments: whoever starts next finds the last whole state.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::Child;
use std::time::{Duration, Instant, SystemTime};

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde_json::Value;
use sluice_features::EmbeddedStore;
use sluice_gateway::Gateway;
use sluice_protocol::ModelVersion;

use crate::support::{
    Registry, anywhere, client, definitions, fill_store, follow, free_port, model, other_package,
    output_of, package, predict, sluice, source_tree, wait_until,
};

const QUESTION: &str = r#"{"instances": [{"store_id": 42, "date": "2025-01-15", "promo": 1}]}"#;
const KILLS: usize = 10;
/// A run registers and promotes its version within this time of its verdict.
const REGISTERING: Duration = Duration::from_millis(150);
/// Materialised rows are on disk within this time of their computing.
const WRITING: Duration = Duration::from_millis(40);

/// Ends a child that a failed test leaves behind.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _ended_already = self.0.wait();
    }
}

fn start(arguments: &[&str]) -> Running {
    let mut command = sluice(arguments);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    Running(command.spawn().unwrap())
}

/// Starts the command and waits until it prints a line that begins with `word`.
fn started_until(arguments: &[&str], word: &str) -> Running {
    let mut command = sluice(arguments);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
    let mut child = Running(command.spawn().unwrap());
    let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let found = lines.map_while(Result::ok).any(|line| line.starts_with(word));
    assert!(found, "{arguments:?} printed no line {word:?}");
    child
}

/// How long the command takes when nobody kills it, so that kills can fall anywhere in it.
fn time_of(arguments: &[&str]) -> Duration {
    let began = Instant::now();
    output_of(arguments);
    began.elapsed()
}

fn random_moments(within: Duration) -> Vec<Duration> {
    let mut random = Pcg64Mcg::seed_from_u64(
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs(),
    );
    (0..KILLS).map(|_| within.mul_f64(random.random_range(0.0..1.0))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_training_run_leaves_whole_versions_only() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start(&folder.path().join("registry"), anywhere()).await;
    registry.publish(package().await).await;
    let gateway = follow(registry.client.url(), &folder.path().join("state")).await;
    fill_store(&gateway).await;

    let pipeline = source_tree().join("demo/train.toml");
    let url = registry.client.url().to_owned();
    let run = ["train", "run", pipeline.to_str().unwrap(), "--registry", &url];
    let whole = tokio::task::block_in_place(|| time_of(&run));
    for moment in random_moments(whole) {
        let child = start(&run);
        tokio::time::sleep(moment).await;
        drop(child);
        check_versions(&registry, &gateway, moment).await;
    }
    // Registering is a short part of a run, so random moments seldom fall into it.
    for moment in random_moments(REGISTERING) {
        let child = started_until(&run, "judge");
        tokio::time::sleep(moment).await;
        drop(child);
        check_versions(&registry, &gateway, moment).await;
    }
    tokio::task::block_in_place(|| output_of(&run));
    gateway.drain().await;
    registry.stop().await;
}

/// Every version is whole, the alias names one of them, and the gateway answers.
async fn check_versions(registry: &Registry, gateway: &Gateway, moment: Duration) {
    let known = registry.client.snapshot().await.unwrap().models.remove(0);
    for &version in &known.versions {
        let files = registry.client.fetch_version(&model(), version).await.unwrap();
        assert_eq!(files.len(), 4, "version {version}, killed after {moment:?}");
    }
    assert!(known.versions.contains(&known.aliases["champion"]));
    let (status, body) = predict(gateway.addresses().http, QUESTION).await;
    assert_eq!(status, 200, "killed after {moment:?}: {body}");
}

#[test]
fn a_killed_materialization_leaves_one_day_or_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let features = source_tree().join("demo/features.toml");
    let features = features.to_str().unwrap();
    let state = folder.path().to_str().unwrap();
    let until = |day: &'static str| {
        ["features", "materialize", "--features", features, "--state", state, "--until", day]
    };
    // Every one later than those before, so that each run has all rows to write.
    let days = [
        "2011-11-01",
        "2011-11-02",
        "2011-11-03",
        "2011-11-04",
        "2011-11-07",
        "2011-11-08",
        "2011-11-09",
        "2011-11-10",
        "2011-11-11",
        "2011-11-14",
        "2011-11-15",
        "2011-11-16",
        "2011-11-17",
        "2011-11-18",
        "2011-11-21",
        "2011-11-22",
        "2011-11-23",
        "2011-11-24",
        "2011-11-25",
        "2011-11-28",
        "2011-11-29",
    ];
    let whole = time_of(&until(days[0]));
    let mut day = days[0].to_owned();
    let anywhere = random_moments(whole).into_iter().map(|moment| (None, moment));
    // Writing is a short part at the end.
    let writing = random_moments(WRITING).into_iter().map(|moment| (Some("computed"), moment));
    for ((word, moment), next) in anywhere.chain(writing).zip(&days[1..]) {
        let child = match word {
            Some(word) => started_until(&until(next), word),
            None => start(&until(next)),
        };
        std::thread::sleep(moment);
        drop(child);
        let found = the_day_of_every_store(&folder.path().join("online.redb"));
        assert!(
            found == day || found == *next,
            "{found} after a kill at {moment:?} from {day} to {next}"
        );
        day = found;
    }
    output_of(&until("2011-12-01"));
    assert_eq!(the_day_of_every_store(&folder.path().join("online.redb")), "2011-12-01");
}

/// The day that the online rows of all 43 stores are of: there must be only one.
fn the_day_of_every_store(path: &std::path::Path) -> String {
    let store = EmbeddedStore::open(path).unwrap();
    let plan = definitions().plan("demand-forecast").unwrap();
    let days: std::collections::BTreeSet<String> = (1..=43)
        .map(|key: i32| {
            let vector = plan.vector(&store, &key.to_string(), &[], SystemTime::now()).unwrap();
            vector.views[0].as_of.clone().unwrap()
        })
        .collect();
    assert_eq!(days.len(), 1, "{days:?}");
    days.into_iter().next().unwrap()
}

/// A gateway as a process of its own, which can be killed.
struct Serving {
    folder: tempfile::TempDir,
    http: SocketAddr,
    admin: SocketAddr,
}

impl Serving {
    fn new() -> Self {
        let address = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        Self { folder: tempfile::tempdir().unwrap(), http: address(), admin: address() }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn fill_store(&self) {
        let features = source_tree().join("demo/features.toml");
        let (features, state) = (features.to_str().unwrap(), self.path("state"));
        output_of(&["features", "materialize", "--features", features, "--state", &state]);
    }

    fn start(&self, registry: &str) -> Running {
        let features = source_tree().join("demo/features.toml");
        let (features, state) = (features.to_str().unwrap(), self.path("state"));
        let (http, admin) = (self.http.to_string(), self.admin.to_string());
        let words = [
            "serve",
            "--registry",
            registry,
            "--features",
            features,
            "--state",
            &state,
            "--http",
            &http,
            "--grpc",
            "127.0.0.1:0",
            "--admin",
            &admin,
        ];
        start(&words)
    }

    /// The version that answers when none is named, and what it answers; none while it starts.
    async fn answer(&self) -> Option<(u64, f64)> {
        let models = client().get(format!("http://{}/models", self.admin)).send().await.ok()?;
        let models: Value = models.json().await.unwrap();
        let version = models["models"][0]["default"].as_u64()?;
        let (status, body) = predict(self.http, QUESTION).await;
        assert_eq!(status, 200, "{body}");
        Some((version, body["predictions"][0].as_f64().unwrap()))
    }

    /// Waits for an answer by a version that is `wanted`.
    async fn answer_of(&self, what: &str, wanted: impl Fn(u64) -> bool) -> (u64, f64) {
        let mut answer = (0, 0.0);
        wait_until(what, async || match self.answer().await {
            Some(found) if wanted(found.0) => {
                answer = found;
                true
            }
            _ => false,
        })
        .await;
        answer
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_killed_in_a_swap_starts_with_a_whole_version() {
    let serving = Serving::new();
    let data = serving.folder.path().join("registry");
    let mut registry = Registry::start(&data, anywhere()).await;
    let url = registry.client.url().to_owned();
    let address = url.trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
    serving.fill_store();
    let mut answers = BTreeMap::new();
    let gateway = serving.start(&url);
    for files in [package().await, other_package().await] {
        let version = registry.publish(files).await.0;
        let (_, answer) = serving.answer_of("the version", |found| found == version).await;
        answers.insert(version, answer);
    }
    drop(gateway);
    assert_ne!(answers[&1], answers[&2]);

    for (round, moment) in random_moments(Duration::from_millis(200)).into_iter().enumerate() {
        let gateway = serving.start(&url);
        serving.answer_of("the gateway", |_| true).await;
        let next = ModelVersion(1 + round as u64 % 2);
        registry.client.set_alias(&model(), "champion", next).await.unwrap();
        tokio::time::sleep(moment).await;
        drop(gateway);
        // The registry is away, so what the state folder holds is all there is.
        registry.stop().await;
        let gateway = serving.start(&url);
        let (version, answer) = serving.answer_of("without the registry", |_| true).await;
        assert_eq!(answer, answers[&version], "version {version}, killed after {moment:?}");
        drop(gateway);
        registry = Registry::start(&data, address).await;
    }
    registry.stop().await;
}
