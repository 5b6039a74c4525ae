//! Compresses answers, a slice at a time.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use super::{Coding, SLICE};

/// `body` by `coding`, or None when that makes it no smaller.
pub(in crate::http) async fn compress(coding: Coding, body: &Bytes) -> Option<Bytes> {
    let out = Vec::with_capacity(body.len() / 2);
    let level = Compression::fast();
    let compressed = match coding {
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(out, level);
            write_slices(&mut encoder, body).await?;
            encoder.finish()
        }
        Coding::Deflate => {
            let mut encoder = ZlibEncoder::new(out, level);
            write_slices(&mut encoder, body).await?;
            encoder.finish()
        }
    };
    // Writing to memory does not fail, and if it did the body as it is would do.
    compressed.ok().filter(|compressed| compressed.len() < body.len()).map(Bytes::from)
}

async fn write_slices(encoder: &mut impl Write, body: &Bytes) -> Option<()> {
    for slice in body.chunks(SLICE) {
        encoder.write_all(slice).ok()?;
        tokio::task::yield_now().await;
    }
    Some(())
}
