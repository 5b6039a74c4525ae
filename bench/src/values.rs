//! Made-up values for a model's inputs, the same for the same seed.

use bytes::Bytes;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, Zipf};
use rand_pcg::Pcg64Mcg;
use sluice_protocol::{Datatype, ShapeError, Tensor, TensorData, TensorSpec, element_count};

use crate::error::BenchError;

/// The values that an input takes, such as the keys of entities, instead of any.
#[derive(Debug, Clone)]
pub struct Choice {
    input: String,
    of: Of,
    skew: Zipf<f64>,
}

/// What is chosen from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Of {
    /// As many whole numbers from the first on.
    Numbers {
        first: i64,
        count: u64,
    },
    Texts(Vec<String>),
}

impl Choice {
    /// A choice of `NAME=FROM..TO`, both ends among them, or of `NAME=VALUE,VALUE`. The first value
    /// is the most frequent; the n-th has a share in proportion to 1 / n^`skew` (Zipf's law), so
    /// that 0 makes them equal.
    ///
    /// # Errors
    /// Text of neither form, no value, or a skew that is no number from 0 on.
    pub fn new(text: &str, skew: f64) -> Result<Self, BenchError> {
        let wrong = |why: &str| BenchError::Options(format!("choice {text:?}: {why}"));
        let (input, values) =
            text.split_once('=').ok_or_else(|| wrong("it is NAME=FROM..TO or NAME=VALUE,VALUE"))?;
        let of = match values.split_once("..") {
            None => Of::Texts(values.split(',').map(|value| value.trim().to_owned()).collect()),
            Some((from, to)) => {
                let number = |text: &str| text.trim().parse::<i64>();
                let (Ok(first), Ok(last)) = (number(from), number(to)) else {
                    return Err(wrong("FROM and TO are whole numbers"));
                };
                let Some(count) = last.checked_sub(first).filter(|count| *count >= 0) else {
                    return Err(wrong("TO comes before FROM"));
                };
                Of::Numbers { first, count: count.unsigned_abs() + 1 }
            }
        };
        if input.is_empty() || of == Of::Texts(vec![String::new()]) {
            return Err(wrong("it names no input, or no value"));
        }
        let count = match &of {
            Of::Numbers { count, .. } => *count as f64,
            Of::Texts(texts) => texts.len() as f64,
        };
        let skew = Zipf::new(count, skew).map_err(|error| wrong(&error.to_string()))?;
        Ok(Self { input: input.trim().to_owned(), of, skew })
    }

    /// Whether a model has such an input.
    pub(crate) fn fits(&self, inputs: &[TensorSpec]) -> Result<(), String> {
        let Self { input, of, .. } = self;
        let Some(spec) = inputs.iter().find(|spec| spec.name == *input) else {
            let names: Vec<&str> = inputs.iter().map(|spec| spec.name.as_str()).collect();
            return Err(format!("it has no input {input:?}, but {}", names.join(", ")));
        };
        let texts = matches!(of, Of::Texts(_));
        match spec.datatype {
            Datatype::Bytes => Ok(()),
            Datatype::Int64 | Datatype::Int32 | Datatype::Fp32 | Datatype::Fp64 if !texts => Ok(()),
            datatype => Err(format!(
                "input {input:?} is {}; values are chosen of BYTES, and FROM..TO of INT64, INT32, FP32 and FP64 too",
                datatype.as_str()
            )),
        }
    }

    fn data(&self, datatype: Datatype, count: usize, random: &mut Pcg64Mcg) -> TensorData {
        #[expect(clippy::cast_possible_truncation, reason = "a whole number from 1 to the count")]
        let mut place = || self.skew.sample(random) as u64 - 1;
        match &self.of {
            Of::Texts(texts) => {
                let text = |place| usize::try_from(place).ok().and_then(|at| texts.get(at));
                let mut next = || text(place()).cloned().unwrap_or_default();
                TensorData::Bytes((0..count).map(|_| next().into()).collect())
            }
            Of::Numbers { first, .. } => {
                let mut next = || first.saturating_add_unsigned(place());
                match datatype {
                    Datatype::Int32 => {
                        let narrow = |number| i32::try_from(number).unwrap_or(i32::MAX);
                        TensorData::Int32((0..count).map(|_| narrow(next())).collect())
                    }
                    Datatype::Fp32 => TensorData::Fp32((0..count).map(|_| next() as f32).collect()),
                    Datatype::Fp64 => TensorData::Fp64((0..count).map(|_| next() as f64).collect()),
                    Datatype::Bytes => {
                        TensorData::Bytes((0..count).map(|_| next().to_string().into()).collect())
                    }
                    _ => TensorData::Int64((0..count).map(|_| next()).collect()),
                }
            }
        }
    }
}

/// What makes values.
#[derive(Debug)]
pub(crate) struct Values<'a> {
    random: Pcg64Mcg,
    choices: &'a [Choice],
}

impl<'a> Values<'a> {
    pub(crate) fn new(seed: u64, choices: &'a [Choice]) -> Self {
        Self { random: Pcg64Mcg::seed_from_u64(seed), choices }
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
        let chosen = self.choices.iter().find(|choice| choice.input == spec.name);
        let data = match chosen {
            Some(choice) => choice.data(spec.datatype, count, &mut self.random),
            None => self.data(spec.datatype, count),
        };
        Tensor::new(shape, data)
    }

    fn data(&mut self, datatype: Datatype, count: usize) -> TensorData {
        let random = &mut self.random;
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
    use sluice_protocol::{Datatype, TensorData, TensorSpec};

    use super::{Choice, Values};

    #[test]
    fn tensors_have_the_rows_that_are_asked_for_and_repeat() {
        use Datatype::*;
        for datatype in [
            Bool, Uint8, Uint16, Uint32, Uint64, Int8, Int16, Int32, Int64, Fp16, Bf16, Fp32, Fp64,
            Bytes,
        ] {
            let spec = TensorSpec { name: "x".to_owned(), datatype, shape: vec![-1, 3, -1] };
            let tensor = Values::new(7, &[]).tensor(&spec, 40).unwrap();
            assert_eq!((tensor.shape(), tensor.datatype()), (&[40, 3, 1][..], datatype));
            assert_eq!(tensor, Values::new(7, &[]).tensor(&spec, 40).unwrap());
            assert_ne!(tensor, Values::new(8, &[]).tensor(&spec, 40).unwrap());
        }
        let fixed = TensorSpec { name: "x".to_owned(), datatype: Fp32, shape: vec![2, 3] };
        assert_eq!(Values::new(1, &[]).tensor(&fixed, 9).unwrap().shape(), [2, 3]);
    }

    fn spec(datatype: Datatype) -> TensorSpec {
        TensorSpec { name: "key".to_owned(), datatype, shape: vec![-1] }
    }

    #[test]
    fn chosen_values_come_by_zipfs_law() {
        let count = |skew: f64| {
            let choices = [Choice::new("key=5..104", skew).unwrap()];
            let tensor = Values::new(3, &choices).tensor(&spec(Datatype::Int64), 20_000).unwrap();
            let TensorData::Int64(keys) = tensor.data() else { panic!("whole numbers") };
            assert!(keys.iter().all(|key| (5..=104).contains(key)));
            [5, 6, 104].map(|wanted| keys.iter().filter(|key| **key == wanted).count())
        };
        let [first, second, last] = count(1.0);
        // 20,000 over the hundredth harmonic number, 5.19.
        assert!((3_700..4_000).contains(&first), "{first}");
        assert!((1_800..2_050).contains(&second) && last < 70, "{second} {last}");
        assert!(count(0.0).iter().all(|count| (140..260).contains(count)));
    }

    #[test]
    fn choices_are_of_texts_too_and_fit_their_inputs() {
        let choices = [Choice::new("key=2025-01-15, b", 0.0).unwrap()];
        let tensor = Values::new(3, &choices).tensor(&spec(Datatype::Bytes), 50).unwrap();
        let TensorData::Bytes(texts) = tensor.data() else { panic!("texts") };
        assert!(
            texts.iter().any(|text| text == "b") && texts.iter().any(|text| text == "2025-01-15")
        );
        assert!(choices[0].fits(&[spec(Datatype::Bytes)]).is_ok());
        assert!(choices[0].fits(&[spec(Datatype::Int64)]).unwrap_err().contains("INT64"));
        assert!(choices[0].fits(&[]).unwrap_err().contains("no input \"key\""));
        for (text, says) in [
            ("key", "NAME="),
            ("key=", "no value"),
            ("=1..2", "no input"),
            ("key=1..b", "whole numbers"),
            ("key=2..1", "before"),
        ] {
            let error = Choice::new(text, 1.0).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(Choice::new("key=1..2", -1.0).is_err());
    }
}
