//! Defaults that need no async runtime: TCP on `async-io`'s own reactor, names through the operating system
//! on a thread that may block, and an executor of one thread.
//!
//! Works on Linux, macOS and Windows. The transport runs under any executor: whichever thread waits, the
//! reactor wakes its tasks.

mod dns;
mod executor;
mod tcp;

pub use executor::NativeExecutor;
pub use tcp::NativeTransport;
