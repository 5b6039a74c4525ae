//! Request bodies: read with a limit, and read to their end when they were refused.
//!
//! A connection that is closed on unread bytes is reset, and a client that is still sending
//! then never sees why it was refused. So a refused body is read and thrown away for a while.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;

use crate::{RegistryError, Result};

/// How long a body that is read into memory may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(30);
/// How long, and how much of, a refused body is thrown away before the connection is closed.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES: usize = 64 << 20;

/// The whole of a body of at most `limit` bytes.
pub(super) async fn collect(body: Body, limit: usize) -> Result<Bytes> {
    let mut stream = body.into_data_stream();
    let collected = tokio::time::timeout(ARRIVAL, gather(&mut stream, limit)).await;
    match collected {
        Ok(Err(error @ RegistryError::TooLarge(_))) => {
            linger(stream);
            Err(error)
        }
        Ok(collected) => collected,
        Err(_) => Err(RegistryError::InvalidArgument("body did not arrive in time".into())),
    }
}

/// Throws the rest of a refused body away, in the background and within bounds.
pub(super) fn linger(mut stream: BodyDataStream) {
    tokio::spawn(tokio::time::timeout(LINGER, async move {
        let mut left = LINGER_BYTES;
        while let Some(Ok(chunk)) = stream.next().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                break;
            }
        }
    }));
}

async fn gather(stream: &mut BodyDataStream, limit: usize) -> Result<Bytes> {
    let mut body = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk
            .map_err(|error| RegistryError::InvalidArgument(format!("body broke off: {error}")))?;
        if body.len() + chunk.len() > limit {
            return Err(RegistryError::TooLarge(format!("body is longer than {limit} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}
