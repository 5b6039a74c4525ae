//! How messages of the generated services are written and read.

use std::marker::PhantomData;

use bytes::Buf;
use prost::Message;
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Protobuf, where a message that cannot be read is its sender's fault, and one that is written
/// takes as much memory as it needs.
#[derive(Debug)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

/// Either end of a [`Codec`].
#[derive(Debug)]
pub struct Half<T>(PhantomData<T>);

/// Reads one message. One that is malformed, cut off or nested too deeply is an
/// `INVALID_ARGUMENT`.
pub fn decode<T: Message + Default>(buffer: impl Buf) -> Result<T, Status> {
    T::decode(buffer).map_err(|error| Status::invalid_argument(error.to_string()))
}

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = Half<T>;
    type Decoder = Half<U>;

    fn encoder(&mut self) -> Half<T> {
        Half(PhantomData)
    }

    fn decoder(&mut self) -> Half<U> {
        Half(PhantomData)
    }
}

impl<T: Message> Encoder for Half<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // Growing by doubling would copy large messages several times.
        out.reserve(message.encoded_len());
        message.encode(out).map_err(|error| Status::internal(error.to_string()))
    }
}

impl<T: Message + Default> Decoder for Half<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        decode(buffer).map(Some)
    }
}
