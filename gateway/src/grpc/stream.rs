//! ModelStreamInfer: many questions on one stream, worked on at the same time.
//!
//! Answers to one model come in the order of its questions, as with Triton, whose clients need no
//! ids then; a model does not wait for another one.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt};
use prost::Message;
use sluice_protocol::grpc::infer_parameter::ParameterChoice;
use sluice_protocol::grpc::{InferParameter, ModelInferResponse};
use tonic::{Request, Response, Status, Streaming};

use super::codec::{Question, Reply, StreamReply, Written};
use super::infer;
use super::taking::{Held, Untaken};
use super::traced::Origin;
use crate::access::Protocol;
use crate::caller::Caller;
use crate::deadline;
use crate::error::GatewayError;
use crate::forwarding::Forwarded;
use crate::shared::Shared;
use crate::trace::Context as TraceContext;

/// Questions of one stream that are worked on at the same time. Further ones stay where they are.
const MOST_RUNNING: usize = 128;
/// Questions of one stream of which the answer was not sent yet: it may wait for an earlier one of its
/// model, or for the client.
const MOST_OPEN: usize = 1024;
/// Says of an answer whether it is the last one to its question.
const FINAL_RESPONSE: &str = "triton_final_response";
/// Request metadata: the first error shall end the stream, with its status.
const GRPC_ERROR: &str = "triton_grpc_error";

/// Answers a stream of questions.
pub(super) fn answers(
    shared: &Arc<Shared>,
    request: Request<Streaming<Question>>,
    untaken: &Untaken,
) -> Result<Response<Answers>, Status> {
    let metadata = request.metadata().as_ref();
    let ends_with_error = metadata
        .get(GRPC_ERROR)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    let out_of_time = match deadline::of_grpc(metadata) {
        Some(limit) => {
            let asleep = tokio::time::sleep(limit);
            async move {
                asleep.await;
                Status::from(GatewayError::DeadlineExceeded(limit))
            }
            .boxed()
        }
        None => std::future::pending().boxed(),
    };
    let caller = Caller::of_headers(shared, metadata, 0)?;
    let trace_context = TraceContext::of(metadata);
    let forwarded = shared.live().forwarded(Protocol::Grpc, metadata);
    let drain_begun = shared.drain_begun();
    Ok(Response::new(Answers {
        shared: shared.clone(),
        questions: Some(request.into_inner()),
        untaken: untaken.clone(),
        running: FuturesUnordered::new(),
        lines: HashMap::new(),
        ready: VecDeque::new(),
        open: 0,
        bytes: 0,
        ends_with_error,
        trace_context,
        forwarded,
        caller,
        end: None,
        out_of_time,
        drained: async move {
            drain_begun.await;
            Status::from(GatewayError::Unavailable("draining"))
        }
        .boxed(),
    }))
}

/// The answers, as they become ready.
pub(super) struct Answers {
    shared: Arc<Shared>,
    /// None when there will be no more.
    questions: Option<Streaming<Question>>,
    untaken: Untaken,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    /// What was asked of each model and cannot be sent yet, in order.
    lines: HashMap<String, Line>,
    /// Answers that no unanswered question to the same model comes before.
    ready: VecDeque<Kept>,
    /// How many questions there are in all of these.
    open: usize,
    /// The length of all messages that are worked on, and of all answers that are kept.
    bytes: usize,
    ends_with_error: bool,
    /// The trace of the caller's that it all belongs to.
    trace_context: Option<TraceContext>,
    /// The stream's metadata that becomes parameters of all questions.
    forwarded: Forwarded,
    /// Who asks all questions.
    caller: Caller,
    /// What the stream ends with, after the answers; OK if nothing.
    end: Option<Status>,
    out_of_time: BoxFuture<'static, Status>,
    /// When the server is about to end, and what a stream is told then.
    drained: BoxFuture<'static, Status>,
}

/// The questions to one model: None where there is no answer yet.
#[derive(Default)]
struct Line {
    /// The number of the first one.
    first: u64,
    answers: VecDeque<Option<Kept>>,
}

type Outcome = Result<Reply, (Status, ModelInferResponse)>;

/// An answer that waits to be sent.
struct Kept {
    outcome: Outcome,
    /// Its length, and the account of that.
    length: usize,
    _held: Option<Held>,
}

/// A question that is done with.
struct Done {
    model: String,
    number: u64,
    length: usize,
    outcome: Outcome,
}

impl Answers {
    /// Begins with the questions that are there, as far as there is room. One is begun with at any
    /// rate: where there is none, nobody would wake this once there is room.
    fn read(&mut self, context: &mut Context<'_>) {
        while self.running.len() < MOST_RUNNING
            && self.open < MOST_OPEN
            && self.bytes <= self.shared.limits().max_body
            && (self.open == 0 || self.untaken.check().is_ok())
        {
            let Some(questions) = &mut self.questions else { return };
            match questions.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(question))) => self.begin(question),
                Poll::Ready(Some(Err(status))) => {
                    self.end = Some(status);
                    self.questions = None;
                }
                Poll::Ready(None) => self.questions = None,
                Poll::Pending => return,
            }
        }
    }

    fn begin(&mut self, question: Question) {
        let length = question.length;
        self.bytes += length;
        self.open += 1;
        let model = question.wire.model_name.clone();
        let line = self.lines.entry(model.clone()).or_default();
        let number = line.first + line.answers.len() as u64;
        line.answers.push_back(None);
        let shared = self.shared.clone();
        let origin = Origin::stream(&shared, self.trace_context.as_ref());
        let forwarded = self.forwarded.clone();
        let caller = Caller { bytes: question.length, ..self.caller };
        let running = async move {
            let named = ModelInferResponse {
                model_name: question.wire.model_name.clone(),
                model_version: question.wire.model_version.clone(),
                id: question.wire.id.clone(),
                ..Default::default()
            };
            let answered = infer::answer(&shared, question, origin, forwarded, caller).await;
            let outcome = answered.map_err(|error| (infer::status(&shared, &error), named));
            Done { model, number, length, outcome }
        };
        self.running.push(running.boxed());
    }

    /// Notes what is done, and what can be sent by that. Whether something was done.
    fn collect(&mut self, context: &mut Context<'_>) -> bool {
        let before = self.running.len();
        while let Poll::Ready(Some(done)) = self.running.poll_next_unpin(context) {
            let Done { model, number, length, outcome } = done;
            let kept = Kept::new(outcome, &self.untaken);
            self.bytes = self.bytes - length + kept.length;
            let Some(line) = self.lines.get_mut(&model) else { continue };
            let index = usize::try_from(number - line.first).unwrap_or(usize::MAX);
            if let Some(place) = line.answers.get_mut(index) {
                *place = Some(kept);
            }
            while let Some(kept) = line.answers.front_mut().and_then(Option::take) {
                line.answers.pop_front();
                line.first += 1;
                self.ready.push_back(kept);
            }
            if line.answers.is_empty() {
                self.lines.remove(&model);
            }
        }
        self.running.len() < before
    }

    fn next_answer(&mut self) -> Option<Outcome> {
        let kept = self.ready.pop_front()?;
        self.open -= 1;
        self.bytes -= kept.length;
        Some(kept.outcome)
    }

    /// The answer's message, or what ends the stream in its place.
    fn message(&mut self, outcome: Outcome) -> Result<StreamReply, Status> {
        let (error_message, mut reply) = match outcome {
            Ok(reply) => (String::new(), reply),
            Err((status, _)) if self.ends_with_error => return Err(status),
            Err((status, message)) => {
                (status.message().to_owned(), Reply { message, ..Default::default() })
            }
        };
        let last = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
        reply.message.parameters.insert(FINAL_RESPONSE.to_owned(), last);
        Ok(StreamReply { error_message, reply })
    }

    /// Gives up what is worked on.
    fn give_up(&mut self) {
        self.questions = None;
        self.running.clear();
        self.lines.clear();
        self.ready.clear();
        self.open = 0;
        self.end = None;
    }
}

impl Kept {
    /// Keeps an answer, or the refusal to, where too much waits for the client already.
    fn new(outcome: Outcome, untaken: &Untaken) -> Self {
        let length = length(&outcome);
        let (outcome, held) = match (outcome, untaken.hold(length)) {
            (outcome, Ok(held)) => (outcome, Some(held)),
            (Err(told), Err(_)) => (Err(told), None),
            (Ok(Reply { message, .. }), Err(error)) => {
                let ModelInferResponse { model_name, model_version, id, .. } = message;
                let named =
                    ModelInferResponse { model_name, model_version, id, ..Default::default() };
                (Err((error.into(), named)), None)
            }
        };
        Self { length: self::length(&outcome), outcome, _held: held }
    }
}

/// About how many bytes an answer takes.
fn length(outcome: &Outcome) -> usize {
    match outcome {
        Ok(reply) => reply.length(),
        Err((status, named)) => status.message().len() + named.encoded_len(),
    }
}

impl Stream for Answers {
    type Item = Result<StreamReply, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let answers = &mut *self;
        // What is done may have made room for questions, of which nobody would tell again.
        loop {
            answers.read(context);
            if !answers.collect(context) || !answers.ready.is_empty() {
                break;
            }
        }
        if let Some(outcome) = answers.next_answer() {
            let message = answers.message(outcome);
            if message.is_err() {
                answers.give_up();
            }
            return Poll::Ready(Some(message));
        }
        if answers.open == 0 && answers.questions.is_none() {
            return Poll::Ready(answers.end.take().map(Err));
        }
        let cut = match answers.out_of_time.poll_unpin(context) {
            Poll::Pending if answers.open == 0 => answers.drained.poll_unpin(context),
            late => late,
        };
        cut.map(|status| {
            answers.give_up();
            Some(Err(status))
        })
    }
}
