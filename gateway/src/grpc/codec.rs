//! How infer messages are read and written: questions within bounds, answers without a copy of
//! their tensors on the way.

use std::marker::PhantomData;

use bytes::{Buf, BufMut};
use prost::Message;
use prost::encoding::{
    DecodeContext, WireType, decode_key, encode_key, encode_varint, encoded_len_varint, key_len,
    skip_field, string,
};
use sluice_protocol::TensorData;
use sluice_protocol::codec::{Codec as Plain, Half, decode};
use sluice_protocol::grpc::{
    ModelInferRequest, ModelInferResponse, RepositoryModelLoadRequest, RepositoryModelLoadResponse,
};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::weight;
use crate::room::Room;

/// Fields of a question, of its inputs and of its outputs, without their elements. Each takes
/// many times its two bytes when it is read, so their number is bounded beforehand.
const MOST_PARTS: usize = 65_536;
/// Parameters of a load: a configuration and files. Each takes a hundred times its four bytes when it
/// is read.
const MOST_PARAMETERS: usize = 4096;
/// What most messages fit into, in bytes. Larger ones get what they need.
pub(super) const BUFFER: usize = 1024;
/// Answers are sent on when so much of them is there.
const ENOUGH: usize = 32 * 1024;

/// Reads [`Question`]s and writes `T`s, which are [`Reply`]s or [`StreamReply`]s.
#[derive(Debug)]
pub(super) struct InferCodec<T> {
    max_body: usize,
    written: PhantomData<T>,
}

/// The end that writes.
#[derive(Debug)]
pub(super) struct Writer<T>(PhantomData<T>);

/// The end that reads messages of a bounded length.
#[derive(Debug)]
pub(super) struct Reader {
    max_body: usize,
}

/// A ModelInferRequest, its length on the wire, and the room that is left for what is made of it.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) wire: ModelInferRequest,
    pub(super) length: usize,
    pub(super) room: Room,
}

/// A ModelInferResponse, but for raw contents that are written from the tensors themselves.
#[derive(Debug, Default)]
pub(super) struct Reply {
    pub(super) message: ModelInferResponse,
    pub(super) raw: Vec<TensorData>,
}

/// A ModelStreamInferResponse.
#[derive(Debug)]
pub(super) struct StreamReply {
    pub(super) error_message: String,
    pub(super) reply: Reply,
}

/// A message that writes itself.
pub(super) trait Written {
    /// Its length in bytes.
    fn length(&self) -> usize;
    /// Appends it.
    fn write(&self, out: &mut impl BufMut);
}

impl<T> InferCodec<T> {
    /// One for messages of `max_body` bytes at most.
    pub(super) const fn new(max_body: usize) -> Self {
        Self { max_body, written: PhantomData }
    }
}

impl<T: Written + Send + 'static> Codec for InferCodec<T> {
    type Encode = T;
    type Decode = Question;
    type Encoder = Writer<T>;
    type Decoder = Reader;

    fn encoder(&mut self) -> Writer<T> {
        Writer(PhantomData)
    }

    fn decoder(&mut self) -> Reader {
        Reader { max_body: self.max_body }
    }
}

impl<T: Written> Encoder for Writer<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(message.length());
        message.write(out);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, ENOUGH)
    }
}

impl Decoder for Reader {
    type Item = Question;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Question>, Status> {
        read(buffer, self.max_body).map(Some)
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, ENOUGH)
    }
}

/// Reads loads of a bounded number of parameters, and writes what comes of them.
#[derive(Debug)]
pub(super) struct LoadCodec;

/// The end that reads loads.
#[derive(Debug)]
pub(super) struct LoadReader;

impl Codec for LoadCodec {
    type Encode = RepositoryModelLoadResponse;
    type Decode = RepositoryModelLoadRequest;
    type Encoder = Half<RepositoryModelLoadResponse>;
    type Decoder = LoadReader;

    fn encoder(&mut self) -> Self::Encoder {
        Plain::<RepositoryModelLoadResponse, RepositoryModelLoadRequest>::default().encoder()
    }

    fn decoder(&mut self) -> LoadReader {
        LoadReader
    }
}

impl Decoder for LoadReader {
    type Item = RepositoryModelLoadRequest;
    type Error = Status;

    fn decode(
        &mut self,
        buffer: &mut DecodeBuf<'_>,
    ) -> Result<Option<RepositoryModelLoadRequest>, Status> {
        check_parameters(buffer.chunk())?;
        decode(buffer).map(Some)
    }
}

/// Refuses a load of too many parameters before memory is taken for them.
fn check_parameters(message: &[u8]) -> Result<(), Status> {
    let mut left = MOST_PARAMETERS;
    count(message, &mut left, |_, _, _| Some(())).ok_or_else(|| {
        Status::invalid_argument(format!("a load has more than {MOST_PARAMETERS} parameters"))
    })
}

/// Reads a message that is there as a whole, without a copy of its tensors.
pub(super) fn read(message: impl Buf, max_body: usize) -> Result<Question, Status> {
    let (length, room) = (message.remaining(), Room::new(max_body));
    check_parts(message.chunk())?;
    let weight = weight::of_request(message.chunk()).ok_or_else(malformed)?;
    room.take(weight)?;
    Ok(Question { wire: decode(message)?, length, room })
}

fn malformed() -> Status {
    let reason = "a part of it is longer than what it is in";
    Status::invalid_argument(format!("failed to decode Protobuf message: {reason}"))
}

/// Numbers of fields on the wire.
mod field {
    pub(super) const INPUTS: u32 = 5;
    pub(super) const OUTPUTS: u32 = 6;
    pub(super) const RAW_OUTPUT_CONTENTS: u32 = 6;
    pub(super) const ERROR_MESSAGE: u32 = 1;
    pub(super) const INFER_RESPONSE: u32 = 2;
}

impl Written for Reply {
    fn length(&self) -> usize {
        let raw = self.raw.iter().map(|data| {
            let length = data.raw_len();
            key_len(field::RAW_OUTPUT_CONTENTS) + encoded_len_varint(length as u64) + length
        });
        self.message.encoded_len() + raw.sum::<usize>()
    }

    fn write(&self, out: &mut impl BufMut) {
        self.message.encode_raw(out);
        for data in &self.raw {
            write_header(field::RAW_OUTPUT_CONTENTS, data.raw_len(), out);
            data.write_raw(out);
        }
    }
}

impl Written for StreamReply {
    fn length(&self) -> usize {
        let reply = self.reply.length();
        let error = match self.error_message.is_empty() {
            true => 0,
            false => string::encoded_len(field::ERROR_MESSAGE, &self.error_message),
        };
        error + key_len(field::INFER_RESPONSE) + encoded_len_varint(reply as u64) + reply
    }

    fn write(&self, out: &mut impl BufMut) {
        if !self.error_message.is_empty() {
            string::encode(field::ERROR_MESSAGE, &self.error_message, out);
        }
        write_header(field::INFER_RESPONSE, self.reply.length(), out);
        self.reply.write(out);
    }
}

fn write_header(tag: u32, length: usize, out: &mut impl BufMut) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

/// Refuses a message of too many parts before memory is taken for them. What is malformed here is
/// left to whoever reads it.
fn check_parts(message: &[u8]) -> Result<(), Status> {
    let mut left = MOST_PARTS;
    let counted = count(message, &mut left, |tag, inner, left| match tag {
        field::INPUTS | field::OUTPUTS => count(inner, left, |_, _, _| Some(())),
        _ => Some(()),
    });
    match counted {
        Some(()) => Ok(()),
        None => Err(Status::invalid_argument(format!(
            "the request has more than {MOST_PARTS} inputs, outputs, dimensions and parameters"
        ))),
    }
}

/// Takes the fields of `message` from `left` and shows `look` those with a length; None when
/// there are more.
fn count(
    mut message: &[u8],
    left: &mut usize,
    look: impl Fn(u32, &[u8], &mut usize) -> Option<()>,
) -> Option<()> {
    while !message.is_empty() {
        let Ok((tag, wire_type)) = decode_key(&mut message) else { return Some(()) };
        *left = left.checked_sub(1)?;
        let before = message;
        if skip_field(wire_type, tag, &mut message, DecodeContext::default()).is_err() {
            return Some(());
        }
        if wire_type == WireType::LengthDelimited {
            let mut inner = &before[..before.len() - message.len()];
            let _length = prost::encoding::decode_varint(&mut inner);
            look(tag, inner, left)?;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message;
    use sluice_protocol::TensorData;
    use sluice_protocol::grpc::model_infer_request::InferInputTensor;
    use sluice_protocol::grpc::{ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};

    use super::{
        MOST_PARAMETERS, MOST_PARTS, Reply, StreamReply, Written, check_parameters, check_parts,
    };

    #[test]
    fn a_reply_is_written_as_the_message_that_it_stands_for() {
        let message = ModelInferResponse { id: "q".to_owned(), ..Default::default() };
        let texts = TensorData::Bytes(vec![Bytes::from_static(b"ab"), Bytes::new()]);
        let floats = TensorData::Fp32(vec![1.0; 300]);
        let contents = |data: &TensorData| {
            let mut raw = Vec::new();
            data.write_raw(&mut raw);
            Bytes::from(raw)
        };
        let whole = ModelInferResponse {
            raw_output_contents: vec![contents(&texts), contents(&floats)],
            ..message.clone()
        };
        let reply = Reply { message, raw: vec![texts, floats] };
        let mut written = Vec::new();
        reply.write(&mut written);
        assert_eq!((written.len(), &written), (reply.length(), &whole.encode_to_vec()));
        for error_message in ["", "no such model"] {
            let error_message = error_message.to_owned();
            let streamed = ModelStreamInferResponse {
                error_message: error_message.clone(),
                infer_response: Some(whole.clone()),
            };
            let again = Reply { message: reply.message.clone(), raw: reply.raw.clone() };
            let reply = StreamReply { error_message, reply: again };
            let mut written = Vec::new();
            reply.write(&mut written);
            assert_eq!((written.len(), written), (reply.length(), streamed.encode_to_vec()));
        }
    }

    #[test]
    fn parts_are_bounded_wherever_they_are() {
        let inputs = |count| {
            let inputs = vec![InferInputTensor::default(); count];
            ModelInferRequest { inputs, ..Default::default() }.encode_to_vec()
        };
        assert!(check_parts(&inputs(MOST_PARTS)).is_ok());
        assert!(check_parts(&inputs(MOST_PARTS + 1)).is_err());
        // An input of as many empty parameters: field 4 in field 5.
        let nested = |count: usize| {
            let inner = [0x22, 0].repeat(count);
            let mut message = vec![0x2a];
            prost::encoding::encode_varint(inner.len() as u64, &mut message);
            [message, inner].concat()
        };
        assert!(check_parts(&nested(MOST_PARTS - 1)).is_ok());
        assert!(check_parts(&nested(MOST_PARTS)).is_err());
        for malformed in [&[0xff][..], &[0x2a, 0xff, 0xff, 1], &[0x2a, 2, 0x22]] {
            assert!(check_parts(malformed).is_ok());
        }
    }

    #[test]
    fn parameters_of_a_load_are_bounded() {
        let entries = |count: usize| [0x1a, 0].repeat(count);
        assert!(check_parameters(&entries(MOST_PARAMETERS)).is_ok());
        assert!(check_parameters(&entries(MOST_PARAMETERS + 1)).is_err());
    }
}
