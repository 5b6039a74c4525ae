//! The bare words for which JSON has no number: `NaN`, `Infinity` and `Inf`, a minus before them, as
//! Triton, TensorFlow Serving and Python's `json` read them.

use std::ops::Range;

use super::elements::{self, text_length};
use crate::error::GatewayError;
use crate::room::Room;

const INFINITY: &[u8] = b"Infinity";
const INF: &[u8] = b"Inf";
const NAN: &[u8] = b"NaN";

/// A bare word in a text.
struct Word {
    /// Where it begins and ends.
    at: Range<usize>,
    number: &'static [u8],
}

/// `text` with each bare word put as JSON that [`super::elements`] reads as the same number. None
/// when there is no such word, so that nothing is copied.
pub(super) fn replaced(text: &[u8], room: &Room) -> Result<Option<Vec<u8>>, GatewayError> {
    let mut out: Option<Vec<u8>> = None;
    let (mut at, mut copied, mut has_ours) = (0, 0, false);
    while at < text.len() {
        if text[at] == b'"' {
            at += text_length(&text[at..]).unwrap_or(text.len() - at);
            continue;
        }
        let Some(word) = word(text, at) else {
            has_ours |= text[at] == b'9' && is_word(text, at, elements::INFINITY.as_bytes());
            at += 1;
            continue;
        };
        let out = match &mut out {
            Some(out) => out,
            None => {
                // The shortest words have three letters and something between them, and become five.
                let most = text.len() + text.len() / 2 + 1;
                room.take(most)?;
                out.insert(Vec::with_capacity(most))
            }
        };
        out.extend_from_slice(&text[copied..word.at.start]);
        out.extend_from_slice(word.number);
        (at, copied) = (word.at.end, word.at.end);
    }
    let Some(out) = &mut out else { return Ok(None) };
    if has_ours {
        let number = elements::INFINITY;
        return Err(GatewayError::Invalid(format!("{number} is out of the range of FP64")));
    }
    out.extend_from_slice(&text[copied..]);
    room.note_words();
    Ok(Some(std::mem::take(out)))
}

/// The word whose first letter is at `at`.
fn word(text: &[u8], at: usize) -> Option<Word> {
    let infinity = elements::INFINITY.as_bytes();
    let (word, number) = match text[at] {
        // What a minus stands before has the sign already.
        b'I' => ([INFINITY, INF].into_iter().find(|word| is_word(text, at, word))?, infinity),
        b'N' => (Some(NAN).filter(|word| is_word(text, at, word))?, &b"null"[..]),
        _ => return None,
    };
    // NaN has no sign.
    let has_minus = word == NAN && text[..at].ends_with(b"-");
    Some(Word { at: at - usize::from(has_minus)..at + word.len(), number })
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

    use crate::http::elements::{Bounds, parse};
    use crate::room::Room;

    fn replaced(text: &[u8]) -> Option<Vec<u8>> {
        super::replaced(text, &Room::new(1000)).unwrap()
    }

    #[test]
    fn bare_words_become_numbers() {
        let text = r#"[NaN, Infinity,-Infinity ,1, "NaN",Inf,-Inf,-NaN]"#;
        let json = replaced(text.as_bytes()).unwrap();
        assert_eq!(json, br#"[null, 9e999,-9e999 ,1, "NaN",9e999,-9e999,null]"#);
        let bounds = Bounds { elements: 3, infinity: true };
        let elements = parse("[null,9e999,-9e999]", Datatype::Fp32, bounds).unwrap();
        let TensorData::Fp32(values) = elements.data else { panic!("FP32 was asked for") };
        assert!(values[0].is_nan());
        assert_eq!(values[1..], [f32::INFINITY, f32::NEG_INFINITY]);
        let elements = parse("[9e999,-9e999]", Datatype::Fp64, bounds).unwrap();
        assert_eq!(elements.data, TensorData::Fp64(vec![f64::INFINITY, f64::NEG_INFINITY]));
        let error = parse("[9e999,1e999]", Datatype::Fp64, bounds).unwrap_err();
        assert!(error.contains("element 1e999 is out of the range"), "{error}");
    }

    /// What stands for a word is no word where a caller writes it.
    #[test]
    fn a_caller_s_number_is_no_word() {
        for text in ["[9e999]", "[-9e999,1]", "{\"9e999\":\"Infinity\"}"] {
            assert_eq!(replaced(text.as_bytes()), None, "{text}");
        }
        for (text, fine) in [
            ("[9e999,Infinity]", false),
            ("[NaN,-9e999]", false),
            ("[\"9e999\",NaN]", true),
            ("[19e999,9e9999,NaN]", true),
        ] {
            let room = Room::new(1000);
            let replaced = super::replaced(text.as_bytes(), &room);
            assert_eq!((replaced.is_ok(), room.holds_words()), (fine, fine), "{text}");
        }
    }

    #[test]
    fn a_copy_takes_its_room() {
        for (word, length) in [("NaN,", 5 * 99), ("Inf,", 6 * 99)] {
            let words = word.repeat(99);
            let room = Room::of_bytes(595);
            let copy = super::replaced(words.as_bytes(), &room).unwrap().unwrap();
            assert_eq!((copy.len(), copy.capacity()), (length, 595));
            assert!(super::replaced(words.as_bytes(), &Room::of_bytes(594)).is_err());
        }
        let one = replaced(b"Inf").unwrap();
        assert_eq!((&one[..], one.capacity()), (&b"9e999"[..], 5));
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
            "[Infi]",
            "[InfInf]",
            "[--NaN]",
        ] {
            assert_eq!(replaced(text.as_bytes()), None, "{text}");
        }
        for (text, json) in
            [("NaN", "null"), ("-Infinity", "-9e999"), ("{\"a\":NaN}", "{\"a\":null}")]
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
                "NaN", "Infinity", "Inf", "-", "1", "0.5", "e", ",", "[", "]", "{", "}", ":", " ", "\n",
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
                let (minus, rest) = match rest {
                    "NaN" => ("", "null"),
                    "Infinity" | "Inf" => (minus, "9e999"),
                    other => (minus, other),
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
