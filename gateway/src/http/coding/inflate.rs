//! Undoes the compression of a body, a slice at a time and no further than the body limit.

use bytes::Bytes;
use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::{Coding, SLICE};
use crate::error::GatewayError;

/// Members that a gzip body may have. Each costs some microseconds, however little is in it.
const MOST_MEMBERS: usize = 10_000;

/// What `body` was before `coding`: an error once that gets larger than `limit` bytes, and for
/// whatever is cut off, damaged or followed by something else. Gzip's may be several members behind
/// each other, which then are one (RFC 1952, 2.2).
pub(in crate::http) async fn inflate(
    coding: Coding,
    body: &[u8],
    limit: usize,
) -> Result<Bytes, GatewayError> {
    let damaged = |reason| {
        GatewayError::Invalid(format!("request body is no {} stream: {reason}", coding.as_str()))
    };
    let mut stream = Stream::new(coding, body);
    for _ in 0..MOST_MEMBERS {
        stream.begin().map_err(damaged)?;
        while !stream.ended {
            stream.advance().map_err(damaged)?;
            if stream.given > limit {
                return Err(GatewayError::TooLarge { limit });
            }
            tokio::task::yield_now().await;
        }
        stream.take_trailer().map_err(damaged)?;
        if stream.rest.is_empty() {
            return Ok(stream.finish());
        }
    }
    Err(GatewayError::Invalid(format!("request body has more than {MOST_MEMBERS} gzip members")))
}

/// A deflate stream on its way.
struct Stream<'b> {
    coding: Coding,
    rest: &'b [u8],
    inner: Decompress,
    /// What has come out, `given` bytes, and behind it what the next slice is put into.
    out: Vec<u8>,
    given: usize,
    /// Of what has come out of this member. Zlib's frame has another sum, which is checked inside.
    sum: Crc,
    ended: bool,
}

impl<'b> Stream<'b> {
    fn new(coding: Coding, rest: &'b [u8]) -> Self {
        let inner = Decompress::new(coding == Coding::Deflate);
        Self { coding, rest, inner, out: Vec::new(), given: 0, sum: Crc::new(), ended: false }
    }

    /// Passes over the header, of the first member or of another one.
    fn begin(&mut self) -> Result<(), &'static str> {
        let is_first = !std::mem::take(&mut self.ended);
        if self.coding == Coding::Gzip {
            let wrong = if is_first { "its header is wrong" } else { FOLLOWED };
            self.rest = &self.rest[gzip_header(self.rest).ok_or(wrong)?..];
        }
        if !is_first {
            self.inner.reset(false);
            self.sum.reset();
        }
        Ok(())
    }

    /// Takes at most a slice in and gives at most a slice out.
    fn advance(&mut self) -> Result<(), &'static str> {
        let (taken, given) = (self.inner.total_in(), self.inner.total_out());
        let input = &self.rest[..self.rest.len().min(SLICE)];
        let before = self.given;
        if self.out.len() < before + SLICE {
            self.out.resize(before + SLICE, 0);
        }
        let status = self
            .inner
            .decompress(input, &mut self.out[before..before + SLICE], FlushDecompress::None)
            .map_err(|_| "it is damaged")?;
        // Both are no more than a slice.
        let taken = usize::try_from(self.inner.total_in() - taken).unwrap_or(0);
        let given = usize::try_from(self.inner.total_out() - given).unwrap_or(0);
        self.given = before + given;
        self.rest = &self.rest[taken..];
        if self.coding == Coding::Gzip {
            self.sum.update(&self.out[before..self.given]);
        }
        self.ended = status == Status::StreamEnd;
        if !self.ended && taken == 0 && given == 0 {
            return Err("it is cut off");
        }
        Ok(())
    }

    /// Takes what stands behind the stream: gzip's sum and length, else nothing at all.
    fn take_trailer(&mut self) -> Result<(), &'static str> {
        if self.coding == Coding::Deflate {
            return if self.rest.is_empty() { Ok(()) } else { Err(FOLLOWED) };
        }
        let (trailer, rest) = self.rest.split_first_chunk::<8>().ok_or("it is cut off")?;
        let [sum, length] = [self.sum.sum(), self.sum.amount()].map(u32::to_le_bytes);
        if trailer[..4] != sum || trailer[4..] != length {
            return Err("its checksum is wrong");
        }
        self.rest = rest;
        Ok(())
    }

    /// All that has come out.
    fn finish(mut self) -> Bytes {
        self.out.truncate(self.given);
        self.out.into()
    }
}

/// What is wrong with a stream behind whose end there is more.
const FOLLOWED: &str = "something follows its end";

/// How long the gzip header is that `body` begins with (RFC 1952, 2.3).
fn gzip_header(body: &[u8]) -> Option<usize> {
    let &[0x1f, 0x8b, 8, flags, ..] = body else { return None };
    if flags & 0xe0 != 0 {
        return None;
    }
    let mut at = 10;
    if flags & 4 != 0 {
        let length = body.get(at..at + 2)?;
        at += 2 + usize::from(u16::from_le_bytes(length.try_into().ok()?));
    }
    for text in [8, 16] {
        if flags & text != 0 {
            at += body.get(at..)?.iter().position(|&byte| byte == 0)? + 1;
        }
    }
    if flags & 2 != 0 {
        at += 2;
    }
    (at <= body.len()).then_some(at)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use bytes::Bytes;
    use flate2::write::ZlibEncoder;
    use flate2::{Compression, GzBuilder};
    use proptest::prelude::*;

    use super::{Coding, inflate};
    use crate::error::GatewayError;
    use crate::http::coding::compress;

    const LIMIT: usize = 1 << 20;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn inflated(coding: Coding, body: &[u8]) -> Result<Bytes, GatewayError> {
        run(inflate(coding, body, LIMIT))
    }

    fn says(coding: Coding, body: &[u8]) -> String {
        inflated(coding, body).unwrap_err().to_string()
    }

    #[test]
    fn every_part_of_a_gzip_header_is_passed_over() {
        let builder = GzBuilder::new().filename("a.json").comment("c").extra(vec![1, 2, 3]);
        let mut encoder = builder.write(Vec::new(), Compression::best());
        encoder.write_all(b"hello").unwrap();
        let body = encoder.finish().unwrap();
        assert_eq!(inflated(Coding::Gzip, &body).unwrap(), "hello");
        for cut in 0..body.len() {
            assert!(inflated(Coding::Gzip, &body[..cut]).is_err(), "{cut}");
        }
        let mut reserved = body;
        reserved[3] |= 0x80;
        assert!(says(Coding::Gzip, &reserved).contains("header is wrong"));
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        let text = Bytes::from("0123456789".repeat(100_000).into_bytes());
        for coding in [Coding::Gzip, Coding::Deflate] {
            let body = run(compress(coding, &text)).unwrap();
            assert_eq!(inflated(coding, &body).unwrap(), text);
            for cut in [1, 4, 9, body.len() / 2] {
                let error = says(coding, &body[..body.len() - cut]);
                assert!(error.contains("is cut off"), "{cut}: {error}");
            }
            for more in [&b"x"[..], &[0; 20], &body[1..]] {
                assert!(says(coding, &[&body[..], more].concat()).contains("something follows"));
            }
            let mut damaged = body.to_vec();
            let last = damaged.len() - 1;
            damaged[last - 5] ^= 1;
            assert!(inflated(coding, &damaged).is_err());
            assert!(inflated(coding, b"").is_err());
            assert!(inflated(coding, b"{\"inputs\": []}").is_err());
        }
        let mut sum = run(compress(Coding::Gzip, &text)).unwrap().to_vec();
        let at = sum.len() - 8;
        sum[at] ^= 1;
        assert!(says(Coding::Gzip, &sum).contains("checksum"));
    }

    #[test]
    fn gzip_members_behind_each_other_are_one_text() {
        let parts = ["0123456789".repeat(20_000), "a".repeat(100_000), "b".repeat(200)];
        let gzip = |part: &str| {
            run(compress(Coding::Gzip, &Bytes::copy_from_slice(part.as_bytes()))).unwrap()
        };
        let members: Vec<Bytes> = parts.iter().map(|part| gzip(part)).collect();
        assert_eq!(inflated(Coding::Gzip, &members.concat()).unwrap(), parts.concat());
        let mut damaged = members.clone();
        damaged[1] = members[1].slice(..members[1].len() - 1);
        assert!(inflated(Coding::Gzip, &damaged.concat()).is_err());
        let cut = members.concat();
        assert!(says(Coding::Gzip, &cut[..cut.len() - 3]).contains("cut off"));
        // The limit is for all of them.
        let many = gzip(&"a".repeat(LIMIT / 2)).repeat(3);
        let error = inflated(Coding::Gzip, &many).unwrap_err();
        assert!(matches!(error, GatewayError::TooLarge { limit: LIMIT }), "{error}");
        let empty = GzBuilder::new().write(Vec::new(), Compression::fast()).finish().unwrap();
        assert_eq!(inflated(Coding::Gzip, &empty.repeat(3)).unwrap(), "");
        assert!(says(Coding::Gzip, &empty.repeat(10_001)).contains("more than 10000 gzip members"));
    }

    #[test]
    fn deflate_streams_behind_each_other_are_refused() {
        let body = run(compress(Coding::Deflate, &Bytes::from("a".repeat(1000)))).unwrap();
        assert!(says(Coding::Deflate, &body.repeat(2)).contains("something follows"));
    }

    /// A thousandfold bomb of which no more is made than the limit.
    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        let zeros = vec![0; 1 << 20];
        (0..64).for_each(|_| encoder.write_all(&zeros).unwrap());
        let bomb = encoder.finish().unwrap();
        assert!(bomb.len() < 1 << 17, "{}", bomb.len());
        let error = inflated(Coding::Deflate, &bomb).unwrap_err();
        assert!(matches!(error, GatewayError::TooLarge { limit: LIMIT }), "{error}");
        let mut exact = ZlibEncoder::new(Vec::new(), Compression::best());
        exact.write_all(&zeros).unwrap();
        assert_eq!(inflated(Coding::Deflate, &exact.finish().unwrap()).unwrap().len(), LIMIT);
    }

    proptest! {
        #[test]
        fn any_bytes_are_inflated_or_refused(body in any::<Vec<u8>>(), begins in any::<bool>()) {
            let header: &[u8] = if begins { &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0] } else { &[] };
            let _either = inflated(Coding::Gzip, &[header, &body].concat());
            let _either = inflated(Coding::Deflate, &body);
        }
    }
}
