//! Made-up values for a model's inputs, the same for the same seed.

use bytes::Bytes;
use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;
use sluice_protocol::{Datatype, ShapeError, Tensor, TensorData, TensorSpec, element_count};

/// What makes values.
#[derive(Debug)]
pub(crate) struct Values(Pcg64Mcg);

impl Values {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Pcg64Mcg::seed_from_u64(seed))
    }

    /// A tensor for `spec`, whose first dimension is `rows` if it is free; other free ones are 1.
    /// Floats lie between -1 and 1, whole numbers from 0 to 4, texts are such numbers.
    pub(crate) fn tensor(&mut self, spec: &TensorSpec, rows: usize) -> Result<Tensor, ShapeError> {
        let mut shape: Vec<i64> = spec.shape.clone();
        if let Some(first) = shape.first_mut().filter(|first| **first < 0) {
            *first = i64::try_from(rows).unwrap_or(i64::MAX);
        }
        shape.iter_mut().filter(|size| **size < 0).for_each(|size| *size = 1);
        let count = element_count(&shape)?;
        Tensor::new(shape, self.data(spec.datatype, count))
    }

    fn data(&mut self, datatype: Datatype, count: usize) -> TensorData {
        let random = &mut self.0;
        macro_rules! each {
            ($variant:ident, $value:expr) => {
                TensorData::$variant((0..count).map($value).collect())
            };
        }
        let mut whole = || random.random_range(0..5_u8);
        match datatype {
            Datatype::Bool => each!(Bool, |_| whole() % 2 == 1),
            Datatype::Uint8 => each!(Uint8, |_| whole()),
            Datatype::Uint16 => each!(Uint16, |_| whole().into()),
            Datatype::Uint32 => each!(Uint32, |_| whole().into()),
            Datatype::Uint64 => each!(Uint64, |_| whole().into()),
            Datatype::Int8 => each!(Int8, |_| i8::try_from(whole()).unwrap_or_default()),
            Datatype::Int16 => each!(Int16, |_| whole().into()),
            Datatype::Int32 => each!(Int32, |_| whole().into()),
            Datatype::Int64 => each!(Int64, |_| whole().into()),
            // From 1 on, in eighths.
            Datatype::Fp16 => each!(Fp16, |_| 0x3C00 + 0x80 * u16::from(whole())),
            Datatype::Bf16 => each!(Bf16, |_| 0x3F80 + 0x10 * u16::from(whole())),
            Datatype::Fp32 => each!(Fp32, |_| f32::from(ten_thousandths(random)) / 1e4),
            Datatype::Fp64 => each!(Fp64, |_| f64::from(ten_thousandths(random)) / 1e4),
            Datatype::Bytes => each!(Bytes, |_| Bytes::from(whole().to_string())),
        }
    }
}

/// Of numbers between -1 and 1, with as many digits as people's data has.
fn ten_thousandths(random: &mut Pcg64Mcg) -> i16 {
    random.random_range(-10_000..=10_000)
}

#[cfg(test)]
mod tests {
    use sluice_protocol::{Datatype, TensorSpec};

    use super::Values;

    #[test]
    fn tensors_have_the_rows_that_are_asked_for_and_repeat() {
        use Datatype::*;
        for datatype in [
            Bool, Uint8, Uint16, Uint32, Uint64, Int8, Int16, Int32, Int64, Fp16, Bf16, Fp32, Fp64,
            Bytes,
        ] {
            let spec = TensorSpec { name: "x".to_owned(), datatype, shape: vec![-1, 3, -1] };
            let tensor = Values::new(7).tensor(&spec, 40).unwrap();
            assert_eq!((tensor.shape(), tensor.datatype()), (&[40, 3, 1][..], datatype));
            assert_eq!(tensor, Values::new(7).tensor(&spec, 40).unwrap());
            assert_ne!(tensor, Values::new(8).tensor(&spec, 40).unwrap());
        }
        let fixed = TensorSpec { name: "x".to_owned(), datatype: Fp32, shape: vec![2, 3] };
        assert_eq!(Values::new(1).tensor(&fixed, 9).unwrap().shape(), [2, 3]);
    }
}
