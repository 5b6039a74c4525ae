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

/// About how many bytes of memory `message` takes. Its raw contents stay where they are.
pub(super) fn of_request(message: &[u8]) -> usize {
    weigh(Kind::Request, message)
}

/// What is malformed is left to whoever reads it.
fn weigh(kind: Kind, mut message: &[u8]) -> usize {
    let mut weight = 0usize;
    while !message.is_empty() {
        let Ok((tag, wire_type)) = decode_key(&mut message) else { break };
        let before = message;
        if skip_field(wire_type, tag, &mut message, DecodeContext::default()).is_err() {
            break;
        }
        let mut field = &before[..before.len() - message.len()];
        let is_packed = wire_type == WireType::LengthDelimited;
        if is_packed && decode_varint(&mut field).is_err() {
            break;
        }
        weight = weight.saturating_add(weigh_field(kind, tag, field, is_packed));
    }
    weight
}

fn weigh_field(kind: Kind, tag: u32, field: &[u8], is_packed: bool) -> usize {
    // A number that is not packed is one more of its list.
    let numbers = if is_packed { varints(field) } else { 1 };
    let list = |count: usize, size: usize| count.saturating_mul(GROWTH * size);
    match (kind, tag) {
        (Kind::Request | Kind::Input, 4) | (Kind::Output, 2) => PARAMETER + field.len(),
        (Kind::Request, 5) => {
            let inner = weigh(Kind::Input, field);
            list(1, size_of::<InferInputTensor>()).saturating_add(inner)
        }
        (Kind::Request, 6) => {
            let inner = weigh(Kind::Output, field);
            list(1, size_of::<InferRequestedOutputTensor>()).saturating_add(inner)
        }
        (Kind::Request, 7) | (Kind::Contents, 8) => list(1, size_of::<Bytes>()),
        (Kind::Input, 3) | (Kind::Contents, 3 | 5) => list(numbers, 8),
        (Kind::Input, 5) => {
            size_of::<InferTensorContents>().saturating_add(weigh(Kind::Contents, field))
        }
        (Kind::Contents, 1) => list(numbers, 1),
        (Kind::Contents, 2 | 4) => list(numbers, 4),
        (Kind::Contents, 6 | 7) => list(field.len(), 1),
        // A text, or what is skipped.
        _ => field.len(),
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
        of_request(&request(contents)) - of_request(&request(InferTensorContents::default()))
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
        assert_eq!(of_request(&parts), 10 * 3 * size_of::<InferInputTensor>());
        for malformed in [&[0xff][..], &[0x2a, 0xff, 0xff, 1], &[0x2a, 2, 0x22]] {
            assert!(of_request(malformed) < 2000);
        }
    }
}
