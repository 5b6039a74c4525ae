//! The classification extension: an output's largest values with their places and labels, in the
//! place of the output.

use sluice_protocol::{Tensor, TensorData};

/// Values of a row that may be ranked at most.
const MOST_VALUES: usize = 1_000_000;

/// The `classes` largest values of each row as text, `value:index` or `value:index:label`, the
/// largest first; of equal ones the first. Rows are the first dimension if the model batches, else
/// the tensor is one row. The answer's shape is [rows, classes] or [classes], fewer where a row has
/// fewer values.
pub(crate) fn classify(
    tensor: &Tensor,
    batches: bool,
    classes: usize,
    labels: &[String],
) -> Result<Tensor, String> {
    let rows = if batches { tensor.rows().unwrap_or(0) } else { 1 };
    let width = tensor.data().len().checked_div(rows).unwrap_or(0);
    if width > MOST_VALUES {
        return Err(format!("has {width} values a row, of which at most {MOST_VALUES} are ranked"));
    }
    let classes = classes.min(width);
    let mut texts = Vec::with_capacity(rows * classes);
    macro_rules! rank {
        ($values:expr, $order:expr, $text:expr) => {
            for row in $values.chunks(width.max(1)).take(rows) {
                for index in largest(row, classes, $order) {
                    let value = $text(row[index]);
                    let text = match labels.get(index) {
                        Some(label) => format!("{value}:{index}:{label}"),
                        None => format!("{value}:{index}"),
                    };
                    texts.push(text.into());
                }
            }
        };
    }
    match tensor.data() {
        TensorData::Uint8(v) => rank!(v, u8::cmp, |x| x),
        TensorData::Uint16(v) => rank!(v, u16::cmp, |x| x),
        TensorData::Uint32(v) => rank!(v, u32::cmp, |x| x),
        TensorData::Uint64(v) => rank!(v, u64::cmp, |x| x),
        TensorData::Int8(v) => rank!(v, i8::cmp, |x| x),
        TensorData::Int16(v) => rank!(v, i16::cmp, |x| x),
        TensorData::Int32(v) => rank!(v, i32::cmp, |x| x),
        TensorData::Int64(v) => rank!(v, i64::cmp, |x| x),
        TensorData::Fp32(v) => rank!(v, |a, b| above_nan(f64::from(*a), f64::from(*b)), six),
        TensorData::Fp64(v) => rank!(v, |a: &f64, b: &f64| above_nan(*a, *b), six),
        TensorData::Bool(_) | TensorData::Fp16(_) | TensorData::Bf16(_) | TensorData::Bytes(_) => {
            return Err(format!("has datatype {}, which cannot be classified", tensor.datatype()));
        }
    }
    let size = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let shape = if batches { vec![size(rows), size(classes)] } else { vec![size(classes)] };
    Tensor::new(shape, TensorData::Bytes(texts)).map_err(|error| error.to_string())
}

/// Where the `count` largest values are, the largest first.
fn largest<T>(
    values: &[T],
    count: usize,
    order: impl Fn(&T, &T) -> std::cmp::Ordering,
) -> Vec<usize> {
    let descending = |a: &usize, b: &usize| order(&values[*b], &values[*a]).then_with(|| a.cmp(b));
    let mut indices: Vec<usize> = (0..values.len()).collect();
    if count < indices.len() {
        indices.select_nth_unstable_by(count, descending);
        indices.truncate(count);
    }
    indices.sort_unstable_by(descending);
    indices
}

/// Any number is larger than NaN.
fn above_nan(a: f64, b: f64) -> std::cmp::Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

/// A float as C++'s `std::to_string` writes it: with six decimals.
fn six(value: impl Into<f64>) -> String {
    let value = value.into();
    match (value.is_nan(), value.is_infinite(), value.is_sign_negative()) {
        (true, ..) => "nan".to_owned(),
        (_, true, false) => "inf".to_owned(),
        (_, true, true) => "-inf".to_owned(),
        _ => format!("{value:.6}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sluice_protocol::{Tensor, TensorData};

    use super::classify;

    fn texts(tensor: &Tensor) -> Vec<String> {
        let TensorData::Bytes(texts) = tensor.data() else { panic!("{tensor:?}") };
        texts.iter().map(|text| String::from_utf8(text.to_vec()).unwrap()).collect()
    }

    fn fp32(shape: &[i64], values: &[f32]) -> Tensor {
        Tensor::new(shape.to_vec(), TensorData::Fp32(values.to_vec())).unwrap()
    }

    #[test]
    fn each_row_is_ranked() {
        let scores = fp32(&[2, 3], &[0.1, 2.5, -3.0, 7.0, 7.0, 8.0]);
        let labels = ["cat".to_owned(), "dog".to_owned()];
        let ranked = classify(&scores, true, 2, &labels).unwrap();
        assert_eq!(ranked.shape(), [2, 2]);
        assert_eq!(
            texts(&ranked),
            ["2.500000:1:dog", "0.100000:0:cat", "8.000000:2", "7.000000:0:cat"]
        );
        let whole = classify(&scores, false, 9, &[]).unwrap();
        assert_eq!(whole.shape(), [6]);
        assert_eq!(texts(&whole)[..2], ["8.000000:5", "7.000000:3"]);
    }

    #[test]
    fn whole_numbers_are_plain_and_nan_is_last() {
        let counts = Tensor::new(vec![3], TensorData::Int64(vec![-1, i64::MAX, 3])).unwrap();
        assert_eq!(
            texts(&classify(&counts, false, 2, &[]).unwrap()),
            ["9223372036854775807:1", "3:2"]
        );
        let odd = fp32(&[4], &[f32::NAN, f32::NEG_INFINITY, f32::INFINITY, 0.0]);
        assert_eq!(
            texts(&classify(&odd, false, 4, &[]).unwrap()),
            ["inf:2", "0.000000:3", "-inf:1", "nan:0"]
        );
    }

    #[test]
    fn what_cannot_be_ranked_is_refused() {
        let truth = Tensor::new(vec![1], TensorData::Bool(vec![true])).unwrap();
        assert!(classify(&truth, true, 1, &[]).unwrap_err().contains("BOOL"));
        let wide = fp32(&[1_000_001], &vec![0.0; 1_000_001]);
        assert!(classify(&wide, false, 1, &[]).unwrap_err().contains("1000001 values"));
        assert!(classify(&wide, true, 1, &[]).is_ok(), "a row has one value");
        let none = fp32(&[0, 3], &[]);
        assert_eq!(classify(&none, true, 2, &[]).unwrap().shape(), [0, 0]);
    }

    proptest! {
        #[test]
        fn ranking_is_sorting(values in prop::collection::vec(any::<f32>(), 1..40), classes in 1_usize..50) {
            let tensor = fp32(&[1, i64::try_from(values.len()).unwrap()], &values);
            let ranked = texts(&classify(&tensor, true, classes, &[]).unwrap());
            prop_assert_eq!(ranked.len(), classes.min(values.len()));
            let mut expected: Vec<usize> = (0..values.len()).collect();
            let key = |i: &usize| if values[*i].is_nan() { f32::NEG_INFINITY } else { values[*i] };
            expected.sort_by(|a, b| {
                values[*a].is_nan().cmp(&values[*b].is_nan()).then(key(b).partial_cmp(&key(a)).unwrap())
            });
            for (text, index) in ranked.iter().zip(expected) {
                let own: usize = text.split(':').nth(1).unwrap().parse().unwrap();
                prop_assert_eq!(own, index);
            }
        }
    }
}
