//! What clients ask of a server beyond inference, told apart from how they ask: HTTP and gRPC
//! only translate.

pub(crate) mod exposure;
pub(crate) mod extensions;
pub(crate) mod logging;
pub(crate) mod repository;
pub(crate) mod shared_memory;
pub(crate) mod statistics;
pub(crate) mod trace;
