//! As much of HTTP/2 as one call after the other takes, without allocating.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use prost::Message;
use sluice_protocol::grpc::model_infer_request::InferInputTensor;
use sluice_protocol::grpc::{InferTensorContents, ModelInferRequest};

use crate::Caller;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// A kept connection over which one gRPC call is made.
pub(crate) struct Http2 {
    stream: TcpStream,
    /// A HEADERS and a DATA frame; the stream's number is written into both.
    request: Vec<u8>,
    data_at: usize,
    next_stream: u32,
    payload: Vec<u8>,
}

impl Http2 {
    pub(crate) fn new(address: SocketAddr, message: &[u8]) -> Self {
        let mut block = vec![0x83, 0x86];
        literal(&mut block, Some(4), "", "/inference.GRPCInferenceService/ModelInfer");
        literal(&mut block, Some(1), "", "x");
        literal(&mut block, None, "content-type", "application/grpc");
        literal(&mut block, None, "te", "trailers");
        let mut request = Vec::new();
        frame(&mut request, HEADERS, END_HEADERS, &block);
        let data_at = request.len();
        let length = u32::try_from(message.len()).unwrap();
        let body = [&[0][..], &length.to_be_bytes(), message].concat();
        frame(&mut request, DATA, END_STREAM, &body);
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut opening = PREFACE.to_vec();
        frame(&mut opening, SETTINGS, 0, &[]);
        // A window for everything that will be answered.
        frame(&mut opening, WINDOW_UPDATE, 0, &(1_u32 << 30).to_be_bytes());
        stream.write_all(&opening).unwrap();
        Self { stream, request, data_at, next_stream: 1, payload: vec![0; 65_536] }
    }

    /// Reads one frame: its kind, flags and length.
    fn read_frame(&mut self) -> (u8, u8, usize) {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        self.stream.read_exact(&mut self.payload[..length]).unwrap();
        (head[3], head[4], length)
    }
}

impl Caller for Http2 {
    fn ask(&mut self) {
        let number = self.next_stream.to_be_bytes();
        self.next_stream += 2;
        self.request[5..9].copy_from_slice(&number);
        self.request[self.data_at + 5..self.data_at + 9].copy_from_slice(&number);
        self.stream.write_all(&self.request).unwrap();
        let mut answered = 0;
        loop {
            let (kind, flags, length) = self.read_frame();
            match kind {
                DATA => answered += length,
                HEADERS if flags & END_STREAM != 0 => {
                    // An error has no message.
                    assert!(answered > 5, "the call failed");
                    return;
                }
                SETTINGS if flags & ACK == 0 => {
                    self.stream.write_all(&[0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0]).unwrap();
                }
                PING if flags & ACK == 0 => {
                    let mut pong = [0; 17];
                    pong[2..5].copy_from_slice(&[8, PING, ACK]);
                    pong[9..].copy_from_slice(&self.payload[..8]);
                    self.stream.write_all(&pong).unwrap();
                }
                RESET => panic!("the call was reset"),
                _ => {}
            }
        }
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags, 0, 0, 0, 0]);
    out.extend_from_slice(payload);
}

/// A header that nobody remembers, its name out of HPACK's static table if it has a place there.
fn literal(out: &mut Vec<u8>, index: Option<u8>, name: &str, value: &str) {
    out.push(index.unwrap_or(0));
    if index.is_none() {
        out.push(u8::try_from(name.len()).unwrap());
        out.extend_from_slice(name.as_bytes());
    }
    out.push(u8::try_from(value.len()).unwrap());
    out.extend_from_slice(value.as_bytes());
}

/// A call for one row of the model `scale`, in typed contents.
pub(crate) fn typed_request(row: &[f32]) -> Vec<u8> {
    let contents = InferTensorContents { fp32_contents: row.to_vec(), ..Default::default() };
    request("scale", "x", row.len(), Some(contents), &[])
}

/// The same, raw.
pub(crate) fn raw_request(raw: &[u8]) -> Vec<u8> {
    request("scale", "x", raw.len() / 4, None, raw)
}

/// A call of one row that comes back as it is, raw.
pub(crate) fn identity_request(raw: &[u8]) -> Vec<u8> {
    request("identity", "INPUT0", raw.len() / 4, None, raw)
}

fn request(
    model: &str,
    name: &str,
    width: usize,
    contents: Option<InferTensorContents>,
    raw: &[u8],
) -> Vec<u8> {
    let raw_input_contents = if raw.is_empty() { Vec::new() } else { vec![raw.to_vec().into()] };
    let input = InferInputTensor {
        name: name.to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![1, i64::try_from(width).unwrap()],
        contents,
        ..Default::default()
    };
    let request = ModelInferRequest {
        model_name: model.to_owned(),
        inputs: vec![input],
        raw_input_contents,
        ..Default::default()
    };
    request.encode_to_vec()
}
