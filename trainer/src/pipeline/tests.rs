//! Whole runs on a small data set of the tests' own, without and with a registry.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use sluice_protocol::{
    Digest, MANIFEST_FILE, MODEL_FILE, Manifest, ModelName, ModelVersion, PARITY_FILE,
    PROFILE_FILE, ParityRows, ReferenceProfile,
};
use sluice_registry::{Client, PackageFile, Server, ServerConfig};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::output::Output;
use super::sources::Sources;
use super::{Pipeline, RunOptions, RunReport, Stage, Step, run, validate};
use crate::judge::Verdict;

const DAYS: u64 = 200;
const STORES: u64 = 3;
const ALIAS: &str = "champion";

const FEATURES: &str = r#"
format = 1
[[entity]]
name = "store"
join_key = "store_id"
value_type = "INT64"
[[source]]
name = "sales"
path = "sales.csv"
timestamp_field = "date"
[source.schema]
store_id = "INT64"
date = "DATE"
units = "INT64"
[[feature_view]]
name = "store_sales"
version = 1
entity = "store"
source = "sales"
freshness = "14d"
stale = "degrade"
features = [
    { name = "units_last", expression = "units" },
    { name = "units_week_before", expression = "lag(units, 7) OVER ()" },
    { name = "units_mean_28", expression = "avg(units) OVER (ROWS BETWEEN 27 PRECEDING AND CURRENT ROW)" },
]
[[feature_service]]
name = "demand"
entity = "store"
views = ["store_sales@1"]
request_fields = [{ name = "date", type = "DATE" }]
columns = [
    "store_id",
    { name = "weekday", expression = "extract(dow FROM date)" },
    "units_last",
    "units_week_before",
    "units_mean_28",
]
"#;

const PIPELINE: &str = r#"
format = 1
model = "demand"
[data]
features = "features.toml"
service = "demand"
label_source = "sales"
label = "units"
horizon = "7d"
[data.request_fields]
date = "date"
[split]
validation_days = 28
test_days = 42
[learner]
max_rounds = 60
max_leaves = 8
learning_rate = 0.2
[judge]
baselines = [{ name = "a week before", column = "units_last" }]
"#;

/// A folder with definitions, sales and a pipeline file.
struct Shop(TempDir);

impl Shop {
    /// Sales that repeat every week, each day off by up to `noise` units.
    fn open(noise: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let shop = Self(folder);
        shop.write("features.toml", FEATURES);
        shop.write("train.toml", PIPELINE);
        let mut sales = String::from("store_id,date,units\n");
        let first = chrono::NaiveDate::from_ymd_opt(2024, 1, 1).unwrap();
        for day in 0..DAYS {
            let date = first + chrono::Days::new(day);
            for store in 1..=STORES {
                // Any scramble does, as long as it is the same in every run.
                let draw = (day * 31 + store).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
                let units = 40 * store + 10 * (day % 7) + draw % (2 * noise + 1);
                writeln!(sales, "{store},{date},{units}").unwrap();
            }
        }
        shop.write("sales.csv", &sales);
        shop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn pipeline(&self, overrides: &[&str]) -> Pipeline {
        let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
        Pipeline::load(&self.path("train.toml"), &overrides).unwrap()
    }

    /// Another feature, so that versions from before know other features than those from now on.
    fn add_feature(&self) {
        let more = FEATURES.replace(
            "    \"units_mean_28\",\n",
            "    \"units_mean_28\",\n    { name = \"month\", expression = \"extract(month FROM date)\" },\n",
        );
        assert_ne!(more, FEATURES);
        self.write("features.toml", &more);
    }

    async fn run(&self, overrides: &[&str], registry: Option<&Client>) -> RunReport {
        let options = RunOptions { registry: registry.cloned(), ..options() };
        run(&self.pipeline(overrides), &options, &mut |_| {}).await.unwrap()
    }

    /// Why a run with `options` fails, and whether it did so before its first stage.
    async fn failure(&self, options: &RunOptions) -> (String, bool) {
        let mut began = false;
        let outcome = run(&self.pipeline(&[]), options, &mut |_| began = true).await;
        (format!("{:#}", outcome.unwrap_err()), !began)
    }
}

/// With the ONNX Runtime that `make setup` installs, or the one that is named.
fn options() -> RunOptions {
    let installed = concat!(env!("CARGO_MANIFEST_DIR"), "/../.tools/onnxruntime/libonnxruntime.so");
    let named = std::env::var_os("SLUICE_ONNXRUNTIME").unwrap_or_else(|| installed.into());
    RunOptions { onnxruntime: Some(named.into()), ..RunOptions::default() }
}

fn model() -> ModelName {
    "demand".parse().unwrap()
}

fn version(number: u32) -> ModelVersion {
    number.to_string().parse().unwrap()
}

/// A registry in this process, for as long as the test runs.
async fn registry(data: &Path) -> Client {
    registry_until(data, std::future::pending()).await
}

/// The same, until `stop` is there.
async fn registry_until<F>(data: &Path, stop: F) -> Client
where
    F: Future<Output = ()> + Send + 'static,
{
    let config = ServerConfig { data: data.to_owned(), max_upload_bytes: 1 << 26 };
    let server = Server::open(config).await.unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let client = Client::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(server.serve(listener, stop));
    client
}

async fn champion(client: &Client) -> Option<ModelVersion> {
    client.alias(&model(), ALIAS).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_leaves_a_whole_package_and_a_report() {
    let shop = Shop::open(8);
    let out = shop.path("runs/1");
    let options = RunOptions { out: Some(out.clone()), ..options() };
    let report = run(&shop.pipeline(&[]), &options, &mut |_| {}).await.unwrap();
    assert_eq!(report.judgement.verdict, Verdict::Promote, "{}", report.judgement.reason);
    assert!(report.judgement.reason.contains("no registry"), "{}", report.judgement.reason);
    assert_eq!((report.version, report.promoted), (None, false));

    let read = |path: &str| std::fs::read(out.join(path)).unwrap();
    let inside = |path: &str| read(&format!("package/{path}"));
    let manifest = Manifest::parse(&inside(MANIFEST_FILE)).unwrap();
    assert_eq!(manifest.model, model());
    for path in [MODEL_FILE, PARITY_FILE, PROFILE_FILE] {
        assert!(manifest.files.contains_key(path), "{path}");
    }
    for (path, digest) in &manifest.files {
        assert_eq!(Digest::of(&inside(path)), *digest, "{path}");
    }
    let pin = manifest.feature_service.unwrap();
    assert_eq!(pin.columns[1], "weekday");
    let sales = std::fs::read(shop.path("sales.csv")).unwrap();
    let recorded = manifest.training["sources"]["sales"].as_str().unwrap();
    assert_eq!(recorded, Digest::of(&sales).to_string());
    let parity = ParityRows::parse(&inside(PARITY_FILE)).unwrap();
    assert!(!parity.rows.is_empty() && parity.rows[0].len() == pin.columns.len());
    let profile = ReferenceProfile::parse(&inside(PROFILE_FILE)).unwrap();
    let profiled: Vec<_> = profile.features.iter().map(|feature| &feature.name).collect();
    assert_eq!(profiled, pin.columns.iter().collect::<Vec<_>>());
    let told: serde_json::Value = serde_json::from_slice(&read("report.json")).unwrap();
    assert_eq!((&told["format"], &told["judgement"]["verdict"]), (&1.into(), &"promote".into()));
    assert_eq!(told["examples"]["test"], 42 * STORES);
    let left: Vec<_> = std::fs::read_dir(shop.path("runs")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_baseline_that_is_right_is_not_beaten() {
    let shop = Shop::open(0);
    let report = shop.run(&[], None).await;
    assert_eq!(report.judgement.verdict, Verdict::Reject, "{}", report.judgement.reason);
    assert!(report.judgement.reason.contains("a week before"), "{}", report.judgement.reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_refuse_the_outcome_is_asked_before_the_work() {
    let shop = Shop::open(8);
    let taken = RunOptions { out: Some(shop.path("features.toml")), ..options() };
    let (error, before) = shop.failure(&taken).await;
    assert!(before && error.contains("is there already"), "{error}");
    // A port that was free a moment ago.
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let away = RunOptions { registry: Some(Client::new(&address).unwrap()), ..taken };
    let away = RunOptions { out: None, ..away };
    let (error, before) = shop.failure(&away).await;
    assert!(before && error.contains("nothing was trained"), "{error}");
    assert!(error.contains(&address), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_leaves_nothing() {
    let shop = Shop::open(8);
    let report = shop.run(&["learner.max_rounds=2"], None).await;
    let package = BTreeMap::from([("no/such/folder".to_owned(), Vec::new())]);
    let output = Output::begin(&shop.path("runs/1")).unwrap();
    let error = output.write(&package).unwrap_err();
    assert!(error.to_string().contains("no/such/folder"), "{error}");
    drop(output);
    assert_eq!(std::fs::read_dir(shop.path("runs")).unwrap().count(), 0);
    let output = Output::begin(&shop.path("runs/1")).unwrap();
    std::fs::write(shop.path("runs/1"), "somebody was faster").unwrap();
    let error = format!("{:#}", output.publish(&report).unwrap_err());
    assert!(error.contains("is there already"), "{error}");
    let (_, left) = error.split_once("is left in ").unwrap();
    let (left, _) = left.split_once(": ").unwrap();
    assert!(Path::new(left).join("report.json").exists(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_goes_away_does_not_cost_the_run() {
    let shop = Shop::open(8);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let gone = async { drop(stopped.await) };
    let client = registry_until(&shop.path("registry"), gone).await;
    let out = shop.path("runs/1");
    let options =
        RunOptions { registry: Some(client.clone()), out: Some(out.clone()), ..options() };
    let mut stop = Some(stop);
    let mut stop_it = |step| {
        if matches!(step, Step::Ended { stage: Stage::Judge, .. }) {
            drop(stop.take());
            let away = async { while client.health().await.is_ok() {} };
            let runtime = tokio::runtime::Handle::current();
            tokio::task::block_in_place(|| runtime.block_on(away));
        }
    };
    let error = run(&shop.pipeline(&[]), &options, &mut stop_it).await.unwrap_err();
    let error = format!("{error:#}");
    assert!(error.starts_with("the version was not registered: "), "{error}");
    let report = std::fs::read(out.join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!((&report["version"], &report["promoted"]), (&().into(), &false.into()));
    assert!(out.join("package").join(MODEL_FILE).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_about_the_judge_are_found_before_the_work() {
    let shop = Shop::open(8);
    let pipeline = shop.pipeline(&["judge.baselines=[{ name = 'last', column = 'units_lats' }]"]);
    let error = validate(&pipeline).await.unwrap_err().to_string();
    assert!(error.contains("\"demand\" has no column \"units_lats\""), "{error}");
    let mut began = false;
    let outcome = run(&pipeline, &options(), &mut |_| began = true).await;
    assert!(outcome.is_err() && !began);

    let client = registry(&shop.path("registry")).await;
    let options = RunOptions { registry: Some(client), ..options() };
    let reserved = shop.pipeline(&["judge.alias=v1"]);
    let error = run(&reserved, &options, &mut |_| began = true).await.unwrap_err();
    assert!(!began && format!("{error:#}").contains("v1"), "{error:#}");
}

/// A week's sales from a day on: the last days of each part have labels that end in the next.
#[tokio::test(flavor = "multi_thread")]
async fn no_part_sees_the_next_through_its_labels() {
    let shop = Shop::open(8);
    let ahead = "data.label=sum(units) OVER (ROWS BETWEEN CURRENT ROW AND 6 FOLLOWING)";
    let plain = validate(&shop.pipeline(&[])).await.unwrap();
    let error = validate(&shop.pipeline(&[ahead])).await.unwrap_err().to_string();
    assert!(error.contains("18 of 600 examples have no label"), "{error}");
    let pipeline = shop.pipeline(&[ahead, "validation.max_missing_labels=0.1"]);
    let examples = validate(&pipeline).await.unwrap();
    for ((name, part), (_, whole)) in examples.parts().into_iter().zip(plain.parts()) {
        let (last, end) = (part.range().1.unwrap(), whole.range().1.unwrap());
        assert_eq!(end - last, chrono::TimeDelta::days(6), "{name}");
        assert_eq!(part.range().0, whole.range().0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_appears_whole() {
    let shop = Shop::open(8);
    let frame = shop.path("frame.csv");
    let options = RunOptions { frame_out: Some(frame.clone()), ..options() };
    let pipeline = shop.pipeline(&["learner.max_rounds=2"]);
    run(&pipeline, &options, &mut |_| {}).await.unwrap();
    let text = std::fs::read_to_string(&frame).unwrap();
    assert!(text.starts_with("split,label,store_id,weekday"), "{}", &text[..80]);
    assert_eq!(text.lines().filter(|line| line.starts_with("test,")).count(), 42 * 3);
    let folder = std::fs::read_dir(shop.path("")).unwrap();
    assert_eq!(folder.count(), 4, "definitions, pipeline, sales and the frame");
}

#[test]
fn a_source_that_changes_meanwhile_is_noticed() {
    let shop = Shop::open(8);
    let pipeline = shop.pipeline(&[]);
    let definitions = sluice_features::Definitions::load(&pipeline.data.features).unwrap();
    let read = || Sources::read(&definitions, &pipeline.data).unwrap();
    let before = read();
    read().check_unchanged_since(&before).unwrap();
    let sales = std::fs::read_to_string(shop.path("sales.csv")).unwrap();
    shop.write("sales.csv", &format!("{sales}1,2025-01-01,7\n"));
    let error = read().check_unchanged_since(&before).unwrap_err().to_string();
    assert!(error.contains("source sales at") && error.contains("changed"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn complaints_name_the_entity_plainly() {
    let shop = Shop::open(8);
    let error = validate(&shop.pipeline(&["validation.max_label=60"])).await.unwrap_err();
    let error = error.to_string();
    assert!(error.contains(" of 1 on ") || error.contains(" of 2 on "), "{error}");
    assert!(!error.contains("Int64"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_version_is_judged_against_the_first() {
    let shop = Shop::open(8);
    let client = registry(&shop.path("registry")).await;
    let first = shop.run(&[], Some(&client)).await;
    assert!(first.promoted && first.judgement.champion.is_none(), "{first:?}");
    assert!(first.judgement.reason.contains("nothing is in production"), "{first:?}");
    assert_eq!(champion(&client).await, Some(version(1)));

    let second = shop.run(&[], Some(&client)).await;
    let rival = second.judgement.champion.as_ref().unwrap();
    assert_eq!(rival.name, "version 1");
    assert!(rival.comparison.difference.abs() < 1e-3, "the same rows and seed: {rival:?}");
    assert_eq!((second.version, second.promoted), (Some(version(2)), true), "{second:?}");
    assert_eq!(champion(&client).await, Some(version(2)));

    let rejected = shop.run(&["learner.max_rounds=1"], Some(&client)).await;
    assert_eq!(rejected.judgement.verdict, Verdict::Reject, "{rejected:?}");
    assert_eq!((rejected.version, rejected.promoted), (Some(version(3)), false));
    assert_eq!(rejected.not_promoted.as_deref(), Some("the verdict is reject"));
    assert_eq!(champion(&client).await, Some(version(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_that_moved_meanwhile_stays() {
    let shop = Shop::open(8);
    let client = registry(&shop.path("registry")).await;
    shop.run(&[], Some(&client)).await;
    let options = RunOptions { registry: Some(client.clone()), no_promote: true, ..options() };
    let second = run(&shop.pipeline(&[]), &options, &mut |_| {}).await.unwrap();
    assert_eq!((second.version, second.promoted), (Some(version(2)), false));
    assert_eq!(champion(&client).await, Some(version(1)), "told not to promote");

    let options = RunOptions { no_promote: false, ..options };
    let moved = AtomicBool::new(false);
    let mut meanwhile = |step| {
        if matches!(step, Step::Ended { stage: Stage::Judge, .. }) {
            let (name, other) = (model(), version(2));
            let set = client.set_alias(&name, ALIAS, other);
            let runtime = tokio::runtime::Handle::current();
            tokio::task::block_in_place(|| runtime.block_on(set)).unwrap();
            moved.store(true, Ordering::Relaxed);
        }
    };
    let third = run(&shop.pipeline(&[]), &options, &mut meanwhile).await.unwrap();
    assert!(moved.load(Ordering::Relaxed));
    assert_eq!(third.judgement.verdict, Verdict::Promote, "{third:?}");
    assert_eq!((third.version, third.promoted), (Some(version(3)), false));
    let reason = third.not_promoted.unwrap();
    assert!(reason.contains("named version 1") && reason.contains("names version 2"), "{reason}");
    assert_eq!(champion(&client).await, Some(version(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_champion_with_other_features_is_not_replaced_unasked() {
    let shop = Shop::open(8);
    let client = registry(&shop.path("registry")).await;
    shop.run(&[], Some(&client)).await;
    shop.add_feature();
    let held = shop.run(&[], Some(&client)).await;
    assert_eq!(held.judgement.verdict, Verdict::Hold, "{held:?}");
    let reason = &held.judgement.reason;
    assert!(reason.contains("version 1 was trained with other features"), "{reason}");
    assert_eq!((held.version, held.promoted), (Some(version(2)), false));
    assert_eq!(champion(&client).await, Some(version(1)));

    let asked = shop.run(&["judge.when_incomparable=baselines"], Some(&client)).await;
    assert!(asked.promoted, "{asked:?}");
    let reason = &asked.judgement.reason;
    assert!(reason.contains("version 1 was trained with other features"), "{reason}");
    assert_eq!(champion(&client).await, Some(version(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_champion_that_is_no_package_is_held_against_nothing() {
    let shop = Shop::open(8);
    let client = registry(&shop.path("registry")).await;
    client.ensure_model(&model(), "").await.unwrap();
    let notes = PackageFile { path: "notes.txt".to_owned(), bytes: b"?"[..].into() };
    let foreign = client.create_version(&model(), &[notes], "", &BTreeMap::new()).await.unwrap();
    client.set_alias(&model(), ALIAS, foreign).await.unwrap();
    let held = shop.run(&[], Some(&client)).await;
    assert_eq!(held.judgement.verdict, Verdict::Hold, "{held:?}");
    assert!(held.judgement.reason.contains("version 1 has no manifest"), "{held:?}");
    assert_eq!(champion(&client).await, Some(foreign));
}
