//! V1's form of bytes in JSON: an object of the one key `b64` and a text in base64.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

/// The padding at the end may be left out, as TensorFlow Serving has it.
const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The object as it is read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Base64<'t> {
    #[serde(borrow)]
    b64: Cow<'t, str>,
}

impl Base64<'_> {
    /// Whether `text` begins with such an object.
    pub(super) fn leads(text: &str) -> bool {
        let mut objects = serde_json::Deserializer::from_str(text).into_iter::<Base64<'_>>();
        matches!(objects.next(), Some(Ok(_)))
    }

    /// Whether an object is of this form.
    pub(super) fn is(object: &Map<String, Value>) -> bool {
        object.len() == 1 && object.get("b64").is_some_and(Value::is_string)
    }

    /// The bytes that it stands for. White space inside is left out.
    pub(super) fn decode(&self) -> Result<Bytes, String> {
        let is_space = |byte: &u8| byte.is_ascii_whitespace();
        let decoded = if self.b64.bytes().any(|byte| is_space(&byte)) {
            let dense: Vec<u8> = self.b64.bytes().filter(|byte| !is_space(byte)).collect();
            ENGINE.decode(dense)
        } else {
            ENGINE.decode(&*self.b64)
        };
        decoded.map(Into::into).map_err(|error| format!("Unable to base64 decode: {error}"))
    }
}

/// The object as it is written.
pub(super) struct AsBase64<'b>(pub(super) &'b [u8]);

impl Serialize for AsBase64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Object {
            b64: String,
        }
        Object { b64: ENGINE.encode(self.0) }.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{AsBase64, Base64};

    fn decode(text: &str) -> Result<Vec<u8>, String> {
        let object: Base64<'_> =
            serde_json::from_str(text).map_err(|error| format!("no object: {error}"))?;
        Ok(object.decode()?.to_vec())
    }

    #[test]
    fn padding_and_white_space_may_be_as_they_are() {
        for text in ["aGk=", "aGk", " a\\nG\\tk = "] {
            assert_eq!(decode(&format!("{{\"b64\": \"{text}\"}}")), Ok(b"hi".to_vec()), "{text:?}");
        }
        assert_eq!(decode(r#"{"b64": ""}"#), Ok(Vec::new()));
    }

    #[test]
    fn other_texts_and_objects_are_refused() {
        for text in ["a", "aGk*", "aG=k", "_-=="] {
            let error = decode(&format!("{{\"b64\": \"{text}\"}}")).unwrap_err();
            assert!(error.starts_with("Unable to base64 decode"), "{text:?}: {error}");
        }
        for text in [r#"{"b64": 1}"#, r#"{"b64": "aGk=", "x": 1}"#, r#"{"x": "aGk="}"#, "{}"] {
            assert!(decode(text).unwrap_err().starts_with("no object"), "{text}");
            assert!(!Base64::leads(text), "{text}");
        }
        assert!(Base64::leads(r#"{"b64": "aGk="}, 1]"#));
    }

    proptest! {
        #[test]
        fn bytes_round_trip(bytes: Vec<u8>) {
            let text = serde_json::to_string(&AsBase64(&bytes)).unwrap();
            prop_assert_eq!(decode(&text), Ok(bytes));
        }
    }
}
