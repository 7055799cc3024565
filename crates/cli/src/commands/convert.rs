//! `fewbit convert`

use crate::arguments::{ConvertArguments, GlobalArguments};
use crate::failure::UsageError;
use crate::render::progress::{Progress, Unit};
use crate::{render, streams};
use anyhow::Result;
use fewbit::quantize::{OutputOptions, weight_codecs};
use fewbit::{
    ConversionTarget, ConvertOptions, ConvertPlan, Int4Options, QuantizeError, convert_model,
    plan_conversion, threads,
};
use serde::Serialize;

/// What `--dry-run --json` prints.
#[derive(Serialize)]
struct DryRun<'a> {
    dry_run: bool,
    #[serde(flatten)]
    plan: &'a ConvertPlan,
}

pub(super) fn run(arguments: &ConvertArguments, global: GlobalArguments) -> Result<()> {
    let target = target(arguments)?;
    let threads = threads::resolve(arguments.threads)?;
    weight_codecs::set_threads(threads.count);
    let source = super::resolve(&arguments.model)?;
    let options = ConvertOptions {
        allow_requantize: arguments.allow_requantize,
        output: OutputOptions {
            force: arguments.force,
            max_shard_size: arguments.max_shard_size.unwrap_or_default(),
            resume: arguments.resume,
        },
    };
    let output = match &arguments.output {
        Some(output) if !arguments.dry_run => output,
        output => {
            let plan = plan_conversion(&source, &target, output.as_deref(), options)
                .map_err(in_words_of_flags)?;
            return if global.json {
                streams::print_json(&DryRun {
                    dry_run: true,
                    plan: &plan,
                })
            } else {
                streams::print(&render::conversion::plan(&plan))
            };
        }
    };
    if arguments.resume {
        super::say_if_nothing_is_to_resume(output);
    }
    let mut progress = Progress::start(&target.to_string(), 0, Unit::Bytes);
    let mut show = |done, total, tensor: &str| {
        progress.set(done as u64, total as u64, tensor);
    };
    let report = convert_model(&source, &target, output, options, &mut show);
    progress.finish();
    let report = report.map_err(in_words_of_flags)?;
    tracing::info!(output = %report.output.display(), seconds = report.elapsed_seconds, "written");
    if global.json {
        streams::print_json(&report)
    } else {
        streams::print(&render::conversion::report(&report, output))
    }
}

/// An error of a key of the recipe that a flag sets, told by the flag.
fn in_words_of_flags(error: QuantizeError) -> anyhow::Error {
    match error {
        QuantizeError::Recipe {
            field: "group_size",
            expected,
            found,
            hint,
            ..
        } => UsageError(format!(
            "--group-size: expected {expected}, found {found}\n  hint: {hint}"
        ))
        .into(),
        other => other.into(),
    }
}

/// The layout with its options.
///
/// # Errors
/// Options of other layouts.
fn target(arguments: &ConvertArguments) -> Result<ConversionTarget> {
    let to = &arguments.to;
    let refuse = |flag: &str, layouts: &str| {
        Err(UsageError(format!(
            "{flag}: does not go with `--to {to}`\n  hint: it is for {layouts}"
        ))
        .into())
    };
    let int4 = to.int4_options();
    if int4.is_none() && arguments.group_size.is_some() {
        return refuse("--group-size", "int4, gptq, gptq_v2 and awq");
    }
    if int4.is_none() && arguments.asymmetric {
        return refuse("--asymmetric", "int4, gptq, gptq_v2 and awq");
    }
    if let ConversionTarget::Gguf(_) = to {
        if arguments.max_shard_size.is_some() {
            return refuse("--max-shard-size", "directories: a GGUF file is one file");
        }
        if arguments.resume {
            return refuse("--resume", "directories: a single file is begun anew");
        }
    }
    Ok(match int4 {
        None => to.clone(),
        Some(options) => ConversionTarget::int4(Int4Options {
            group_size: arguments.group_size.unwrap_or_default(),
            asymmetric: arguments.asymmetric,
            ..options
        }),
    })
}
