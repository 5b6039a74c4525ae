//! How gRPC connections are kept and what they may carry.

use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

/// The choices in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transport {
    /// Whether answers are compressed for who accepts that.
    pub(crate) compress_replies: bool,
    /// How often a silent client is asked whether it is still there.
    pub(crate) keepalive_time: Duration,
    /// How long it may take to say so.
    pub(crate) keepalive_timeout: Duration,
    /// Calls that one connection may have open.
    pub(crate) max_streams: u32,
}

/// The choices as written: what is absent has a default.
#[derive(Debug, Clone, Default, Args, Deserialize, Serialize)]
#[serde(default)]
pub struct TransportSettings {
    /// Compress answers for clients that accept gzip or deflate: less to send, more to compute [default: false]
    #[arg(long, value_name = "BOOL", env = "SLUICE_GRPC_COMPRESS_REPLIES", num_args = 0..=1, default_missing_value = "true")]
    pub grpc_compress_replies: Option<bool>,
    /// How often a silent client is asked whether it is still there [default: 60s]
    #[arg(long, value_name = "TIME", env = "SLUICE_GRPC_KEEPALIVE_TIME", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub grpc_keepalive_time: Option<Duration>,
    /// How long it may take to say so [default: 20s]
    #[arg(long, value_name = "TIME", env = "SLUICE_GRPC_KEEPALIVE_TIMEOUT", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub grpc_keepalive_timeout: Option<Duration>,
    /// Calls that one connection may have open; further ones wait in the client [default: 1024]
    #[arg(long, value_name = "N", env = "SLUICE_GRPC_MAX_STREAMS")]
    pub grpc_max_streams: Option<u32>,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            compress_replies: false,
            keepalive_time: Duration::from_secs(60),
            keepalive_timeout: Duration::from_secs(20),
            max_streams: 1024,
        }
    }
}

impl TransportSettings {
    /// These, and where they say nothing, `file`.
    pub(crate) fn over(self, file: Self) -> Self {
        Self {
            grpc_compress_replies: self.grpc_compress_replies.or(file.grpc_compress_replies),
            grpc_keepalive_time: self.grpc_keepalive_time.or(file.grpc_keepalive_time),
            grpc_keepalive_timeout: self.grpc_keepalive_timeout.or(file.grpc_keepalive_timeout),
            grpc_max_streams: self.grpc_max_streams.or(file.grpc_max_streams),
        }
    }

    /// With the defaults for what nobody said, or what is wrong with them.
    pub(crate) fn resolve(&self) -> Result<Transport, String> {
        let default = Transport::default();
        let transport = Transport {
            compress_replies: self.grpc_compress_replies.unwrap_or(default.compress_replies),
            keepalive_time: self.grpc_keepalive_time.unwrap_or(default.keepalive_time),
            keepalive_timeout: self.grpc_keepalive_timeout.unwrap_or(default.keepalive_timeout),
            max_streams: self.grpc_max_streams.unwrap_or(default.max_streams),
        };
        if transport.max_streams == 0 {
            return Err("--grpc-max-streams must be at least 1".to_owned());
        }
        if transport.keepalive_time.is_zero() || transport.keepalive_timeout.is_zero() {
            return Err("--grpc-keepalive-time and -timeout must be longer than 0".to_owned());
        }
        Ok(transport)
    }
}
