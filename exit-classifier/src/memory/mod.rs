//! How much memory a process really has, and what its control group says about it.
//!
//! The figure is *resident memory that no file stands behind*: anonymous pages plus shared memory. `VmRSS`, which most tools show, also
//! counts mapped files, which the kernel takes back whenever it needs to: a program that reads a few packed repositories
//! shows gigabytes of it with a heap of a hundred megabytes. The figure here is a gauge for a leak in a process, **not** what the kernel's
//! out-of-memory killer looks at: a control group is also charged for page cache, kernel memory and sockets. Memory that was
//! swapped out is not resident and is not counted.

mod cap;
pub mod cgroup;
mod error;
mod status;
mod tree;

pub use cap::{Basis, LimitedBy, basis, cap, default_cap, host_memory};
pub use error::MemoryError;
pub use status::{Resident, Source, parse_status, resident};
pub use tree::{Tree, tree};
