//! Streaming conversion of a whole checkpoint directory.

use std::path::Path;
use std::time::Instant;

use fewbit_checkpoint::{Checkpoint, CheckpointWriter, MODULES_FILE};
use tracing::debug;

use crate::carry_over::{carried_files, modules_at_root};
use crate::conversion::{Output, convert_tensor};
use crate::overlap::refuse_overlap;
use crate::report::ModuleReport;
pub use crate::report::QuantizeReport;
use crate::{QuantizeError, QuantizePlan, Recipe, config_file};

/// Converts the checkpoint in `source` into the directory `out`, one tensor at a time.
///
/// Everything that can be checked is checked before anything is written; the result appears at `out`
/// only when it is whole. With `force` an existing output directory is replaced. Files other than
/// weights are carried over, and the recipe is written beside the model as `recipe.toml`.
///
/// `progress(done_bytes, total_bytes, tensor)` is called after every slice of source bytes that was
/// dealt with.
///
/// The same source and recipe give the same bytes.
///
/// # Errors
/// Those of [`QuantizePlan::new`]; NaN or infinity in a float tensor of the encoder (in others they are carried over, with a note); a value out of the range of
/// fp16 or bf16; an output directory that is not empty (without `force`) or overlaps the source; a
/// full disk. Nothing is left behind.
pub fn quantize_model(
    source: impl AsRef<Path>,
    recipe: &Recipe,
    out: impl AsRef<Path>,
    force: bool,
    progress: &mut dyn FnMut(usize, usize, &str),
) -> Result<QuantizeReport, QuantizeError> {
    let started = Instant::now();
    let (source, out) = (source.as_ref(), out.as_ref());
    recipe.validate()?;
    let checkpoint = Checkpoint::open(source)?;
    let plan = QuantizePlan::new(&checkpoint, recipe)?;
    refuse_overlap(source, out)?;
    let files = carried_files(source, checkpoint.folder())?;

    let mut writer = CheckpointWriter::create(out, force)?;
    // First, as it finds out whether the disk has room.
    writer.plan_tensors(
        plan.rows()
            .iter()
            .flat_map(|row| row.outputs.clone())
            .collect(),
    )?;
    for file in &files {
        writer.copy_file(&file.path, &file.name)?;
    }
    if let Some(modules) = modules_at_root(&checkpoint)? {
        writer.write_json(MODULES_FILE, &modules)?;
    }
    writer.write_json("config.json", &output_config(&checkpoint, &plan))?;
    writer.write_file("recipe.toml", recipe.to_toml().as_bytes())?;

    let mut report = QuantizeReport::of_plan(source.to_owned(), &plan);
    let mut output = Output::new(&mut writer, progress, plan.source_bytes());
    for row in plan.rows() {
        debug!(tensor = row.tensor, action = %row.action);
        let view = checkpoint.require(&row.tensor)?;
        let outcome = convert_tensor(&view, row, &mut output)?;
        checkpoint.release(&row.tensor);
        report.underflowed += outcome.underflowed;
        if let Some(found) = outcome.non_finite {
            report.notes.push(format!(
                "{}: tensor `{}` was carried over with {found}: the encoder does not use it",
                view.info.file.display(),
                row.tensor
            ));
        }
        if let (Some(module), Some(error)) = (&row.module, outcome.error) {
            report.modules.push(ModuleReport::new(module, row, &error));
        }
    }
    report.output = writer.finish()?;
    report.elapsed_seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// config.json of the result.
fn output_config(checkpoint: &Checkpoint, plan: &QuantizePlan) -> serde_json::Value {
    let config = checkpoint.config();
    match (
        plan.quantization_config(),
        plan.recipe().method.float_dtype(),
    ) {
        (Some(quantization), _) => config_file::with_quantization(config, quantization.clone()),
        (None, Some(dtype)) => config_file::with_dtype(config, dtype),
        (None, None) => config.clone(),
    }
}
