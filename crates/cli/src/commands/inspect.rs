//! `fewbit inspect`

use crate::arguments::{GlobalArguments, InspectArguments};
use crate::model_directory::{resolve, warn_of_unused_layers};
use crate::{render, streams};
use anyhow::Result;
use fewbit::checkpoint::gguf::gguf_source;
use std::path::Path;

pub(super) fn run(arguments: &InspectArguments, global: GlobalArguments) -> Result<()> {
    let model = resolve(&arguments.model)?;
    if let Some(file) = gguf_source(&model)? {
        return of_gguf(&file, arguments, global);
    }
    let inspection = fewbit::inspect(model)?;
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

fn of_gguf(file: &Path, arguments: &InspectArguments, global: GlobalArguments) -> Result<()> {
    let inspection = fewbit::inspect_gguf(file)?;
    tracing::info!(
        architecture = inspection.architecture,
        tensors = inspection.tensors.len(),
        parameters = inspection.parameters,
        "header read"
    );
    if global.json {
        return streams::print_json(&inspection);
    }
    streams::print(&render::gguf_inspection::text(
        &inspection,
        arguments.tensors,
    ))
}
