//! Grows one tree: always cuts the leaf whose cut gains most, until nothing gains any more.

use std::ops::Range;

use super::bins::{Binned, Edges, MISSING};
use super::gradient::{Fixed, Scale, Sum};
use super::histogram::Histogram;
use super::parameters::Parameters;
use super::split::{Cut, Limits};
use super::tree::{Child, Split, Tree};

/// Grows trees over one binned matrix, and keeps its buffers from tree to tree.
#[derive(Debug)]
pub(super) struct Grower<'a> {
    binned: &'a Binned,
    edges: &'a [Edges],
    parameters: &'a Parameters,
    /// Histograms that no leaf holds.
    free: Vec<Histogram>,
    /// Rows on their way right during a partition.
    moving: Vec<u32>,
}

/// What one tree learns from.
#[derive(Debug)]
pub(super) struct Sample<'a> {
    /// The sampled rows; growing reorders them so that each leaf's are together.
    pub(super) rows: &'a mut [u32],
    /// The columns that may be used, as many for each tree.
    pub(super) columns: &'a [usize],
    /// The derivatives of all rows, by row.
    pub(super) fixed: &'a [Fixed],
    pub(super) scale: Scale,
}

/// A tree whose leaves have rows and sums, and no answer yet.
#[derive(Debug)]
pub(super) struct Grown {
    splits: Vec<Split>,
    steps: Vec<Step>,
    /// Each leaf's part of the sampled rows, and the sum over it.
    pub(super) leaves: Vec<(Range<usize>, Sum)>,
}

/// A split in bins, for walking rows that are binned already.
#[derive(Debug, Clone, Copy)]
struct Step {
    column: usize,
    bin: u8,
    missing_left: bool,
}

#[derive(Debug)]
struct Leaf {
    rows: Range<usize>,
    sum: Sum,
    /// The split that leads here, and whether on its left.
    parent: Option<(usize, bool)>,
    /// The best cut and the histogram that it was found in, if there is one.
    next: Option<(Cut, Histogram)>,
}

impl<'a> Grower<'a> {
    /// A grower for these rows.
    pub(super) fn new(binned: &'a Binned, edges: &'a [Edges], parameters: &'a Parameters) -> Self {
        Self { binned, edges, parameters, free: Vec::new(), moving: Vec::new() }
    }

    /// Grows a tree on a sample of at least one row.
    pub(super) fn grow(&mut self, sample: &mut Sample<'_>) -> Grown {
        let limits = Limits::new(self.parameters, sample.scale);
        let mut splits = Vec::new();
        let mut steps = Vec::new();
        let mut leaves = vec![self.root(sample, &limits)];
        while leaves.len() < self.parameters.max_leaves {
            let Some((at, cut, histogram)) = take_best(&mut leaves) else { break };
            let split = splits.len();
            if let Some((parent, is_left)) = leaves[at].parent {
                let parent: &mut Split = &mut splits[parent];
                *(if is_left { &mut parent.left } else { &mut parent.right }) = Child::Split(split);
            }
            steps.push(Step { column: cut.column, bin: cut.bin, missing_left: cut.missing_left });
            splits.push(Split {
                column: cut.column,
                threshold: self.edges[cut.column].threshold(cut.bin),
                missing_left: cut.missing_left,
                left: Child::Leaf(at),
                right: Child::Leaf(leaves.len()),
                gain: cut.gain,
            });
            let is_last = leaves.len() + 1 == self.parameters.max_leaves;
            let [mut left, mut right] = self.part(sample, &leaves[at], &cut, split);
            if is_last {
                self.free.push(histogram);
            } else {
                self.prepare(sample, &limits, [&mut left, &mut right], histogram);
            }
            leaves[at] = left;
            leaves.push(right);
        }
        self.free.extend(leaves.iter_mut().filter_map(|leaf| leaf.next.take()).map(|next| next.1));
        let leaves = leaves.into_iter().map(|leaf| (leaf.rows, leaf.sum)).collect();
        Grown { splits, steps, leaves }
    }

    fn root(&mut self, sample: &Sample<'_>, limits: &Limits) -> Leaf {
        let mut sum = Sum::default();
        for &row in sample.rows.iter() {
            sum += sample.scale.sum(sample.fixed[row as usize]);
        }
        let mut root = Leaf { rows: 0..sample.rows.len(), sum, parent: None, next: None };
        if limits.allow(sum) {
            let histogram = self.filled(sample, &root.rows);
            self.find_cut(sample, limits, &mut root, histogram);
        }
        root
    }

    /// Moves the rows of `leaf` that go left before those that go right; both keep their order.
    fn part(&mut self, sample: &mut Sample<'_>, leaf: &Leaf, cut: &Cut, split: usize) -> [Leaf; 2] {
        let bins = self.binned.column(cut.column);
        let rows = &mut sample.rows[leaf.rows.clone()];
        self.moving.resize(self.moving.len().max(rows.len()), 0);
        let (mut kept, mut moved) = (0, 0);
        for at in 0..rows.len() {
            let row = rows[at];
            let left = goes_left(bins[row as usize], cut.bin, cut.missing_left);
            // Both are written and one is counted, since a branch would be mispredicted.
            rows[kept] = row;
            self.moving[moved] = row;
            kept += usize::from(left);
            moved += usize::from(!left);
        }
        rows[kept..].copy_from_slice(&self.moving[..moved]);
        let middle = leaf.rows.start + kept;
        let child =
            |rows, sum, is_left| Leaf { rows, sum, parent: Some((split, is_left)), next: None };
        [
            child(leaf.rows.start..middle, cut.left, true),
            child(middle..leaf.rows.end, cut.right, false),
        ]
    }

    /// Finds the children's best cuts. Only the smaller one's rows are read.
    fn prepare(
        &mut self,
        sample: &Sample<'_>,
        limits: &Limits,
        children: [&mut Leaf; 2],
        mut parent: Histogram,
    ) {
        let [left, right] = children;
        let (smaller, larger) =
            if left.rows.len() <= right.rows.len() { (left, right) } else { (right, left) };
        if !limits.allow(larger.sum) {
            self.free.push(parent);
            return;
        }
        let histogram = self.filled(sample, &smaller.rows);
        parent.subtract(&histogram);
        self.find_cut(sample, limits, larger, parent);
        if limits.allow(smaller.sum) {
            self.find_cut(sample, limits, smaller, histogram);
        } else {
            self.free.push(histogram);
        }
    }

    fn filled(&mut self, sample: &Sample<'_>, rows: &Range<usize>) -> Histogram {
        let mut histogram = self.free.pop().unwrap_or_else(|| Histogram::new(sample.columns.len()));
        let rows = &sample.rows[rows.clone()];
        histogram.fill(self.binned, sample.columns, rows, sample.fixed, sample.scale);
        histogram
    }

    fn find_cut(
        &mut self,
        sample: &Sample<'_>,
        limits: &Limits,
        leaf: &mut Leaf,
        histogram: Histogram,
    ) {
        match limits.best_cut(leaf.sum, &histogram, sample.columns, self.edges) {
            Some(cut) => leaf.next = Some((cut, histogram)),
            None => self.free.push(histogram),
        }
    }
}

impl Grown {
    /// Whether nothing could be cut.
    pub(super) fn is_stump(&self) -> bool {
        self.splits.is_empty()
    }

    /// The leaf of a binned row.
    pub(super) fn leaf(&self, bins: &[u8]) -> usize {
        let mut at = if self.is_stump() { Child::Leaf(0) } else { Child::Split(0) };
        loop {
            match at {
                Child::Leaf(leaf) => return leaf,
                Child::Split(split) => {
                    let step = self.steps[split];
                    let left = goes_left(bins[step.column], step.bin, step.missing_left);
                    at = if left { self.splits[split].left } else { self.splits[split].right };
                }
            }
        }
    }

    /// The tree with its leaves' answers.
    pub(super) fn into_tree(self, leaves: Vec<f32>) -> Tree {
        Tree { splits: self.splits, leaves }
    }
}

/// Takes the cut that gains most; the first among equals.
fn take_best(leaves: &mut [Leaf]) -> Option<(usize, Cut, Histogram)> {
    let mut best: Option<(usize, f64)> = None;
    for (at, leaf) in leaves.iter().enumerate() {
        if let Some((cut, _)) = &leaf.next
            && best.is_none_or(|(_, gain)| cut.gain > gain)
        {
            best = Some((at, cut.gain));
        }
    }
    let (at, _) = best?;
    leaves[at].next.take().map(|(cut, histogram)| (at, cut, histogram))
}

/// No value's bin is [`MISSING`], so the two questions never overlap.
fn goes_left(bin: u8, last_left: u8, missing_left: bool) -> bool {
    (bin <= last_left) | ((bin == MISSING) & missing_left)
}
