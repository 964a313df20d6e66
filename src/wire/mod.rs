//! Bytes to messages and back. Pure: fed bytes, answers messages.

pub mod addr;
pub mod compact_size;
pub mod frame;
pub mod message;
pub mod v2;

pub use frame::FrameError;
pub use message::Message;
