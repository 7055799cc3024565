//! Streaming conversion of a whole checkpoint directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use fewbit_checkpoint::{
    Checkpoint, CheckpointError, CheckpointErrorKind, CheckpointWriter, MODULES_FILE, StoredWeight,
};
use fewbit_kernels::Kernels;
use fewbit_model::{Encoder, EncoderSpec, open_checkpoint};
use fewbit_numerics::dtype::DType;
use serde_json::Value;
use tracing::debug;

use crate::carry_over::{CarriedFile, carried_files, modules_at_root};
use crate::conversion::read_ahead::ReadAhead;
use crate::conversion::{Outcome, Output, calibrated, convert_tensor};
use crate::finished_shards::{self, ShardRecord, recorded};
use crate::given_codes::{self, GivenCodes};
use crate::gptq::{FinishedLayers, GptqCalibration, GptqModule, GptqOutput, GptqPasses};
use crate::overlap::refuse_overlap;
use crate::report::ModuleReport;
pub use crate::report::QuantizeReport;
use crate::{OutputOptions, PlanRow, QuantizeError, QuantizePlan, Recipe, config_file};

/// Converts the checkpoint in `source` into the directory `out`, one tensor at a time.
///
/// Everything that can be checked is checked before anything is written; the result appears at `out`
/// only when it is whole. With `force` an existing output directory is replaced. Files other than
/// weights are carried over, and the recipe is written beside the model as `recipe.toml`. [`PlannedConversion::write`] does the same with
/// other [`OutputOptions`].
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
    let options = OutputOptions::with_force(force);
    PlannedConversion::new(source, recipe)?.write(None, out, &options, progress)
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
    let options = OutputOptions::with_force(force);
    PlannedConversion::new(source, recipe)?.write(Some(calibration), out, &options, progress)
}

/// A conversion that is decided and not begun: what becomes of every tensor is known, and what the recipe or the weights would be refused for was
/// found.
///
/// ```no_run
/// use fewbit_quantize::{Method, OutputOptions, PlannedConversion, Recipe};
///
/// let conversion = PlannedConversion::new("models/minilm", &Recipe::new(Method::Dynamic))?;
/// println!("{} bytes", conversion.plan().output_bytes());
/// let options = OutputOptions { max_shard_size: "2GB".parse()?, ..OutputOptions::default() };
/// conversion.write(None, "models/minilm-int8", &options, &mut |_, _, _| {})?;
/// # Ok::<(), fewbit_quantize::QuantizeError>(())
/// ```
#[derive(Debug)]
pub struct PlannedConversion {
    source: PathBuf,
    /// The directory whose other files come along.
    files: PathBuf,
    checkpoint: Checkpoint,
    plan: QuantizePlan,
    /// By the names of modules.
    codes: BTreeMap<String, GivenCodes>,
    /// Whether the weights are those that training ended with.
    trained: bool,
}

impl PlannedConversion {
    /// What `recipe` makes of the checkpoint in `source`, under the names of [`open_checkpoint`]. Reads no weight.
    ///
    /// # Errors
    /// Those of [`QuantizePlan::new`].
    pub fn new(source: impl AsRef<Path>, recipe: &Recipe) -> Result<Self, QuantizeError> {
        let source = source.as_ref().to_owned();
        let checkpoint = open_checkpoint(&source)?;
        Self::of_checkpoint(source.clone(), source, checkpoint, recipe)
    }

    /// [`new`](Self::new) with `values` in the place of those of the float tensors of these names, as F32: those of a model that was trained. What does not follow from
    /// them, scales that were trained, comes by [`with_codes`](Self::with_codes).
    ///
    /// # Errors
    /// Those of [`QuantizePlan::new`] and [`Checkpoint::with_values`].
    pub fn of_trained(
        source: impl AsRef<Path>,
        values: BTreeMap<String, Arc<[f32]>>,
        recipe: &Recipe,
    ) -> Result<Self, QuantizeError> {
        let source = source.as_ref().to_owned();
        let checkpoint = open_checkpoint(&source)?.with_values(values)?;
        let conversion = Self::of_checkpoint(source.clone(), source, checkpoint, recipe)?;
        Ok(Self {
            trained: true,
            ..conversion
        })
    }

    /// [`new`](Self::new) of the checkpoint in `source`, opened. What is carried over beside its weights lies in `files`.
    pub(crate) fn of_checkpoint(
        source: PathBuf,
        files: PathBuf,
        checkpoint: Checkpoint,
        recipe: &Recipe,
    ) -> Result<Self, QuantizeError> {
        let plan = QuantizePlan::new(&checkpoint, recipe)?;
        Ok(Self {
            source,
            files,
            checkpoint,
            plan,
            codes: BTreeMap::new(),
            trained: false,
        })
    }

    /// The same, with codes that training chose for some modules, by their names: they are written as they are, whatever the recipe says of how scales
    /// are chosen.
    ///
    /// # Errors
    /// [`QuantizeError::Recipe`]: a module that the recipe makes no such codes of, or codes of another shape.
    pub fn with_codes(self, codes: BTreeMap<String, GivenCodes>) -> Result<Self, QuantizeError> {
        given_codes::check(&self.plan, &codes)?;
        Ok(Self { codes, ..self })
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

    /// Bytes of each file of weights that [`write`](Self::write) makes with these options.
    ///
    /// # Errors
    /// Sizes that overflow.
    pub fn file_bytes(&self, options: &OutputOptions) -> Result<Vec<u64>, QuantizeError> {
        let most_bytes = options.max_shard_size.bytes();
        let groups = self.plan.output_groups();
        Ok(CheckpointWriter::file_bytes(groups, most_bytes)?)
    }

    /// Carries the plan out, as [`quantize_model`] does. `calibration` is for a recipe with GPTQ, which needs it.
    ///
    /// Where the output is of more than one file, each is kept beside it, in [`partial_path`](fewbit_checkpoint::partial_path), as soon as it is whole, until all are: what
    /// interrupts the run, or fails for reasons that may pass, costs the file that is being written, and another call with
    /// [`resume`](OutputOptions::resume) goes on from there, to the same bytes. (GPTQ keeps [finished layers](GptqCalibration::finished_layers) instead.)
    ///
    /// # Errors
    /// Those of [`quantize_model`] and [`quantize_model_with_gptq`]; files of a run that was interrupted, without `resume`, or of another one.
    pub fn write(
        &self,
        calibration: Option<&GptqCalibration>,
        out: impl AsRef<Path>,
        options: &OutputOptions,
        progress: &mut dyn FnMut(usize, usize, &str),
    ) -> Result<QuantizeReport, QuantizeError> {
        let started = Instant::now();
        let Self {
            source,
            files,
            checkpoint,
            plan,
            codes,
            trained,
        } = self;
        let (recipe, out) = (plan.recipe(), out.as_ref());
        if recipe.is_trained() && !trained {
            return Err(QuantizeError::Recipe {
                origin: "recipe".to_owned(),
                field: "qat",
                expected: "training, with texts beside the recipe".to_owned(),
                found: "a conversion of the weights as they are".to_owned(),
                hint: "`fewbit quantize --method qat --data FILE` trains; without the key the weights are rounded".to_owned(),
            });
        }
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
        let files = carried_files(files, checkpoint.folder())?;
        let mut writer = CheckpointWriter::create(out, options.force)?;
        // First, as it finds out whether the disk has room.
        writer.plan_shards(plan.output_groups(), options.max_shard_size.bytes())?;
        // The layers of a pass of GPTQ lie in any file: their own directory keeps them.
        let records = match gptq {
            // What is kept of an interrupted run does not know of codes that were given.
            None if codes.is_empty() => {
                let run = finished_shards::run(checkpoint, plan, options.max_shard_size)?;
                writer.keep_shards(run, options.resume)?
            }
            _ => vec![None; writer.shards()],
        };
        let mut written = Written {
            report: QuantizeReport::of_plan(source.clone(), plan),
            modules: Vec::new(),
            finished_layers: None,
        };
        written.report.file_bytes = writer.planned_bytes();
        written.report.files = writer.shards();
        let done = self.write_other_files(&mut writer, &files).and_then(|()| {
            self.write_tensors(&mut writer, &mut written, &records, gptq, kernels, progress)
        });
        if let Err(error) = done {
            return Err(after_failure(error, writer));
        }
        let Written {
            mut report,
            mut modules,
            finished_layers,
        } = written;
        modules.sort_by_key(|(index, _)| *index);
        report.modules = modules.into_iter().map(|(_, module)| module).collect();
        report.output = writer.finish()?;
        if let Some(finished) = finished_layers {
            finished.remove()?;
        }
        report.elapsed_seconds = started.elapsed().as_secs_f64();
        Ok(report)
    }

    /// Converts what is not in the files that have a record, one file after the other.
    fn write_tensors(
        &self,
        writer: &mut CheckpointWriter,
        written: &mut Written,
        records: &[Option<Value>],
        gptq: Option<&GptqCalibration>,
        kernels: &'static Kernels,
        progress: &mut dyn FnMut(usize, usize, &str),
    ) -> Result<(), QuantizeError> {
        let (checkpoint, plan) = (&self.checkpoint, &self.plan);
        let mut shards: Vec<Vec<(usize, &PlanRow)>> = vec![Vec::new(); writer.shards()];
        for (index, row) in plan.rows().iter().enumerate() {
            let shard = row
                .outputs
                .first()
                .and_then(|first| writer.shard_of(&first.name));
            shards[shard.unwrap_or(0)].push((index, row));
        }
        let is_converted = |row: &PlanRow| !row.action.needs_calibration();
        let to_read = shards
            .iter()
            .zip(records)
            .filter(|(_, record)| record.is_none());
        let to_read = to_read
            .flat_map(|(rows, _)| rows)
            .filter(|(_, row)| is_converted(row))
            .map(|(_, row)| (row.tensor.as_str(), row.source_bytes));
        let read_ahead = ReadAhead::new(checkpoint, to_read.collect());
        let mut conversion = Conversion {
            checkpoint,
            codes: &self.codes,
            written,
            shard: ShardRecord::default(),
            output: Output::new(writer, kernels, progress, read_ahead, plan.source_bytes()),
        };
        for (shard, (rows, record)) in shards.iter().zip(records).enumerate() {
            match record {
                Some(record) => conversion.pass_over(rows, record)?,
                None => {
                    let converted = rows.iter().filter(|(_, row)| is_converted(row));
                    for &(index, row) in converted {
                        conversion.tensor(index, row)?;
                    }
                    let record = std::mem::take(&mut conversion.shard);
                    if gptq.is_none() && self.codes.is_empty() {
                        conversion.output.finish_shard(shard, record)?;
                    }
                }
            }
        }
        let Some(calibration) = gptq else {
            return Ok(());
        };
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
        let finished = layers.transpose()?;
        let encoder = Encoder::open(&self.source)?;
        let passes = GptqPasses::new(&catalogue, plan.rows(), *hessian_bytes);
        let kept = finished.as_ref();
        passes.run(&encoder, calibration, kept, kernels, &mut conversion)?;
        written.finished_layers = finished;
        Ok(())
    }

    /// Writes everything but the tensors.
    fn write_other_files(
        &self,
        writer: &mut CheckpointWriter,
        files: &[CarriedFile],
    ) -> Result<(), QuantizeError> {
        for file in files {
            writer.copy_file(&file.path, &file.name)?;
        }
        if let Some(modules) = modules_at_root(&self.checkpoint)? {
            writer.write_json(MODULES_FILE, &modules)?;
        }
        writer.write_json("config.json", &output_config(&self.checkpoint, &self.plan))?;
        // Of plain floats there is none: quantizing gives no f32.
        let recipe = self.plan.recipe();
        if *recipe != Recipe::F32 {
            writer.write_file("recipe.toml", recipe.to_toml().as_bytes())?;
        }
        Ok(())
    }
}

/// What was done so far.
struct Written {
    report: QuantizeReport,
    /// With the numbers of their rows.
    modules: Vec<(usize, ModuleReport)>,
    /// Layers that are kept until the output is whole.
    finished_layers: Option<FinishedLayers>,
}

/// A conversion that is going on.
struct Conversion<'a> {
    checkpoint: &'a Checkpoint,
    codes: &'a BTreeMap<String, GivenCodes>,
    written: &'a mut Written,
    /// What was found of the tensors of this file.
    shard: ShardRecord,
    output: Output<'a>,
}

impl Conversion<'_> {
    /// Converts the tensor of a row.
    fn tensor(&mut self, index: usize, row: &PlanRow) -> Result<(), QuantizeError> {
        debug!(tensor = row.tensor, action = %row.action);
        let view = self.checkpoint.require(&row.tensor)?;
        let given = row.module.as_ref().and_then(|name| self.codes.get(name));
        let given = given.and_then(|given| given.stored_weight(&row.action));
        let outcome = match given {
            None => convert_tensor(&view, row, &mut self.output)?,
            Some(given) => {
                let weights = calibrated::read(&view)?;
                calibrated::write(&view, row, &weights, &given, &mut self.output)?
            }
        };
        self.shard.add(row, &outcome);
        self.done(index, row, &outcome)
    }

    /// Takes down what was found of the tensors of a file that is whole already.
    fn pass_over(
        &mut self,
        rows: &[(usize, &PlanRow)],
        record: &Value,
    ) -> Result<(), QuantizeError> {
        for &(index, row) in rows {
            let Some(outcome) = recorded(record, row) else {
                let path = self.output.kept_shards().unwrap_or_default();
                return Err(damaged_record(row, path).into());
            };
            self.output.pass_over(row);
            self.done(index, row, &outcome)?;
        }
        Ok(())
    }

    fn done(
        &mut self,
        index: usize,
        row: &PlanRow,
        outcome: &Outcome,
    ) -> Result<(), QuantizeError> {
        self.checkpoint.release(&row.tensor);
        let report = &mut self.written.report;
        if let Some(found) = &outcome.non_finite {
            let info = self.checkpoint.require(&row.tensor)?.info;
            report.notes.push(format!(
                "{}: tensor `{}` was carried over with {found}: the encoder does not use it",
                info.file.display(),
                row.tensor
            ));
        }
        report.underflowed += outcome.underflowed;
        if let (Some(module), Some(error)) = (&row.module, &outcome.error) {
            let module = ModuleReport::new(module, row, error);
            self.written.modules.push((index, module));
        }
        Ok(())
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
        self.done(index, row, &outcome)
    }
}

/// The error where what was kept of another run does not say what was found of a tensor.
fn damaged_record(row: &PlanRow, directory: PathBuf) -> CheckpointError {
    CheckpointError::new(
        CheckpointErrorKind::Malformed,
        "the record of a whole file: expected what was found of this tensor, found something else",
    )
    .in_file(directory)
    .at_tensor(&row.tensor)
    .hint("the directory was changed by others, and is removed now: start again without --resume")
}

/// The error of a conversion that failed. What is wrong with the source removes the files that are whole, as they are of no use then; anything else
/// leaves them where they are, and the hint of what may pass says so.
fn after_failure(error: QuantizeError, writer: CheckpointWriter) -> QuantizeError {
    use CheckpointErrorKind::{DiskFull, Io, NotFound, OutputExists};
    match (error, writer.kept_shards()) {
        (QuantizeError::Checkpoint(error), Some(kept))
            if [DiskFull, Io].contains(&error.kind()) =>
        {
            let hint = format!(
                "mend that, and go on with --resume: the files that are whole are kept in {}",
                kept.display()
            );
            error.hint(hint).into()
        }
        (error, _) => {
            let is_of_the_source = match &error {
                QuantizeError::Checkpoint(error) => {
                    ![NotFound, OutputExists].contains(&error.kind())
                }
                QuantizeError::Overflow { .. } => true,
                _ => false,
            };
            if is_of_the_source {
                writer.discard();
            }
            error
        }
    }
}

/// config.json of the result.
fn output_config(checkpoint: &Checkpoint, plan: &QuantizePlan) -> Value {
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
