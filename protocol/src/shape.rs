//! Shapes: how many elements they hold, and why elements may not fit them.

use crate::datatype::Datatype;

/// The most dimensions that a tensor may have.
pub const MAX_RANK: usize = 64;

/// Why a shape and some elements do not make a tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// More dimensions than any model has.
    #[error("shape has {0} dimensions, at most {MAX_RANK} are taken")]
    Rank(usize),
    /// A dimension below zero.
    #[error("shape {0:?} has a negative dimension")]
    Negative(Vec<i64>),
    /// More elements than can be addressed.
    #[error("shape {0:?} has more elements than can be counted")]
    Overflow(Vec<i64>),
    /// The elements do not fill the shape exactly.
    #[error(
        "shape {shape:?} needs {expected} elements, got {found}: shape does not match true shape of the data"
    )]
    Count {
        /// The shape as given.
        shape: Vec<i64>,
        /// How many elements it needs.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// Binary data that ends inside an element.
    #[error("{bytes} bytes are no whole number of {datatype} elements")]
    PartialElement {
        /// The element type.
        datatype: Datatype,
        /// The length of the data.
        bytes: usize,
    },
    /// A `BYTES` element that ends before its stated length.
    #[error("BYTES element {element} is cut off: its length goes past the end of the data")]
    TruncatedBytes {
        /// The index of the element.
        element: usize,
    },
    /// Elements of two types that should be one.
    #[error("datatype is {found}, expected {expected}")]
    Datatype {
        /// What was expected.
        expected: Datatype,
        /// What was found.
        found: Datatype,
    },
}

/// How many elements `shape` holds, checked: 1 for the empty shape.
pub fn element_count(shape: &[i64]) -> Result<usize, ShapeError> {
    if shape.len() > MAX_RANK {
        return Err(ShapeError::Rank(shape.len()));
    }
    let mut count = 1usize;
    let mut empty = false;
    for &dimension in shape {
        let Ok(dimension) = usize::try_from(dimension) else {
            return Err(ShapeError::Negative(shape.to_vec()));
        };
        empty |= dimension == 0;
        count = count
            .checked_mul(dimension.max(1))
            .filter(|&n| i64::try_from(n).is_ok())
            .ok_or_else(|| ShapeError::Overflow(shape.to_vec()))?;
    }
    Ok(if empty { 0 } else { count })
}

#[cfg(test)]
mod tests {
    use super::{ShapeError, element_count};

    #[test]
    fn element_counts_are_checked() {
        assert_eq!(element_count(&[]), Ok(1));
        assert_eq!(element_count(&[2, 3]), Ok(6));
        assert_eq!(element_count(&[i64::MAX, 0]), Ok(0));
        assert!(matches!(element_count(&[-1, 3]), Err(ShapeError::Negative(_))));
        assert!(matches!(element_count(&[1 << 32, 1 << 32]), Err(ShapeError::Overflow(_))));
        assert!(matches!(element_count(&[0, 1 << 32, 1 << 32]), Err(ShapeError::Overflow(_))));
        assert_eq!(element_count(&[1; 64]), Ok(1));
        assert_eq!(element_count(&[1; 65]), Err(ShapeError::Rank(65)));
    }
}
