//! Trees as one TreeEnsembleRegressor node, whose attributes list the nodes of all trees.

use super::onnx::NodeProto;
use super::{AI_ONNX_ML, attribute};
use crate::learner::{Booster, Child, Tree};

/// The attributes' columns: one entry a tree node, and one a leaf.
#[derive(Debug, Default)]
struct Nodes {
    trees: Vec<i64>,
    ids: Vec<i64>,
    columns: Vec<i64>,
    modes: Vec<&'static str>,
    thresholds: Vec<f32>,
    /// The nodes for rows with `x <= threshold`, and for the others.
    when_true: Vec<i64>,
    when_false: Vec<i64>,
    missing_is_true: Vec<i64>,
    leaf_trees: Vec<i64>,
    leaf_ids: Vec<i64>,
    leaf_weights: Vec<f32>,
}

/// The node that reads rows from `input` and writes raw scores [batch, 1] to `output`.
pub(super) fn node(booster: &Booster, input: &str, output: &str) -> NodeProto {
    let mut nodes = Nodes::default();
    for (at, tree) in booster.trees().iter().enumerate() {
        nodes.add(at, tree);
    }
    if booster.trees().is_empty() {
        // The operator wants a tree: this one adds nothing.
        nodes.add(0, &Tree { splits: Vec::new(), leaves: vec![0.0] });
    }
    let targets = vec![0; nodes.leaf_ids.len()];
    let attribute = vec![
        attribute::text("aggregate_function", "SUM"),
        attribute::floats("base_values", vec![booster.initial_score()]),
        attribute::integer("n_targets", 1),
        attribute::integers("nodes_treeids", nodes.trees),
        attribute::integers("nodes_nodeids", nodes.ids),
        attribute::integers("nodes_featureids", nodes.columns),
        attribute::texts("nodes_modes", &nodes.modes),
        attribute::floats("nodes_values", nodes.thresholds),
        attribute::integers("nodes_truenodeids", nodes.when_true),
        attribute::integers("nodes_falsenodeids", nodes.when_false),
        attribute::integers("nodes_missing_value_tracks_true", nodes.missing_is_true),
        attribute::text("post_transform", "NONE"),
        attribute::integers("target_treeids", nodes.leaf_trees),
        attribute::integers("target_nodeids", nodes.leaf_ids),
        attribute::integers("target_ids", targets),
        attribute::floats("target_weights", nodes.leaf_weights),
    ];
    NodeProto {
        input: vec![input.into()],
        output: vec![output.into()],
        name: Some("trees".into()),
        op_type: Some("TreeEnsembleRegressor".into()),
        attribute,
        domain: Some(AI_ONNX_ML.into()),
    }
}

impl Nodes {
    /// Adds a tree: splits keep their numbers, leaves are numbered after them.
    fn add(&mut self, tree_at: usize, tree: &Tree) {
        let splits = tree.splits.len();
        let id = |child| match child {
            Child::Split(split) => number(split),
            Child::Leaf(leaf) => number(splits + leaf),
        };
        for (at, split) in tree.splits.iter().enumerate() {
            self.trees.push(number(tree_at));
            self.ids.push(number(at));
            self.columns.push(number(split.column));
            self.modes.push("BRANCH_LEQ");
            self.thresholds.push(split.threshold);
            self.when_true.push(id(split.left));
            self.when_false.push(id(split.right));
            self.missing_is_true.push(i64::from(split.missing_left));
        }
        for (at, &answer) in tree.leaves.iter().enumerate() {
            self.trees.push(number(tree_at));
            self.ids.push(number(splits + at));
            self.columns.push(0);
            self.modes.push("LEAF");
            self.thresholds.push(0.0);
            self.when_true.push(0);
            self.when_false.push(0);
            self.missing_is_true.push(0);
            self.leaf_trees.push(number(tree_at));
            self.leaf_ids.push(number(splits + at));
            self.leaf_weights.push(answer);
        }
    }
}

fn number(index: usize) -> i64 {
    i64::try_from(index).expect("an index in memory fits 63 bits")
}
