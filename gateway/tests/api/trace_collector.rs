//! A collector of traces: what OpenTelemetry's own looks like to whoever sends to it.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::task::AbortHandle;

use crate::support::wait_until;

/// A listening collector. It ends when it is dropped.
pub(crate) struct Collector {
    pub(crate) url: String,
    taken: Taken,
    serving: AbortHandle,
}

#[derive(Debug, Clone, Default)]
struct Taken(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

impl Collector {
    pub(crate) async fn start() -> Self {
        let taken = Taken::default();
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new().route("/v1/traces", post(take)).with_state(taken.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { url, taken, serving: serving.abort_handle() }
    }

    /// All spans so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let taken = self.taken.0.lock().unwrap();
        let resources = taken.iter().flat_map(|request| &request.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// The traces so far, once there are so many: the spans of each request with it first.
    pub(crate) async fn traces(&self, count: usize) -> Vec<Trace> {
        wait_until("the traces", async || self.roots().len() >= count).await;
        let (roots, spans) = (self.roots(), self.spans());
        assert_eq!(roots.len(), count);
        let traces = roots.into_iter().map(|root| {
            let mut ids = vec![root.span_id.clone()];
            // Parents come before their children.
            let own = spans.iter().filter(|span| {
                let is_below = ids.contains(&span.parent_span_id);
                if is_below {
                    ids.push(span.span_id.clone());
                }
                is_below
            });
            let below = own.cloned().collect();
            Trace { root, below }
        });
        traces.collect()
    }

    /// What every span was said to come from.
    pub(crate) fn resource(&self) -> HashMap<String, String> {
        let taken = self.taken.0.lock().unwrap();
        let resource = taken[0].resource_spans[0].resource.as_ref().unwrap();
        attributes(&resource.attributes)
    }

    fn roots(&self) -> Vec<Span> {
        self.spans().into_iter().filter(|span| span.name == "InferRequest").collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn take(State(taken): State<Taken>, headers: HeaderMap, body: Bytes) -> StatusCode {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    taken.0.lock().unwrap().push(ExportTraceServiceRequest::decode(body).unwrap());
    StatusCode::OK
}

/// One request's spans.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) root: Span,
    /// Its stages, and theirs.
    pub(crate) below: Vec<Span>,
}

impl Trace {
    /// What is said of the request.
    pub(crate) fn attributes(&self) -> HashMap<String, String> {
        attributes(&self.root.attributes)
    }

    /// What is said of one thing; empty if nothing is.
    pub(crate) fn attribute(&self, key: &str) -> String {
        self.attributes().remove(key).unwrap_or_default()
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.below.iter().map(|span| span.name.as_str()).collect()
    }

    pub(crate) fn stage(&self, name: &str) -> &Span {
        self.below.iter().find(|span| span.name == name).unwrap()
    }
}

/// Attributes as text, however they were written.
pub(crate) fn attributes(pairs: &[KeyValue]) -> HashMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        Value::BoolValue(truth) => truth.to_string(),
        Value::ArrayValue(array) => {
            let texts = array.values.iter().map(|value| match &value.value {
                Some(Value::StringValue(text)) => text.clone(),
                other => panic!("a list of {other:?}"),
            });
            texts.collect::<Vec<_>>().join(" ")
        }
        other => panic!("an attribute of {other:?}"),
    };
    let pairs = pairs
        .iter()
        .map(|pair| (pair.key.clone(), text(pair.value.as_ref().unwrap().value.as_ref().unwrap())));
    pairs.collect()
}

/// How long a span took, in nanoseconds.
pub(crate) fn took(span: &Span) -> u64 {
    span.end_time_unix_nano - span.start_time_unix_nano
}
