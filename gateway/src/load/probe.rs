//! Rows to try a graph with, when nothing is known of it but its signature.

use bytes::Bytes;
use sluice_protocol::{Datatype, ParityRows, Tensor, TensorData, TensorSpec, element_count};

use super::parity::parity_tensor;
use crate::error::LoadError;

/// What a trial run's inputs may take at most. One row that needs more is not served.
const MOST_BYTES: usize = 128 << 20;
/// A `BYTES` element's share of that: its handle, not its text.
const HANDLE_BYTES: usize = size_of::<Bytes>();
/// Rows that are compared with each other.
pub(super) const ROWS: usize = 3;

/// One row: one tensor an input.
pub(super) type Row = Vec<Tensor>;

/// What the elements of a generated row are like.
#[derive(Debug, Clone, Copy)]
struct Range {
    /// Floats lie between this and its negative.
    float: f32,
    /// Whole numbers lie below this.
    whole: u64,
}

/// Ranges of the three rows, from what most graphs can take to what nearly all can. A graph
/// that looks whole numbers up in a table takes only small ones.
const RANGES: [[Range; ROWS]; 5] = [
    [Range { float: 1.0, whole: 5 }; ROWS],
    [
        Range { float: 0.01, whole: 100 },
        Range { float: 1000.0, whole: 100 },
        Range { float: 10.0, whole: 100 },
    ],
    [Range { float: 100.0, whole: 2 }; ROWS],
    [Range { float: 1.0, whole: 2 }; ROWS],
    [Range { float: 0.0, whole: 1 }; ROWS],
];

/// How many rows of these inputs a trial may run together; refused when not even one. Free
/// dimensions count as 1.
pub(super) fn most_rows(inputs: &[TensorSpec]) -> Result<usize, LoadError> {
    let mut bytes = 0_usize;
    for spec in inputs {
        let size = spec.datatype.size().unwrap_or(HANDLE_BYTES);
        let own = element_count(&row_shape(spec)).ok().and_then(|n| n.checked_mul(size));
        let sum = own.and_then(|own| bytes.checked_add(own)).filter(|sum| *sum <= MOST_BYTES);
        bytes = sum.ok_or_else(|| {
            let (name, shape) = (&spec.name, &spec.shape);
            LoadError::Package(format!(
                "input {name:?} has shape {shape:?}: one row of the inputs is more than {MOST_BYTES} bytes"
            ))
        })?;
    }
    Ok(MOST_BYTES / bytes.max(1))
}

/// Sets of rows to try, the best first: parity rows, else generated ones.
pub(super) fn row_sets(inputs: &[TensorSpec], parity: Option<&ParityRows>) -> Vec<Vec<Row>> {
    let parity = parity.map(|parity| {
        let rows = parity.rows.chunks(1).take(ROWS);
        rows.filter_map(|row| parity_tensor(row).ok()).map(|tensor| vec![tensor]).collect()
    });
    let generated = RANGES.iter().map(|ranges| {
        let row = |(index, range): (u64, &Range)| {
            inputs.iter().map(|spec| generate(spec, *range, index)).collect()
        };
        (0..).zip(ranges).map(row).collect()
    });
    parity.into_iter().chain(generated).collect()
}

/// Zeros, and empty texts. The spec must have no free dimension.
pub(crate) fn zero_tensor(spec: &TensorSpec) -> Tensor {
    if spec.datatype == Datatype::Bytes {
        let count = element_count(&spec.shape).unwrap_or(0);
        let empty = TensorData::Bytes(vec![Bytes::new(); count]);
        return Tensor::new(spec.shape.clone(), empty).expect("as many as the shape needs");
    }
    generate(spec, Range { float: 0.0, whole: 1 }, 0)
}

/// Numbers that most graphs can take, the same at every load.
pub(crate) fn random_tensor(spec: &TensorSpec) -> Tensor {
    generate(spec, RANGES[0][0], 0)
}

/// A row's shape: free dimensions are 1.
fn row_shape(spec: &TensorSpec) -> Vec<i64> {
    spec.shape.iter().map(|&size| if size < 0 { 1 } else { size }).collect()
}

/// Row `row` for an input, the same at every load.
fn generate(spec: &TensorSpec, range: Range, row: u64) -> Tensor {
    let shape = row_shape(spec);
    let count = element_count(&shape).expect("counted by most_rows");
    let bits = (0..count as u64).map(move |index| scramble(row << 40 | index));
    let whole = bits.clone().map(|bits| bits % range.whole);
    let small = whole.clone().map(|n| u8::try_from(n).unwrap_or(u8::MAX));
    let signed = small.clone().map(|n| i8::try_from(n).unwrap_or(i8::MAX));
    // 24 bits are what an f32 holds exactly.
    let unit = bits.clone().map(|bits| (bits >> 40) as f32 / (1 << 23) as f32 - 1.0);
    let float = unit.map(|unit| unit * range.float);
    let nothing = range.float == 0.0;
    let sixteen = |one: u16, step: u16| {
        let value = move |bits: u64| if nothing { 0 } else { one + step * (bits % 8) as u16 };
        bits.clone().map(value).collect()
    };
    let data = match spec.datatype {
        Datatype::Bool => TensorData::Bool(whole.map(|n| n % 2 == 1).collect()),
        Datatype::Uint8 => TensorData::Uint8(small.collect()),
        Datatype::Uint16 => TensorData::Uint16(small.map(u16::from).collect()),
        Datatype::Uint32 => TensorData::Uint32(small.map(u32::from).collect()),
        Datatype::Uint64 => TensorData::Uint64(whole.collect()),
        Datatype::Int8 => TensorData::Int8(signed.collect()),
        Datatype::Int16 => TensorData::Int16(signed.map(i16::from).collect()),
        Datatype::Int32 => TensorData::Int32(signed.map(i32::from).collect()),
        Datatype::Int64 => TensorData::Int64(signed.map(i64::from).collect()),
        // From 1 on, in eighths.
        Datatype::Fp16 => TensorData::Fp16(sixteen(0x3C00, 0x80)),
        Datatype::Bf16 => TensorData::Bf16(sixteen(0x3F80, 0x10)),
        Datatype::Fp32 => TensorData::Fp32(float.collect()),
        Datatype::Fp64 => TensorData::Fp64(float.map(f64::from).collect()),
        Datatype::Bytes => TensorData::Bytes(whole.map(|n| n.to_string().into()).collect()),
    };
    Tensor::new(shape, data).expect("as many elements as the shape needs")
}

/// Spreads a number's bits (the finaliser of MurmurHash3).
const fn scramble(mut bits: u64) -> u64 {
    bits = (bits ^ 0x9E37_79B9_7F4A_7C15).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    bits = (bits ^ (bits >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    bits ^ (bits >> 33)
}
