//! `fewbit inspect`

use crate::arguments::{GlobalArguments, InspectArguments};
use crate::model_directory::{resolve, warn_of_unused_layers};
use crate::{render, streams};
use anyhow::Result;

pub(super) fn run(arguments: &InspectArguments, global: GlobalArguments) -> Result<()> {
    let inspection = fewbit::inspect(resolve(&arguments.model)?)?;
    tracing::info!(
        model_type = inspection.model_type,
        tensors = inspection.tensors.len(),
        parameters = inspection.size.parameters,
        methods = inspection.methods.len(),
        "headers read, sizes planned"
    );
    if let Some(encoder) = &inspection.encoder {
        warn_of_unused_layers(encoder.layers, encoder.stored_layers);
    }
    if global.json {
        return streams::print_json(&inspection);
    }
    streams::print(&render::inspection::text(&inspection, arguments.tensors))
}
