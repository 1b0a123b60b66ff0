use crate::cli::args::session::{AliasCommand, New, One};
use crate::cli::context::Context;
use crate::cli::not_built;
pub(super) fn new(_: &Context<'_>, _: &New) -> crate::failure::Outcome {
    Err(not_built("wg session new", "wg chat new"))
}
pub(super) fn alias(_: &Context<'_>, _: &AliasCommand) -> crate::failure::Outcome {
    Err(not_built("wg session alias", "wg chat new --name NAME"))
}
pub(super) fn rm(_: &Context<'_>, _: &One) -> crate::failure::Outcome {
    Err(not_built("wg session rm", "wg chat archive REF"))
}
