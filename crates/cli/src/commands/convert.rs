//! `fewbit convert`

use crate::arguments::{ConvertArguments, GlobalArguments};
use crate::render::progress::{Progress, Unit};
use crate::{render, streams};
use anyhow::Result;
use fewbit::quantize::weight_codecs;
use fewbit::{ConvertOptions, convert_model, threads};

pub(super) fn run(arguments: &ConvertArguments, global: GlobalArguments) -> Result<()> {
    let threads = threads::resolve(arguments.threads)?;
    weight_codecs::set_threads(threads.count);
    let source = super::resolve(&arguments.model)?;
    let options = ConvertOptions {
        allow_requantize: arguments.allow_requantize,
        force: arguments.force,
    };
    let mut progress = Progress::start(&arguments.to.to_string(), 0, Unit::Bytes);
    let mut show = |done, total, tensor: &str| {
        progress.set(done as u64, total as u64, tensor);
    };
    let report = convert_model(
        &source,
        &arguments.to,
        &arguments.output,
        options,
        &mut show,
    );
    progress.finish();
    let report = report?;
    tracing::info!(output = %report.output.display(), seconds = report.elapsed_seconds, "written");
    if global.json {
        streams::print_json(&report)
    } else {
        streams::print(&render::conversion::report(&report, &arguments.output))
    }
}
