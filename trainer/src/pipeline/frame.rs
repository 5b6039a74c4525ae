//! The examples of a run: built, validated and split by time.

use std::fmt::Write as _;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, bail};
use chrono::{Days, NaiveDate};
use sluice_features::{Definitions, Frame, FrameRequest, Timestamp, training_frame};
use sluice_protocol::Digest;

use super::file::{Pipeline, Split, Validation};
use crate::learner::Matrix;

/// The examples of one part of the split.
#[derive(Debug, Clone)]
pub struct Part {
    /// The model's inputs.
    pub features: Matrix,
    /// What was to be predicted.
    pub labels: Vec<f32>,
    /// Each example's day.
    pub days: Vec<NaiveDate>,
}

/// The three parts, each after the one before in time.
#[derive(Debug, Clone)]
pub struct Examples {
    /// What is learned from.
    pub train: Part,
    /// What decides when to stop.
    pub validation: Part,
    /// What judges.
    pub test: Part,
    /// The hash of the definitions that the inputs were computed by.
    pub schema_hash: Digest,
}

/// What an example is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Example {
    /// It trains.
    Train,
    /// It decides when to stop.
    Validation,
    /// It judges.
    Test,
}

impl Examples {
    /// Builds, validates and splits the examples of `pipeline`.
    pub async fn build(pipeline: &Pipeline, definitions: &Definitions) -> anyhow::Result<Self> {
        let data = &pipeline.data;
        let request = FrameRequest {
            service: data.service.clone(),
            label_source: data.label_source.clone(),
            label: data.label.clone(),
            request_fields: data.request_fields.clone(),
            filter: data.filter.clone(),
            horizon: data.horizon,
            from: data.from,
            until: data.until,
            known_until: data.until,
        };
        let frame = training_frame(definitions, &request).await.context("build training frame")?;
        let days = |times: &[i64]| -> Vec<NaiveDate> {
            times.iter().map(|&time| Timestamp(time).date()).collect()
        };
        let (days, label_ends) = (days(&frame.times), days(&frame.label_ends));
        check(&pipeline.validation, &frame, &days)?;
        let bounds = Bounds::new(&pipeline.split, &days)?;
        // A label that reaches into the next part would let this one learn from it.
        let part = |wanted| {
            let inside = |row: usize| [days[row], label_ends[row]].map(|day| bounds.of(day));
            part(&frame, &days, |row| inside(row) == [wanted, wanted])
        };
        let examples = Self {
            train: part(Example::Train)?,
            validation: part(Example::Validation)?,
            test: part(Example::Test)?,
            schema_hash: frame.schema_hash,
        };
        for (name, part) in examples.parts() {
            if part.labels.is_empty() {
                bail!("the {name} part of the split has no examples");
            }
        }
        Ok(examples)
    }

    /// The parts and their names, in time.
    pub fn parts(&self) -> [(&'static str, &Part); 3] {
        [("train", &self.train), ("validation", &self.validation), ("test", &self.test)]
    }
}

impl Part {
    /// The first and the last day.
    pub fn range(&self) -> (Option<NaiveDate>, Option<NaiveDate>) {
        (self.days.iter().min().copied(), self.days.iter().max().copied())
    }
}

/// Holds the frame against what the pipeline file expects. All complaints at once.
fn check(expected: &Validation, frame: &Frame, days: &[NaiveDate]) -> anyhow::Result<()> {
    let rows = frame.rows();
    let mut complaints = String::new();
    let mut complain = |text: String| {
        let _strings_do_not_fail = write!(complaints, "\n  {text}");
    };
    if rows < expected.min_rows {
        complain(format!("{rows} examples, at least {} are expected", expected.min_rows));
    }
    let missing = frame.labels.iter().filter(|label| label.is_nan()).count();
    if share(missing, rows) > expected.max_missing_labels {
        complain(format!("{missing} of {rows} examples have no label"));
    }
    let outside = |label: f64| label < expected.min_label || label > expected.max_label;
    if let Some(at) = frame.labels.iter().position(|&label| outside(label)) {
        let count = frame.labels.iter().filter(|&&label| outside(label)).count();
        complain(format!(
            "{count} labels are outside {} to {}, the first is {} of {} on {}",
            expected.min_label, expected.max_label, frame.labels[at], frame.keys[at], days[at]
        ));
    }
    for column in &frame.columns {
        let missing = column.values.iter().filter(|value| value.is_nan()).count();
        if share(missing, rows) > expected.max_missing_features {
            let share = 100.0 * share(missing, rows);
            complain(format!(
                "feature {} has no value in {share:.1} % of the examples",
                column.name
            ));
        }
    }
    if let Some((gap, after)) = longest_gap(days)
        && expected.max_gap_days.is_some_and(|most| gap > i64::from(most))
    {
        complain(format!("{gap} days without any example follow {after}"));
    }
    if !complaints.is_empty() {
        bail!("the data is not as expected:{complaints}");
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a share of far fewer than 2^53 rows")]
fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The most days between two neighbouring days with examples, and the day before them.
fn longest_gap(days: &[NaiveDate]) -> Option<(i64, NaiveDate)> {
    let mut sorted = days.to_vec();
    sorted.sort();
    sorted.dedup();
    sorted.windows(2).map(|pair| ((pair[1] - pair[0]).num_days() - 1, pair[0])).max()
}

struct Bounds {
    train_until: NaiveDate,
    validation_until: NaiveDate,
}

impl Bounds {
    fn new(split: &Split, days: &[NaiveDate]) -> anyhow::Result<Self> {
        if let (Some(train_until), Some(validation_until)) =
            (split.train_until, split.validation_until)
        {
            return Ok(Self { train_until, validation_until });
        }
        let last = *days.iter().max().context("there are no examples")?;
        let back = |days: u64| last.checked_sub_days(Days::new(days)).context("split days");
        let test = u64::from(split.test_days.unwrap_or(0));
        let validation = u64::from(split.validation_days.unwrap_or(0));
        Ok(Self { train_until: back(test + validation)?, validation_until: back(test)? })
    }

    fn of(&self, day: NaiveDate) -> Example {
        if day <= self.train_until {
            Example::Train
        } else if day <= self.validation_until {
            Example::Validation
        } else {
            Example::Test
        }
    }
}

/// The examples that are wanted. Those without a label teach nothing and are left out.
fn part(frame: &Frame, days: &[NaiveDate], wanted: impl Fn(usize) -> bool) -> anyhow::Result<Part> {
    let rows: Vec<usize> =
        (0..frame.rows()).filter(|&row| wanted(row) && !frame.labels[row].is_nan()).collect();
    let names = frame.columns.iter().map(|column| column.name.clone()).collect();
    let columns = frame.columns.iter();
    let columns = columns.map(|column| rows.iter().map(|&row| column.values[row]).collect());
    #[expect(clippy::cast_possible_truncation, reason = "the learner works in 32 bits")]
    let labels = rows.iter().map(|&row| frame.labels[row] as f32).collect();
    Ok(Part {
        features: Matrix::new(names, columns.collect())?,
        labels,
        days: rows.iter().map(|&row| days[row]).collect(),
    })
}

/// Writes the examples as CSV, `split,label,<columns...>` with an empty cell for a missing
/// value, so that other learners can be held against ours on the same rows. The file appears
/// whole.
pub fn write_csv(examples: &Examples, path: &Path) -> anyhow::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let file = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(parent.unwrap_or(Path::new(".")))
        .with_context(|| format!("create {}", path.display()))?;
    let mut out = std::io::BufWriter::new(file);
    write!(out, "split,label")?;
    for name in examples.train.features.names() {
        write!(out, ",{name}")?;
    }
    writeln!(out)?;
    for (name, part) in examples.parts() {
        for (row, label) in part.labels.iter().enumerate() {
            write!(out, "{name},{label}")?;
            for column in part.features.columns() {
                let value = column[row];
                if value.is_nan() { write!(out, ",")? } else { write!(out, ",{value}")? }
            }
            writeln!(out)?;
        }
    }
    let file = out.into_inner().with_context(|| format!("write {}", path.display()))?;
    file.persist(path).with_context(|| format!("write {}", path.display()))?;
    Ok(())
}
