//! ModelStreamInfer: many questions on one stream.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::BodyExt;
use prost::Message;
use sluice_protocol::grpc::infer_parameter::ParameterChoice;
use sluice_protocol::grpc::{ModelInferRequest, ModelStreamInferResponse};
use tokio::sync::mpsc;
use tonic::{Code, Request, Status, Streaming};

use crate::grpc_busy::{BATCHES, LONG, queued, rounds, serve_rounds};
use crate::grpc_v2::ones;
use crate::inference::connect;
use crate::raw_call::{RawCaller, STREAM, and_then_silence, framed};
use crate::support::{Caller, serve, serve_as, serve_with, wait_until, within};

/// A stream of which both ends are held here.
struct Open {
    questions: mpsc::Sender<ModelInferRequest>,
    answers: Streaming<ModelStreamInferResponse>,
}

impl Open {
    async fn new(caller: &Caller, metadata: &[(&'static str, &'static str)]) -> Self {
        let (questions, asked) = mpsc::channel(1000);
        let asked = stream::unfold(asked, |mut asked| async move {
            asked.recv().await.map(|question| (question, asked))
        });
        let mut request = Request::new(asked);
        for (name, value) in metadata {
            request.metadata_mut().insert(*name, value.parse().unwrap());
        }
        let mut client = connect(caller).await.max_decoding_message_size(usize::MAX);
        let answers = client.model_stream_infer(request).await.unwrap().into_inner();
        Self { questions, answers }
    }

    async fn ask(&self, question: ModelInferRequest) {
        self.questions.send(question).await.unwrap();
    }

    async fn next(&mut self) -> Option<Result<ModelStreamInferResponse, Status>> {
        within("an answer", self.answers.next()).await
    }

    /// The next answer's id, if it is one without an error.
    async fn next_id(&mut self) -> String {
        let answer = self.next().await.unwrap().unwrap();
        assert_eq!(answer.error_message, "");
        answer.infer_response.unwrap().id
    }
}

fn named(id: impl ToString, question: ModelInferRequest) -> ModelInferRequest {
    ModelInferRequest { id: id.to_string(), ..question }
}

/// C6: everyone gets the answer to their own question, marked as its last, and then the end.
#[tokio::test]
async fn every_question_has_its_one_answer() {
    for graph in ["scale.onnx", "slow.onnx"] {
        let running = serve(&[("m", 1, graph)]).await;
        let open = Open::new(&running, &[]).await;
        for number in 0..500u16 {
            let row = [f32::from(number), 0.0].map(f32::to_le_bytes).concat();
            let raw_input_contents = vec![row.into()];
            open.ask(named(number, ModelInferRequest { raw_input_contents, ..ones("m", 1) })).await;
        }
        let Open { questions, mut answers } = open;
        drop(questions);
        for number in 0..500u16 {
            let answer = within("an answer", answers.next()).await.unwrap().unwrap();
            let answer = answer.infer_response.unwrap();
            assert_eq!(answer.id, number.to_string(), "{graph}: in the order of the questions");
            let doubled = [2.0 * f32::from(number) + 1.0, 1.0].map(f32::to_le_bytes).concat();
            assert_eq!(answer.raw_output_contents, [doubled]);
            let last = answer.parameters["triton_final_response"].parameter_choice.clone();
            assert_eq!(last, Some(ParameterChoice::BoolParam(true)));
        }
        assert!(within("the end", answers.next()).await.is_none());
    }
}

#[tokio::test]
async fn an_error_is_an_answer_and_not_the_end() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    let mut open = Open::new(&running, &[]).await;
    let bad = ModelInferRequest { raw_input_contents: vec![], ..ones("scale", 1) };
    let old = ModelInferRequest { model_version: "9".to_owned(), ..ones("scale", 1) };
    for (id, question, says) in [
        ("a", ones("other", 1), "Request for unknown model: 'other' is not found"),
        ("b", bad, "unable to find data"),
        ("c", old, "version 9 is not found"),
    ] {
        let model = question.model_name.clone();
        open.ask(named(id, question)).await;
        let answer = open.next().await.unwrap().unwrap();
        assert!(answer.error_message.contains(says), "{answer:?}");
        let about = answer.infer_response.unwrap();
        assert_eq!((about.id.as_str(), about.model_name), (id, model));
        assert!(about.outputs.is_empty());
    }
    open.ask(named("d", ones("scale", 1))).await;
    assert_eq!(open.next_id().await, "d");
}

#[tokio::test]
async fn an_error_is_the_end_for_who_asks_for_it() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    let mut open = Open::new(&running, &[("triton_grpc_error", "true")]).await;
    open.ask(named("a", ones("scale", 1))).await;
    assert_eq!(open.next_id().await, "a");
    open.ask(ones("other", 1)).await;
    let status = open.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    assert!(status.message().contains("Request for unknown model"), "{status:?}");
    assert!(open.next().await.is_none());
}

/// An answer is sent as soon as it is there; only those of one model keep their order.
#[tokio::test]
async fn a_model_does_not_wait_for_another_one() {
    let models = [("m", 1, "rounds.onnx"), ("scale", 1, "scale.onnx")];
    let workers = "format = 1\ninstances = 2\nexecutor = \"workers\"\n";
    let running = serve_as(&models, workers, |_| {}).await;
    let mut open = Open::new(&running, &[]).await;
    open.ask(named("long", rounds(1_000_000))).await;
    open.ask(named("short", rounds(1))).await;
    open.ask(named("other", ones("scale", 1))).await;
    for id in ["other", "long", "short"] {
        assert_eq!(open.next_id().await, id);
    }
}

/// Nor for its refusals, which are there sooner than the next question is looked at.
#[tokio::test]
async fn a_model_does_not_wait_for_the_refusals_of_another_one() {
    let models = [("m", 1, "rounds.onnx"), ("scale", 1, "scale.onnx")];
    let worker = "format = 1\ninstances = 1\nexecutor = \"workers\"\n";
    let running = serve_as(&models, worker, |_| {}).await;
    let mut raw = RawCaller::connect(&running).await;
    let old = ModelInferRequest { model_version: "9".to_owned(), ..rounds(1) };
    let questions = [named("long", rounds(LONG))].into_iter().chain(vec![old; 200]);
    let questions = questions.chain([named("other", ones("scale", 1))]);
    let bytes: Bytes = questions.flat_map(|question| framed(&question.encode_to_vec())).collect();
    assert!(bytes.len() < 16_384, "all of it comes at once");
    let response = within("headers", raw.begin(STREAM, &[], and_then_silence(bytes))).await;
    let mut body = response.into_body();
    let first = within("an answer", body.frame()).await.unwrap().unwrap().into_data().unwrap();
    let answer = ModelStreamInferResponse::decode(&first[5..]).unwrap();
    assert_eq!(answer.infer_response.unwrap().id, "other");
}

/// A stream may be quiet for as long as it likes; half a message may not.
#[tokio::test]
async fn a_stream_may_idle_but_not_in_a_message() {
    let running = serve_with(&[("scale", 1, "scale.onnx")], |settings| {
        settings.request_timeout = Some(Duration::from_secs(2));
    })
    .await;
    let mut open = Open::new(&running, &[]).await;
    for (id, idle) in [("a", 0), ("b", 3)] {
        tokio::time::sleep(Duration::from_secs(idle)).await;
        open.ask(named(id, ones("scale", 1))).await;
        assert_eq!(open.next_id().await, id);
    }
    let mut raw = RawCaller::connect(&running).await;
    let question = framed(&ones("scale", 1).encode_to_vec());
    let half = question.slice(..question.len() - 1);
    let begun = Instant::now();
    let ended = within("the end", raw.send(STREAM, &[], and_then_silence(half))).await;
    assert_eq!(ended.code, Code::DeadlineExceeded, "{ended:?}");
    assert!(ended.message.contains("did not arrive within 2s"), "{ended:?}");
    assert!(begun.elapsed() >= Duration::from_secs(2));
}

/// Faults 15 and 16: what was asked before is answered first.
#[tokio::test]
async fn what_is_no_message_ends_the_stream() {
    let running = serve_with(&[("scale", 1, "scale.onnx")], |settings| {
        settings.max_body = Some(1000);
    })
    .await;
    let mut raw = RawCaller::connect(&running).await;
    let good = framed(&named("a", ones("scale", 1)).encode_to_vec());
    let long = framed(&ones("scale", 1000).encode_to_vec());
    for (bad, code, says) in [
        (long, Code::ResourceExhausted, "Received message larger than max"),
        (framed(b"\xff\xff"), Code::InvalidArgument, "failed to decode Protobuf message"),
        (Bytes::from_static(b"\x01\0\0\0\x01a"), Code::Internal, "compressed-flag"),
        (Bytes::from_static(b"\0\0\0\0\x09a"), Code::Internal, "Unexpected EOF"),
    ] {
        let ended = raw.call(STREAM, &[], [good.clone(), bad].concat()).await;
        assert_eq!(ended.code, code, "{ended:?}");
        assert!(ended.message.contains(says), "{ended:?}");
        let answer = ModelStreamInferResponse::decode(&ended.body[5..]).unwrap();
        assert_eq!(answer.infer_response.unwrap().id, "a");
    }
    let ended = raw.call(STREAM, &[], Bytes::new()).await;
    assert_eq!((ended.code, ended.body.len()), (Code::Ok, 0), "{ended:?}");
}

#[tokio::test]
async fn what_has_not_begun_ends_with_the_stream() {
    let running = serve_rounds().await;
    let open = Open::new(&running, &[]).await;
    for question in [LONG].into_iter().chain([1; 20]) {
        open.ask(rounds(question)).await;
    }
    queued(&running, 20).await;
    drop(open);
    let series =
        |code: &str| format!("sluice_requests_total{{model=\"m\",version=\"1\",code=\"{code}\"}}");
    let cancelled = series("cancelled");
    wait_until("all are given up", async || running.count(&cancelled).await == 21.0).await;
    connect(&running).await.model_infer(rounds(1)).await.unwrap();
    assert_eq!(running.count(&series("ok")).await, 1.0);
    assert_eq!(running.count(BATCHES).await, 2.0, "what had begun, and the last one");
}

#[tokio::test]
async fn a_stream_ends_at_its_deadline() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    let mut raw = RawCaller::connect(&running).await;
    let good = framed(&named("a", ones("scale", 1)).encode_to_vec());
    let begun = Instant::now();
    let limit = [("grpc-timeout", "3S")];
    let ended = within("the end", raw.send(STREAM, &limit, and_then_silence(good))).await;
    assert_eq!(ended.code, Code::DeadlineExceeded, "{ended:?}");
    assert!(!ended.body.is_empty() && begun.elapsed() >= Duration::from_secs(3));
}

#[tokio::test]
async fn an_idle_stream_does_not_hold_up_the_end() {
    let running = serve(&[("scale", 1, "scale.onnx")]).await;
    let mut open = Open::new(&running, &[]).await;
    open.ask(named("a", ones("scale", 1))).await;
    assert_eq!(open.next_id().await, "a");
    let begun = Instant::now();
    let drained = tokio::spawn(running.gateway.drain());
    let end = open.next().await.unwrap().unwrap_err();
    assert_eq!(end.code(), Code::Unavailable, "{end:?}");
    assert!(end.message().contains("draining"), "{end:?}");
    within("the drain", drained).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}
