//! Defaults that need no async runtime: TCP on `async-io`'s own reactor, names through the operating system
//! on a thread that may block, an executor of one thread, and questions to gateways and STUN servers over UDP.
//!
//! Works on Linux, macOS and Windows. The transport runs under any executor: whichever thread waits, the
//! reactor wakes its tasks.

mod dns;
mod executor;
mod gateway;
mod route;
mod tcp;
#[cfg(feature = "upnp")]
mod upnp;

pub use executor::NativeExecutor;
pub use gateway::NativeGateway;
pub use tcp::NativeTransport;
