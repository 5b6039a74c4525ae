//! `sluice bench`: puts load on a server and reports how it answered.

#[cfg(target_os = "linux")]
mod compare;
mod echo;
mod floor;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use clap::{Args, Subcommand};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use sluice_bench::{
    Arrivals, Asked, Check, Choice, Load, LoadOptions, Pace, ProcessTree, Protocol, Question,
    Report, Stage, ask_models, model_runs,
};

use crate::output::print;

/// Put load on servers, and measure what none can go below.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    Run(Box<RunArgs>),
    #[cfg(target_os = "linux")]
    Compare(Box<compare::CompareArgs>),
    Floor(floor::FloorArgs),
    Echo(echo::EchoArgs),
}

/// Send requests and report latencies.
///
/// The load is open-loop: a request leaves when it is due, whether or not earlier ones have
/// been answered, and its latency counts from that moment. So a server that stalls is charged
/// for every request that it held up, as its callers would be. With --closed each connection
/// sends its next request when the last one has been answered, which finds the most that a
/// server gives, and hides what its stalls do.
///
/// At most --connections requests are in flight. Others that are due wait for a free connection,
/// in order, and their waiting counts; one that waited longer than --timeout is not sent any
/// more and counted as unsent. A good answer has status 2xx and, if the request has a body, is a
/// JSON object without "error" (see --any-body).
///
/// The table goes to standard output, progress to a terminal's standard error. Ctrl-C ends the
/// load early, with the report of what ran; a second one gives up at once.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
struct RunArgs {
    /// Where to send requests, http only
    #[arg(long, env = "SLUICE_BENCH_URL", value_name = "URL")]
    url: Uri,
    /// Ask this model, or several in turn, with made-up rows; --url is then the server's root, and
    /// the bodies are made from what it says of the model's inputs
    #[arg(long, env = "SLUICE_BENCH_MODEL", value_name = "NAME[,NAME]", value_delimiter = ',', conflicts_with_all = ["method", "body", "body_file"])]
    model: Vec<String>,
    /// How --model is asked: v1, v2, v2-binary or grpc
    #[arg(long, value_name = "NAME", default_value = "v2", requires = "model")]
    protocol: Protocol,
    /// Rows of each question to --model
    #[arg(long, value_name = "N", default_value_t = 1, requires = "model")]
    rows: usize,
    /// The values of an input of --model: NAME=FROM..TO or NAME=VALUE,VALUE; may be given several
    /// times
    #[arg(long, value_name = "NAME=VALUES", requires = "model")]
    choose: Vec<String>,
    /// How uneven --choose is: the n-th value comes in proportion to 1/n^SKEW
    #[arg(long, value_name = "SKEW", default_value_t = 0.0, requires = "choose")]
    zipf: f64,
    /// Requests per second; several are taken one after the other, each for --duration
    #[arg(
        long,
        env = "SLUICE_BENCH_RATE",
        value_name = "N[,N]",
        default_value = "200",
        value_delimiter = ','
    )]
    rate: Vec<f64>,
    /// A rate that grows or shrinks evenly over --duration, 100..5000 for one
    #[arg(long, value_name = "FROM..TO", value_parser = parse_ramp, conflicts_with_all = ["rate", "closed"])]
    ramp: Option<Stage>,
    /// Gaps as those of many independent callers, instead of even ones
    #[arg(long, conflicts_with = "closed")]
    poisson: bool,
    /// No rate: each connection sends as soon as it has its answer
    #[arg(long, conflicts_with = "rate")]
    closed: bool,
    /// How long to send; until Ctrl-C if 0s
    #[arg(long, env = "SLUICE_BENCH_DURATION", value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Keep-alive connections
    #[arg(long, env = "SLUICE_BENCH_CONNECTIONS", value_name = "N", default_value_t = 8)]
    connections: usize,
    /// How long a request may take, and how long it may wait to be sent
    #[arg(long, env = "SLUICE_BENCH_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// The method; POST with a body and GET without by default
    #[arg(long, env = "SLUICE_BENCH_METHOD", value_name = "METHOD")]
    method: Option<Method>,
    /// The body of every request
    #[arg(long, env = "SLUICE_BENCH_BODY", value_name = "JSON", conflicts_with = "body_file")]
    body: Option<String>,
    /// A file with one JSON body a line, sent in rotation
    #[arg(long, env = "SLUICE_BENCH_BODY_FILE", value_name = "FILE")]
    body_file: Option<PathBuf>,
    /// A header for every request; may be given several times
    #[arg(long = "header", value_name = "NAME:VALUE", value_parser = parse_header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Accept any body of a 2xx answer, JSON or not
    #[arg(long, env = "SLUICE_BENCH_ANY_BODY")]
    any_body: bool,
    // Without an environment variable: leave to hit another machine is given each time.
    /// Allow a target on another machine
    #[arg(long)]
    allow_remote: bool,
    /// The server's process: what it and its children take of the machine is reported
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Write the report to this file as JSON
    #[arg(long, env = "SLUICE_BENCH_JSON", value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the latencies to this file as HdrHistogram's percentile text
    #[arg(long, env = "SLUICE_BENCH_HISTOGRAM", value_name = "FILE")]
    histogram: Option<PathBuf>,
    /// Write the report with its plots to this file as a page of HTML
    #[arg(long, env = "SLUICE_BENCH_HTML", value_name = "FILE")]
    html: Option<PathBuf>,
    /// Exit with an error if a request failed or was not sent
    #[arg(long, env = "SLUICE_BENCH_FAIL_ON_ERROR")]
    fail_on_error: bool,
}

const EXAMPLES: &str = r#"Examples:
  200 requests a second for 10 s, each with the same question:
    sluice bench run --url http://localhost:8080/v1/models/demand-forecast:predict \
      --body '{"instances": [{"store_id": 42, "date": "2025-01-15", "promo": 1}]}'

  5,000 a second over 32 connections for a minute, with the bodies of a file in turn:
    sluice bench run --url http://localhost:8080/v2/models/m/infer --rate 5000 --duration 1m \
      --connections 32 --body-file bodies.jsonl --json report.json --histogram load.hgrm

  The most that a server gives over 64 connections:
    sluice bench run --url http://localhost:8080 --model fraud --closed --connections 64 \
      --pid $(pidof sluice-gateway)

  Two models in turn over gRPC, and another whose rows are looked up by skewed keys:
    sluice bench run --url http://localhost:9000 --model fraud,ranking --protocol grpc
    sluice bench run --url http://localhost:8080 --model demand-forecast \
      --choose store_id=1..1115 --zipf 1.1 --choose date=2025-01-15

  Latency against load, callers coming by chance, 20 s at each rate:
    sluice bench run --url http://localhost:8080/v2/models/m/infer --rate 1000,2000,4000,8000 \
      --poisson --duration 20s --connections 256 --body-file bodies.jsonl --html load.html

  In a script, failing if a single request failed:
    sluice bench run --url http://localhost:8080/v2/health/ready --fail-on-error
"#;

/// Runs the subcommand.
pub(crate) fn run(args: BenchArgs) -> anyhow::Result<()> {
    match args.command {
        BenchCommand::Run(args) => run_load(*args),
        #[cfg(target_os = "linux")]
        BenchCommand::Compare(args) => compare::run(&args),
        BenchCommand::Floor(args) => floor::run(&args),
        BenchCommand::Echo(args) => echo::run(&args),
    }
}

/// As many serving cores as the gateway would have here.
fn cores() -> usize {
    // It minds a container's quota.
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn run_load(args: RunArgs) -> anyhow::Result<()> {
    let (json, histogram, html) = (args.json.clone(), args.histogram.clone(), args.html.clone());
    let fail_on_error = args.fail_on_error;
    let (url, asked, allow_remote) = (args.url.clone(), asked_of_models(&args)?, args.allow_remote);
    let counted = || asked.as_ref().map(|asked| model_runs(&url, asked, allow_remote));
    let options = options(args)?;
    let before = counted();
    let load = Load::start(options)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = runtime.block_on(follow(load))?;
    if let (Some(before), Some(now)) = (before, counted()) {
        report = report.with_models(&before, &now);
    }
    print(&report.to_string())?;
    if let Some(path) = json {
        report.write_json(&path)?;
    }
    if let Some(path) = histogram {
        report.write_histogram(&path)?;
    }
    if let Some(path) = html {
        report.write_html(&path)?;
    }
    let total = &report.total;
    if fail_on_error && total.ok != total.requests {
        bail!(
            "{} of {} requests failed or were not sent",
            total.requests - total.ok,
            total.requests
        );
    }
    Ok(())
}

/// Shows progress until the load ends or Ctrl-C ends it.
async fn follow(mut load: Load) -> anyhow::Result<Report> {
    let progress = std::io::stderr().is_terminal();
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.tick().await;
    let mut interrupted = pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            () = load.finished() => break,
            listening = &mut interrupted => {
                listening.context("wait for Ctrl-C")?;
                break;
            }
            _ = second.tick(), if progress => show_progress(&load.report())?,
        }
    }
    tokio::select! {
        report = load.stop() => Ok(report),
        _ = tokio::signal::ctrl_c() => bail!("interrupted while waiting for the last answers"),
    }
}

fn show_progress(report: &Report) -> anyhow::Result<()> {
    let total = &report.total;
    let line = format!(
        "{:>5.0} s: {} ok, {} failed, {} unsent, p50 {:.3} ms, p99 {:.3} ms\n",
        total.duration.as_secs_f64(),
        total.ok,
        total.failed,
        total.unsent,
        total.latency.p50.as_secs_f64() * 1e3,
        total.latency.p99.as_secs_f64() * 1e3,
    );
    std::io::stderr().write_all(line.as_bytes()).context("show progress")
}

fn options(args: RunArgs) -> anyhow::Result<LoadOptions> {
    let pace = pace(&args);
    let asked = match asked_of_models(&args)? {
        Some(asked) => ask_models(&args.url, &asked, args.allow_remote)?,
        None => asked(&args)?,
    };
    let server = args.pid.map(ProcessTree::new).transpose().context("find --pid")?;
    let mut headers = HeaderMap::new();
    for (name, value) in args.headers {
        headers.append(name, value);
    }
    let check = if args.any_body { Check::Status } else { asked.check };
    Ok(LoadOptions {
        headers,
        check,
        pace,
        connections: args.connections,
        duration: (!args.duration.is_zero()).then_some(args.duration),
        timeout: args.timeout,
        allow_remote: args.allow_remote,
        server,
        ..asked
    })
}

/// What is asked of the models that the flags name, if they name some.
fn asked_of_models(args: &RunArgs) -> anyhow::Result<Option<Asked>> {
    if args.model.is_empty() {
        return Ok(None);
    }
    let choices = args.choose.iter().map(|text| Choice::new(text, args.zipf));
    let asked = Asked {
        models: args.model.clone(),
        protocol: args.protocol,
        rows: args.rows,
        choices: choices.collect::<Result<_, _>>()?,
    };
    Ok(Some(asked))
}

/// The request that the flags say, without headers.
fn asked(args: &RunArgs) -> anyhow::Result<LoadOptions> {
    let bodies = match (&args.body, &args.body_file) {
        (Some(body), _) => vec![json_body(body).context("read --body")?],
        (None, Some(path)) => {
            read_bodies(path).with_context(|| format!("read bodies from {}", path.display()))?
        }
        (None, None) => Vec::new(),
    };
    let check = if bodies.is_empty() { Check::Status } else { Check::Json };
    let method = args.method.clone();
    let questions = vec![Question { bodies, ..Question::new(args.url.clone()) }];
    Ok(LoadOptions { questions, method, check, ..LoadOptions::new(args.url.clone()) })
}

fn pace(args: &RunArgs) -> Pace {
    if args.closed {
        return Pace::Closed;
    }
    let stages = match args.ramp {
        Some(ramp) => vec![ramp],
        None => args.rate.iter().copied().map(Stage::flat).collect(),
    };
    let arrivals = if args.poisson { Arrivals::Poisson } else { Arrivals::Even };
    Pace::Open { stages, arrivals }
}

fn parse_ramp(text: &str) -> anyhow::Result<Stage> {
    let (from, to) = text.split_once("..").context("a ramp is FROM..TO")?;
    Ok(Stage { from: from.trim().parse()?, to: to.trim().parse()? })
}

/// The lines of `path` that are not blank, each a JSON document.
fn read_bodies(path: &Path) -> anyhow::Result<Vec<Bytes>> {
    let text = std::fs::read_to_string(path)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let bodies: Vec<Bytes> = lines
        .map(|(number, line)| json_body(line).with_context(|| format!("line {}", number + 1)))
        .collect::<anyhow::Result<_>>()?;
    ensure!(!bodies.is_empty(), "the file holds no body");
    Ok(bodies)
}

fn json_body(text: &str) -> anyhow::Result<Bytes> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).context("body is not JSON")?;
    Ok(Bytes::copy_from_slice(text.as_bytes()))
}

fn parse_header(text: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':').context("a header is NAME:VALUE")?;
    Ok((name.trim().parse()?, value.trim().parse()?))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use sluice_bench::{Arrivals, Pace, Stage};

    use super::{BenchArgs, BenchCommand, options};

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn parse(arguments: &[&str]) -> anyhow::Result<sluice_bench::LoadOptions> {
        let all = ["bench", "run", "--url", "http://localhost:1/x"];
        let command = Command::try_parse_from(all.iter().chain(arguments))?;
        let BenchCommand::Run(args) = command.bench.command else {
            anyhow::bail!("it is another command")
        };
        options(*args)
    }

    #[test]
    fn arguments_become_options() {
        let options = parse(&[
            "--rate",
            "0.5",
            "--duration",
            "1m 30s",
            "--header",
            "x-a: b:c",
            "--header",
            "x-a:d",
            "--body",
            "{}",
        ])
        .unwrap();
        assert_eq!((options.pace, options.duration.unwrap().as_secs()), (Pace::even(0.5), 90));
        assert_eq!(options.headers["x-a"], "b:c");
        assert_eq!(
            (options.questions[0].bodies.len(), options.check),
            (1, sluice_bench::Check::Json)
        );
        assert!(parse(&["--duration", "0s"]).unwrap().duration.is_none());
        assert_eq!(
            parse(&["--body", "{}", "--any-body"]).unwrap().check,
            sluice_bench::Check::Status
        );
    }

    #[test]
    fn rates_become_a_pace() {
        let open = |stages: &[Stage], arrivals| Pace::Open { stages: stages.to_vec(), arrivals };
        let flat = |rates: &[f64]| rates.iter().copied().map(Stage::flat).collect::<Vec<_>>();
        for (arguments, pace) in [
            (&["--closed"][..], Pace::Closed),
            (&["--rate", "1,2.5"], open(&flat(&[1.0, 2.5]), Arrivals::Even)),
            (&["--poisson"], open(&flat(&[200.0]), Arrivals::Poisson)),
            (&["--ramp", "10..50"], open(&[Stage { from: 10.0, to: 50.0 }], Arrivals::Even)),
        ] {
            assert_eq!(parse(arguments).unwrap().pace, pace, "{arguments:?}");
        }
    }

    #[test]
    fn arguments_that_cannot_be_used_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bodies");
        std::fs::write(&file, "{}\n\n{\n").unwrap();
        let empty = folder.path().join("empty");
        std::fs::write(&empty, "\n").unwrap();
        let path = file.to_str().unwrap();
        for (arguments, says) in [
            (&["--body", "{"][..], "not JSON"),
            (&["--body-file", path], "line 3"),
            (&["--body-file", empty.to_str().unwrap()], "no body"),
            (&["--body-file", "/no/such/file"], "/no/such/file"),
            (&["--body-file", path, "--body", "{}"], "cannot be used with"),
            (&["--header", "x"], "NAME:VALUE"),
            (&["--header", "a b:c"], "header name"),
            (&["--rate", "many"], "--rate"),
            (&["--ramp", "5"], "FROM..TO"),
            (&["--closed", "--rate", "5"], "cannot be used with"),
            (&["--closed", "--poisson"], "cannot be used with"),
        ] {
            let error = format!("{:#}", parse(arguments).unwrap_err());
            assert!(error.contains(says), "{arguments:?}: {error}");
        }
    }
}
