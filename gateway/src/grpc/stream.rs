//! ModelStreamInfer: many questions on one stream, worked on at the same time.
//!
//! Answers to one model come in the order of its questions, as with Triton, whose clients need no
//! ids then; a model does not wait for another one.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt};
use sluice_protocol::grpc::infer_parameter::ParameterChoice;
use sluice_protocol::grpc::{InferParameter, ModelInferResponse};
use tonic::{Request, Response, Status, Streaming};

use super::call::time_limit;
use super::codec::{Question, Reply, StreamReply};
use super::infer;
use super::traced::Origin;
use crate::access::Protocol;
use crate::error::GatewayError;
use crate::forwarding::Forwarded;
use crate::shared::Shared;
use crate::trace::Context as TraceContext;

/// Questions of one stream that are worked on at the same time. Further ones stay where they are.
const MOST_RUNNING: usize = 128;
/// Says of an answer whether it is the last one to its question.
const FINAL_RESPONSE: &str = "triton_final_response";
/// Request metadata: the first error shall end the stream, with its status.
const GRPC_ERROR: &str = "triton_grpc_error";

/// Answers a stream of questions.
pub(super) fn answers(
    shared: &Arc<Shared>,
    request: Request<Streaming<Question>>,
) -> Response<Answers> {
    let metadata = request.metadata().as_ref();
    let ends_with_error = metadata
        .get(GRPC_ERROR)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    let out_of_time = match time_limit(metadata) {
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
    let trace_context = TraceContext::of(metadata);
    let forwarded = shared.live().forwarded(Protocol::Grpc, metadata);
    let drain_begun = shared.drain_begun();
    Response::new(Answers {
        shared: shared.clone(),
        questions: Some(request.into_inner()),
        running: FuturesUnordered::new(),
        places: VecDeque::new(),
        first: 0,
        bytes: 0,
        ends_with_error,
        trace_context,
        forwarded,
        end: None,
        out_of_time,
        drained: async move {
            drain_begun.await;
            Status::from(GatewayError::Unavailable("draining"))
        }
        .boxed(),
    })
}

/// The answers, as they become ready.
pub(super) struct Answers {
    shared: Arc<Shared>,
    /// None when there will be no more.
    questions: Option<Streaming<Question>>,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    /// What was asked and is not answered yet, in order.
    places: VecDeque<Place>,
    /// The number of the first of these.
    first: u64,
    /// The length of all messages that are worked on.
    bytes: usize,
    ends_with_error: bool,
    /// The trace of the caller's that it all belongs to.
    trace_context: Option<TraceContext>,
    /// The stream's metadata that becomes parameters of all questions.
    forwarded: Forwarded,
    /// What the stream ends with, after the answers; OK if nothing.
    end: Option<Status>,
    out_of_time: BoxFuture<'static, Status>,
    /// When the server is about to end, and what a stream is told then.
    drained: BoxFuture<'static, Status>,
}

/// A question's place in the order.
struct Place {
    model: String,
    state: State,
}

enum State {
    Running,
    Ready(Outcome),
    /// Its answer is on the way; the place goes when it is the first.
    Answered,
}

type Outcome = Result<Reply, (Status, ModelInferResponse)>;

/// A question that is done with.
struct Done {
    number: u64,
    length: usize,
    outcome: Outcome,
}

impl Answers {
    /// Begins with the questions that are there, as far as there is room.
    fn read(&mut self, context: &mut Context<'_>) {
        while self.running.len() < MOST_RUNNING && self.bytes <= self.shared.limits().max_body {
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
        let number = self.first + self.places.len() as u64;
        let length = question.length;
        self.bytes += length;
        let model = question.wire.model_name.clone();
        self.places.push_back(Place { model, state: State::Running });
        let shared = self.shared.clone();
        let origin = Origin::stream(&shared, self.trace_context.as_ref());
        let forwarded = self.forwarded.clone();
        let running = async move {
            let named = ModelInferResponse {
                model_name: question.wire.model_name.clone(),
                model_version: question.wire.model_version.clone(),
                id: question.wire.id.clone(),
                ..Default::default()
            };
            let answered = infer::answer(&shared, question, origin, forwarded).await;
            let outcome = answered.map_err(|error| (infer::status(&shared, &error), named));
            Done { number, length, outcome }
        };
        self.running.push(running.boxed());
    }

    /// Notes what is done.
    fn collect(&mut self, context: &mut Context<'_>) {
        while let Poll::Ready(Some(done)) = self.running.poll_next_unpin(context) {
            self.bytes -= done.length;
            let index = usize::try_from(done.number - self.first).unwrap_or(usize::MAX);
            if let Some(place) = self.places.get_mut(index) {
                place.state = State::Ready(done.outcome);
            }
        }
    }

    /// The first answer that no unanswered question to the same model comes before.
    fn next_answer(&mut self) -> Option<Outcome> {
        let places = &self.places;
        let is_held_up = |index: usize| {
            let mut earlier = places.range(..index);
            earlier.any(|place| {
                !matches!(place.state, State::Answered) && place.model == places[index].model
            })
        };
        let is_ready = |index: usize| matches!(places[index].state, State::Ready(_));
        let next = (0..places.len()).find(|&index| is_ready(index) && !is_held_up(index))?;
        let state = std::mem::replace(&mut self.places[next].state, State::Answered);
        while matches!(self.places.front(), Some(Place { state: State::Answered, .. })) {
            self.places.pop_front();
            self.first += 1;
        }
        match state {
            State::Ready(outcome) => Some(outcome),
            State::Running | State::Answered => None,
        }
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
        self.places.clear();
        self.end = None;
    }
}

impl Stream for Answers {
    type Item = Result<StreamReply, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let answers = &mut *self;
        answers.read(context);
        answers.collect(context);
        if let Some(outcome) = answers.next_answer() {
            let message = answers.message(outcome);
            if message.is_err() {
                answers.give_up();
            }
            return Poll::Ready(Some(message));
        }
        if answers.places.is_empty() && answers.questions.is_none() {
            return Poll::Ready(answers.end.take().map(Err));
        }
        let cut = match answers.out_of_time.poll_unpin(context) {
            Poll::Pending if answers.places.is_empty() => answers.drained.poll_unpin(context),
            late => late,
        };
        cut.map(|status| {
            answers.give_up();
            Some(Err(status))
        })
    }
}
