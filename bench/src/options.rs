//! What to send, how often, and what counts as a good answer.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::Full;

use crate::check::Check;
use crate::error::BenchError;
use crate::pace::Pace;
use crate::process::ProcessTree;
use crate::target::Target;

/// A load to be run. [`LoadOptions::new`] has sensible values for all but the URL.
///
/// At most `connections` requests are in flight. Of an open pace, those of one `timeout` more may
/// wait for a free connection: one that could not be sent within `timeout` of its intended time is
/// given up and counted as unsent.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Where to send, `http` only.
    pub url: Uri,
    /// The method; none means POST with a body and GET without.
    pub method: Option<Method>,
    /// Headers sent with every request. `content-type` is `application/json` unless given.
    pub headers: HeaderMap,
    /// Bodies, sent in rotation; none for requests without a body.
    pub bodies: Vec<Bytes>,
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
            url,
            method: None,
            headers: HeaderMap::new(),
            bodies: Vec::new(),
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
        let complaint = if !(1..=10_000).contains(&self.connections) {
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

/// The request that is sent again and again, but for its body.
#[derive(Debug)]
pub(crate) struct Template {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    bodies: Vec<Bytes>,
}

impl Template {
    pub(crate) fn new(options: LoadOptions, target: &Target) -> Self {
        let with_body = !options.bodies.is_empty();
        let by_body = if with_body { Method::POST } else { Method::GET };
        let mut headers = options.headers;
        headers.entry(HOST).or_insert_with(|| target.host_header.clone());
        if with_body {
            let json = HeaderValue::from_static("application/json");
            headers.entry(CONTENT_TYPE).or_insert(json);
        }
        Self {
            method: options.method.unwrap_or(by_body),
            uri: target.path.clone(),
            headers,
            bodies: options.bodies,
        }
    }

    /// The request with this number.
    pub(crate) fn request(&self, index: u64) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body(index)));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }

    fn body(&self, index: u64) -> Bytes {
        let turn = index.checked_rem(self.bodies.len() as u64).unwrap_or(0);
        let body = usize::try_from(turn).ok().and_then(|turn| self.bodies.get(turn));
        body.cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::Method;
    use http_body_util::BodyExt as _;

    use super::{LoadOptions, Template};
    use crate::pace::Pace;
    use crate::target::Target;

    fn options() -> LoadOptions {
        LoadOptions::new("http://127.0.0.1:9/v2?x=1".parse().unwrap())
    }

    #[test]
    fn values_that_make_no_load_are_named() {
        type Change = fn(&mut LoadOptions);
        let cases: [(Change, &str); 5] = [
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

    #[tokio::test]
    async fn bodies_rotate_and_decide_the_method() {
        let target = Target::resolve(&options().url, false).unwrap();
        let bare = Template::new(options(), &target).request(3);
        assert_eq!((bare.method(), bare.uri().to_string().as_str()), (&Method::GET, "/v2?x=1"));
        assert_eq!(bare.headers()["host"], "127.0.0.1:9");
        assert!(!bare.headers().contains_key("content-type"));

        let bodies = vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")];
        let template = Template::new(LoadOptions { bodies, ..options() }, &target);
        for (index, body) in [(0, "a"), (1, "b"), (2, "a"), (u64::MAX, "b")] {
            let request = template.request(index);
            assert_eq!(request.method(), Method::POST);
            assert_eq!(request.headers()["content-type"], "application/json");
            assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), body);
        }
    }
}
