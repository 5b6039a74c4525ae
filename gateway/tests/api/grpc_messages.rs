//! gRPC's messages: compressed, broken, lying about their length, and in small pieces.

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream;
use prost::Message;
use sluice_protocol::grpc::ModelInferResponse;
use tonic::Code;
use tonic::codec::CompressionEncoding;

use crate::grpc_v2::ones;
use crate::inference::connect;
use crate::raw_call::{INFER, RawCaller, a_while, and_then_silence, framed};
use crate::support::{Process, serve, serve_with, within};

fn zipped(message: &[u8]) -> Bytes {
    let mut zip = GzEncoder::new(Vec::new(), Compression::best());
    std::io::Write::write_all(&mut zip, message).unwrap();
    let zipped = zip.finish().unwrap();
    let length = u32::try_from(zipped.len()).unwrap();
    [&[1][..], &length.to_be_bytes(), &zipped].concat().into()
}

/// C4, fault 15.
#[tokio::test]
async fn messages_may_be_compressed_in_ways_that_are_known() {
    let running = serve_with(&[("scale", 1, "scale.onnx")], |settings| {
        settings.max_body = Some(100_000);
    })
    .await;
    let client = connect(&running).await.accept_compressed(CompressionEncoding::Gzip);
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate] {
        let answer = client.clone().send_compressed(encoding).model_infer(ones("scale", 1)).await;
        let answer = answer.unwrap();
        // Nobody asked for compressed answers.
        assert!(!answer.metadata().contains_key("grpc-encoding"));
        assert_eq!(answer.into_inner().raw_output_contents[0], 3f32.to_le_bytes().repeat(2));
    }
    let mut raw = RawCaller::connect(&running).await;
    let message = ones("scale", 1).encode_to_vec();
    let bomb = zipped(&ones("scale", 100_000).encode_to_vec());
    assert!(bomb.len() < 10_000);
    for (encoding, bytes, code, says) in [
        (Some("gzip"), zipped(&message), Code::Ok, ""),
        (Some("gzip"), framed(&message), Code::Ok, ""),
        (Some("identity"), framed(&message), Code::Ok, ""),
        (Some("br"), framed(&message), Code::Unimplemented, "`br` which isn't supported"),
        (None, zipped(&message), Code::Internal, "compressed-flag but no grpc-encoding"),
        (Some("gzip"), bomb, Code::ResourceExhausted, "size limit, of 100000 bytes"),
    ] {
        let headers: Vec<_> =
            encoding.map(|encoding| ("grpc-encoding", encoding)).into_iter().collect();
        let ended = raw.call(INFER, &headers, bytes).await;
        assert_eq!(ended.code, code, "{encoding:?}: {ended:?}");
        assert!(ended.message.contains(says), "{says}: {ended:?}");
        if code == Code::Unimplemented {
            assert_eq!(ended.headers["grpc-accept-encoding"], "gzip,deflate,identity");
        }
    }
    let running = serve_with(&[("scale", 1, "scale.onnx")], |settings| {
        settings.transport.grpc_compress_replies = Some(true);
    })
    .await;
    for (accepted, expected) in [("identity,deflate,gzip", Some("deflate")), ("identity", None)] {
        let mut raw = RawCaller::connect(&running).await;
        let headers = [("grpc-accept-encoding", accepted)];
        let many = framed(&ones("scale", 1000).encode_to_vec());
        let ended = raw.call(INFER, &headers, many).await;
        let encoding = ended.headers.get("grpc-encoding").map(|value| value.to_str().unwrap());
        assert_eq!((ended.code, encoding), (Code::Ok, expected), "{ended:?}");
        assert_eq!(ended.body.len() < 1000, expected.is_some());
    }
}

/// Faults 15 and 16.
#[tokio::test]
async fn what_is_no_message_is_refused_without_memory_for_it() {
    let running = Process::start(&[("scale", 1, "scale.onnx")], &[]).await;
    let mut raw = RawCaller::connect(&running).await;
    let metadata = "/inference.GRPCInferenceService/ModelMetadata";
    let load = "/inference.GRPCInferenceService/ServerLive";
    // A group in a group in a group...
    let deep = [0x7b].repeat(60_000);
    let too_long = Bytes::from_static(b"\0\xff\xff\xff\xff");
    let truncated = framed(&ones("scale", 1).encode_to_vec()).slice(..20);
    let twice = [framed(b""), framed(b"")].concat();
    let parts = framed(&[0x2a, 0].repeat(70_000));
    for (path, bytes, code, says) in [
        (INFER, framed(b"\xff\xff\xff"), Code::InvalidArgument, "failed to decode Protobuf"),
        (metadata, framed(b"\x0a\x02\xff\xff"), Code::InvalidArgument, "failed to decode Protobuf"),
        (INFER, framed(&deep), Code::InvalidArgument, "recursion limit reached"),
        (metadata, framed(&deep), Code::InvalidArgument, "recursion limit reached"),
        (INFER, parts, Code::InvalidArgument, "more than 65536 inputs, outputs"),
        (
            INFER,
            framed(b"\x2a\x02\x2a\x03\0\0\0"),
            Code::InvalidArgument,
            "a part of it is longer than what it is in",
        ),
        (
            INFER,
            too_long.clone(),
            Code::ResourceExhausted,
            "Received message larger than max (4294967295 vs. 67108864)",
        ),
        (load, too_long, Code::ResourceExhausted, "Received message larger than max"),
        (INFER, truncated, Code::Internal, "Unexpected EOF"),
        (INFER, Bytes::new(), Code::Internal, "Missing request message"),
        (INFER, Bytes::from_static(b"\x07\0\0\0\0"), Code::Internal, "invalid compression flag"),
        (INFER, twice.into(), Code::InvalidArgument, "more than one message"),
        ("/inference.GRPCInferenceService/Nothing", framed(b""), Code::Unimplemented, ""),
        ("/other.Service/Nothing", framed(b""), Code::Unimplemented, ""),
    ] {
        let ended = raw.call(path, &[], bytes).await;
        assert_eq!(ended.code, code, "{path}: {ended:?}");
        assert!(ended.message.contains(says), "{says}: {ended:?}");
    }
    // Messages that say that they are as long as may be, of which nothing comes.
    let before = running.status("VmSize");
    let mut open = Vec::new();
    for _ in 0..100 {
        let mut caller = RawCaller::connect(&running).await;
        let lying = Bytes::from_static(b"\0\x03\xff\xff\xff\x01");
        open.push(tokio::spawn(
            async move { caller.begin(INFER, &[], and_then_silence(lying)).await },
        ));
    }
    a_while().await;
    let taken = running.status("VmSize").saturating_sub(before);
    assert!(taken < 1 << 20, "{taken} KiB for messages that did not come");
    open.iter().for_each(tokio::task::JoinHandle::abort);
    let not_grpc = raw.call(INFER, &[("content-type", "application/json")], framed(b"")).await;
    assert_eq!(not_grpc.code, Code::Unknown, "{not_grpc:?}");
    assert!(connect(&running).await.model_infer(ones("scale", 1)).await.is_ok());
    running.end_without_an_error().await;
}

/// A message in as many pieces as it has bytes is the same message.
#[tokio::test]
async fn a_message_may_come_byte_by_byte() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    let mut raw = RawCaller::connect(&running).await;
    let message = framed(&ones("scale", 20).encode_to_vec());
    let pieces: Vec<_> = message.chunks(1).map(Bytes::copy_from_slice).collect();
    let ended = within("the answer", raw.send(INFER, &[], stream::iter(pieces))).await;
    assert_eq!(ended.code, Code::Ok, "{ended:?}");
    let answer = ModelInferResponse::decode(&ended.body[5..]).unwrap();
    assert_eq!(answer.raw_output_contents[0], 3f32.to_le_bytes().repeat(40));
}
