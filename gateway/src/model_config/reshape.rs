//! The same elements under other dims: a configuration may let requests say `[1]` where the
//! graph has no dimension at all.

use sluice_protocol::Tensor;

/// From a tensor's dims to others. -1 is free, and the free ones of both sides belong to each
/// other in their order, so that between them as many elements must stand on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reshape {
    from: Vec<i64>,
    to: Vec<i64>,
}

impl Reshape {
    /// Refused, with the reason, where the dims do not hold the same elements.
    pub(crate) fn new(from: Vec<i64>, to: Vec<i64>) -> Result<Self, String> {
        let (Some(own), Some(others)) = (chunks(&from), chunks(&to)) else {
            return Err(format!("{from:?} and {to:?} hold more elements than can be counted"));
        };
        if own.len() != others.len() {
            return Err(format!(
                "{from:?} and {to:?} have a different number of variable-size dimensions"
            ));
        }
        if own != others {
            return Err(format!("{from:?} and {to:?} have a different size"));
        }
        Ok(Self { from, to })
    }

    /// The tensor under the other dims. Refused, with the reason, where it has not the dims that
    /// are expected of it.
    pub(crate) fn apply(&self, tensor: Tensor) -> Result<Tensor, String> {
        if !fits(tensor.shape(), &self.from) {
            return Err(format!("has shape {:?}, expected {:?}", tensor.shape(), self.from));
        }
        let (shape, data) = tensor.into_parts();
        let mut free = shape.iter().zip(&self.from).filter(|(_, dim)| **dim < 0).map(|(n, _)| *n);
        let to = self.to.iter().map(|&dim| if dim < 0 { free.next().unwrap_or(dim) } else { dim });
        Tensor::new(to.collect(), data).map_err(|error| error.to_string())
    }
}

/// Whether a tensor of `shape` has these dims, of which -1 is any.
pub(crate) fn fits(shape: &[i64], dims: &[i64]) -> bool {
    shape.len() == dims.len() && shape.iter().zip(dims).all(|(n, dim)| *dim < 0 || n == dim)
}

/// How many elements stand before, between and behind the free dimensions. None when they are
/// more than can be counted.
fn chunks(dims: &[i64]) -> Option<Vec<i64>> {
    let fixed = dims.split(|dim| *dim < 0);
    fixed.map(|chunk| chunk.iter().try_fold(1_i64, |n, dim| n.checked_mul(*dim))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sluice_protocol::{Tensor, TensorData};

    use super::Reshape;

    fn tensor(shape: &[i64]) -> Tensor {
        let count = shape.iter().product::<i64>();
        Tensor::new(shape.to_vec(), TensorData::Int64((0..count).collect())).unwrap()
    }

    #[test]
    fn free_dims_go_where_their_like_stand() {
        for (from, to, shape, expected) in [
            (&[-1, 1][..], &[-1][..], &[3, 1][..], Some(&[3][..])),
            (&[1], &[], &[1], Some(&[])),
            (&[-1, 4], &[-1, 2, 2], &[3, 4], Some(&[3, 2, 2])),
            (&[-1, 2, 4, -1, 6], &[-1, 8, -1, 1, 6], &[1, 2, 4, 5, 6], Some(&[1, 8, 5, 1, 6])),
            (&[-1, -1, 2], &[-1, 1, -1, 2], &[4, 0, 2], Some(&[4, 1, 0, 2])),
            (&[-1, 4], &[-1, 2, 2], &[3, 2, 2], None),
            (&[-1, 4], &[-1, 2, 2], &[3], None),
        ] {
            let reshape = Reshape::new(from.to_vec(), to.to_vec()).unwrap();
            let applied = reshape.apply(tensor(shape));
            let found = applied.as_ref().ok().map(Tensor::shape);
            assert_eq!(found, expected, "{from:?} -> {to:?} of {shape:?}: {applied:?}");
            if let Ok(applied) = applied {
                assert_eq!(applied.data(), tensor(shape).data());
            }
        }
    }

    #[test]
    fn dims_of_other_sizes_are_refused() {
        for (from, to, says) in [
            (&[3][..], &[2][..], "different size"),
            (&[2], &[], "different size"),
            (&[-1, 2], &[2, 2], "different number of variable-size dimensions"),
            (&[2, -1], &[-1, 2], "different size"),
            (&[1 << 40, 1 << 40], &[1], "more elements than can be counted"),
        ] {
            let error = Reshape::new(from.to_vec(), to.to_vec()).unwrap_err();
            assert!(error.contains(says), "{from:?} -> {to:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn there_and_back_is_the_same(rows in 0_i64..5, width in 0_i64..5, fixed in 1_i64..4) {
            let (wire, graph) = (vec![-1, fixed, 2, -1], vec![-1, 2 * fixed, 1, -1, 1]);
            let there = Reshape::new(wire.clone(), graph.clone()).unwrap();
            let back = Reshape::new(graph, wire).unwrap();
            let sent = tensor(&[rows, fixed, 2, width]);
            prop_assert_eq!(back.apply(there.apply(sent.clone()).unwrap()).unwrap(), sent);
        }
    }
}
