//! What clients ask of a server beyond inference, told apart from how they ask: HTTP and gRPC
//! only translate.

pub(crate) mod statistics;
