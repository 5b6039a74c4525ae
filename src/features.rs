//! `sluice features`: checks and records definitions, fills the online store, shows an entity.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, bail};
use chrono::NaiveDate;
use clap::{Args, Subcommand};
use sluice_features::{
    Change, Definitions, EmbeddedStore, ServiceVector, Snapshot, ViewRows, WriteReport,
    check_sources, materialize,
};

use crate::admin::{Admin, AdminAccess};
use crate::output::print;

/// Define features, fill the online store, and look at what it holds.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct FeaturesArgs {
    #[command(subcommand)]
    command: FeaturesCommand,
}

#[derive(Debug, Subcommand)]
enum FeaturesCommand {
    Apply(ApplyArgs),
    Materialize(MaterializeArgs),
    Get(GetArgs),
}

/// Check definitions and record them.
///
/// Everything is checked first: files, names, types, expressions, and that each source's file
/// is there with the declared columns. All complaints come at once, and nothing is recorded
/// while there is one. Then the plan is printed, which says what is new, changed or unchanged,
/// and the state folder's features.json is replaced as a whole.
///
/// A view or service that was applied before and now is another, or is gone, is refused: models
/// were trained with what it was, and gateways refuse to serve them with anything else. Add a
/// view of a higher version and a service of another name, and keep the old ones as long as
/// models use them.
#[derive(Debug, Args)]
#[command(after_long_help = APPLY_EXAMPLES)]
struct ApplyArgs {
    #[command(flatten)]
    definitions: DefinitionsArg,
    /// Folder that remembers what was applied
    #[arg(long, env = "SLUICE_STATE", value_name = "DIR", default_value = "state")]
    state: PathBuf,
    /// Check only, print no plan and record nothing
    #[arg(long)]
    check: bool,
    /// Record views and services that changed or are gone, for those that no model uses
    #[arg(long)]
    allow_changed: bool,
}

/// Fill the online store with every entity's latest features.
///
/// Reads the sources, checks them as a whole (a value of the wrong type, a missing key or time,
/// two rows for the same key and time are refused before anything is stored), computes each
/// view's latest row per entity and stores them, all views in one transaction. A row never
/// replaces a newer one; one of the same time is replaced, so corrected data can be materialised again.
///
/// While a gateway serves, it owns the online store: name its admin address with --admin.
#[derive(Debug, Args)]
#[command(after_long_help = MATERIALIZE_EXAMPLES)]
struct MaterializeArgs {
    #[command(flatten)]
    definitions: DefinitionsArg,
    #[command(flatten)]
    place: StorePlace,
    /// Last day whose rows are read; all rows without it
    #[arg(long, value_name = "DATE")]
    until: Option<NaiveDate>,
    /// Only this view, as name or name@version; may be given several times
    #[arg(long = "view", value_name = "VIEW")]
    views: Vec<String>,
}

/// Show what the online store holds for one entity.
///
/// Prints the stored features of every view of the service and the day that they are as of.
/// When every required request field is given with --field, the model's inputs are computed
/// and printed too.
#[derive(Debug, Args)]
#[command(after_long_help = GET_EXAMPLES)]
struct GetArgs {
    /// The feature service
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Which entity
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    key: String,
    /// A request field, as name=value; may be given several times
    #[arg(long = "field", value_name = "NAME=VALUE", value_parser = parse_field)]
    fields: Vec<(String, String)>,
    /// Definitions; needed unless a gateway is asked
    #[arg(long, env = "SLUICE_FEATURES", value_name = "FILE|DIR")]
    features: Option<PathBuf>,
    #[command(flatten)]
    place: StorePlace,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct DefinitionsArg {
    /// Feature definitions: a TOML file or a folder of them
    #[arg(long, env = "SLUICE_FEATURES", value_name = "FILE|DIR")]
    features: PathBuf,
}

/// Where the online store is.
#[derive(Debug, Args)]
struct StorePlace {
    /// Folder of the online store, when no gateway has it open
    #[arg(long, env = "SLUICE_STATE", value_name = "DIR", required_unless_present = "admin")]
    state: Option<PathBuf>,
    /// Admin address of the gateway that owns the online store
    #[arg(long, env = "SLUICE_ADMIN_URL", value_name = "URL")]
    admin: Option<String>,
    #[command(flatten)]
    access: AdminAccess,
}

const EXAMPLES: &str = "Examples:
  Check definitions, record them, fill the store, look at store 42:
    sluice features apply --features demo/features.toml --state state
    sluice features materialize --features demo/features.toml --state state
    sluice features get demand-forecast --features demo/features.toml --state state --key 42
";

const APPLY_EXAMPLES: &str = "Examples:
  What is wrong, if anything:
    sluice features apply --features demo/features.toml --check

  Show the plan and record it:
    sluice features apply --features demo/features.toml --state state
";

const MATERIALIZE_EXAMPLES: &str = "Examples:
  Features as of the end of September, while no gateway runs:
    sluice features materialize --features demo/features.toml --state state --until 2011-09-30

  Into a running gateway:
    sluice features materialize --features demo/features.toml --admin http://127.0.0.1:8082
";

const GET_EXAMPLES: &str = "Examples:
  The stored features of store 42:
    sluice features get demand-forecast --features demo/features.toml --state state --key 42

  Also the model's inputs, from a running gateway, as JSON:
    sluice features get demand-forecast --admin http://127.0.0.1:8082 --key 42 \\
        --field date=2025-01-15 --field promo=1 --json
";

/// The online store's file in the state folder.
const STORE_FILE: &str = "online.redb";

/// Runs the subcommand.
pub(crate) async fn run(args: FeaturesArgs) -> anyhow::Result<()> {
    match args.command {
        FeaturesCommand::Apply(args) => apply(&args).await,
        FeaturesCommand::Materialize(args) => fill(&args).await,
        FeaturesCommand::Get(args) => get(&args).await,
    }
}

async fn apply(args: &ApplyArgs) -> anyhow::Result<()> {
    let definitions = Definitions::load(&args.definitions.features).context("check definitions")?;
    check_sources(&definitions).await.context("check sources")?;
    let snapshot = Snapshot::of(&definitions).context("hash definitions")?;
    let before = Snapshot::read(&args.state).context("read what was applied")?;
    let changes = snapshot.changes_from(before.as_ref());
    if args.check {
        let (views, services) = (snapshot.views.len(), snapshot.services.len());
        check_changes(args, &changes)?;
        return print(&format!(
            "definitions are right: feature views {views}, services {services}\n"
        ));
    }
    let mut plan = String::new();
    for (name, change) in &changes {
        writeln!(plan, "{change:<10} {name}").context("print")?;
    }
    if let Err(refused) = check_changes(args, &changes) {
        print(&plan)?;
        return Err(refused);
    }
    if changes.iter().any(|(_, change)| *change != Change::Unchanged) {
        snapshot.write(&args.state).context("record definitions")?;
        writeln!(plan, "applied to {}", args.state.display()).context("print")?;
    } else {
        plan.push_str("nothing to apply\n");
    }
    print(&plan)
}

/// A model that was trained with what a name stood for cannot be served with anything else.
fn check_changes(args: &ApplyArgs, changes: &[(String, Change)]) -> anyhow::Result<()> {
    let lost =
        |(_, change): &&(String, Change)| matches!(change, Change::Changed | Change::Removed);
    let lost: Vec<String> =
        changes.iter().filter(lost).map(|(name, change)| format!("{name} ({change})")).collect();
    if lost.is_empty() || args.allow_changed {
        return Ok(());
    }
    bail!(
        "models that were trained with {} would be refused; nothing was recorded. Keep the old ones and add a view of a higher version, a service of another name; or pass --allow-changed if no model uses them",
        lost.join(", ")
    )
}

async fn fill(args: &MaterializeArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let definitions = Definitions::load(&args.definitions.features).context("check definitions")?;
    let store = Store::new(&args.place)?;
    store.check().await?;
    let views = (!args.views.is_empty()).then_some(args.views.as_slice());
    let batches = materialize(&definitions, views, args.until).await.context("materialize")?;
    let computed: usize = batches.iter().map(|batch| batch.rows().len()).sum();
    let seconds = started.elapsed().as_secs_f64();
    print(&format!("computed {computed} rows in {seconds:.2} s\n"))?;
    let reports = store.write(&batches).await.context("store features")?;
    let (mut stored, mut text) = (0, String::new());
    for (rows, report) in batches.iter().zip(reports) {
        stored += report.written;
        let as_of = rows.as_of().map_or_else(|| "no rows".into(), |day| format!("as of {day}"));
        let stale = match report.stale {
            0 => String::new(),
            stale => format!(", {stale} left out because the store has newer ones"),
        };
        let view = &rows.header().view;
        writeln!(text, "{view}: {} rows stored, {as_of}{stale}", report.written)
            .context("print")?;
    }
    let seconds = started.elapsed().as_secs_f64();
    writeln!(text, "{stored} rows stored after {seconds:.2} s").context("print")?;
    print(&text)
}

async fn get(args: &GetArgs) -> anyhow::Result<()> {
    let vector = match Store::new(&args.place)? {
        Store::Gateway(admin) => admin.vector(&args.service, &args.key, &args.fields).await?,
        Store::Own(path) => {
            let Some(features) = &args.features else { bail!("name the definitions: --features") };
            let definitions = Definitions::load(features).context("check definitions")?;
            let plan = definitions.plan(&args.service)?;
            if !path.exists() {
                bail!("there is no online store at {}; materialize makes it", path.display());
            }
            let store = EmbeddedStore::open(&path)?;
            plan.vector(&store, &args.key, &args.fields, SystemTime::now())?
        }
    };
    if args.json {
        let json = serde_json::to_string_pretty(&vector).context("write JSON")?;
        return print(&format!("{json}\n"));
    }
    print(&shown(&vector))
}

/// The online store, ours or a gateway's.
enum Store {
    Own(PathBuf),
    Gateway(Admin),
}

impl Store {
    fn new(place: &StorePlace) -> anyhow::Result<Self> {
        match (&place.admin, &place.state) {
            (Some(address), _) => Ok(Self::Gateway(Admin::new(address, &place.access)?)),
            (None, Some(state)) => Ok(Self::Own(state.join(STORE_FILE))),
            (None, None) => bail!("name the online store: --state DIR or --admin URL"),
        }
    }

    /// Finds out whether it can be written, before there is work that would be in vain. Makes
    /// nothing that is not there yet.
    async fn check(&self) -> anyhow::Result<()> {
        match self {
            Self::Own(path) if path.exists() => EmbeddedStore::open(path).map(drop)?,
            Self::Own(_) => {}
            Self::Gateway(admin) => admin.models().await.map(drop)?,
        }
        Ok(())
    }

    /// Stores all views or none.
    async fn write(&self, batches: &[ViewRows]) -> anyhow::Result<Vec<WriteReport>> {
        match self {
            Self::Own(path) => Ok(EmbeddedStore::open(path)?.write_all(batches)?),
            Self::Gateway(admin) => admin.write(batches).await,
        }
    }
}

/// The vector as a table.
fn shown(vector: &ServiceVector) -> String {
    let mut lines = vec![format!("{} {}={}", vector.service, vector.join_key, plain(&vector.key))];
    let names = vector.views.iter().flat_map(|view| &view.features.0);
    let names = names.chain(vector.columns.iter().flat_map(|columns| &columns.0));
    let width = names.map(|(name, _)| name.len()).max().unwrap_or(0);
    let row =
        |(name, value): &(String, serde_json::Value)| format!("  {name:width$}  {}", plain(value));
    for view in &vector.views {
        let as_of = view.as_of.as_deref().map_or("no row".into(), |day| format!("as of {day}"));
        let degraded = if view.degraded { ", past its freshness bound" } else { "" };
        lines.push(format!("{}, {as_of}{degraded}", view.view));
        lines.extend(view.features.0.iter().map(row));
    }
    if let Some(columns) = &vector.columns {
        lines.push("model inputs".into());
        lines.extend(columns.0.iter().map(row));
    }
    lines.join("\n") + "\n"
}

fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn parse_field(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not NAME=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_field;

    #[test]
    fn fields_are_names_and_values() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(parse_field(text).ok(), expected, "{text}");
        };
        check("promo=1", Some(("promo", "1")));
        check("note=a=b", Some(("note", "a=b")));
        check("empty=", Some(("empty", "")));
        check("promo", None);
        check("=1", None);
    }
}
