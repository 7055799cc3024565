//! `fewbit inspect`

use crate::arguments::{GlobalArguments, InspectArguments};
use crate::{render, streams};
use anyhow::Result;

pub(super) fn run(arguments: &InspectArguments, global: GlobalArguments) -> Result<()> {
    let inspection = fewbit::inspect(super::resolve(&arguments.model)?)?;
    if global.json {
        return streams::print_json(&inspection);
    }
    streams::print(&render::inspection::text(&inspection, arguments.tensors))
}
