//! The demo's folder, and sales that arrive in it.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use chrono::NaiveDate;

/// The sales, from the source tree and from the demo's folder alike.
const SALES: &str = "data/online-retail/daily_sales.csv";
const DEFINITIONS: [&str; 2] = ["features.toml", "train.toml"];
/// A folder with this file in it is the demo's, and may be emptied.
const MARK: &str = ".sluice-demo";

/// Where the demo works. Definitions and data lie to each other as in the source tree.
pub(super) struct Folders {
    source: PathBuf,
    work: PathBuf,
    pub(super) features: PathBuf,
    pub(super) pipeline: PathBuf,
}

/// How many sales there are.
pub(super) struct Sales {
    rows: usize,
    stores: usize,
    last: NaiveDate,
}

impl fmt::Display for Sales {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows of {} stores, the last of {}", self.rows, self.stores, self.last)
    }
}

impl Folders {
    /// Empties the demo's folder and copies the definitions into it.
    pub(super) fn prepare(source: &Path, work: &Path) -> anyhow::Result<Self> {
        if !source.join(SALES).is_file() {
            bail!(
                "{} is not there; run the demo in the source tree, or name it with --source",
                source.join(SALES).display()
            );
        }
        empty(work)?;
        let definitions = work.join("demo");
        std::fs::create_dir_all(&definitions)?;
        std::fs::write(work.join(MARK), "")?;
        std::fs::create_dir_all(work.join(SALES).parent().unwrap_or(work))?;
        for file in DEFINITIONS {
            let from = source.join("demo").join(file);
            std::fs::copy(&from, definitions.join(file))
                .with_context(|| format!("copy {}", from.display()))?;
        }
        let [features, pipeline] = DEFINITIONS.map(|file| definitions.join(file));
        Ok(Self { source: source.to_owned(), work: work.to_owned(), features, pipeline })
    }

    /// Puts the sales up to `last` in place, all of them without it. Whoever reads sees the old
    /// file or the new one.
    pub(super) fn arrive(&self, last: Option<NaiveDate>) -> anyhow::Result<Sales> {
        let from = self.source.join(SALES);
        let text =
            std::fs::read_to_string(&from).with_context(|| format!("read {}", from.display()))?;
        let mut lines = text.lines();
        let mut kept = String::from(lines.next().unwrap_or_default());
        kept.push('\n');
        let mut sales = Sales { rows: 0, stores: 0, last: NaiveDate::MIN };
        let mut stores = std::collections::HashSet::new();
        for line in lines {
            let mut cells = line.split(',');
            let store = cells.next().unwrap_or_default();
            let day: NaiveDate = cells
                .next()
                .and_then(|cell| cell.parse().ok())
                .with_context(|| format!("{}: no date in {line:?}", from.display()))?;
            if last.is_some_and(|last| day > last) {
                continue;
            }
            kept.push_str(line);
            kept.push('\n');
            sales.rows += 1;
            sales.last = sales.last.max(day);
            stores.insert(store.to_owned());
        }
        sales.stores = stores.len();
        let to = self.work.join(SALES);
        let aside = to.with_extension("new");
        std::fs::write(&aside, kept).with_context(|| format!("write {}", aside.display()))?;
        std::fs::rename(&aside, &to).with_context(|| format!("write {}", to.display()))?;
        Ok(sales)
    }
}

/// Removes an earlier demo's folder, and nothing else.
fn empty(work: &Path) -> anyhow::Result<()> {
    if work.join(MARK).exists() {
        return std::fs::remove_dir_all(work).with_context(|| format!("empty {}", work.display()));
    }
    let has_files = std::fs::read_dir(work).is_ok_and(|mut entries| entries.next().is_some());
    if has_files {
        bail!("{} holds other files; name an empty folder with --work", work.display());
    }
    Ok(())
}
