//! The bare words for which JSON has no number: `NaN`, `Infinity` and `-Infinity`, as Triton,
//! TensorFlow Serving and Python's `json` write them.

use super::elements::{self, text_length};
use crate::error::GatewayError;
use crate::room::Room;

const INFINITY: &[u8] = b"Infinity";
const NAN: &[u8] = b"NaN";

/// `text` with each bare word put as JSON that [`super::elements`] reads as the same number. None
/// when there is no such word, so that nothing is copied.
pub(super) fn replaced(text: &[u8], room: &Room) -> Result<Option<Vec<u8>>, GatewayError> {
    let mut out: Option<Vec<u8>> = None;
    let mut copied = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let (word, number) = match rest[0] {
            b'"' => {
                at += text_length(rest).unwrap_or(rest.len());
                continue;
            }
            // What a minus stands before has the sign already.
            b'I' if is_word(text, at, INFINITY) => (INFINITY, elements::INFINITY.as_bytes()),
            b'N' if is_word(text, at, NAN) => (NAN, &b"null"[..]),
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
        at += word.len();
        copied = at;
    }
    if let Some(out) = &mut out {
        out.extend_from_slice(&text[copied..]);
    }
    Ok(out)
}

/// Whether `word` stands in `text` at `at`, by itself but for a minus before it: as a part of
/// something else it is no number, and must not become one.
fn is_word(text: &[u8], at: usize, word: &[u8]) -> bool {
    let is_apart = |byte: Option<&u8>| byte.is_none_or(|byte| b" \t\n\r[],:{}".contains(byte));
    let before = text[..at].strip_suffix(b"-").unwrap_or(&text[..at]);
    text[at..].starts_with(word) && is_apart(before.last()) && is_apart(text.get(at + word.len()))
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
        let words = b"NaN,".repeat(99);
        let copy = super::replaced(&words, &Room::of_bytes(532)).unwrap().unwrap();
        assert_eq!((copy.len(), copy.capacity()), (495, 532));
        assert!(super::replaced(&words, &Room::of_bytes(531)).is_err());
        assert_eq!(super::replaced(b"[1]", &Room::of_bytes(0)).unwrap(), None);
    }

    #[test]
    fn parts_of_something_else_stay() {
        for text in [
            "[1Infinity]",
            "[Infinity1]",
            "[0.5Infinity]",
            "[--Infinity]",
            "[-1-Infinity]",
            "[1e-Infinity]",
            "[NaNNaN]",
            "[NaN.0]",
            "[xNaN]",
            "\"a\"NaN",
            "[Infinit]",
            "[InfinityNaN]",
        ] {
            assert_eq!(replaced(text.as_bytes()), None, "{text}");
        }
        for (text, json) in
            [("NaN", "null"), ("-Infinity", "-9e+999999"), ("{\"a\":NaN}", "{\"a\":null}")]
        {
            assert_eq!(replaced(text.as_bytes()).unwrap(), json.as_bytes(), "{text}");
        }
    }

    #[test]
    fn words_in_strings_stay() {
        for text in [r#"{"Infinity": "NaN", "a\"NaN": ["\\", 1]}"#, r#"["NaN"#, "\"", "{}", ""] {
            assert_eq!(replaced(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_but_whole_words_changes(pieces in prop::collection::vec(
            prop::sample::select(vec![
                "NaN", "Infinity", "-", "1", "0.5", "e", ",", "[", "]", "{", "}", ":", " ", "\n",
                "Na", "\"NaN\"", "\" \\\" Infinity\"", "x",
            ]),
            0..12,
        )) {
            // What stands between marks and white space, a minus before it apart, is a word or is not.
            let mut expected = String::new();
            let text = pieces.concat();
            let mut token = String::new();
            let end_token = |token: &mut String, out: &mut String| {
                let (minus, rest) = match token.strip_prefix('-') {
                    Some(rest) => ("-", rest),
                    None => ("", token.as_str()),
                };
                let rest = match rest {
                    "NaN" => "null",
                    "Infinity" => "9e+999999",
                    other => other,
                };
                out.push_str(minus);
                out.push_str(rest);
                token.clear();
            };
            for piece in &pieces {
                match *piece {
                    "," | "[" | "]" | "{" | "}" | ":" | " " | "\n" => {
                        end_token(&mut token, &mut expected);
                        expected.push_str(piece);
                    }
                    other => token.push_str(other),
                }
            }
            end_token(&mut token, &mut expected);
            let changed = replaced(text.as_bytes()).map(|json| String::from_utf8(json).unwrap());
            prop_assert_eq!(changed.unwrap_or_else(|| text.clone()), expected);
        }

        #[test]
        fn json_without_words_stays(value in "[\\[\\]{},:\"\\\\NaInfity0-9 -]{0,60}") {
            if serde_json::from_str::<serde_json::Value>(&value).is_ok() {
                prop_assert_eq!(replaced(value.as_bytes()), None);
            }
        }
    }
}
