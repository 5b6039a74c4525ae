//! Sending a stored file: whole or one range of it, as an attachment that no browser runs.

use std::ops::Range;

use axum::body::Body;
use axum::http::response::Builder;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;

use super::blobs::Blobs;
use super::store::Artifact;
use crate::{RegistryError, Result};

/// The answer to a GET of `artifact` under `file_name`.
pub(super) async fn download(
    blobs: &Blobs,
    artifact: Artifact,
    file_name: &str,
    headers: &HeaderMap,
) -> Result<Response> {
    let size = artifact.size;
    let asked = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let (status, range) = match asked.map(|text| byte_range(text, size)) {
        None | Some(Asked::Everything) => (StatusCode::OK, 0..size),
        Some(Asked::Part(range)) => (StatusCode::PARTIAL_CONTENT, range),
        Some(Asked::Nothing) => (StatusCode::RANGE_NOT_SATISFIABLE, 0..0),
    };
    let mut response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, content_type(file_name))
        .header(header::CONTENT_LENGTH, range.end - range.start)
        .header(header::CONTENT_DISPOSITION, disposition(file_name))
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, format!("\"{}\"", artifact.digest))
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    response = content_range(response, status, &range, size);
    let body = Body::from_stream(blobs.read(artifact.digest, range).await?);
    response.body(body).map_err(|error| RegistryError::Internal(format!("answer: {error}")))
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Everything,
    Part(Range<u64>),
    Nothing,
}

/// One range of bytes. Several at once, and anything else, get the whole file, as they may.
fn byte_range(text: &str, size: u64) -> Asked {
    let Some((from, to)) = text.strip_prefix("bytes=").and_then(|spec| spec.split_once('-')) else {
        return Asked::Everything;
    };
    let range = match (from.parse::<u64>(), to.parse::<u64>()) {
        (Ok(from), Ok(to)) if from <= to => from..to.saturating_add(1).min(size),
        (Ok(from), _) if to.is_empty() => from..size,
        (_, Ok(last)) if from.is_empty() => size.saturating_sub(last)..size,
        _ => return Asked::Everything,
    };
    if range.is_empty() { Asked::Nothing } else { Asked::Part(range) }
}

fn content_range(builder: Builder, status: StatusCode, range: &Range<u64>, size: u64) -> Builder {
    match status {
        StatusCode::PARTIAL_CONTENT => builder.header(
            header::CONTENT_RANGE,
            format!("bytes {}-{}/{size}", range.start, range.end - 1),
        ),
        StatusCode::RANGE_NOT_SATISFIABLE => {
            builder.header(header::CONTENT_RANGE, format!("bytes */{size}"))
        }
        _ => builder,
    }
}

fn content_type(file_name: &str) -> &'static str {
    match file_name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("json") => "application/json",
        Some("txt" | "log" | "yaml" | "yml" | "toml" | "csv" | "md" | "py") => {
            "text/plain; charset=utf-8"
        }
        _ if file_name == "MLmodel" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// `attachment` with the file's name: plain for old clients, percent-encoded for its true form.
fn disposition(file_name: &str) -> String {
    let plain: String = file_name
        .chars()
        .map(|c| if c.is_ascii_graphic() && !matches!(c, '"' | '%') || c == ' ' { c } else { '_' })
        .collect();
    if plain == file_name {
        return format!("attachment; filename=\"{plain}\"");
    }
    let encoded: String = file_name
        .bytes()
        .map(|b| match b {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' => {
                char::from(b).to_string()
            }
            _ => format!("%{b:02X}"),
        })
        .collect();
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}")
}

#[cfg(test)]
mod tests {
    use super::{Asked, byte_range, disposition};

    #[test]
    fn ranges_follow_the_standard() {
        for (text, expected) in [
            ("bytes=0-4", Asked::Part(0..5)),
            ("bytes=5-", Asked::Part(5..10)),
            ("bytes=-3", Asked::Part(7..10)),
            ("bytes=-30", Asked::Part(0..10)),
            ("bytes=8-99", Asked::Part(8..10)),
            ("bytes=0-18446744073709551615", Asked::Part(0..10)),
            ("bytes=10-", Asked::Nothing),
            ("bytes=-0", Asked::Nothing),
            ("bytes=4-2", Asked::Everything),
            ("bytes=0-1,4-5", Asked::Everything),
            ("items=0-1", Asked::Everything),
            ("bytes=x-y", Asked::Everything),
        ] {
            assert_eq!(byte_range(text, 10), expected, "{text}");
        }
    }

    #[test]
    fn names_cannot_break_out_of_the_header() {
        assert_eq!(disposition("a b.txt"), "attachment; filename=\"a b.txt\"");
        assert_eq!(
            disposition("a\"\r\n"),
            "attachment; filename=\"a___\"; filename*=UTF-8''a%22%0D%0A"
        );
    }
}
