//! What a graph can be trusted with, found out by running it: whether requests may share a run.
//!
//! A free first dimension does not say so. A graph may mix its rows, by subtracting their mean
//! for one, and would then answer every caller according to who else asked.

use std::time::{Duration, Instant};

use sluice_engine::Engine;
use sluice_protocol::{ParityRows, Tensor, TensorData};

use super::parity::parity_tensor;
use super::probe::{ROWS, Row, most_rows, row_sets};
use crate::error::LoadError;

/// How far an answer may move when the row runs with others, as a part of the output's largest
/// value: libraries compute other batch sizes in another order.
const TOLERANCE: f64 = 1e-4;
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
    /// Tries `engine` with parity rows, else with generated ones. Refuses a graph of which one
    /// row is too large to be tried.
    pub(super) fn run(
        engine: &mut dyn Engine,
        parity: Option<&ParityRows>,
    ) -> Result<Self, LoadError> {
        let most_rows = most_rows(engine.inputs())?;
        let specs = || engine.inputs().iter().chain(engine.outputs());
        let fixed = specs().find(|spec| spec.shape.first() != Some(&-1));
        let apart = fixed.map(|spec| format!("{:?} has no free first dimension", spec.name));
        if let (Some(_), Some(parity)) = (&apart, parity) {
            // All parity rows together have just run.
            let row = parity_tensor(&parity.rows).ok().map(|tensor| vec![tensor]);
            return Ok(Self { row, most_rows: 1, apart });
        }
        let mut trial = Self { row: None, most_rows, apart };
        if most_rows < ROWS && trial.apart.is_none() {
            trial.apart = Some("its rows are too large to be tried together".to_owned());
        }
        trial.try_sets(engine, parity);
        Ok(trial)
    }

    fn try_sets(&mut self, engine: &mut dyn Engine, parity: Option<&ParityRows>) {
        let started = Instant::now();
        let mut agreed = false;
        for set in row_sets(engine.inputs(), parity) {
            if self.row.is_some() && (self.apart.is_some() || started.elapsed() > ENOUGH) {
                break;
            }
            let alone: Result<Vec<_>, _> = set.iter().map(|row| engine.run(row)).collect();
            let Ok(alone) = alone else { continue };
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

/// Compares what rows answer alone with what the first two, and the first three, answer
/// together.
fn mixes(engine: &mut dyn Engine, rows: &[Row], alone: &[Vec<Tensor>]) -> Result<(), String> {
    for count in 2..=rows.len() {
        let inputs = stack(&rows[..count]).ok_or("rows of its inputs cannot be joined")?;
        let together = engine.run(&inputs).map_err(|error| format!("{count} rows: {error}"))?;
        let expected =
            stack(&alone[..count]).ok_or("its outputs' rows are not those of its inputs")?;
        for (index, (expected, found)) in expected.iter().zip(&together).enumerate() {
            let name = &engine.outputs()[index].name;
            if expected.shape() != found.shape() {
                return Err(format!("rows of output {name:?} are not those of the inputs"));
            }
            if !agree(expected.data(), found.data()) {
                return Err(format!("output {name:?} of a row depends on the rows beside it"));
            }
        }
    }
    Ok(())
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

/// Whether two outputs are the same but for rounding. NaN agrees with NaN.
fn agree(a: &TensorData, b: &TensorData) -> bool {
    match (a, b) {
        (TensorData::Fp32(a), TensorData::Fp32(b)) => {
            let wide = |values: &[f32]| values.iter().copied().map(f64::from).collect::<Vec<_>>();
            floats_agree(&wide(a), &wide(b))
        }
        (TensorData::Fp64(a), TensorData::Fp64(b)) => floats_agree(a, b),
        (TensorData::Fp16(a), TensorData::Fp16(b)) | (TensorData::Bf16(a), TensorData::Bf16(b)) => {
            a.iter().zip(b).all(|(a, b)| place(*a).abs_diff(place(*b)) <= STEPS)
        }
        _ => a == b,
    }
}

fn floats_agree(a: &[f64], b: &[f64]) -> bool {
    let finite = a.iter().filter(|value| value.is_finite());
    let bound = finite.fold(0.0_f64, |most, value| most.max(value.abs())) * TOLERANCE;
    a.iter().zip(b).all(|(a, b)| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= bound)
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

    use super::{TensorData, Trial, agree};

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
            ("center", Some("\"y\" of a row depends on the rows beside it"), true),
            ("keep", Some("its outputs' rows are not those of its inputs"), true),
            ("fixed", Some("\"x\" has no free first dimension"), true),
            ("patch", Some("no two different rows could be tried"), false),
        ] {
            let bytes = std::fs::read(models.join(format!("{graph}.onnx"))).unwrap();
            let mut engine = runtime.open(&bytes, 1).unwrap();
            let trial = Trial::run(&mut engine, None).unwrap();
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
            ([1.0, 2.0], [1.0, 2.0001], true),
            ([1.0, 2.0], [1.0, 2.001], false),
            ([0.0, 0.0], [0.0, 1e-30], false),
            ([nan, 1.0], [nan, 1.0], true),
            ([nan, 1.0], [0.0, 1.0], false),
            ([0.0, 1.0], [nan, 1.0], false),
            ([infinity, 1.0], [infinity, 1.0], true),
            ([infinity, 1.0], [-infinity, 1.0], false),
            ([1.0, 1.0], [infinity, 1.0], false),
        ] {
            let (a, b) = (a.to_vec(), b.to_vec());
            let text = format!("{a:?} {b:?}");
            assert_eq!(agree(&TensorData::Fp32(a), &TensorData::Fp32(b)), same, "{text}");
        }
        let half = |bits| TensorData::Fp16(vec![bits]);
        assert!(agree(&half(0x3C00), &half(0x3C02)));
        assert!(agree(&half(0x0000), &half(0x8000)), "both are zero");
        assert!(!agree(&half(0x3C00), &half(0xBC00)));
        assert!(!agree(&TensorData::Int64(vec![1]), &TensorData::Int64(vec![2])));
    }
}
