//! Elements written as JSON, straight into the buffer that is sent.

use std::ops::Range;

use bytes::Bytes;
use serde::Serialize;
use sluice_protocol::{Datatype, TensorData};

use crate::dialect::NanForm;

/// Whether elements of `datatype` can be written in JSON at all. The 16-bit floats cannot, in
/// either direction, as the protocol has it.
pub(in crate::http) const fn has_json_form(datatype: Datatype) -> bool {
    !matches!(datatype, Datatype::Fp16 | Datatype::Bf16)
}

/// About how many bytes [`write()`] makes of all of `data`: never less for numbers, and for
/// `BYTES` as long as nothing in them needs an escape.
pub(in crate::http) fn size_hint(data: &TensorData) -> usize {
    // The longest number of each type, and a comma.
    let each = match data.datatype() {
        Datatype::Uint8 => 4,
        Datatype::Int8 => 5,
        Datatype::Bool | Datatype::Uint16 => 6,
        Datatype::Int16 => 7,
        Datatype::Uint32 => 11,
        Datatype::Int32 => 12,
        Datatype::Fp32 => 17,
        Datatype::Uint64 | Datatype::Int64 => 21,
        Datatype::Fp64 => 25,
        Datatype::Fp16 | Datatype::Bf16 => 0,
        Datatype::Bytes => 3,
    };
    let texts = match data {
        TensorData::Bytes(values) => values.iter().map(Bytes::len).sum(),
        _ => 0,
    };
    data.len() * each + texts
}

/// Appends the elements in `range` to `out`, with commas between them. Errors are to stand behind
/// an output's name: elements that JSON cannot carry.
pub(in crate::http) fn write(
    out: &mut Vec<u8>,
    data: &TensorData,
    range: Range<usize>,
    nan: NanForm,
) -> Result<(), String> {
    match data {
        TensorData::Bool(v) => list(out, &v[range], plain),
        TensorData::Uint8(v) => list(out, &v[range], plain),
        TensorData::Uint16(v) => list(out, &v[range], plain),
        TensorData::Uint32(v) => list(out, &v[range], plain),
        TensorData::Uint64(v) => list(out, &v[range], plain),
        TensorData::Int8(v) => list(out, &v[range], plain),
        TensorData::Int16(v) => list(out, &v[range], plain),
        TensorData::Int32(v) => list(out, &v[range], plain),
        TensorData::Int64(v) => list(out, &v[range], plain),
        TensorData::Fp32(v) => list(out, &v[range], |out, value| match value.is_finite() {
            true => plain(out, value),
            false => word(out, f64::from(*value), nan),
        }),
        TensorData::Fp64(v) => list(out, &v[range], |out, value| match value.is_finite() {
            true => plain(out, value),
            false => word(out, *value, nan),
        }),
        TensorData::Fp16(_) | TensorData::Bf16(_) => Err(no_json_form(data.datatype())),
        TensorData::Bytes(v) => list(out, &v[range], text),
    }
}

/// Why elements of `datatype` are not in a JSON answer.
pub(in crate::http) fn no_json_form(datatype: Datatype) -> String {
    format!("{datatype} has no JSON form; ask for it as binary data")
}

fn list<T>(
    out: &mut Vec<u8>,
    values: &[T],
    element: impl Fn(&mut Vec<u8>, &T) -> Result<(), String>,
) -> Result<(), String> {
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        element(out, value)?;
    }
    Ok(())
}

fn plain<T: Serialize>(out: &mut Vec<u8>, value: &T) -> Result<(), String> {
    serde_json::to_writer(out, value).map_err(|error| error.to_string())
}

/// NaN and the infinities, which JSON has no numbers for.
#[expect(clippy::unnecessary_wraps, reason = "one of several ways to write an element")]
fn word(out: &mut Vec<u8>, value: f64, nan: NanForm) -> Result<(), String> {
    out.extend_from_slice(match nan {
        NanForm::Null => b"null",
        NanForm::Words if value.is_nan() => b"NaN",
        NanForm::Words if value > 0.0 => b"Infinity",
        NanForm::Words => b"-Infinity",
    });
    Ok(())
}

/// Bytes that are no text are refused: whatever stood in their place would be another answer.
fn text(out: &mut Vec<u8>, value: &Bytes) -> Result<(), String> {
    let text = std::str::from_utf8(value)
        .map_err(|_| "holds bytes that are no UTF-8; ask for it as binary data".to_owned())?;
    plain(out, &text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sluice_protocol::TensorData;

    use super::{size_hint, write};
    use crate::dialect::NanForm;
    use crate::http::elements::{Bounds, parse};

    fn written(data: &TensorData, nan: NanForm) -> Result<String, String> {
        let mut out = Vec::new();
        write(&mut out, data, 0..data.len(), nan)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn what_json_has_no_number_for() {
        let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e-40];
        let singles = TensorData::Fp32(odd.to_vec());
        assert_eq!(written(&singles, NanForm::Null).unwrap(), "null,null,null,-0.0,1e-40");
        assert_eq!(written(&singles, NanForm::Words).unwrap(), "NaN,Infinity,-Infinity,-0.0,1e-40");
        let doubles = TensorData::Fp64(vec![f64::NEG_INFINITY, f64::NAN]);
        assert_eq!(written(&doubles, NanForm::Words).unwrap(), "-Infinity,NaN");
        let says = written(&TensorData::Fp16(vec![1]), NanForm::Null).unwrap_err();
        assert!(says.contains("no JSON form"), "{says}");
        let bytes = TensorData::Bytes(vec![b"\xff".as_slice().into()]);
        assert!(written(&bytes, NanForm::Null).unwrap_err().contains("no UTF-8"));
    }

    #[test]
    fn a_part_is_written() {
        let mut out = Vec::new();
        let texts = TensorData::Bytes(["a", "\"\0", "c"].map(Into::into).to_vec());
        write(&mut out, &texts, 1..3, NanForm::Null).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), r#""\"\u0000","c""#);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_fits_the_hint(
            single in prop::collection::vec(any::<f32>().prop_filter("finite", |x| x.is_finite()), 0..20),
            double in prop::collection::vec(any::<f64>().prop_filter("finite", |x| x.is_finite()), 0..20),
            whole in prop::collection::vec(any::<i64>(), 0..20),
            small in prop::collection::vec(any::<i8>(), 0..20),
            truths in prop::collection::vec(any::<bool>(), 0..20),
            texts in prop::collection::vec("\\PC*", 0..5),
        ) {
            let texts: Vec<_> = texts.into_iter().map(bytes::Bytes::from).collect();
            for data in [
                TensorData::Fp32(single), TensorData::Fp64(double), TensorData::Int64(whole),
                TensorData::Int8(small), TensorData::Bool(truths), TensorData::Bytes(texts),
            ] {
                let list = format!("[{}]", written(&data, NanForm::Words).unwrap());
                if !matches!(data, TensorData::Bytes(_)) {
                    prop_assert!(list.len() <= size_hint(&data) + 2, "{}", list);
                }
                let bounds = Bounds { elements: data.len(), infinity: false };
                prop_assert_eq!(parse(&list, data.datatype(), bounds).unwrap().data, data);
            }
        }
    }
}
