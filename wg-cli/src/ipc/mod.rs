//! The wire between `wg` and its daemon: one JSON object a line over a Unix stream socket.
//!
//! `protocol` names every request once; `client` and `server` move lines and know nothing of chats.

pub mod client;
pub mod protocol;
pub mod server;
mod silence;

pub use client::{Attachment, CallError, Client, ConnectError};
pub use protocol::{PROTOCOL_VERSION, Reply, Request};
