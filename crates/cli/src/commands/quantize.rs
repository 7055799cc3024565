//! `fewbit quantize`

use crate::arguments::{GlobalArguments, MethodArgument, QuantizeArguments};
use crate::failure::UsageError;
use crate::render::progress::{Progress, Unit};
use crate::{render, streams};
use anyhow::Result;
use fewbit::{Checkpoint, Method, QuantizePlan, Recipe, quantize_model};

pub(super) fn run(arguments: &QuantizeArguments, global: GlobalArguments) -> Result<()> {
    let recipe = recipe(arguments)?;
    let source = super::resolve(&arguments.model)?;
    if arguments.method == Some(MethodArgument::Int4) {
        streams::note("int4 is nf4: 4-bit NormalFloat codes\n");
    }
    let output = match &arguments.output {
        Some(output) if !arguments.dry_run => output,
        _ => {
            let plan = QuantizePlan::new(&Checkpoint::open(source)?, &recipe)?;
            return if global.json {
                streams::print_json(&plan)
            } else {
                streams::print(&render::quantization::plan(&plan))
            };
        }
    };
    let mut progress = Progress::start(&recipe.label(), 0, Unit::Bytes);
    let report = quantize_model(
        &source,
        &recipe,
        output,
        arguments.force,
        &mut |done, total, module| {
            progress.set(done as u64, total as u64, module);
        },
    );
    progress.finish();
    let report = report?;
    if global.json {
        streams::print_json(&report)
    } else {
        streams::print(&render::quantization::report(&report, output))
    }
}

/// The recipe that the flags and the recipe file, if any, amount to.
fn recipe(arguments: &QuantizeArguments) -> Result<Recipe> {
    let method = arguments.method.map(method);
    let mut recipe = match (&arguments.recipe, method) {
        (Some(path), _) => {
            let recipe = Recipe::read(path)?;
            contradictions(arguments, method, &recipe)?;
            recipe
        }
        (None, Some(method)) => {
            let mut recipe = Recipe::new(method)
                .with_double_quantization(arguments.double_quant)
                .with_quantize_embeddings(arguments.quantize_embeddings);
            if let Some(block_size) = arguments.block_size {
                recipe = recipe.with_block_size(block_size);
            }
            recipe
        }
        (None, None) => return Err(UsageError("expected --method or --recipe".to_owned()).into()),
    };
    let more = arguments
        .skip
        .iter()
        .filter(|pattern| !recipe.skip.contains(pattern))
        .cloned()
        .collect::<Vec<_>>();
    recipe = recipe.with_skip(more);
    recipe
        .validate()
        .map_err(|error| UsageError(error.to_string()))?;
    Ok(recipe)
}

/// A flag beside a recipe file may repeat what the file says, and `--skip` may add to it; it may not say otherwise.
fn contradictions(
    arguments: &QuantizeArguments,
    method: Option<Method>,
    recipe: &Recipe,
) -> Result<(), UsageError> {
    let refuse = |flag: &str, typed: String, file: String| {
        Err(UsageError(format!(
            "{flag} contradicts the recipe file: the flag says {typed}, the file {file}\n  hint: leave out the flag, or change the file"
        )))
    };
    if let Some(method) = method
        && method != recipe.method
    {
        return refuse("--method", method.to_string(), recipe.method.to_string());
    }
    if let Some(block_size) = arguments.block_size
        && (recipe.method.four_bit_type().is_none() || block_size != recipe.effective_block_size())
    {
        let file = recipe.method.four_bit_type().map_or_else(
            || "none".to_owned(),
            |_| recipe.effective_block_size().to_string(),
        );
        return refuse("--block-size", block_size.to_string(), file);
    }
    if arguments.double_quant && !recipe.double_quantization {
        return refuse("--double-quant", "true".to_owned(), "false".to_owned());
    }
    if arguments.quantize_embeddings && !recipe.quantize_embeddings {
        return refuse(
            "--quantize-embeddings",
            "true".to_owned(),
            "false".to_owned(),
        );
    }
    Ok(())
}

fn method(argument: MethodArgument) -> Method {
    match argument {
        MethodArgument::Dynamic => Method::Dynamic,
        MethodArgument::WeightOnly => Method::WeightOnly,
        MethodArgument::Fp16 => Method::Fp16,
        MethodArgument::Bf16 => Method::Bf16,
        MethodArgument::Nf4 | MethodArgument::Int4 => Method::Nf4,
        MethodArgument::Fp4 => Method::Fp4,
    }
}
