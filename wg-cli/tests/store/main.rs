//! What holds for the files of a workspace.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

mod agents;
mod appends;
mod chat_state;
mod config;
mod events;
mod files;
mod graph;
mod interop;
mod messages;
mod names;
mod numbering;
mod out_of_order;
mod records;
mod references;
mod rotation;
mod watch;
mod workspace;
mod world;
