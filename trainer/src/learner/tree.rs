//! One tree: cuts on f32 thresholds, and leaves with what they add to a raw score.

use serde::{Deserialize, Serialize};

/// A regression tree. The first split is the root; a tree without splits is its only leaf.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tree {
    /// The inner nodes. A child's index is above its parent's.
    pub splits: Vec<Split>,
    /// What each leaf adds to the raw score; one more than splits.
    #[serde(with = "bits::list")]
    pub leaves: Vec<f32>,
}

/// An inner node: rows with `x <= threshold` go left.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// The index of the column.
    pub column: usize,
    /// Never NaN; infinite where the present are parted from the missing.
    #[serde(with = "bits::one")]
    pub threshold: f32,
    /// Where a missing value goes.
    pub missing_left: bool,
    /// The node for rows that go left.
    pub left: Child,
    /// The node for the others.
    pub right: Child,
    /// How much the split lowered the training loss.
    pub gain: f64,
}

/// Where a split leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Child {
    /// To another split.
    Split(usize),
    /// To a leaf.
    Leaf(usize),
}

impl Tree {
    /// The index of the leaf that a row falls into. The row has all columns.
    pub fn leaf(&self, row: &[f32]) -> usize {
        let mut at = self.root();
        loop {
            match at {
                Child::Leaf(leaf) => return leaf,
                Child::Split(split) => at = self.splits[split].child(row),
            }
        }
    }

    /// Where every row starts.
    pub fn root(&self) -> Child {
        if self.splits.is_empty() { Child::Leaf(0) } else { Child::Split(0) }
    }

    /// Whether walking the tree with rows of `columns` columns ends in a leaf, always.
    pub(super) fn is_sound(&self, columns: usize) -> bool {
        let mut reached = vec![false; self.leaves.len()];
        let mut entered = vec![false; self.splits.len()];
        let mut enter = |from: usize, child: Child| match child {
            Child::Split(to) => {
                to > from && entered.get_mut(to).is_some_and(|seen| !std::mem::replace(seen, true))
            }
            Child::Leaf(to) => {
                reached.get_mut(to).is_some_and(|seen| !std::mem::replace(seen, true))
            }
        };
        let sound = |(at, split): (usize, &Split)| {
            split.column < columns
                && !split.threshold.is_nan()
                && enter(at, split.left)
                && enter(at, split.right)
        };
        self.leaves.len() == self.splits.len() + 1
            && self.leaves.iter().all(|leaf| leaf.is_finite())
            && self.splits.iter().enumerate().all(sound)
    }
}

impl Split {
    fn child(&self, row: &[f32]) -> Child {
        let value = row[self.column];
        let left = value <= self.threshold || (self.missing_left && value.is_nan());
        if left { self.left } else { self.right }
    }
}

/// Floats as their bits: JSON has no infinity, and decimal digits may not come back the same.
pub(super) mod bits {
    pub(in crate::learner) mod one {
        use serde::{Deserialize, Deserializer, Serializer};

        pub(in crate::learner) fn serialize<S: Serializer>(
            x: &f32,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            to.serialize_u32(x.to_bits())
        }

        pub(in crate::learner) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<f32, D::Error> {
            u32::deserialize(from).map(f32::from_bits)
        }
    }

    pub(in crate::learner) mod list {
        use serde::{Deserialize, Deserializer, Serializer};

        pub(in crate::learner) fn serialize<S: Serializer>(
            x: &[f32],
            to: S,
        ) -> Result<S::Ok, S::Error> {
            to.collect_seq(x.iter().map(|x| x.to_bits()))
        }

        pub(in crate::learner) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Vec<f32>, D::Error> {
            Ok(Vec::<u32>::deserialize(from)?.into_iter().map(f32::from_bits).collect())
        }
    }
}
