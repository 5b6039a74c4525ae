//! Gradient-boosted regression trees: histograms, grown leaf by leaf.
//!
//! Columns are cut into at most 255 bins of f32 thresholds (`bins`), each round turns the
//! labels and scores into gradients (`objective`) in fixed point (`gradient`), a tree grows
//! by the best split of any leaf (`grow`, `histogram`, `split`), and its shrunken leaves
//! are added to the scores (`train`). A trained [`Booster`] compares `x <= threshold` in f32,
//! so it, the bins and an exported ONNX graph take the same path for every row.
//!
//! Sums of derivatives are integers, so trees do not depend on the order of addition. The
//! same rows, parameters and seed give the same booster, bit for bit.

mod bins;
mod booster;
mod cpu_time;
mod gradient;
mod grow;
mod histogram;
mod matrix;
mod metric;
mod objective;
mod parameters;
mod sampling;
mod split;
mod train;
mod tree;

pub use booster::Booster;
pub use matrix::Matrix;
pub use metric::Metric;
pub use objective::{Link, Objective};
pub use parameters::Parameters;
pub use train::{Labelled, Progress, Trained, train};
pub use tree::{Child, Split, Tree};

#[cfg(test)]
pub(crate) mod tests;
