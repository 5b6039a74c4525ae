//! Rows that stand at a threshold: such a row must first get there, past all splits above.

use std::collections::{BTreeMap, HashSet};

use crate::learner::{Booster, Child, Split, Tree};

/// For some columns, the values that lead on: above the first number and at most the second.
type Bounds = BTreeMap<usize, (f32, f32)>;

/// A threshold of the booster, and what a row must be to be asked about it.
#[derive(Debug, Clone)]
pub(super) struct Boundary {
    pub(super) column: usize,
    pub(super) threshold: f32,
    bounds: Bounds,
}

/// Each threshold of each column once; if there are more than `most`, evenly spread ones.
pub(super) fn boundaries(booster: &Booster, most: usize) -> Vec<Boundary> {
    let mut seen = HashSet::new();
    let mut found: Vec<Boundary> = booster.trees().iter().flat_map(of_tree).collect();
    found.retain(|boundary| seen.insert((boundary.column, boundary.threshold.to_bits())));
    let step = found.len().div_ceil(most).max(1);
    found.into_iter().step_by(step).collect()
}

impl Boundary {
    /// Changes the columns of `row` that keep it from the threshold's split, and sets the
    /// split's own column to `value`, which is the threshold or beside it.
    pub(super) fn place(&self, row: &mut [f32], value: f32) {
        for (&column, &(above, most)) in &self.bounds {
            // A missing value is in no bounds.
            if !(row[column] > above && row[column] <= most) {
                row[column] = if most.is_finite() { most } else { above.next_up() };
            }
        }
        row[self.column] = value;
    }
}

fn of_tree(tree: &Tree) -> Vec<Boundary> {
    let mut bounds = vec![Bounds::new(); tree.splits.len()];
    // Children come after their parents, so a split's bounds are complete when it is reached.
    for (at, split) in tree.splits.iter().enumerate() {
        for (child, is_left) in [(split.left, true), (split.right, false)] {
            if let Child::Split(child) = child {
                bounds[child] = narrowed(&bounds[at], split, is_left);
            }
        }
    }
    let splits = tree.splits.iter().zip(bounds);
    let boundary = |(split, bounds): (&Split, _)| Boundary {
        column: split.column,
        threshold: split.threshold,
        bounds,
    };
    splits.map(boundary).collect()
}

fn narrowed(bounds: &Bounds, split: &Split, is_left: bool) -> Bounds {
    let mut bounds = bounds.clone();
    let (above, most) = bounds.entry(split.column).or_insert((f32::NEG_INFINITY, f32::INFINITY));
    if is_left {
        *most = most.min(split.threshold);
    } else {
        *above = above.max(split.threshold);
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::{Boundary, boundaries};
    use crate::learner::tests::{fit, matrix, quick};
    use crate::learner::{Booster, Child};

    fn booster() -> Booster {
        let column = |step: usize| (0..200).map(|i| (i * step % 200) as f32).collect();
        let rows = matrix(vec![column(37), column(73), column(1)]);
        let labels: Vec<f32> = (0..200).map(|i| (i * i % 91) as f32).collect();
        fit(&quick(), &rows, &labels)
    }

    /// Whether the tree asks a row about this boundary's threshold.
    fn is_asked(booster: &Booster, boundary: &Boundary, row: &[f32]) -> bool {
        booster.trees().iter().any(|tree| {
            let mut at = tree.root();
            while let Child::Split(split) = at {
                let split = tree.splits[split];
                if (split.column, split.threshold) == (boundary.column, boundary.threshold) {
                    return true;
                }
                at = if row[split.column] <= split.threshold { split.left } else { split.right };
            }
            false
        })
    }

    #[test]
    fn placed_rows_are_asked_about_the_threshold() {
        let booster = booster();
        let all = boundaries(&booster, usize::MAX);
        assert!(all.len() > 20, "{}", all.len());
        for boundary in &all {
            for mut row in [[0.0; 3], [f32::NAN; 3], [1e9; 3]] {
                boundary.place(&mut row, boundary.threshold);
                assert!(is_asked(&booster, boundary, &row), "{boundary:?} {row:?}");
                assert_eq!(row[boundary.column], boundary.threshold);
            }
        }
        assert!(boundaries(&booster, 10).len() <= 10);
    }
}
