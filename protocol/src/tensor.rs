//! Tensors as they cross the wire: a datatype, a shape and row-major elements.

use bytes::{BufMut, Bytes};

use crate::datatype::Datatype;
use crate::shape::{ShapeError, element_count};

/// A tensor's elements, row-major. FP16 and BF16 are kept as their 16 bits.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "one variant a datatype")]
pub enum TensorData {
    Bool(Vec<bool>),
    Uint8(Vec<u8>),
    Uint16(Vec<u16>),
    Uint32(Vec<u32>),
    Uint64(Vec<u64>),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Fp16(Vec<u16>),
    Bf16(Vec<u16>),
    Fp32(Vec<f32>),
    Fp64(Vec<f64>),
    Bytes(Vec<Bytes>),
}

/// Runs `$body` with `$vec` bound to the elements of `$data`, whatever their type.
macro_rules! each {
    ($data:expr, $vec:ident => $body:expr) => {
        match $data {
            TensorData::Bool($vec) => $body,
            TensorData::Uint8($vec) => $body,
            TensorData::Uint16($vec) => $body,
            TensorData::Uint32($vec) => $body,
            TensorData::Uint64($vec) => $body,
            TensorData::Int8($vec) => $body,
            TensorData::Int16($vec) => $body,
            TensorData::Int32($vec) => $body,
            TensorData::Int64($vec) => $body,
            TensorData::Fp16($vec) => $body,
            TensorData::Bf16($vec) => $body,
            TensorData::Fp32($vec) => $body,
            TensorData::Fp64($vec) => $body,
            TensorData::Bytes($vec) => $body,
        }
    };
}

impl TensorData {
    /// The type of the elements.
    pub const fn datatype(&self) -> Datatype {
        match self {
            Self::Bool(_) => Datatype::Bool,
            Self::Uint8(_) => Datatype::Uint8,
            Self::Uint16(_) => Datatype::Uint16,
            Self::Uint32(_) => Datatype::Uint32,
            Self::Uint64(_) => Datatype::Uint64,
            Self::Int8(_) => Datatype::Int8,
            Self::Int16(_) => Datatype::Int16,
            Self::Int32(_) => Datatype::Int32,
            Self::Int64(_) => Datatype::Int64,
            Self::Fp16(_) => Datatype::Fp16,
            Self::Bf16(_) => Datatype::Bf16,
            Self::Fp32(_) => Datatype::Fp32,
            Self::Fp64(_) => Datatype::Fp64,
            Self::Bytes(_) => Datatype::Bytes,
        }
    }

    /// How many elements.
    pub fn len(&self) -> usize {
        each!(self, v => v.len())
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads `raw`, the protocol's binary form: little-endian and unpadded, a `BYTES` element
    /// behind its own 32-bit length. One copy, which also aligns.
    pub fn from_raw(datatype: Datatype, raw: &Bytes) -> Result<Self, ShapeError> {
        macro_rules! numbers {
            ($variant:ident, $t:ty) => {{
                let size = size_of::<$t>();
                if raw.len() % size != 0 {
                    return Err(ShapeError::PartialElement { datatype, bytes: raw.len() });
                }
                let elements = raw.chunks_exact(size);
                Self::$variant(
                    elements
                        .map(|chunk| {
                            <$t>::from_le_bytes(chunk.try_into().expect("chunks have this size"))
                        })
                        .collect(),
                )
            }};
        }
        Ok(match datatype {
            Datatype::Bool => Self::Bool(raw.iter().map(|&byte| byte != 0).collect()),
            Datatype::Uint8 => numbers!(Uint8, u8),
            Datatype::Uint16 => numbers!(Uint16, u16),
            Datatype::Uint32 => numbers!(Uint32, u32),
            Datatype::Uint64 => numbers!(Uint64, u64),
            Datatype::Int8 => numbers!(Int8, i8),
            Datatype::Int16 => numbers!(Int16, i16),
            Datatype::Int32 => numbers!(Int32, i32),
            Datatype::Int64 => numbers!(Int64, i64),
            Datatype::Fp16 => numbers!(Fp16, u16),
            Datatype::Bf16 => numbers!(Bf16, u16),
            Datatype::Fp32 => numbers!(Fp32, f32),
            Datatype::Fp64 => numbers!(Fp64, f64),
            Datatype::Bytes => Self::Bytes(split_bytes(raw)?),
        })
    }

    /// How many elements [`TensorData::from_raw`] makes of `raw` at most, before it makes them.
    pub fn raw_count(datatype: Datatype, raw: &[u8]) -> usize {
        datatype.size().map_or_else(|| count_bytes(raw), |size| raw.len() / size)
    }

    /// How many bytes the protocol's binary form takes.
    pub fn raw_len(&self) -> usize {
        match self {
            Self::Bytes(elements) => elements.iter().map(|element| 4 + element.len()).sum(),
            numbers => each!(numbers, v => size_of_val(v.as_slice())),
        }
    }

    /// Appends the protocol's binary form to `out`.
    pub fn write_raw(&self, out: &mut impl BufMut) {
        macro_rules! numbers {
            ($values:expr) => {
                write_blocks(out, $values, |x| x.to_le_bytes())
            };
        }
        match self {
            Self::Bool(v) => write_blocks(out, v, |&b| [u8::from(b)]),
            Self::Uint8(v) => out.put_slice(v),
            Self::Uint16(v) | Self::Fp16(v) | Self::Bf16(v) => numbers!(v),
            Self::Uint32(v) => numbers!(v),
            Self::Uint64(v) => numbers!(v),
            Self::Int8(v) => numbers!(v),
            Self::Int16(v) => numbers!(v),
            Self::Int32(v) => numbers!(v),
            Self::Int64(v) => numbers!(v),
            Self::Fp32(v) => numbers!(v),
            Self::Fp64(v) => numbers!(v),
            Self::Bytes(v) => {
                for element in v {
                    // Elements come from messages, whose limit is far below what 32 bits count.
                    let length = u32::try_from(element.len()).expect("an element below 4 GiB");
                    out.put_slice(&length.to_le_bytes());
                    out.put_slice(element);
                }
            }
        }
    }

    /// Appends the elements of `other`, which must be of the same datatype.
    pub fn extend_from(&mut self, other: &Self) -> Result<(), ShapeError> {
        macro_rules! append {
            ($($variant:ident),*) => {
                match (self, other) {
                    $((Self::$variant(to), Self::$variant(from)) => to.extend_from_slice(from),)*
                    (to, from) => return Err(ShapeError::Datatype {
                        expected: to.datatype(), found: from.datatype() }),
                }
            };
        }
        append!(
            Bool, Uint8, Uint16, Uint32, Uint64, Int8, Int16, Int32, Int64, Fp16, Bf16, Fp32, Fp64,
            Bytes
        );
        Ok(())
    }

    /// A copy of the elements in `range`, which must lie inside.
    pub fn slice(&self, range: std::ops::Range<usize>) -> Self {
        macro_rules! cut {
            ($($variant:ident),*) => {
                match self { $(Self::$variant(v) => Self::$variant(v[range].to_vec()),)* }
            };
        }
        cut!(
            Bool, Uint8, Uint16, Uint32, Uint64, Int8, Int16, Int32, Int64, Fp16, Bf16, Fp32, Fp64,
            Bytes
        )
    }
}

/// Appends the bytes of `values`, a block at a time: one call an element would cost more than the
/// bytes do.
fn write_blocks<T, const SIZE: usize>(
    out: &mut impl BufMut,
    values: &[T],
    bytes: impl Fn(&T) -> [u8; SIZE],
) {
    const BLOCK: usize = 128;
    let mut block = [[0; SIZE]; BLOCK];
    for values in values.chunks(BLOCK) {
        block.iter_mut().zip(values).for_each(|(slot, value)| *slot = bytes(value));
        out.put_slice(block[..values.len()].as_flattened());
    }
}

/// How many length-prefixed elements `raw` begins with.
fn count_bytes(mut raw: &[u8]) -> usize {
    let mut count = 0;
    while let Some((prefix, rest)) = raw.split_first_chunk() {
        let Some(rest) = rest.get(u32::from_le_bytes(*prefix) as usize..) else { break };
        (raw, count) = (rest, count + 1);
    }
    count
}

/// Splits length-prefixed elements without copying them.
fn split_bytes(raw: &Bytes) -> Result<Vec<Bytes>, ShapeError> {
    let mut elements = Vec::with_capacity(count_bytes(raw));
    let mut at = 0;
    while at < raw.len() {
        let truncated = ShapeError::TruncatedBytes { element: elements.len() };
        let Some(prefix) = raw.get(at..at + 4) else { return Err(truncated) };
        let length = u32::from_le_bytes(prefix.try_into().expect("four bytes")) as usize;
        let end = (at + 4).saturating_add(length);
        if end > raw.len() {
            return Err(truncated);
        }
        elements.push(raw.slice(at + 4..end));
        at = end;
    }
    Ok(elements)
}

/// A shape and as many elements as it needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    shape: Vec<i64>,
    data: TensorData,
}

impl Tensor {
    /// Checks that `data` fills `shape` exactly.
    pub fn new(shape: Vec<i64>, data: TensorData) -> Result<Self, ShapeError> {
        let expected = element_count(&shape)?;
        if expected != data.len() {
            return Err(ShapeError::Count { shape, expected, found: data.len() });
        }
        Ok(Self { shape, data })
    }

    /// The dimensions, the first being the rows of a batch.
    pub fn shape(&self) -> &[i64] {
        &self.shape
    }

    /// The elements.
    pub const fn data(&self) -> &TensorData {
        &self.data
    }

    /// The type of the elements.
    pub const fn datatype(&self) -> Datatype {
        self.data.datatype()
    }

    /// The first dimension: how many rows a batch has. None for a scalar.
    pub fn rows(&self) -> Option<usize> {
        self.shape.first().and_then(|&rows| usize::try_from(rows).ok())
    }

    /// Takes the tensor apart.
    pub fn into_parts(self) -> (Vec<i64>, TensorData) {
        (self.shape, self.data)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::{Tensor, TensorData};
    use crate::datatype::Datatype;

    #[test]
    fn elements_must_fill_the_shape() {
        let three = TensorData::Fp32(vec![1.0, 2.0, 3.0]);
        assert!(Tensor::new(vec![3], three.clone()).is_ok());
        let error = Tensor::new(vec![2, 2], three).unwrap_err();
        assert!(error.to_string().contains("needs 4 elements, got 3"), "{error}");
    }

    #[test]
    fn bytes_elements_may_not_be_cut_off() {
        let good = Bytes::from_static(b"\x02\0\0\0ab\0\0\0\0");
        let elements = TensorData::from_raw(Datatype::Bytes, &good).unwrap();
        assert_eq!(elements.len(), 2);
        for bad in [&b"\x02\0\0"[..], b"\x03\0\0\0ab", b"\xff\xff\xff\xffab"] {
            let raw = Bytes::copy_from_slice(bad);
            assert!(TensorData::from_raw(Datatype::Bytes, &raw).is_err());
        }
        assert!(TensorData::from_raw(Datatype::Fp32, &Bytes::from_static(b"12345")).is_err());
    }

    proptest! {
        #[test]
        fn binary_form_round_trips(numbers in prop::collection::vec(any::<i64>(), 0..40),
                                   texts in prop::collection::vec(any::<Vec<u8>>(), 0..10)) {
            let texts = texts.into_iter().map(Bytes::from).collect();
            for data in [TensorData::Int64(numbers), TensorData::Bytes(texts)] {
                let mut raw = Vec::new();
                data.write_raw(&mut raw);
                prop_assert_eq!(raw.len(), data.raw_len());
                prop_assert_eq!(TensorData::from_raw(data.datatype(), &raw.into()).unwrap(), data);
            }
        }

        #[test]
        fn split_after_concat_is_identity(a in prop::collection::vec(any::<i32>(), 0..20),
                                          b in prop::collection::vec(any::<i32>(), 0..20)) {
            let mut both = TensorData::Int32(a.clone());
            both.extend_from(&TensorData::Int32(b.clone())).unwrap();
            prop_assert_eq!(both.slice(0..a.len()), TensorData::Int32(a.clone()));
            prop_assert_eq!(both.slice(a.len()..a.len() + b.len()), TensorData::Int32(b));
        }
    }
}
