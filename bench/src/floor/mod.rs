//! What no gateway can go below: answering with what was asked, and running a graph.
//!
//! [`Echo`] is a server with the gateway's own set-up (a thread, a runtime and a listener a core,
//! connections spread by the kernel) that gives every body back, over HTTP and over gRPC.
//! [`run_costs`] runs a graph's session alone, by batch size. What a gateway's request costs
//! beyond the two is the gateway's own doing.

mod echo;
mod echo_grpc;
mod session;

pub use echo::{Echo, EchoAddresses};
pub use session::{RunCost, run_costs};
