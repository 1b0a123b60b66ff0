//! Everything that `wg` keeps on disk: who writes what, under which lock, in which format.
//!
//! Three rules hold for every file here. A rewrite goes through a temporary file and a rename; a read-modify-write happens under the lock
//! of the file; a line or a field that we do not understand is kept as it was.

pub mod attempt;
mod chat_id;
pub mod chat_state;
mod chat_task;
pub mod config;
mod cursor;
pub(crate) mod discover;
pub mod error;
pub mod events;
pub mod exit_record;
mod fields;
pub mod files;
pub mod graph;
pub mod handed_over;
mod json;
pub mod jsonl;
mod lock;
mod message_log;
pub mod messages;
mod notify;
pub mod numbering;
mod out_of_order;
pub mod policy_file;
pub mod registry;
pub mod rename;
pub mod resolve;
pub mod room;
mod rotation;
pub mod service_state;
pub mod setting;
pub mod task;
mod toml_section;
pub mod watch;
pub mod workspace;

pub use error::StoreError;
pub use workspace::Workspace;
