//! The classification extension: an output's largest values with their places and labels, in the
//! place of the output.

use std::fmt::{self, Write};
use std::ops::Range;

use bytes::Bytes;
use sluice_protocol::{Datatype, Tensor, TensorData};
use tokio::sync::Semaphore;

use crate::deployment::Output;
use crate::model_config::Labels;
use crate::room::Room;

/// Values of a row that may be ranked at most.
const MOST_VALUES: usize = 1_000_000;
/// Classes of all rows that an output may be answered by at most: each is a text in the place of a
/// number.
const MOST_CLASSES: usize = 1_000_000;
/// How many values are ranked on a core in one go, which takes some 20 us for a few classes and some
/// 500 us for all of them. The core's other connections have their turn then. A row of more values
/// is ranked on a thread aside: a million of them take 15 ms, or 300 ms for all.
const SLICE: usize = 4096;
/// Threads that rank wide rows at once; other answers wait for their turn.
static ASIDE: Semaphore = Semaphore::const_new(2);

/// Refuses what cannot be ranked before it is there, as far as the output's datatype and shape tell.
/// `rows` is how many rows there will be at least, `batches` whether the first dimension is rows.
pub(crate) fn check(
    output: &Output,
    batches: bool,
    rows: usize,
    classes: usize,
) -> Result<(), String> {
    check_datatype(output.datatype)?;
    let row = output.shape.get(usize::from(batches)..).unwrap_or_default();
    let width = row.iter().try_fold(1usize, |width, &size| {
        usize::try_from(size).ok().map(|size| width.saturating_mul(size))
    });
    // The width of a free dimension is known once it is there.
    let Some(width) = width else { return Ok(()) };
    check_size(if batches { rows } else { 1 }, width, classes).map(drop)
}

fn check_datatype(datatype: Datatype) -> Result<(), String> {
    match datatype {
        Datatype::Bool | Datatype::Fp16 | Datatype::Bf16 | Datatype::Bytes => {
            Err(format!("has datatype {datatype}, which cannot be classified"))
        }
        _ => Ok(()),
    }
}

/// How many classes of each row there are.
fn check_size(rows: usize, width: usize, classes: usize) -> Result<usize, String> {
    if width > MOST_VALUES {
        return Err(format!("has {width} values a row, of which at most {MOST_VALUES} are ranked"));
    }
    let classes = classes.min(width);
    match rows.checked_mul(classes) {
        Some(..=MOST_CLASSES) => Ok(classes),
        _ => Err(format!(
            "has {rows} rows of {classes} classes, and at most {MOST_CLASSES} are answered in all; ask for fewer of them"
        )),
    }
}

/// Puts the `classes` largest values of each row in the place of an output. Others on its core have
/// their turn meanwhile.
pub(crate) async fn classify(
    output: &mut Tensor,
    batches: bool,
    classes: usize,
    labels: Option<Labels>,
    room: Room,
) -> Result<(), String> {
    let labels = labels.unwrap_or_default();
    if dimensions(output, batches).1 <= SLICE {
        let mut ranking = Ranking::new(output, batches, classes, &labels, &room)?;
        while !ranking.advance(&room)? {
            tokio::task::yield_now().await;
        }
        *output = ranking.finish()?;
        return Ok(());
    }
    let none = Tensor::new(vec![0], TensorData::Uint8(Vec::new()));
    let tensor = std::mem::replace(output, none.map_err(|error| error.to_string())?);
    let turn = ASIDE.acquire().await.map_err(|error| error.to_string())?;
    let ranked = tokio::task::spawn_blocking(move || {
        // It is over when the ranking is, whether or not its caller is still there.
        let _turn = turn;
        let mut ranking = Ranking::new(&tensor, batches, classes, &labels, &room)?;
        while !ranking.advance(&room)? {}
        ranking.finish()
    });
    *output = ranked.await.unwrap_or_else(|error| Err(format!("cannot be ranked: {error}")))?;
    Ok(())
}

/// How many rows there are to rank, and how many values each has.
fn dimensions(tensor: &Tensor, batches: bool) -> (usize, usize) {
    let rows = if batches { tensor.rows().unwrap_or(0) } else { 1 };
    (rows, tensor.data().len().checked_div(rows).unwrap_or(0))
}

/// An output's rows on their way to their classes: the `classes` largest values of each row as text,
/// `value:index`, or `value:index:label` where there is one, the largest first; of equal ones the
/// first. Rows are the first dimension if the model batches, else the tensor is one row.
#[derive(Debug)]
struct Ranking<'t> {
    data: &'t TensorData,
    labels: &'t [String],
    batches: bool,
    rows: usize,
    width: usize,
    classes: usize,
    /// The classes of the rows before `next`.
    texts: Vec<Bytes>,
    next: usize,
}

impl<'t> Ranking<'t> {
    /// One of which nothing is ranked yet, if that can be.
    fn new(
        tensor: &'t Tensor,
        batches: bool,
        classes: usize,
        labels: &'t [String],
        room: &Room,
    ) -> Result<Self, String> {
        check_datatype(tensor.datatype())?;
        let (rows, width) = dimensions(tensor, batches);
        let classes = check_size(rows, width, classes)?;
        take(room, rows * classes * size_of::<Bytes>())?;
        let texts = Vec::with_capacity(rows * classes);
        Ok(Self { data: tensor.data(), labels, batches, rows, width, classes, texts, next: 0 })
    }

    /// Ranks some more rows; whether all of them are ranked.
    fn advance(&mut self, room: &Room) -> Result<bool, String> {
        let end = self.rows.min(self.next + (SLICE / self.width.max(1)).max(1));
        if self.classes == 0 || self.next == end {
            return Ok(true);
        }
        let rows = self.next..end;
        match self.data {
            TensorData::Uint8(v) => self.rank(v, rows, u8::cmp, |x| x, room),
            TensorData::Uint16(v) => self.rank(v, rows, u16::cmp, |x| x, room),
            TensorData::Uint32(v) => self.rank(v, rows, u32::cmp, |x| x, room),
            TensorData::Uint64(v) => self.rank(v, rows, u64::cmp, |x| x, room),
            TensorData::Int8(v) => self.rank(v, rows, i8::cmp, |x| x, room),
            TensorData::Int16(v) => self.rank(v, rows, i16::cmp, |x| x, room),
            TensorData::Int32(v) => self.rank(v, rows, i32::cmp, |x| x, room),
            TensorData::Int64(v) => self.rank(v, rows, i64::cmp, |x| x, room),
            TensorData::Fp32(v) => {
                let order = |a: &f32, b: &f32| above_nan(f64::from(*a), f64::from(*b));
                self.rank(v, rows, order, |x| Six(x.into()), room)
            }
            TensorData::Fp64(v) => self.rank(v, rows, |a, b| above_nan(*a, *b), Six, room),
            TensorData::Bool(_)
            | TensorData::Fp16(_)
            | TensorData::Bf16(_)
            | TensorData::Bytes(_) => check_datatype(self.data.datatype()),
        }?;
        self.next = end;
        Ok(end == self.rows)
    }

    /// Ranks these rows of `values`. Their texts share one buffer.
    fn rank<T: Copy, D: fmt::Display>(
        &mut self,
        values: &[T],
        rows: Range<usize>,
        order: impl Fn(&T, &T) -> std::cmp::Ordering,
        display: impl Fn(T) -> D,
        room: &Room,
    ) -> Result<(), String> {
        let (mut text, mut ends) = (String::new(), Vec::with_capacity(rows.len() * self.classes));
        for row in rows {
            let values = &values[row * self.width..][..self.width];
            for index in largest(values, self.classes, &order) {
                let value = display(values[index]);
                let label = self.labels.get(index).filter(|label| !label.is_empty());
                let written = match label {
                    Some(label) => write!(text, "{value}:{index}:{label}"),
                    None => write!(text, "{value}:{index}"),
                };
                written.expect("a text takes whatever is written");
                ends.push(text.len());
            }
        }
        take(room, text.len())?;
        let (text, mut start) = (Bytes::from(text), 0);
        for end in ends {
            self.texts.push(text.slice(start..end));
            start = end;
        }
        Ok(())
    }

    /// The classes, of shape [rows, classes] or [classes], fewer where a row has fewer values. All
    /// rows must have been ranked.
    fn finish(self) -> Result<Tensor, String> {
        let size = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let (rows, classes) = (size(self.rows), size(self.classes));
        let shape = if self.batches { vec![rows, classes] } else { vec![classes] };
        Tensor::new(shape, TensorData::Bytes(self.texts)).map_err(|error| error.to_string())
    }
}

fn take(room: &Room, bytes: usize) -> Result<(), String> {
    room.take(bytes).map_err(|_| {
        "takes more memory as classes than there is for an answer; ask for fewer of them, or start the gateway with a larger --max-body".to_owned()
    })
}

/// Where the `count` largest values are, the largest first.
fn largest<T>(
    values: &[T],
    count: usize,
    order: &impl Fn(&T, &T) -> std::cmp::Ordering,
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
struct Six(f64);

impl fmt::Display for Six {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        match (value.is_nan(), value.is_infinite(), value.is_sign_negative()) {
            (true, ..) => f.write_str("nan"),
            (_, true, false) => f.write_str("inf"),
            (_, true, true) => f.write_str("-inf"),
            _ => write!(f, "{value:.6}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sluice_protocol::{Datatype, Tensor, TensorData};

    use super::{MOST_VALUES, Ranking, SLICE, check};
    use crate::deployment::Output;
    use crate::room::Room;

    fn classify(
        tensor: &Tensor,
        batches: bool,
        classes: usize,
        labels: &[String],
    ) -> Result<Tensor, String> {
        classify_in(&Room::of_bytes(64 << 20), tensor, batches, classes, labels)
    }

    fn classify_in(
        room: &Room,
        tensor: &Tensor,
        batches: bool,
        classes: usize,
        labels: &[String],
    ) -> Result<Tensor, String> {
        let mut ranking = Ranking::new(tensor, batches, classes, labels, room)?;
        while !ranking.advance(room)? {}
        ranking.finish()
    }

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
        let empty = [String::new(), "dog".to_owned()];
        let ranked = classify(&scores, true, 2, &empty).unwrap();
        assert_eq!(texts(&ranked)[..2], ["2.500000:1:dog", "0.100000:0"]);
        let whole = classify(&scores, false, 9, &[]).unwrap();
        assert_eq!(whole.shape(), [6]);
        assert_eq!(texts(&whole)[..2], ["8.000000:5", "7.000000:3"]);
    }

    /// A core has others to serve while a wide row is ranked.
    #[tokio::test]
    async fn a_row_of_more_than_a_slice_is_ranked_aside() {
        for (width, aside) in [(SLICE, false), (MOST_VALUES, true)] {
            let mut scores = fp32(&[i64::try_from(width).unwrap()], &vec![0.5; width]);
            let room = Room::of_bytes(1 << 30);
            let ranked = super::classify(&mut scores, false, 2, None, room);
            let mut ranked = Box::pin(ranked);
            let at_once = tokio::select! {
                biased;
                ranked = &mut ranked => Some(ranked),
                () = std::future::ready(()) => None,
            };
            assert_eq!(at_once.is_none(), aside, "{width}");
            match at_once {
                Some(ranked) => ranked.unwrap(),
                None => ranked.as_mut().await.unwrap(),
            }
            drop(ranked);
            assert_eq!(texts(&scores), ["0.500000:0", "0.500000:1"]);
        }
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
        let one_each = classify(&wide, true, 1, &[]).unwrap_err();
        assert!(one_each.contains("1000001 rows of 1 classes"), "{one_each}");
        assert!(classify(&fp32(&[1000, 1001], &vec![0.0; 1_001_000]), true, 1, &[]).is_ok());
        let none = fp32(&[0, 3], &[]);
        assert_eq!(classify(&none, true, 2, &[]).unwrap().shape(), [0, 0]);
    }

    #[test]
    fn classes_take_their_room() {
        let scores = fp32(&[2, 3], &[0.1, 2.5, -3.0, 7.0, 7.0, 8.0]);
        let label = ["a label".repeat(10)];
        // Four of them, of which two have the label.
        for (labels, bytes) in [(&[][..], 4 * (32 + 10)), (&label[..], 4 * (32 + 10) + 2 * 71)] {
            let classified = |bytes| classify_in(&Room::of_bytes(bytes), &scores, true, 2, labels);
            assert!(classified(bytes).is_ok(), "{bytes}");
            let error = classified(bytes - 1).unwrap_err();
            assert!(error.contains("ask for fewer of them"), "{error}");
        }
    }

    #[test]
    fn what_is_known_before_a_run_is_refused_before_it() {
        let output = |datatype, shape: &[i64]| Output {
            name: "y".to_owned(),
            datatype,
            shape: shape.to_vec(),
            reshape: None,
            index: 0,
            labels: None,
        };
        for (datatype, shape, batches, rows, classes, says) in [
            (Datatype::Fp32, &[-1, 4][..], true, 1_000_000, 4, "1000000 rows of 4 classes"),
            (Datatype::Fp32, &[-1, 4], true, 250_000, 9, ""),
            (Datatype::Fp32, &[-1, -1], true, 1_000_000, 4, ""),
            (Datatype::Fp32, &[1000, 1001], false, 1, 1, "1001000 values a row"),
            (Datatype::Int8, &[1 << 40, 1 << 40], false, 1, 1, "values a row"),
            (Datatype::Fp32, &[-1], true, 5, 1, ""),
            (Datatype::Fp32, &[], true, 5, 1, ""),
            (Datatype::Fp16, &[-1, 4], true, 1, 1, "FP16, which cannot be classified"),
            (Datatype::Bytes, &[-1, -1], true, 1, 1, "BYTES, which cannot be classified"),
        ] {
            let checked = check(&output(datatype, shape), batches, rows, classes);
            let error = checked.err().unwrap_or_default();
            assert!(error.contains(says) && error.is_empty() == says.is_empty(), "{says}: {error}");
        }
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
