//! kill -9 at random moments: whoever starts next finds the last whole state.

use std::process::Child;
use std::time::{Duration, Instant, SystemTime};

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use sluice_features::EmbeddedStore;

use crate::support::{
    Registry, anywhere, definitions, fill_store, follow, free_port, model, output_of, package,
    predict, sluice, source_tree, wait_until,
};

const QUESTION: &str = r#"{"instances": [{"store_id": 42, "date": "2025-01-15", "promo": 1}]}"#;
const KILLS: usize = 10;

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
        let known = registry.client.snapshot().await.unwrap().models.remove(0);
        for &version in &known.versions {
            let files = registry.client.fetch_version(&model(), version).await.unwrap();
            assert_eq!(files.len(), 4, "version {version}, killed after {moment:?}");
        }
        assert!(known.versions.contains(&known.aliases["champion"]));
        let (status, body) = predict(gateway.addresses().http, QUESTION).await;
        assert_eq!(status, 200, "killed after {moment:?}: {body}");
    }
    tokio::task::block_in_place(|| output_of(&run));
    gateway.drain().await;
    registry.stop().await;
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
    let days = ["2011-11-01", "2011-11-02", "2011-11-03", "2011-11-04"];
    let whole = time_of(&until(days[0]));
    let mut day = days[0].to_owned();
    for (index, moment) in random_moments(whole).into_iter().enumerate() {
        let next = days[1 + index % 3];
        let child = start(&until(next));
        std::thread::sleep(moment);
        drop(child);
        let found = the_day_of_every_store(&folder.path().join("online.redb"));
        assert!(
            found == day || found == next,
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

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_killed_in_a_swap_starts_with_a_whole_version() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let data = folder.path().join("registry");
    let registry = Registry::start(&data, anywhere()).await;
    let versions =
        [registry.publish(package().await).await, registry.publish(package().await).await];
    let url = registry.client.url().to_owned();
    let address = url.trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
    let features = source_tree().join("demo/features.toml");
    let http = format!("127.0.0.1:{}", free_port());
    let serve = [
        "serve",
        "--registry",
        &url,
        "--features",
        features.to_str().unwrap(),
        "--state",
        state.to_str().unwrap(),
        "--http",
        &http,
        "--grpc",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ];
    let answering = http.parse().unwrap();
    let state_name = state.to_str().unwrap();
    output_of(&[
        "features",
        "materialize",
        "--features",
        features.to_str().unwrap(),
        "--state",
        state_name,
    ]);
    let answers = async || {
        let url = format!("http://{answering}/v2/health/ready");
        let ready = crate::support::client().get(url).send().await;
        ready.is_ok_and(|ready| ready.status() == 200)
            && predict(answering, QUESTION).await.0 == 200
    };

    let mut registry = registry;
    for (round, moment) in random_moments(Duration::from_millis(200)).into_iter().enumerate() {
        let gateway = start(&serve);
        wait_until("the gateway", answers).await;
        registry.client.set_alias(&model(), "champion", versions[round % 2]).await.unwrap();
        tokio::time::sleep(moment).await;
        drop(gateway);
        // The registry is away, so what the state folder holds is all there is.
        registry.stop().await;
        let gateway = start(&serve);
        wait_until("the gateway without the registry", answers).await;
        drop(gateway);
        registry = Registry::start(&data, address).await;
    }
    registry.stop().await;
}
