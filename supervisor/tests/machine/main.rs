//! The machine, told what happened and when.

mod accounts;
mod extremes;
mod holders;
mod incident;
mod sequences;
mod snapshots;
mod subject;
mod wishes;
