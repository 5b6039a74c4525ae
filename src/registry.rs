//! `sluice registry`: runs a registry, and looks at or moves what one holds.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use sluice_protocol::{ModelName, ModelVersion};
use sluice_registry::{Client, Server, ServerConfig, Snapshot};
use tokio::net::TcpListener;

use crate::output::print;

/// Run a registry of models, or look at one.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct RegistryArgs {
    #[command(subcommand)]
    command: RegistryCommand,
}

#[derive(Debug, Subcommand)]
enum RegistryCommand {
    Serve(ServeArgs),
    /// List the registered models, their versions and aliases
    Models(At),
    Versions(VersionsArgs),
    Alias(AliasArgs),
}

/// Serve a registry out of a folder.
///
/// Speaks MLflow's API for registered models, versions, aliases, tags and artifacts, so that
/// MLflow's own client works with it: point MLFLOW_TRACKING_URI or MLFLOW_REGISTRY_URI here.
/// Gateways follow its change feed.
///
/// The folder belongs to one process at a time. SIGTERM and Ctrl-C let running requests finish.
#[derive(Debug, Args)]
struct ServeArgs {
    /// The folder of the database and the files; created if it is missing
    #[arg(long, env = "SLUICE_REGISTRY_DATA", value_name = "DIR")]
    data: PathBuf,
    /// Where to listen; nobody is asked who they are, so mind who reaches it
    #[arg(
        long,
        env = "SLUICE_REGISTRY_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:5000"
    )]
    listen: SocketAddr,
    /// The longest file that may be uploaded, with KiB, MiB, GiB or in bytes
    #[arg(long, env = "SLUICE_REGISTRY_MAX_UPLOAD", value_name = "SIZE", default_value = "1GiB", value_parser = parse_size)]
    max_upload: u64,
}

/// Which registry to ask.
#[derive(Debug, Args)]
struct At {
    /// The registry's address
    #[arg(
        long,
        env = "SLUICE_REGISTRY",
        value_name = "URL",
        default_value = "http://127.0.0.1:5000"
    )]
    registry: String,
}

/// List a model's versions, their files and digests.
#[derive(Debug, Args)]
struct VersionsArgs {
    /// The model
    #[arg(value_name = "MODEL")]
    model: ModelName,
    #[command(flatten)]
    at: At,
}

/// Show, set or delete an alias of a model.
///
/// Gateways that serve the model by this alias follow within moments.
#[derive(Debug, Args)]
struct AliasArgs {
    /// The model
    #[arg(value_name = "MODEL")]
    model: ModelName,
    /// The alias, such as champion
    #[arg(value_name = "ALIAS")]
    alias: String,
    /// The version that it shall name; without one, the present one is shown
    #[arg(value_name = "VERSION", conflicts_with = "delete")]
    version: Option<ModelVersion>,
    /// Delete the alias
    #[arg(long)]
    delete: bool,
    #[command(flatten)]
    at: At,
}

const EXAMPLES: &str = "Examples:
  Keep a registry in ./registry and serve it to this machine:
    sluice registry serve --data registry

  What is there:
    sluice registry models
    sluice registry versions demand-forecast

  Let version 3 answer from now on, then look:
    sluice registry alias demand-forecast champion 3
    sluice registry alias demand-forecast champion

  Use it from Python with MLflow's own client:
    MLFLOW_TRACKING_URI=http://127.0.0.1:5000 python register.py
";

/// Runs the subcommand.
pub(crate) async fn run(args: RegistryArgs) -> anyhow::Result<()> {
    match args.command {
        RegistryCommand::Serve(args) => serve(args).await,
        RegistryCommand::Models(at) => models(&client(&at)?).await,
        RegistryCommand::Versions(args) => versions(&client(&args.at)?, &args.model).await,
        RegistryCommand::Alias(args) => alias(&client(&args.at)?, &args).await,
    }
}

async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    // Listening for the signal first: one that comes while the folder is opened is not lost.
    let stopped = stop_signal()?;
    let config = ServerConfig { data: args.data.clone(), max_upload_bytes: args.max_upload };
    let server = Server::open(config).await.context("open registry")?;
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("listen on {}", args.listen))?;
    let address = listener.local_addr().context("read the listener's address")?;
    print(&format!("registry {} listens on http://{address}\n", args.data.display()))?;
    server.serve(listener, stopped).await.context("serve registry")
}

/// Resolves at the first SIGTERM or Ctrl-C.
pub(crate) fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    #[cfg(unix)]
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .context("listen for SIGTERM")?;
    Ok(async move {
        #[cfg(unix)]
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        #[cfg(not(unix))]
        drop(tokio::signal::ctrl_c().await);
    })
}

async fn models(client: &Client) -> anyhow::Result<()> {
    let snapshot = client.snapshot().await.context("list models")?;
    print(&table(&snapshot))
}

async fn versions(client: &Client, model: &ModelName) -> anyhow::Result<()> {
    let snapshot = client.snapshot().await.context("list versions")?;
    let Some(found) = snapshot.models.iter().find(|each| each.name == *model) else {
        bail!("no model {model} in the registry at {}", client.url());
    };
    for version in &found.versions {
        let info = client.version(model, *version).await.context("read version")?;
        let aliases: Vec<&str> = found
            .aliases
            .iter()
            .filter(|(_, names)| *names == version)
            .map(|(alias, _)| &**alias)
            .collect();
        print(&format!("version {version}  {}  {}\n", aliases.join(","), info.description))?;
        for file in &info.files {
            print(&format!("  {}  {:>12}  {}\n", file.digest, file.size, file.path))?;
        }
    }
    Ok(())
}

async fn alias(client: &Client, args: &AliasArgs) -> anyhow::Result<()> {
    let (model, alias) = (&args.model, &args.alias);
    if args.delete {
        client.delete_alias(model, alias).await.context("delete alias")?;
        return print(&format!("{model} has no alias {alias}\n"));
    }
    if let Some(version) = args.version {
        client.set_alias(model, alias, version).await.context("set alias")?;
        return print(&format!("{model}@{alias} is version {version}\n"));
    }
    match client.alias(model, alias).await.context("read alias")? {
        Some(version) => print(&format!("{model}@{alias} is version {version}\n")),
        None => bail!("{model} has no alias {alias}"),
    }
}

fn client(at: &At) -> anyhow::Result<Client> {
    Ok(Client::new(&at.registry)?)
}

fn table(snapshot: &Snapshot) -> String {
    let width =
        snapshot.models.iter().map(|model| model.name.as_str().len()).max().unwrap_or(0).max(5);
    let mut text = format!("{:width$}  versions  aliases\n", "model");
    for model in &snapshot.models {
        let aliases: Vec<String> =
            model.aliases.iter().map(|(alias, version)| format!("{alias}={version}")).collect();
        text += &format!(
            "{:width$}  {:>8}  {}\n",
            model.name.as_str(),
            model.versions.len(),
            aliases.join(" ")
        );
    }
    text
}

fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit: u64 = match text[digits.len()..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        unit => return Err(format!("unit {unit:?} is none of B, KiB, MiB, GiB")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is no size such as 512MiB"))?;
    number.checked_mul(unit).ok_or_else(|| format!("{text:?} is too large"))
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_have_binary_units() {
        for (text, size) in
            [("1GiB", 1 << 30), ("512 MiB", 512 << 20), ("10KiB", 10 << 10), ("7", 7)]
        {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for bad in ["", "GiB", "1GB", "-1", "1.5GiB", "99999999999GiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
