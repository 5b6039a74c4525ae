//! `sluice demo`: the whole loop on one machine, on real sales, in one command.
//!
//! Everything runs in this process but talks over the ports that it would in production.

mod data;
mod stage;
mod swap;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;
use sluice_engine::OnnxRuntime;
use sluice_features::{Definitions, check_sources, materialize};
use sluice_gateway::{Addresses, Gateway, Settings};
use sluice_registry::{Client, Server, ServerConfig};
use sluice_trainer::pipeline::{Pipeline, RunOptions, RunReport};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use self::stage::Stages;
use crate::admin::{Admin, AdminAccess};
use crate::output::print;
use crate::registry::stop_signal;
use crate::train::Progress;

/// The model of the demo.
const MODEL: &str = "demand-forecast";
/// The question of the demo: the busiest store but one, a day after the data's end, promoted.
const QUESTION: &str = r#"{"instances": [{"store_id": 42, "date": "2025-01-15", "promo": 1}]}"#;

/// Run the whole loop on this machine, on real sales: train, serve, retrain, swap
///
/// Takes two years of a retailer's sales up to a cut-off day, trains and serves a forecast,
/// lets the rest of the sales arrive, retrains, judges the new version against the old one and
/// swaps it in under load. Then it goes on serving and says what to try. DEMO_EXIT=1 ends it
/// after the report.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Folder of the source tree, with demo/ and data/ in it
    #[arg(long, value_name = "DIR", default_value = ".")]
    source: PathBuf,
    /// Folder that the demo works in; it is emptied first
    #[arg(long, value_name = "DIR", default_value = ".sluice/demo")]
    work: PathBuf,
    /// The last day of sales that the first version knows
    #[arg(long, value_name = "DATE", default_value = "2011-08-31")]
    cut_off: chrono::NaiveDate,
    /// Requests a second during the swap
    #[arg(long, value_name = "N", default_value_t = 200.0)]
    rate: f64,
    /// End after the report instead of serving on
    #[arg(long, env = "DEMO_EXIT", value_parser = clap::builder::FalseyValueParser::new())]
    exit: bool,
    /// Address for HTTP
    #[arg(long, value_name = "ADDR", default_value_t = local(8080))]
    http: SocketAddr,
    /// Address for gRPC
    #[arg(long, value_name = "ADDR", default_value_t = local(8081))]
    grpc: SocketAddr,
    /// Address for administration
    #[arg(long, value_name = "ADDR", default_value_t = local(8082))]
    admin: SocketAddr,
    /// Address for the registry
    #[arg(long, value_name = "ADDR", default_value_t = local(5000))]
    registry: SocketAddr,
    /// ONNX Runtime's shared library, version 1.23 or newer
    #[arg(long, env = "SLUICE_ONNXRUNTIME", value_name = "FILE")]
    onnxruntime: Option<PathBuf>,
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

pub(crate) async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let mut stop = pin!(stop_signal()?);
    let (gateway, registry) = tokio::select! {
        done = demo(&args) => done?,
        () = &mut stop => bail!("interrupted"),
    };
    if !args.exit {
        print(&what_to_try(gateway.addresses(), &registry.url, &args))?;
        stop.await;
    }
    gateway.drain().await;
    registry.stop().await
}

/// What would stop the demo half-way stops it here.
fn check_machine(args: &DemoArgs) -> anyhow::Result<()> {
    OnnxRuntime::load(args.onnxruntime.as_deref())?;
    let addresses = [
        ("http", args.http),
        ("grpc", args.grpc),
        ("admin", args.admin),
        ("registry", args.registry),
    ];
    for (flag, address) in addresses {
        std::net::TcpListener::bind(address).with_context(|| {
            format!("cannot listen on {address}; --{flag} names another address")
        })?;
    }
    Ok(())
}

/// The loop. Gives what still serves at its end.
async fn demo(args: &DemoArgs) -> anyhow::Result<(Gateway, RunningRegistry)> {
    let began = Instant::now();
    let mut stages = Stages::new();
    check_machine(args)?;
    let folders = data::Folders::prepare(&args.source, &args.work)?;

    let sales = folders.arrive(Some(args.cut_off))?;
    stages.done("data", &sales.to_string());

    let definitions = Definitions::load(&folders.features)?;
    check_sources(&definitions).await?;
    let plan = definitions.plan(MODEL)?;
    let views = plan.views().join(", ");
    stages.done(
        "validate",
        &format!("{} columns from {views} are defined and readable", plan.columns().len()),
    );

    let (client, registry) = start_registry(args).await?;
    stages.done("registry", &format!("serving at {}", client.url()));

    let pipeline = Pipeline::load(&folders.pipeline, &[])?;
    let first = train(args, &pipeline, &client, false).await?;
    stages.done("v1", &outcome(&first));

    let gateway = start_gateway(args, &folders, client.url()).await?;
    let address = gateway.addresses();
    stages.done(
        "serve",
        &format!("HTTP {}, gRPC {}, admin {}", address.http, address.grpc, address.admin),
    );

    let admin = Admin::new(&address.admin.to_string(), &AdminAccess::default())?;
    let rows = fill_store(&definitions, &admin).await?;
    stages.done("features", &format!("{rows} online rows as of {}", args.cut_off));
    let answer = ask(address.http).await?;
    stages.done("answer", &format!("{QUESTION} -> {answer}"));

    let sales = folders.arrive(None)?;
    check_sources(&definitions).await?;
    let rows = fill_store(&definitions, &admin).await?;
    stages.done("data", &format!("the rest arrives: {sales}; {rows} online rows"));

    let second = train(args, &pipeline, &client, true).await?;
    stages.done("v2", &outcome(&second));
    let version = second.version.context("the second run registered no version")?;
    if second.judgement.verdict != sluice_trainer::judge::Verdict::Promote {
        bail!("version {version} is not good enough to swap in: {}", second.judgement.reason);
    }

    let swapped = swap::under_load(&client, version, address.http, &admin, args.rate).await?;
    stages.done("swap", &swapped.summary());
    let answer = ask(address.http).await?;
    stages.done("answer", &format!("{QUESTION} -> {answer}"));
    print(&format!("\n{}\n", swapped.report))?;
    print(&format!("the whole loop took {:.1} s\n", began.elapsed().as_secs_f64()))?;
    swapped.check()?;
    Ok((gateway, registry))
}

/// A registry in this process.
struct RunningRegistry {
    url: String,
    stop: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<Result<(), sluice_registry::RegistryError>>,
}

impl RunningRegistry {
    async fn stop(self) -> anyhow::Result<()> {
        let _already_ended = self.stop.send(());
        self.serving.await.context("registry")?.context("registry")
    }
}

async fn start_registry(args: &DemoArgs) -> anyhow::Result<(Client, RunningRegistry)> {
    let config = ServerConfig { data: args.work.join("registry"), max_upload_bytes: 1 << 30 };
    let server = Server::open(config).await?;
    let listener = TcpListener::bind(args.registry).await.with_context(|| {
        format!("listen on {} for the registry (--registry names another)", args.registry)
    })?;
    let client = Client::new(&format!("http://{}", listener.local_addr()?))?;
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(server.serve(listener, async {
        let _stopped_or_dropped = stopped.await;
    }));
    Ok((client.clone(), RunningRegistry { url: client.url().to_owned(), stop, serving }))
}

async fn start_gateway(
    args: &DemoArgs,
    folders: &data::Folders,
    registry: &str,
) -> anyhow::Result<Gateway> {
    let mut settings = Settings::default();
    settings.registry = Some(registry.to_owned());
    settings.features = Some(folders.features.clone());
    settings.state = Some(args.work.join("state"));
    settings.http = Some(args.http);
    settings.grpc = Some(args.grpc);
    settings.admin = Some(args.admin);
    settings.onnxruntime.clone_from(&args.onnxruntime);
    let gateway = Gateway::start(settings.resolve()?).await?;
    gateway.ready().await;
    Ok(gateway)
}

async fn train(
    args: &DemoArgs,
    pipeline: &Pipeline,
    client: &Client,
    no_promote: bool,
) -> anyhow::Result<RunReport> {
    let options = RunOptions {
        registry: Some(client.clone()),
        onnxruntime: args.onnxruntime.clone(),
        no_promote,
        ..RunOptions::default()
    };
    let mut progress = Progress::new("    ");
    sluice_trainer::pipeline::run(pipeline, &options, &mut |step| progress.show(&step)).await
}

fn outcome(report: &RunReport) -> String {
    let version = report.version.map_or_else(String::new, |version| format!("version {version}: "));
    format!("{version}{}", report.judgement.reason)
}

/// Computes every view's latest rows and hands them to the gateway, which owns the store.
async fn fill_store(definitions: &Definitions, admin: &Admin) -> anyhow::Result<usize> {
    let batches = materialize(definitions, None, None).await?;
    let views = admin.write(&batches).await.context("write features")?;
    Ok(views.iter().map(|view| view.written).sum())
}

async fn ask(http: SocketAddr) -> anyhow::Result<f64> {
    let request = reqwest::Client::builder()
        .no_proxy()
        .build()?
        .post(format!("http://{http}/v1/models/{MODEL}:predict"))
        .header("Content-Type", "application/json")
        .timeout(Duration::from_secs(10))
        .body(QUESTION);
    let answer: serde_json::Value = request.send().await?.json().await?;
    answer["predictions"][0]
        .as_f64()
        .with_context(|| format!("the gateway answered {}", json!(answer)))
}

fn what_to_try(address: Addresses, registry: &str, args: &DemoArgs) -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("sluice"));
    let program = relative(&program);
    let definitions = relative(&args.work.join("demo/features.toml"));
    let (http, admin) = (address.http, address.admin);
    format!(
        "\nServing on. Try, in another terminal:\n\
         \n  curl -X POST http://{http}/v1/models/{MODEL}:predict -H \"Content-Type: application/json\" -d '{QUESTION}'\
         \n  curl http://{http}/v2/models/{MODEL}\
         \n  curl http://{admin}/metrics\
         \n  {program} features get {MODEL} --features {definitions} --admin {admin} --key 42 --field date=2025-01-15 --field promo=1\
         \n  {program} registry versions {MODEL} --registry {registry}\
         \n  {program} bench run --url http://{http}/v1/models/{MODEL}:predict --body '{QUESTION}' --rate 1000 --duration 5s\
         \n\nCtrl-C ends.\n"
    )
}

/// `path` from the current folder, if it lies below.
fn relative(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let inside = here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned));
    inside.unwrap_or_else(|| path.to_owned()).display().to_string()
}
