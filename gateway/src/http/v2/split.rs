//! Where a request's JSON ends and its binary data begins.

use bytes::Bytes;
use http::HeaderMap;

use super::HEADER_LENGTH;
use crate::error::GatewayError;

/// A request's body in its parts.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::http) enum Split {
    /// JSON, and behind it binary data, which may be empty.
    Json { json: Bytes, binary: Bytes },
    /// The data of the model's only input and nothing else.
    Raw(Bytes),
}

impl Split {
    /// Splits `body` as the header says: all of it is JSON without one, and none with 0.
    pub(in crate::http) fn new(headers: &HeaderMap, body: &Bytes) -> Result<Self, GatewayError> {
        let mut values = headers.get_all(HEADER_LENGTH).iter();
        let Some(value) = values.next() else {
            return Ok(Self::Json { json: body.clone(), binary: Bytes::new() });
        };
        let text = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        // Triton's clients read it into 32 bits.
        let length = text.and_then(|text| text.parse::<i32>().ok());
        let length = length.and_then(|length| usize::try_from(length).ok());
        match (length.filter(|&length| length <= body.len()), values.next()) {
            (Some(0), None) => Ok(Self::Raw(body.clone())),
            (Some(length), None) => {
                Ok(Self::Json { json: body.slice(..length), binary: body.slice(length..) })
            }
            (_, Some(_)) => Err(GatewayError::Invalid(
                "Inference-Header-Content-Length is given more than once".to_owned(),
            )),
            (None, None) => Err(GatewayError::Invalid(format!(
                "Inference-Header-Content-Length {value:?} is no length within the {} bytes of the body",
                body.len()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue};

    use super::super::HEADER_LENGTH;
    use super::Split;

    fn split(values: &[&str]) -> Result<Split, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER_LENGTH, HeaderValue::from_str(value).unwrap());
        }
        Split::new(&headers, &Bytes::from_static(b"{}12")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_header_says_where_json_ends() {
        let parts = |json: &'static str, binary: &'static str| Split::Json {
            json: json.into(),
            binary: binary.into(),
        };
        assert_eq!(split(&[]), Ok(parts("{}12", "")));
        assert_eq!(split(&["2"]), Ok(parts("{}", "12")));
        assert_eq!(split(&["4"]), Ok(parts("{}12", "")));
        assert_eq!(split(&["0"]), Ok(Split::Raw("{}12".into())));
    }

    #[test]
    fn other_lengths_are_refused() {
        for value in
            ["5", "-1", "+2", "2.0", "x", "", " ", "0x2", "2147483648", "99999999999999999999"]
        {
            assert!(
                split(&[value]).unwrap_err().contains("is no length within the 4 bytes"),
                "{value}"
            );
        }
        assert!(split(&["2", "2"]).unwrap_err().contains("more than once"));
    }
}
