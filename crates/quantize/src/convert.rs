//! Streaming conversion of a whole checkpoint directory.

use std::path::{Path, PathBuf};
use std::time::Instant;

use fewbit_checkpoint::{Checkpoint, CheckpointWriter, MODULES_FILE, StoredWeight};
use fewbit_kernels::Kernels;
use fewbit_model::{Encoder, EncoderSpec, open_checkpoint};
use fewbit_numerics::dtype::DType;
use tracing::debug;

use crate::carry_over::{CarriedFile, carried_files, modules_at_root};
use crate::conversion::{Outcome, Output, calibrated, convert_tensor};
use crate::gptq::{FinishedLayers, GptqCalibration, GptqModule, GptqOutput, GptqPasses};
use crate::overlap::refuse_overlap;
use crate::report::ModuleReport;
pub use crate::report::QuantizeReport;
use crate::{PlanRow, QuantizeError, QuantizePlan, Recipe, config_file};

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
/// full disk; a recipe with `gptq`, which [`quantize_model_with_gptq`] is for. Nothing is left behind.
pub fn quantize_model(
    source: impl AsRef<Path>,
    recipe: &Recipe,
    out: impl AsRef<Path>,
    force: bool,
    progress: &mut dyn FnMut(usize, usize, &str),
) -> Result<QuantizeReport, QuantizeError> {
    PlannedConversion::new(source, recipe)?.write(None, out, force, progress)
}

/// [`quantize_model`] for a recipe with `gptq`, whose linear layers are rounded for what `calibration` shows of their inputs; a recipe
/// without it needs no calibration, and makes no use of it.
///
/// The same source, recipe and samples give the same bytes, with any number of threads.
///
/// # Errors
/// Those of [`quantize_model`]; a source that cannot be run on the samples; no sample. Nothing is left behind.
pub fn quantize_model_with_gptq(
    source: impl AsRef<Path>,
    recipe: &Recipe,
    calibration: &GptqCalibration,
    out: impl AsRef<Path>,
    force: bool,
    progress: &mut dyn FnMut(usize, usize, &str),
) -> Result<QuantizeReport, QuantizeError> {
    PlannedConversion::new(source, recipe)?.write(Some(calibration), out, force, progress)
}

/// A conversion that is decided and not begun: what becomes of every tensor is known, and what the recipe or the weights would be refused for was
/// found.
///
/// ```no_run
/// use fewbit_quantize::{Method, PlannedConversion, Recipe};
///
/// let conversion = PlannedConversion::new("models/minilm", &Recipe::new(Method::Dynamic))?;
/// println!("{} bytes", conversion.plan().output_bytes());
/// conversion.write(None, "models/minilm-int8", false, &mut |_, _, _| {})?;
/// # Ok::<(), fewbit_quantize::QuantizeError>(())
/// ```
#[derive(Debug)]
pub struct PlannedConversion {
    source: PathBuf,
    checkpoint: Checkpoint,
    plan: QuantizePlan,
}

impl PlannedConversion {
    /// What `recipe` makes of the checkpoint in `source`, under the names of [`open_checkpoint`]. Reads no weight.
    ///
    /// # Errors
    /// Those of [`QuantizePlan::new`].
    pub fn new(source: impl AsRef<Path>, recipe: &Recipe) -> Result<Self, QuantizeError> {
        let source = source.as_ref().to_owned();
        let checkpoint = open_checkpoint(&source)?;
        let plan = QuantizePlan::new(&checkpoint, recipe)?;
        Ok(Self {
            source,
            checkpoint,
            plan,
        })
    }

    /// The source.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// What becomes of every tensor.
    pub fn plan(&self) -> &QuantizePlan {
        &self.plan
    }

    /// Checks what [`write`](Self::write) would be refused for because of the output directory. A hidden directory beside it comes and goes
    /// meanwhile: only that shows whether one can be written.
    ///
    /// # Errors
    /// An output directory that overlaps the source, is not empty (without `force`), or cannot be written.
    pub fn check_output(&self, out: impl AsRef<Path>, force: bool) -> Result<(), QuantizeError> {
        refuse_overlap(&self.source, out.as_ref())?;
        CheckpointWriter::create(out, force)?;
        Ok(())
    }

    /// Carries the plan out, as [`quantize_model`] does. `calibration` is for a recipe with GPTQ, which needs it.
    ///
    /// # Errors
    /// Those of [`quantize_model`] and [`quantize_model_with_gptq`].
    pub fn write(
        &self,
        calibration: Option<&GptqCalibration>,
        out: impl AsRef<Path>,
        force: bool,
        progress: &mut dyn FnMut(usize, usize, &str),
    ) -> Result<QuantizeReport, QuantizeError> {
        let started = Instant::now();
        let Self {
            source,
            checkpoint,
            plan,
        } = self;
        let (recipe, out) = (plan.recipe(), out.as_ref());
        let gptq = match (recipe.needs_samples(), calibration) {
            (false, _) => None,
            (true, Some(calibration)) => Some(calibration),
            (true, None) => {
                return Err(QuantizeError::Recipe {
                    origin: "recipe".to_owned(),
                    field: match recipe.needs_gptq() {
                        true => "gptq",
                        false => "scales",
                    },
                    expected: "calibration texts beside it".to_owned(),
                    found: "none".to_owned(),
                    hint: "give some: `quantize_model_with_gptq`, or `--calibration FILE` on the command line".to_owned(),
                });
            }
        };
        refuse_overlap(source, out)?;
        let kernels = Kernels::from_environment()?;
        let files = carried_files(source, checkpoint.folder())?;
        let mut writer = CheckpointWriter::create(out, force)?;
        self.write_other_files(&mut writer, &files)?;

        let mut conversion = Conversion {
            checkpoint,
            report: QuantizeReport::of_plan(source.clone(), plan),
            modules: Vec::new(),
            output: Output::new(&mut writer, kernels, progress, plan.source_bytes()),
        };
        for (index, row) in plan.rows().iter().enumerate() {
            if !row.action.needs_calibration() {
                conversion.tensor(index, row)?;
            }
        }
        let mut finished = None;
        if let Some(calibration) = gptq {
            let GptqCalibration {
                samples,
                hessian_bytes,
                finished_layers,
                ..
            } = calibration;
            let catalogue = EncoderSpec::from_checkpoint(checkpoint)?.catalogue();
            let layers = finished_layers.as_deref().map(|directory| {
                let bytes = *hessian_bytes;
                FinishedLayers::new(directory, checkpoint, &catalogue, plan, samples, bytes)
            });
            finished = layers.transpose()?;
            let encoder = Encoder::open(source)?;
            let passes = GptqPasses::new(&catalogue, plan.rows(), *hessian_bytes);
            let finished = finished.as_ref();
            passes.run(&encoder, calibration, finished, kernels, &mut conversion)?;
        }
        let Conversion {
            mut report,
            mut modules,
            ..
        } = conversion;
        modules.sort_by_key(|(index, _)| *index);
        report.modules = modules.into_iter().map(|(_, module)| module).collect();
        report.output = writer.finish()?;
        if let Some(finished) = finished {
            finished.remove()?;
        }
        report.elapsed_seconds = started.elapsed().as_secs_f64();
        Ok(report)
    }

    /// Plans the tensors, and writes everything but these.
    fn write_other_files(
        &self,
        writer: &mut CheckpointWriter,
        files: &[CarriedFile],
    ) -> Result<(), QuantizeError> {
        // First, as it finds out whether the disk has room.
        let rows = self.plan.rows().iter();
        writer.plan_tensors(rows.flat_map(|row| row.outputs.clone()).collect())?;
        for file in files {
            writer.copy_file(&file.path, &file.name)?;
        }
        if let Some(modules) = modules_at_root(&self.checkpoint)? {
            writer.write_json(MODULES_FILE, &modules)?;
        }
        writer.write_json("config.json", &output_config(&self.checkpoint, &self.plan))?;
        writer.write_file("recipe.toml", self.plan.recipe().to_toml().as_bytes())?;
        Ok(())
    }
}

/// A conversion that is going on.
struct Conversion<'a> {
    checkpoint: &'a Checkpoint,
    report: QuantizeReport,
    /// With the numbers of their rows.
    modules: Vec<(usize, ModuleReport)>,
    output: Output<'a>,
}

impl Conversion<'_> {
    /// Converts the tensor of a row.
    fn tensor(&mut self, index: usize, row: &PlanRow) -> Result<(), QuantizeError> {
        debug!(tensor = row.tensor, action = %row.action);
        let view = self.checkpoint.require(&row.tensor)?;
        let outcome = convert_tensor(&view, row, &mut self.output)?;
        if let Some(found) = &outcome.non_finite {
            self.report.notes.push(format!(
                "{}: tensor `{}` was carried over with {found}: the encoder does not use it",
                view.info.file.display(),
                row.tensor
            ));
        }
        self.done(index, row, &outcome);
        Ok(())
    }

    fn done(&mut self, index: usize, row: &PlanRow, outcome: &Outcome) {
        self.checkpoint.release(&row.tensor);
        self.report.underflowed += outcome.underflowed;
        if let (Some(module), Some(error)) = (&row.module, &outcome.error) {
            self.modules
                .push((index, ModuleReport::new(module, row, error)));
        }
    }
}

impl GptqOutput for Conversion<'_> {
    fn collecting(&mut self, what: &str) {
        self.output.announce(what);
    }

    fn read(&mut self, module: &GptqModule<'_>) -> Result<Vec<f32>, QuantizeError> {
        let row = module.row;
        debug!(tensor = row.tensor, action = %row.action);
        calibrated::read(&self.checkpoint.require(&row.tensor)?)
    }

    fn write(
        &mut self,
        module: &GptqModule<'_>,
        weights: &[f32],
        rounded: &StoredWeight<'_>,
    ) -> Result<(), QuantizeError> {
        let GptqModule { index, row } = *module;
        let view = self.checkpoint.require(&row.tensor)?;
        let outcome = calibrated::write(&view, row, weights, rounded, &mut self.output)?;
        self.done(index, row, &outcome);
        Ok(())
    }
}

/// config.json of the result.
fn output_config(checkpoint: &Checkpoint, plan: &QuantizePlan) -> serde_json::Value {
    let recipe = plan.recipe();
    let mut config = checkpoint.config().clone();
    if let Some(quantization) = plan.quantization_config() {
        config = config_file::with_quantization(&config, quantization.clone());
    }
    if let Some(dtype) = recipe.float_dtype() {
        return config_file::with_dtype(&config, dtype);
    }
    // Where nothing is said, transformers takes the dtype of some tensor for that of the model.
    if recipe.embeddings().float_dtype().is_some() && !config_file::has_dtype(&config) {
        return config_file::with_dtype(&config, widest_float(checkpoint));
    }
    config
}

/// F32 where the source has that, or wider floats; else the dtype of its floats.
fn widest_float(checkpoint: &Checkpoint) -> DType {
    let floats = checkpoint
        .tensors()
        .filter(|info| info.is_readable_float())
        .map(|info| info.dtype);
    let widest = floats.max_by_key(|dtype| dtype.bytes());
    match widest {
        Some(half @ (DType::F16 | DType::BF16)) => half,
        _ => DType::F32,
    }
}
