//! The bare words for which JSON has no number: `NaN`, `Infinity` and `-Infinity`, as Triton,
//! TensorFlow Serving and Python's `json` write them.

use crate::error::GatewayError;
use crate::http::elements::INFINITY;
use crate::room::Room;

/// `text` with each bare word put as JSON that [`super::elements`] reads as the same number. None when there is no such word, so that nothing is copied.
pub(super) fn replaced(text: &[u8], room: &Room) -> Result<Option<Vec<u8>>, GatewayError> {
    let mut out: Option<Vec<u8>> = None;
    let mut copied = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let (length, number) = match rest[0] {
            b'"' => {
                at += string_length(rest);
                continue;
            }
            // What a minus stands before has the sign already.
            b'I' if rest.starts_with(b"Infinity") => (8, INFINITY.as_bytes()),
            b'N' if rest.starts_with(b"NaN") => (3, &b"null"[..]),
            _ => {
                at += 1;
                continue;
            }
        };
        let out = match &mut out {
            Some(out) => out,
            None => {
                // NaN has three letters and becomes four; Infinity grows by less.
                let most = text.len() / 3 * 4 + 4;
                room.take(most)?;
                out.insert(Vec::with_capacity(most))
            }
        };
        out.extend_from_slice(&text[copied..at]);
        out.extend_from_slice(number);
        at += length;
        copied = at;
    }
    if let Some(out) = &mut out {
        out.extend_from_slice(&text[copied..]);
    }
    Ok(out)
}

/// How long the string is that `text` begins with, quotes included.
fn string_length(text: &[u8]) -> usize {
    let mut escaped = false;
    let end = text[1..].iter().position(|&byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |end| end + 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sluice_protocol::{Datatype, TensorData};

    use crate::http::elements::parse;
    use crate::room::Room;

    fn replaced(text: &[u8]) -> Option<Vec<u8>> {
        super::replaced(text, &Room::new(1000)).unwrap()
    }

    #[test]
    fn bare_words_become_numbers() {
        let text = r#"[NaN, Infinity,-Infinity ,1, "NaN"]"#;
        let json = replaced(text.as_bytes()).unwrap();
        assert_eq!(json, br#"[null, 9e+999999,-9e+999999 ,1, "NaN"]"#);
        let elements = parse("[null,9e+999999,-9e+999999]", Datatype::Fp32, 3).unwrap();
        let TensorData::Fp32(values) = elements.data else { panic!("FP32 was asked for") };
        assert!(values[0].is_nan());
        assert_eq!(values[1..], [f32::INFINITY, f32::NEG_INFINITY]);
        let elements = parse("[9e+999999,-9e+999999]", Datatype::Fp64, 2).unwrap();
        assert_eq!(elements.data, TensorData::Fp64(vec![f64::INFINITY, f64::NEG_INFINITY]));
    }

    #[test]
    fn a_copy_takes_its_room() {
        let words = b"NaN".repeat(100);
        let copy = super::replaced(&words, &Room::of_bytes(404)).unwrap().unwrap();
        assert_eq!((copy.len(), copy.capacity()), (400, 404));
        assert!(super::replaced(&words, &Room::of_bytes(403)).is_err());
        assert_eq!(super::replaced(b"[1]", &Room::of_bytes(0)).unwrap(), None);
    }

    #[test]
    fn words_in_strings_stay() {
        for text in [r#"{"Infinity": "NaN", "a\"NaN": ["\\", 1]}"#, r#"["NaN"#, "\"", "{}", ""] {
            assert_eq!(replaced(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn json_without_words_stays(value in "[\\[\\]{},:\"\\\\NaInfity0-9 -]{0,60}") {
            if serde_json::from_str::<serde_json::Value>(&value).is_ok() {
                prop_assert_eq!(replaced(value.as_bytes()), None);
            }
        }
    }
}
