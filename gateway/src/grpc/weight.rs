//! How much memory a ModelInferRequest takes when it is read, told from its bytes: an input of two
//! bytes takes hundreds, a number of one byte takes eight.

use bytes::Bytes;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use sluice_protocol::grpc::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use sluice_protocol::grpc::{InferParameter, InferTensorContents};

/// A list grows to twice its length, and while it does the old one is still there.
const GROWTH: usize = 3;
/// A parameter in a map, which grows as lists do and keeps an eighth of its places free.
const PARAMETER: usize = (GROWTH + 1) * size_of::<(String, InferParameter)>();

/// What a part of the message is.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Request,
    Input,
    Output,
    Contents,
}

/// About how many bytes of memory `message` takes. Its raw contents stay where they are. None when
/// a part is longer than what it is a part of: it would be read beyond its end, and only refused
/// there. What else is malformed is left to whoever reads it.
pub(super) fn of_request(mut message: &[u8]) -> Option<usize> {
    let mut weight = 0usize;
    // To ask for a field behind the last one would make an error, which takes memory.
    while !message.is_empty()
        && let Some(field) = Field::next(&mut message)
    {
        weight = weight.saturating_add(field.weight(Kind::Request)?);
    }
    Some(weight)
}

fn of_part(kind: Kind, mut part: &[u8]) -> Option<usize> {
    let mut weight = 0usize;
    while !part.is_empty() {
        weight = weight.saturating_add(Field::next(&mut part)?.weight(kind)?);
    }
    Some(weight)
}

/// A field on the wire.
struct Field<'m> {
    tag: u32,
    /// What it holds, without its length.
    bytes: &'m [u8],
    /// Whether it has a length, as lists of numbers do that are packed.
    is_packed: bool,
}

impl<'m> Field<'m> {
    /// Takes the first field out of `message`. None when it has no whole one.
    fn next(message: &mut &'m [u8]) -> Option<Self> {
        let (tag, wire_type) = decode_key(message).ok()?;
        let before = *message;
        skip_field(wire_type, tag, message, DecodeContext::default()).ok()?;
        let mut bytes = &before[..before.len() - message.len()];
        let is_packed = wire_type == WireType::LengthDelimited;
        if is_packed {
            decode_varint(&mut bytes).ok()?;
        }
        Some(Self { tag, bytes, is_packed })
    }

    /// What it takes as a field of `kind`.
    fn weight(&self, kind: Kind) -> Option<usize> {
        let length = self.bytes.len();
        // A number that is not packed is one more of its list.
        let numbers = if self.is_packed { varints(self.bytes) } else { 1 };
        let list = |count: usize, size: usize| count.saturating_mul(GROWTH * size);
        let within = |own: usize, kind| Some(own.saturating_add(of_part(kind, self.bytes)?));
        match (kind, self.tag) {
            (Kind::Request | Kind::Input, 4) | (Kind::Output, 2) => Some(PARAMETER + length),
            (Kind::Request, 5) => within(list(1, size_of::<InferInputTensor>()), Kind::Input),
            (Kind::Request, 6) => {
                within(list(1, size_of::<InferRequestedOutputTensor>()), Kind::Output)
            }
            (Kind::Request, 7) | (Kind::Contents, 8) => Some(list(1, size_of::<Bytes>())),
            (Kind::Input, 3) | (Kind::Contents, 3 | 5) => Some(list(numbers, 8)),
            (Kind::Input, 5) => within(size_of::<InferTensorContents>(), Kind::Contents),
            (Kind::Contents, 1) => Some(list(numbers, 1)),
            (Kind::Contents, 2 | 4) => Some(list(numbers, 4)),
            (Kind::Contents, 6 | 7) => Some(list(length, 1)),
            // A text, or what is skipped.
            _ => Some(length),
        }
    }
}

/// How many numbers are packed into `field`: each ends in a byte below 128.
fn varints(field: &[u8]) -> usize {
    field.iter().filter(|&&byte| byte < 0x80).count()
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use sluice_protocol::grpc::model_infer_request::InferInputTensor;
    use sluice_protocol::grpc::{InferTensorContents, ModelInferRequest};

    use super::of_request;

    /// The weight of a request with an input of these contents, without what the input itself and
    /// its contents weigh.
    fn weight(contents: InferTensorContents) -> usize {
        let request = |contents| {
            let input = InferInputTensor { contents: Some(contents), ..Default::default() };
            ModelInferRequest { inputs: vec![input], ..Default::default() }.encode_to_vec()
        };
        let of = |contents| of_request(&request(contents)).unwrap();
        of(contents) - of(InferTensorContents::default())
    }

    #[test]
    fn numbers_and_texts_weigh_what_they_take_and_not_what_they_are_written_in() {
        let longs = InferTensorContents { int64_contents: vec![1, -1, 300], ..Default::default() };
        assert_eq!(weight(longs), 3 * 3 * 8);
        let small = InferTensorContents { uint_contents: vec![7; 100], ..Default::default() };
        assert_eq!(weight(small), 3 * 100 * 4);
        let floats = InferTensorContents { fp32_contents: vec![0.5; 100], ..Default::default() };
        assert_eq!(weight(floats), 3 * 400);
        let texts =
            InferTensorContents { bytes_contents: vec!["ab".into(); 10], ..Default::default() };
        assert_eq!(weight(texts), 3 * 10 * size_of::<bytes::Bytes>());
    }

    #[test]
    fn parts_weigh_hundreds_of_bytes() {
        let inputs = vec![InferInputTensor::default(); 10];
        let parts = ModelInferRequest { inputs, ..Default::default() }.encode_to_vec();
        assert_eq!(parts.len(), 20);
        assert_eq!(of_request(&parts), Some(10 * 3 * size_of::<InferInputTensor>()));
    }
    /// Field 5 of two bytes, in which another one begins that has three.
    #[test]
    fn parts_end_where_what_they_are_in_does() {
        for malformed in [&[0x2a, 2, 0x2a, 3, 0, 0, 0][..], &[0x2a, 4, 0x2a, 2, 0x1a, 1, 0]] {
            assert_eq!(of_request(malformed), None, "{malformed:?}");
        }
        for other in [&[0x2a, 2, 0x2a, 0][..], &[0xff], &[0x2a, 0xff, 0xff, 1], &[0x2a, 2, 0x22]] {
            assert!(of_request(other).is_some(), "{other:?}");
        }
    }
}
