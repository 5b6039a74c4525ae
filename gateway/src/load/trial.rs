//! What a graph can be trusted with, found out by running it: whether requests may share a run.
//!
//! A free first dimension does not say so. A graph may mix its rows, by subtracting their mean
//! for one, and would then answer every caller according to who else asked.

use std::time::{Duration, Instant};

use sluice_engine::{Engine, EngineError};
use sluice_protocol::{ParityRows, Tensor, TensorData};

use super::parity::parity_tensor;
use super::probe::{ROWS, Row, most_rows, row_sets};
use crate::error::LoadError;
use crate::model_config::{Batching, Signature};

/// How far an answer may move when the row runs with others, as a part of the largest value in
/// its column: libraries compute other batch sizes in another order, and a value near zero that
/// comes of large ones keeps their rounding. That is far more than rows which touch each other
/// need to give wrong answers, so those are found by another comparison, which allows nothing.
const TOLERANCE: f64 = 1e-3;
/// The same for 16-bit floats, in steps of the last bit.
const STEPS: u32 = 8;
/// Past this, one set of rows that agree is enough.
const ENOUGH: Duration = Duration::from_secs(2);

/// What was found out.
#[derive(Debug)]
pub(super) struct Trial {
    /// A row that the graph runs, to warm up and measure with. None when it ran none of those
    /// that were tried.
    pub(super) row: Option<Row>,
    /// How many rows may be measured together.
    pub(super) most_rows: usize,
    /// Why no two requests may share a run, if so.
    pub(super) apart: Option<String>,
}

impl Trial {
    /// Tries `engine` with parity rows, else with generated ones that have the shapes of the
    /// signature. Refuses a graph of which one row is too large to be tried.
    pub(super) fn run(
        engine: &mut dyn Engine,
        signature: &Signature,
        parity: Option<&ParityRows>,
    ) -> Result<Self, LoadError> {
        let inputs = &signature.graph_inputs;
        let most_rows = most_rows(inputs)?;
        let never = (signature.batching == Batching::Never)
            .then(|| "its configuration gives tensors no batch dimension".to_owned());
        let specs = || inputs.iter().chain(engine.outputs());
        let fixed = specs().find(|spec| spec.shape.first() != Some(&-1));
        let fixed = fixed.map(|spec| format!("{:?} has no free first dimension", spec.name));
        let apart = never.or(fixed);
        if let (Some(_), Some(parity)) = (&apart, parity) {
            // All parity rows together have just run.
            let row = parity_tensor(&parity.rows).ok().map(|tensor| vec![tensor]);
            return Ok(Self { row, most_rows: 1, apart });
        }
        let mut trial = Self { row: None, most_rows, apart };
        if most_rows < ROWS && trial.apart.is_none() {
            trial.apart = Some("its rows are too large to be tried together".to_owned());
        }
        trial.try_sets(engine, row_sets(inputs, parity));
        Ok(trial)
    }

    fn try_sets(&mut self, engine: &mut dyn Engine, sets: Vec<Vec<Row>>) {
        let started = Instant::now();
        let mut agreed = false;
        for set in sets {
            if self.row.is_some() && (self.apart.is_some() || started.elapsed() > ENOUGH) {
                break;
            }
            let alone: Result<Vec<_>, _> = set.iter().map(|row| engine.run(row)).collect();
            let alone = match alone {
                Ok(alone) => alone,
                // Other made-up rows may take as long, and a load is not to wait for all of them.
                Err(EngineError::Terminated) => break,
                Err(_) => continue,
            };
            self.row = self.row.take().or_else(|| set.first().cloned());
            let differ = set.windows(2).any(|pair| pair[0] != pair[1]);
            if self.apart.is_none() {
                self.apart = mixes(engine, &set, &alone).err();
                agreed |= differ;
            }
        }
        if self.apart.is_none() && !agreed {
            self.apart = Some("no two different rows could be tried".to_owned());
        }
    }
}

/// Looks for rows that touch each other, or that are answered by how many run and where.
fn mixes(engine: &mut dyn Engine, rows: &[Row], alone: &[Vec<Tensor>]) -> Result<(), String> {
    let mut together = Vec::new();
    for count in 2..=rows.len() {
        together = run_rows(engine, &rows[..count])?;
        let expected =
            stack(&alone[..count]).ok_or("its outputs' rows are not those of its inputs")?;
        for (index, (expected, found)) in expected.iter().zip(&together).enumerate() {
            let name = &engine.outputs()[index].name;
            if expected.shape() != found.shape() {
                return Err(format!("rows of output {name:?} are not those of the inputs"));
            }
            if !agree(expected.data(), found.data(), count) {
                return Err(mixed(name));
            }
        }
    }
    touch(engine, rows, &together)
}

/// Compares each row among the others with the same row among copies of itself. In the same
/// place of as many rows the library computes it the same way to the last bit, so that whatever
/// differs comes from the rows beside it, however small it is next to the rest of the output.
fn touch(engine: &mut dyn Engine, rows: &[Row], together: &[Tensor]) -> Result<(), String> {
    for (place, row) in rows.iter().enumerate() {
        let copies = run_rows(engine, &vec![row.clone(); rows.len()])?;
        for (index, (copies, together)) in copies.iter().zip(together).enumerate() {
            let width = together.data().len() / rows.len();
            let own = |tensor: &Tensor| tensor.data().slice(place * width..(place + 1) * width);
            let name = &engine.outputs()[index].name;
            if copies.shape() != together.shape() || !identical(&own(copies), &own(together)) {
                return Err(mixed(name));
            }
        }
    }
    Ok(())
}

fn mixed(output: &str) -> String {
    format!("output {output:?} of a row depends on the rows beside it")
}

fn run_rows(engine: &mut dyn Engine, rows: &[Row]) -> Result<Vec<Tensor>, String> {
    let inputs = stack(rows).ok_or("rows of its inputs cannot be joined")?;
    engine.run(&inputs).map_err(|error| format!("{} rows: {error}", rows.len()))
}

/// The tensors of single rows as tensors of all of them. None when one is not of a single row,
/// or differs from the others by more.
fn stack(rows: &[Row]) -> Option<Row> {
    if rows.iter().flatten().any(|tensor| tensor.rows() != Some(1)) {
        return None;
    }
    let (first, more) = rows.split_first()?;
    let mut parts: Vec<_> = first.iter().cloned().map(Tensor::into_parts).collect();
    for row in more {
        for ((shape, data), tensor) in parts.iter_mut().zip(row) {
            if shape.get(1..) != tensor.shape().get(1..) {
                return None;
            }
            *shape.first_mut()? += 1;
            data.extend_from(tensor.data()).ok()?;
        }
    }
    parts.into_iter().map(|(shape, data)| Tensor::new(shape, data).ok()).collect()
}

/// Whether two outputs of `rows` rows are the same but for rounding. NaN agrees with NaN.
fn agree(a: &TensorData, b: &TensorData, rows: usize) -> bool {
    match (a, b) {
        (TensorData::Fp32(a), TensorData::Fp32(b)) => {
            let wide = |values: &[f32]| values.iter().copied().map(f64::from).collect::<Vec<_>>();
            floats_agree(&wide(a), &wide(b), rows)
        }
        (TensorData::Fp64(a), TensorData::Fp64(b)) => floats_agree(a, b, rows),
        (TensorData::Fp16(a), TensorData::Fp16(b)) | (TensorData::Bf16(a), TensorData::Bf16(b)) => {
            a.iter().zip(b).all(|(a, b)| place(*a).abs_diff(place(*b)) <= STEPS)
        }
        _ => a == b,
    }
}

/// Column by column, since the columns of an output may be of very different sizes.
fn floats_agree(a: &[f64], b: &[f64], rows: usize) -> bool {
    let width = a.len() / rows;
    (0..width).all(|column| {
        let pairs = || a.iter().zip(b).skip(column).step_by(width);
        let finite = pairs().map(|(a, _)| a.abs()).filter(|size| size.is_finite());
        // Below the smallest normal number, some instructions round to zero.
        let bound = finite.fold(0.0, f64::max) * TOLERANCE + f64::from(f32::MIN_POSITIVE);
        pairs().all(|(a, b)| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= bound)
    })
}

/// Whether two outputs are the same. NaN is the same as NaN.
fn identical(a: &TensorData, b: &TensorData) -> bool {
    match (a, b) {
        (TensorData::Fp32(a), TensorData::Fp32(b)) => {
            a.iter().zip(b).all(|(a, b)| a == b || (a.is_nan() && b.is_nan()))
        }
        (TensorData::Fp64(a), TensorData::Fp64(b)) => {
            a.iter().zip(b).all(|(a, b)| a == b || (a.is_nan() && b.is_nan()))
        }
        _ => a == b,
    }
}

/// Where a 16-bit float stands among all of them, in order.
const fn place(bits: u16) -> i32 {
    let magnitude = (bits & 0x7FFF) as i32;
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use sluice_engine::OnnxRuntime;
    use sluice_protocol::grpc::ModelConfig;

    use super::{Signature, TensorData, Trial, agree};

    #[test]
    fn rows_share_a_run_only_when_they_do_not_touch_each_other() {
        let library = std::env::var_os("SLUICE_ONNXRUNTIME").map(PathBuf::from);
        let runtime = OnnxRuntime::load(library.as_deref()).unwrap();
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
        for (graph, apart, runs) in [
            ("scale", None, true),
            ("slow", None, true),
            ("mixed", None, true),
            ("pick", None, true),
            ("half", None, true),
            ("center", Some("\"y\" of a row depends on the rows beside it"), true),
            ("loud", Some("\"y\" of a row depends on the rows beside it"), true),
            ("burst", Some("\"y\" of a row depends on the rows beside it"), true),
            ("place", Some("\"y\" of a row depends on the rows beside it"), true),
            ("keep", Some("its outputs' rows are not those of its inputs"), true),
            ("fixed", Some("\"x\" has no free first dimension"), true),
            ("patch", Some("no two different rows could be tried"), false),
        ] {
            let bytes = std::fs::read(models.join(format!("{graph}.onnx"))).unwrap();
            let mut engine = runtime.open(&bytes, 1).unwrap();
            let signature = Signature::agree(&ModelConfig::default(), &engine).unwrap();
            let trial = Trial::run(&mut engine, &signature, None).unwrap();
            let says = |reason: &String| apart.is_some_and(|apart| reason.contains(apart));
            let found = &trial.apart;
            assert!(found.as_ref().map_or(apart.is_none(), says), "{graph}: {found:?}");
            assert_eq!(trial.row.is_some(), runs, "{graph}");
        }
    }

    #[test]
    fn answers_agree_up_to_rounding() {
        let (nan, infinity) = (f32::NAN, f32::INFINITY);
        for (a, b, same) in [
            ([1.0, 2.0], [1.0, 2.001], true),
            ([1.0, 2.0], [1.0, 2.01], false),
            ([1.0, 0.0], [1.0, 1e-4], true),
            ([0.0, 0.0], [0.0, 1e-30], false),
            ([0.0, 0.0], [0.0, 1e-40], true),
            ([nan, 1.0], [nan, 1.0], true),
            ([nan, 1.0], [0.0, 1.0], false),
            ([0.0, 1.0], [nan, 1.0], false),
            ([infinity, 1.0], [infinity, 1.0], true),
            ([infinity, 1.0], [-infinity, 1.0], false),
            ([1.0, 1.0], [infinity, 1.0], false),
        ] {
            let (a, b) = (a.to_vec(), b.to_vec());
            let text = format!("{a:?} {b:?}");
            assert_eq!(agree(&TensorData::Fp32(a), &TensorData::Fp32(b), 2), same, "{text}");
        }
        let half = |bits| TensorData::Fp16(vec![bits]);
        assert!(agree(&half(0x3C00), &half(0x3C02), 1));
        assert!(agree(&half(0x0000), &half(0x8000), 1), "both are zero");
        assert!(!agree(&half(0x3C00), &half(0xBC00), 1));
        assert!(!agree(&TensorData::Int64(vec![1]), &TensorData::Int64(vec![2]), 1));
    }

    #[test]
    fn a_large_column_does_not_hide_a_small_one() {
        let two_by_two = |values: [f64; 4]| TensorData::Fp64(values.to_vec());
        let a = two_by_two([1e6, 0.5, 2e6, 0.6]);
        assert!(agree(&a, &two_by_two([1e6 + 1.0, 0.5, 2e6, 0.6]), 2));
        assert!(!agree(&a, &two_by_two([1e6, 0.51, 2e6, 0.6]), 2));
        let none = || TensorData::Fp64(Vec::new());
        assert!(agree(&none(), &none(), 2));
    }
}
