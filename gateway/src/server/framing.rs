//! Reads along with the bytes of an HTTP/1 connection, to find what two readers of them could
//! understand differently: where a message ends. An intermediary that disagrees about that lets
//! one caller put a request into another's connection, so such messages are refused, also those
//! that hyper would read in one of their meanings.
//!
//! Refused are: a body with more than one header that says how long it is, a length that is no
//! plain number, a transfer coding other than `chunked`, and lines that end in a bare line feed.

use std::io::BufRead;

/// As much of a line as is looked at; a header that frames a body is shorter.
const LINE: usize = 64;

/// Where in the messages of a connection the reading is.
#[derive(Debug, Default)]
pub(super) struct Framing {
    state: State,
    /// What has come of a line that has not ended.
    begun: Begun,
    /// How long the body is, as the head says so far.
    length: Option<Length>,
    /// Heads that have ended.
    heads: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// Before a request line.
    #[default]
    Start,
    Headers,
    /// So many bytes of a body are to come.
    Body(u64),
    ChunkSize,
    /// So many bytes of a chunk are to come.
    Chunk(u64),
    ChunkEnd,
    Trailers,
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Bytes(u64),
    Chunked,
}

/// The message must not be read on.
#[derive(Debug, PartialEq, Eq)]
struct Ambiguous;

impl Framing {
    /// Reads on. An error is the index of the first byte that must not be passed on.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            at += match &mut self.state {
                State::Refused => return Err(at),
                State::Body(left) | State::Chunk(left) => {
                    let passed = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= passed as u64;
                    self.end_data();
                    passed
                }
                _ => {
                    let Some(end) = line_feed(rest) else {
                        self.begun.push(rest);
                        return Ok(());
                    };
                    if self.follow_line(&rest[..end]) == Err(Ambiguous) {
                        self.state = State::Refused;
                        return Err(at + end);
                    }
                    end + 1
                }
            };
        }
        Ok(())
    }

    /// Whether something was refused, so that nothing behind it may be read.
    pub(super) fn is_refused(&self) -> bool {
        self.state == State::Refused
    }

    /// Whether nothing of a message has come that has not come to its end.
    pub(super) fn is_between_messages(&self) -> bool {
        self.state == State::Start && self.begun.length == 0
    }

    /// Whether a head has begun and not ended.
    pub(super) fn is_in_head(&self) -> bool {
        self.state == State::Headers || (self.state == State::Start && self.begun.length > 0)
    }

    /// How many heads have ended.
    pub(super) const fn heads(&self) -> usize {
        self.heads
    }

    fn end_data(&mut self) {
        match self.state {
            State::Body(0) => self.state = State::Start,
            State::Chunk(0) => self.state = State::ChunkEnd,
            _ => {}
        }
    }

    /// A line's end, and with it the line. Nearly all come whole.
    fn follow_line(&mut self, end: &[u8]) -> Result<(), Ambiguous> {
        if self.begun.length == 0 {
            return self.end_line(&Line::whole(end));
        }
        self.begun.push(end);
        let begun = std::mem::take(&mut self.begun);
        self.end_line(&begun.line())
    }

    fn end_line(&mut self, line: &Line<'_>) -> Result<(), Ambiguous> {
        if line.last != b'\r' {
            return Err(Ambiguous);
        }
        let is_blank = line.length == 1;
        self.state = match self.state {
            // Blank lines may stand before a request.
            State::Start if is_blank => State::Start,
            State::Start => State::Headers,
            State::Headers if is_blank => self.end_head(),
            State::Headers => {
                self.header(line)?;
                State::Headers
            }
            State::ChunkSize => match line.chunk_size()? {
                0 => State::Trailers,
                size => State::Chunk(size),
            },
            State::ChunkEnd if is_blank => State::ChunkSize,
            State::Trailers if is_blank => State::Start,
            State::Trailers => State::Trailers,
            State::ChunkEnd | State::Body(_) | State::Chunk(_) | State::Refused => {
                return Err(Ambiguous);
            }
        };
        Ok(())
    }

    fn end_head(&mut self) -> State {
        self.heads = self.heads.wrapping_add(1);
        match self.length.take() {
            None | Some(Length::Bytes(0)) => State::Start,
            Some(Length::Bytes(length)) => State::Body(length),
            Some(Length::Chunked) => State::ChunkSize,
        }
    }

    fn header(&mut self, line: &Line<'_>) -> Result<(), Ambiguous> {
        // Most headers are told from these two by their first letter.
        if !matches!(line.start, [b'c' | b'C' | b't' | b'T', ..]) {
            return Ok(());
        }
        let length = if let Some(value) = line.value_of(b"content-length:") {
            number(value?, 10).map(Length::Bytes)
        } else if let Some(value) = line.value_of(b"transfer-encoding:") {
            value?.eq_ignore_ascii_case(b"chunked").then_some(Length::Chunked)
        } else {
            return Ok(());
        };
        let length = length.ok_or(Ambiguous)?;
        match self.length.replace(length) {
            None => Ok(()),
            Some(_) => Err(Ambiguous),
        }
    }
}

/// The beginning of a line that comes in pieces.
#[derive(Debug)]
struct Begun {
    start: [u8; LINE],
    length: usize,
    last: u8,
}

impl Default for Begun {
    fn default() -> Self {
        Self { start: [0; LINE], length: 0, last: 0 }
    }
}

impl Begun {
    fn push(&mut self, piece: &[u8]) {
        if let Some(room) = self.start.get_mut(self.length..) {
            let kept = room.len().min(piece.len());
            room[..kept].copy_from_slice(&piece[..kept]);
        }
        self.length = self.length.saturating_add(piece.len());
        self.last = piece.last().copied().unwrap_or(self.last);
    }

    fn line(&self) -> Line<'_> {
        Line { start: &self.start[..self.length.min(LINE)], length: self.length, last: self.last }
    }
}

/// A line without its line feed.
#[derive(Debug)]
struct Line<'b> {
    /// As much of it as is looked at.
    start: &'b [u8],
    length: usize,
    last: u8,
}

impl<'b> Line<'b> {
    fn whole(line: &'b [u8]) -> Self {
        let last = line.last().copied().unwrap_or(0);
        Self { start: &line[..line.len().min(LINE)], length: line.len(), last }
    }

    /// The value of the header that begins with `name`, which has its colon. An error when there is
    /// more of it than is looked at.
    fn value_of(&self, name: &[u8]) -> Option<Result<&'b [u8], Ambiguous>> {
        let (begin, value) = self.start.split_at_checked(name.len())?;
        if !begin.eq_ignore_ascii_case(name) {
            return None;
        }
        // The carriage return is trimmed, too.
        Some(if self.length > LINE { Err(Ambiguous) } else { Ok(value.trim_ascii()) })
    }

    /// The size that a chunk's first line says, before extensions, which say nothing here.
    fn chunk_size(&self) -> Result<u64, Ambiguous> {
        let digits = self.start.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        match self.start.get(digits) {
            Some(b'\r' | b' ' | b'\t' | b';') => number(&self.start[..digits], 16).ok_or(Ambiguous),
            _ => Err(Ambiguous),
        }
    }
}

/// Where the next line feed is, found as the standard library finds it: several bytes at a time.
fn line_feed(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    let passed = rest.skip_until(b'\n').ok()?;
    passed.checked_sub(1).filter(|&last| bytes[last] == b'\n')
}

/// A number of digits alone.
fn number(text: &[u8], radix: u32) -> Option<u64> {
    let is_plain = text.iter().all(|&byte| char::from(byte).is_digit(radix));
    let text = std::str::from_utf8(text).ok().filter(|_| is_plain)?;
    u64::from_str_radix(text, radix).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Framing;

    /// Where `bytes` are refused, if they are, and whether they end between messages.
    fn verdict(bytes: &[u8], cuts: &[usize]) -> (Option<usize>, bool) {
        let mut framing = Framing::default();
        let mut begin = 0;
        for &cut in cuts.iter().chain([&bytes.len()]) {
            let cut = cut.clamp(begin, bytes.len());
            if let Err(at) = framing.follow(&bytes[begin..cut]) {
                return (Some(begin + at), false);
            }
            begin = cut;
        }
        (None, framing.is_between_messages())
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    #[test]
    fn messages_end_where_their_heads_say() {
        for (message, whole) in [
            ("", true),
            (GET, true),
            ("\r\n\r\nGET / HTTP/1.1\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nHost: x\r\n", false),
            ("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab", false),
            ("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n\n\nc", true),
            ("POST / HTTP/1.1\r\ncontent-LENGTH:0\r\n\r\n", true),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", false),
            ("POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n3\r\na\nb\r\n0\r\n\r\n", true),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding:\tchunked \r\n\r\n0A;e=\"1\"\r\n0123456789\r\n000\r\nT: 1\r\n\r\n",
                true,
            ),
        ] {
            assert_eq!(verdict(message.as_bytes(), &[]), (None, whole), "{message:?}");
            let followed = format!("{message}{GET}");
            assert!(!whole || verdict(followed.as_bytes(), &[]) == (None, true), "{followed:?}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let long = format!("Content-Length: {}5\r\n", " ".repeat(80));
        for headers in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length:\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "A: b\nContent-Length: 5\r\n",
            "A: b\n\r\n",
            &long,
        ] {
            let message = format!("POST / HTTP/1.1\r\n{headers}\r\nhello");
            assert!(verdict(message.as_bytes(), &[]).0.is_some(), "{message:?}");
        }
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for body in [
            "\r\n",
            "x\r\n",
            "+5\r\nhello\r\n",
            "5\nhello\r\n",
            "5x\r\n",
            "5\r\nhello!\r\n",
            "0x5\r\nhello\r\n",
            "10000000000000000\r\n",
            "5;a\nb\r\nhello",
            "0\r\nT: 1\n\r\n",
        ] {
            let message = format!("{head}{body}");
            assert!(verdict(message.as_bytes(), &[]).0.is_some(), "{message:?}");
        }
    }

    proptest! {
        /// How the bytes come in pieces changes nothing.
        #[test]
        fn pieces_are_followed_like_the_whole(
            lines in prop::collection::vec(prop::sample::select(vec![
                "GET / HTTP/1.1\r\n", "Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n", "\r\n",
                "3\r\n", "abc", "0\r\n", "\n", "x", "A: b\r\n",
            ]), 0..12),
            cuts in prop::collection::vec(0..100usize, 0..6),
        ) {
            let bytes = lines.concat().into_bytes();
            let mut cuts = cuts;
            cuts.sort_unstable();
            prop_assert_eq!(verdict(&bytes, &[]), verdict(&bytes, &cuts));
        }

        #[test]
        fn any_bytes_are_followed(bytes in any::<Vec<u8>>()) {
            verdict(&bytes, &[bytes.len() / 2]);
        }
    }
}
