//! What to send, how often, and what counts as a good answer.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::{HeaderMap, Method, Request, Uri, Version};

use crate::check::Check;
use crate::error::BenchError;
use crate::pace::Pace;
use crate::process::ProcessTree;
use crate::target::{Target, path_of};

/// How requests travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS, as gRPC's.
    Http2,
}

/// One kind of request.
#[derive(Debug, Clone)]
pub struct Question {
    /// Its name in the report.
    pub name: String,
    /// Where to send it, `http` only.
    pub url: Uri,
    /// Its headers. `content-type` is `application/json` unless given.
    pub headers: HeaderMap,
    /// Bodies, sent in rotation; none for requests without a body.
    pub bodies: Vec<Bytes>,
}

impl Question {
    /// Without headers and bodies, named by its path.
    pub fn new(url: Uri) -> Self {
        Self { name: url.path().to_owned(), url, headers: HeaderMap::new(), bodies: Vec::new() }
    }
}

/// A load to be run. [`LoadOptions::new`] has sensible values for all but the URL.
///
/// At most `connections` requests are in flight. Of an open pace, those of one `timeout` more may
/// wait for a free connection: one that could not be sent within `timeout` of its intended time is
/// given up and counted as unsent.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// What is asked, in turn, all of one server; at least one.
    pub questions: Vec<Question>,
    /// How requests travel.
    pub transport: Transport,
    /// The method; none means POST with a body and GET without.
    pub method: Option<Method>,
    /// Headers sent with every request, in the place of a question's own.
    pub headers: HeaderMap,
    /// How requests are spread over time.
    pub pace: Pace,
    /// Keep-alive connections, opened before the first request is due.
    pub connections: usize,
    /// How long to send, at each rate of an open pace; until stopped when none.
    pub duration: Option<Duration>,
    /// How long a request may take once it is being sent, and how long it may wait for that.
    pub timeout: Duration,
    /// What counts as a good answer.
    pub check: Check,
    /// Whether the target may be on another machine.
    pub allow_remote: bool,
    /// The server's process, whose processor time and memory are reported.
    pub server: Option<ProcessTree>,
    /// The name of the first phase.
    pub phase: String,
}

impl LoadOptions {
    /// 100 requests a second to `url` over 8 connections, until stopped, 5 s patience, any 2xx
    /// being a good answer, on this machine only.
    pub fn new(url: Uri) -> Self {
        Self {
            questions: vec![Question::new(url)],
            transport: Transport::Http1,
            method: None,
            headers: HeaderMap::new(),
            pace: Pace::even(100.0),
            connections: 8,
            duration: None,
            timeout: Duration::from_secs(5),
            check: Check::Status,
            allow_remote: false,
            server: None,
            phase: "load".into(),
        }
    }

    /// Refuses values that make no load.
    pub(crate) fn check_values(&self) -> Result<(), BenchError> {
        let day = Duration::from_secs(24 * 60 * 60);
        self.pace.check(self.duration)?;
        let server = |question: &Question| question.url.authority().cloned();
        let servers = self.questions.windows(2).any(|two| server(&two[0]) != server(&two[1]));
        let complaint = if self.questions.is_empty() {
            "there is no question".into()
        } else if servers {
            "the questions are for several servers".into()
        } else if !(1..=10_000).contains(&self.connections) {
            format!("connections {} must be between 1 and 10000", self.connections)
        } else if self.timeout < Duration::from_millis(1) || self.timeout > day {
            format!("timeout {:?} must be between 1 ms and a day", self.timeout)
        } else if self.duration.is_some_and(|duration| duration.is_zero()) {
            "duration must be longer than nothing".into()
        } else {
            return Ok(());
        };
        Err(BenchError::Options(complaint))
    }
}

/// The requests that are sent again and again, but for their bodies.
#[derive(Debug)]
pub(crate) struct Template {
    transport: Transport,
    kinds: Vec<Kind>,
}

/// One of them.
#[derive(Debug)]
struct Kind {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    bodies: Vec<Bytes>,
}

impl Template {
    pub(crate) fn new(options: LoadOptions, target: &Target) -> Self {
        let LoadOptions { questions, transport, method, headers, .. } = options;
        let kinds = questions.into_iter().map(|question| {
            let mut question = question;
            // What is asked for goes before what is made up; a name may have several values.
            headers.keys().for_each(|name| drop(question.headers.remove(name)));
            question.headers.extend(headers.clone());
            Kind::new(question, transport, method.clone(), target)
        });
        Self { transport, kinds: kinds.collect() }
    }

    /// The request with this number, and which question it is.
    pub(crate) fn request(&self, index: u64) -> (usize, Request<Bytes>) {
        let count = self.kinds.len() as u64;
        let which = usize::try_from(index % count).unwrap_or_default();
        let kind = &self.kinds[which];
        let mut request = Request::new(kind.body(index / count));
        if self.transport == Transport::Http2 {
            *request.version_mut() = Version::HTTP_2;
        }
        *request.method_mut() = kind.method.clone();
        *request.uri_mut() = kind.uri.clone();
        *request.headers_mut() = kind.headers.clone();
        (which, request)
    }
}

impl Kind {
    fn new(
        question: Question,
        transport: Transport,
        method: Option<Method>,
        target: &Target,
    ) -> Self {
        let Question { url, mut headers, bodies, .. } = question;
        let with_body = !bodies.is_empty();
        let by_body = if with_body { Method::POST } else { Method::GET };
        let uri = match transport {
            Transport::Http1 => {
                headers.entry(HOST).or_insert_with(|| target.host_header.clone());
                path_of(&url)
            }
            // The host travels as the authority, and the scheme too.
            Transport::Http2 => url,
        };
        if with_body {
            let json = HeaderValue::from_static("application/json");
            headers.entry(CONTENT_TYPE).or_insert(json);
        }
        Self { method: method.unwrap_or(by_body), uri, headers, bodies }
    }

    fn body(&self, turn: u64) -> Bytes {
        let turn = turn.checked_rem(self.bodies.len() as u64).unwrap_or(0);
        let body = usize::try_from(turn).ok().and_then(|turn| self.bodies.get(turn));
        body.cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::Method;

    use super::{LoadOptions, Question, Template};
    use crate::pace::Pace;
    use crate::target::Target;

    fn options() -> LoadOptions {
        LoadOptions::new("http://127.0.0.1:9/v2?x=1".parse().unwrap())
    }

    #[test]
    fn values_that_make_no_load_are_named() {
        type Change = fn(&mut LoadOptions);
        let cases: [(Change, &str); 7] = [
            (|o| o.questions.clear(), "no question"),
            (
                |o| o.questions.push(Question::new("http://127.0.0.1:8/".parse().unwrap())),
                "several",
            ),
            (|o| o.pace = Pace::even(0.0), "rate"),
            (|o| o.connections = 0, "connections"),
            (|o| o.timeout = Duration::ZERO, "timeout"),
            (|o| o.timeout = Duration::MAX, "timeout"),
            (|o| o.duration = Some(Duration::ZERO), "duration"),
        ];
        assert!(options().check_values().is_ok());
        for (change, says) in cases {
            let mut options = options();
            change(&mut options);
            let error = options.check_values().unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn bodies_rotate_and_decide_the_method() {
        let url = &options().questions[0].url;
        let target = Target::resolve(url, false).unwrap();
        let (_, bare) = Template::new(options(), &target).request(3);
        assert_eq!((bare.method(), bare.uri().to_string().as_str()), (&Method::GET, "/v2?x=1"));
        assert_eq!(bare.headers()["host"], "127.0.0.1:9");
        assert!(!bare.headers().contains_key("content-type"));

        let bodies = vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")];
        let with_bodies = Question { bodies, ..Question::new(url.clone()) };
        let questions =
            vec![with_bodies, Question::new("http://127.0.0.1:9/other".parse().unwrap())];
        let template = Template::new(LoadOptions { questions, ..options() }, &target);
        for (index, body) in [(0, "a"), (2, "b"), (4, "a"), (u64::MAX - 1, "b")] {
            let (which, request) = template.request(index);
            assert_eq!((which, request.method()), (0, &Method::POST));
            assert_eq!(request.headers()["content-type"], "application/json");
            assert_eq!(request.into_body(), body);
            let (which, request) = template.request(index + 1);
            assert_eq!(
                (which, request.method(), request.uri().path()),
                (1, &Method::GET, "/other")
            );
        }
    }
}
