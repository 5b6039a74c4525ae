//! The best way to cut a leaf in two.

use super::bins::{Edges, MISSING};
use super::gradient::{Scale, Sum};
use super::histogram::{Cells, Histogram};
use super::parameters::Parameters;

/// A cut: rows whose bin is at most `bin` go left, the others right, missing values as said.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pub(super) column: usize,
    pub(super) bin: u8,
    pub(super) missing_left: bool,
    /// How much it lowers the loss, to second order, times two.
    pub(super) gain: f64,
    pub(super) left: Sum,
    pub(super) right: Sum,
}

/// What every cut of one tree must keep to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    scale: Scale,
    min_rows: usize,
    /// In hessian units, as is lambda.
    min_hessian: f64,
    lambda: f64,
    /// In units of gradient² / hessian.
    min_gain: f64,
}

/// Cuts differ by their share of this sum only, so the best one has the most of it.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    score: f64,
    bin: u8,
    missing_left: bool,
    left: Sum,
}

impl Limits {
    /// The limits of a tree whose sums are in `scale`.
    pub(super) fn new(parameters: &Parameters, scale: Scale) -> Self {
        Self {
            scale,
            min_rows: parameters.min_rows_per_leaf,
            min_hessian: scale.to_hessian_units(parameters.min_hessian_per_leaf),
            lambda: scale.to_hessian_units(parameters.lambda_l2),
            min_gain: parameters.min_gain / scale.gain_unit(),
        }
    }

    /// Whether a leaf with these rows can be cut at all.
    pub(super) fn allow(&self, sum: Sum) -> bool {
        self.scale.count(sum) >= 2 * self.min_rows
    }

    /// The cut that gains most, if any gains enough. Among equals the first column and the
    /// lowest bin win. `columns` are the tree's columns, `edges` those of all columns.
    pub(super) fn best_cut(
        &self,
        total: Sum,
        histogram: &Histogram,
        columns: &[usize],
        edges: &[Edges],
    ) -> Option<Cut> {
        let whole = self.score(total);
        let mut best: Option<(usize, Candidate)> = None;
        for (cells, &column) in histogram.columns().iter().zip(columns) {
            let floor = best.map_or(whole + self.min_gain, |(_, candidate)| candidate.score);
            let found = self.best_in_column(total, cells, edges[column].bins(), floor);
            best = found.map(|candidate| (column, candidate)).or(best);
        }
        best.map(|(column, Candidate { score, bin, missing_left, left })| Cut {
            column,
            bin,
            missing_left,
            gain: (score - whole) * self.scale.gain_unit(),
            left,
            right: total - left,
        })
    }

    /// The best candidate above `floor` in one column.
    fn best_in_column(
        &self,
        total: Sum,
        cells: &Cells,
        bins: usize,
        floor: f64,
    ) -> Option<Candidate> {
        let missing = cells[usize::from(MISSING)];
        let has_missing = self.scale.count(missing) > 0;
        let mut best = None;
        let mut floor = floor;
        let mut present = Sum::default();
        // The last bin has no upper end: a cut there parts the present from the missing.
        let last = if has_missing { bins } else { bins - 1 };
        for (bin, &cell) in (0..MISSING).zip(&cells[..last]) {
            if cell == Sum::default() {
                continue;
            }
            present += cell;
            for missing_left in [false, true] {
                let left = if missing_left { present + missing } else { present };
                if let Some(score) = self.admissible(left, total - left).filter(|&s| s > floor) {
                    floor = score;
                    let missing_left =
                        missing_left || (!has_missing && self.is_larger(left, total));
                    best = Some(Candidate { score, bin, missing_left, left });
                }
                if !has_missing {
                    break;
                }
            }
        }
        best
    }

    /// The two sides' scores, if both are large enough to be leaves.
    fn admissible(&self, left: Sum, right: Sum) -> Option<f64> {
        let scale = self.scale;
        let rows = scale.count(left).min(scale.count(right));
        let hessian = scale.hessian_units(left).min(scale.hessian_units(right));
        (rows >= self.min_rows && hessian >= self.min_hessian)
            .then(|| self.score(left) + self.score(right))
    }

    /// Twice what a Newton step takes off the loss of these rows, in gain units.
    fn score(&self, sum: Sum) -> f64 {
        let gradient = self.scale.gradient_units(sum);
        let hessian = self.scale.hessian_units(sum) + self.lambda;
        if hessian > 0.0 { gradient * gradient / hessian } else { 0.0 }
    }

    /// Whether `part` has more than half of the rows: where nothing is missing among the rows
    /// learned from, a missing value goes with the majority.
    fn is_larger(&self, part: Sum, total: Sum) -> bool {
        2 * self.scale.count(part) > self.scale.count(total)
    }
}
