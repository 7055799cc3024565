//! [`QuantizationManager`]: the names that users of PyTorch quantization scripts know.

use crate::Error;
use crate::calibration::DEFAULT_BATCH;
use crate::size::ModelSize;
use fewbit_model::open_checkpoint;
use fewbit_quantize::calibration::{
    CalibrationSamples, NoisyStaticSites, SiteSensitivity, StaticCalibration,
};
use fewbit_quantize::{
    Backend, Calibrator, FourBitRecipe, GptqCalibration, IntegerInputs, IntegerRecipe, Method,
    OutputOptions, PlannedConversion, QuantizeReport, Recipe, method_sizes,
};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// One float checkpoint and what has been made of it.
///
/// Every `apply_…` writes a standard checkpoint directory, which [`Encoder::open`](crate::Encoder::open) and Hugging
/// Face transformers load; the source is never changed.
///
/// ```
/// use fewbit::QuantizationManager;
///
/// # let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../model/tests/golden/architectures/bert");
/// # let scratch = tempfile::tempdir().unwrap();
/// # let out = scratch.path();
/// let mut manager = QuantizationManager::new(source)?;
/// println!("{} parameters", manager.model_size()?.parameters);
/// let report = manager.apply_dynamic_quantization(out.join("int8"))?;
/// assert!(report.compression_ratio > 2.0);
/// manager.apply_int4_quantization(out.join("nf4"))?;
/// for row in manager.compare_sizes()? {
///     println!("{:32} {:10} bytes, {:.2} times smaller", row.label, row.bytes, row.compression_ratio);
/// }
/// # Ok::<(), fewbit::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct QuantizationManager {
    source: PathBuf,
    force: bool,
    applied: Vec<Applied>,
}

#[derive(Debug, Clone)]
struct Applied {
    recipe: Recipe,
    directory: PathBuf,
}

/// One row of [`QuantizationManager::compare_sizes`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SizeComparison {
    /// `original`, or the recipe's label.
    pub label: String,
    /// Bytes of tensor data.
    pub bytes: u64,
    /// Bytes of the original divided by these.
    pub compression_ratio: f64,
    /// The directory that holds it; none for a method that has not been applied, whose size is the planned one.
    pub directory: Option<PathBuf>,
}

impl QuantizationManager {
    /// A manager of the checkpoint in `source`.
    ///
    /// # Errors
    /// The directory is not a readable checkpoint.
    pub fn new(source: impl AsRef<Path>) -> Result<Self, Error> {
        let source = open_checkpoint(source)?.directory().to_owned();
        Ok(QuantizationManager {
            source,
            force: false,
            applied: Vec::new(),
        })
    }

    /// Whether `apply_…` may replace a directory that exists; without it that is an error.
    #[must_use]
    pub fn with_force(self, force: bool) -> Self {
        QuantizationManager { force, ..self }
    }

    /// Parameters and bytes of the source, by dtype and by part of the model.
    ///
    /// # Errors
    /// The source is not a readable checkpoint of a known model type.
    pub fn model_size(&self) -> Result<ModelSize, Error> {
        ModelSize::of(&self.source)
    }

    /// Sizes side by side: the original, everything this manager has written, and what each method that has not been applied
    /// would give.
    ///
    /// # Errors
    /// The source or a written directory cannot be read.
    pub fn compare_sizes(&self) -> Result<Vec<SizeComparison>, Error> {
        let original = ModelSize::of(&self.source)?.tensor_bytes();
        let row = |label: &str, bytes: u64, directory: Option<&Path>| SizeComparison {
            label: label.to_owned(),
            bytes,
            compression_ratio: original as f64 / bytes as f64,
            directory: directory.map(Path::to_owned),
        };
        let mut rows = vec![row("original", original, Some(&self.source))];
        for applied in &self.applied {
            let bytes = ModelSize::of(&applied.directory)?.tensor_bytes();
            rows.push(row(
                &applied.recipe.label(),
                bytes,
                Some(&applied.directory),
            ));
        }
        for planned in method_sizes(&open_checkpoint(&self.source)?)? {
            let is_applied = |applied: &Applied| {
                // Scales are not planned, they are found.
                without_scales(&applied.recipe) == planned.recipe
            };
            if !self.applied.iter().any(is_applied) {
                rows.push(row(&planned.label, planned.output_bytes as u64, None));
            }
        }
        Ok(rows)
    }

    /// Writes what `recipe` makes of the source to `out`.
    ///
    /// # Errors
    /// Those of [`quantize_model`](crate::quantize_model); nothing is left at `out` then.
    pub fn apply(
        &mut self,
        recipe: &Recipe,
        out: impl AsRef<Path>,
    ) -> Result<QuantizeReport, Error> {
        self.apply_with_progress(recipe, None, out, &mut |_, _, _| {})
    }

    /// [`apply`](Self::apply) for a recipe with `gptq`: its weights are rounded for what `calibration` shows of their inputs.
    ///
    /// # Errors
    /// Those of [`quantize_model_with_gptq`](crate::quantize_model_with_gptq); nothing is left at `out` then.
    pub fn apply_gptq(
        &mut self,
        recipe: &Recipe,
        calibration: &GptqCalibration,
        out: impl AsRef<Path>,
    ) -> Result<QuantizeReport, Error> {
        self.apply_with_progress(recipe, Some(calibration), out, &mut |_, _, _| {})
    }

    /// [`apply`](Self::apply), or with a `calibration` [`apply_gptq`](Self::apply_gptq), which tells `progress` of the bytes done, of all bytes,
    /// and of the module.
    ///
    /// # Errors
    /// As for these.
    pub fn apply_with_progress(
        &mut self,
        recipe: &Recipe,
        calibration: Option<&GptqCalibration>,
        out: impl AsRef<Path>,
        progress: &mut dyn FnMut(usize, usize, &str),
    ) -> Result<QuantizeReport, Error> {
        let out = out.as_ref();
        let conversion = PlannedConversion::new(&self.source, recipe)?;
        let report = conversion.write(
            calibration,
            out,
            &OutputOptions::with_force(self.force),
            progress,
        )?;
        self.add_written(recipe, out);
        Ok(report)
    }

    /// Counts `directory` among what this manager has written: what `recipe` made of the source elsewhere, for example in
    /// [`train_model`](crate::train::train_model).
    pub fn add_written(&mut self, recipe: &Recipe, directory: impl AsRef<Path>) {
        let directory = directory.as_ref();
        self.applied
            .retain(|applied| applied.directory != directory);
        self.applied.push(Applied {
            recipe: recipe.clone(),
            directory: directory.to_owned(),
        });
    }

    /// int8 weights, one scale an output channel; activations quantized per token at run time.
    ///
    /// # Errors
    /// As for [`apply`](Self::apply).
    pub fn apply_dynamic_quantization(
        &mut self,
        out: impl AsRef<Path>,
    ) -> Result<QuantizeReport, Error> {
        self.apply(&Recipe::new(Method::Dynamic), out)
    }

    /// int8 weights, one scale an output channel; float activations.
    ///
    /// # Errors
    /// As for [`apply`](Self::apply).
    pub fn apply_weight_only_quantization(
        &mut self,
        out: impl AsRef<Path>,
    ) -> Result<QuantizeReport, Error> {
        self.apply(&Recipe::new(Method::WeightOnly), out)
    }

    /// Loads the model with observers at the inputs of its linear layers: the first of three steps, in an order that the types keep.
    /// `backend` has the defaults of the command line: which observer, which elements of a weight share a scale, and whether inputs
    /// that one range costs too much are dynamic (`native`) or every input is static (PyTorch's backends).
    ///
    /// ```no_run
    /// use fewbit::QuantizationManager;
    /// use fewbit::quantize::Backend;
    ///
    /// let mut manager = QuantizationManager::new("models/all-MiniLM-L6-v2")?;
    /// let prepared = manager.prepare_static_quantization(Backend::Native)?;
    /// let calibrated = prepared.calibrate(&["Texts like those that", "the model will see."])?;
    /// manager.convert_static_quantization(&calibrated, "models/minilm-static")?;
    /// # Ok::<(), fewbit::Error>(())
    /// ```
    ///
    /// # Errors
    /// The source cannot be run on texts, or is quantized already.
    pub fn prepare_static_quantization(
        &self,
        backend: Backend,
    ) -> Result<PreparedStaticQuantization, Error> {
        let settings = backend.qconfig().activation();
        let calibrator = Calibrator::prepare(&self.source, settings)?;
        Ok(PreparedStaticQuantization {
            calibrator,
            backend,
        })
    }

    /// int8 weights; activations with the scales that calibration chose, or per token where it found that one scale costs too much.
    ///
    /// # Errors
    /// As for [`apply`](Self::apply).
    pub fn convert_static_quantization(
        &mut self,
        calibrated: &CalibratedStaticQuantization,
        out: impl AsRef<Path>,
    ) -> Result<QuantizeReport, Error> {
        self.apply(&calibrated.recipe, out)
    }

    /// IEEE half precision as storage; computed in f32.
    ///
    /// # Errors
    /// As for [`apply`](Self::apply), and a weight beyond the range of fp16.
    pub fn apply_fp16_quantization(
        &mut self,
        out: impl AsRef<Path>,
    ) -> Result<QuantizeReport, Error> {
        self.apply(&Recipe::new(Method::Fp16), out)
    }

    /// bfloat16 as storage; computed in f32.
    ///
    /// # Errors
    /// As for [`apply`](Self::apply).
    pub fn apply_bf16_quantization(
        &mut self,
        out: impl AsRef<Path>,
    ) -> Result<QuantizeReport, Error> {
        self.apply(&Recipe::new(Method::Bf16), out)
    }

    /// 4-bit NormalFloat codes (nf4) in blocks of 64, with double quantization, as scripts with bitsandbytes have it. For fp4, another block
    /// size or single quantization give [`apply`](Self::apply) a [`Recipe`].
    ///
    /// # Errors
    /// As for [`apply`](Self::apply).
    pub fn apply_int4_quantization(
        &mut self,
        out: impl AsRef<Path>,
    ) -> Result<QuantizeReport, Error> {
        let recipe = FourBitRecipe::nf4().with_double_quantization(true);
        self.apply(&recipe.into(), out)
    }
}

/// A recipe of `static` before calibration found its scales; others as they are.
fn without_scales(recipe: &Recipe) -> Recipe {
    let mut recipe = recipe.clone();
    if let Recipe::Integer(options) = &mut recipe
        && let IntegerInputs::Static(inputs) = &mut options.inputs
    {
        inputs.scales.clear();
    }
    recipe
}

/// A model with observers: the result of [`QuantizationManager::prepare_static_quantization`].
#[derive(Debug)]
pub struct PreparedStaticQuantization {
    calibrator: Calibrator,
    backend: Backend,
}

impl PreparedStaticQuantization {
    /// Observes the model on texts, and finds out which inputs tolerate one scale.
    ///
    /// # Errors
    /// No text, an empty one, or one that the model cannot be run on.
    pub fn calibrate<S: AsRef<str> + Sync>(
        mut self,
        texts: &[S],
    ) -> Result<CalibratedStaticQuantization, Error> {
        for batch in texts.chunks(DEFAULT_BATCH) {
            self.calibrator.observe(batch)?;
        }
        let texts = CalibrationSamples::Texts(Vec::new());
        let calibration = StaticCalibration::new(self.calibrator, texts, Some(self.backend), None)?;
        Ok(CalibratedStaticQuantization {
            recipe: calibration.recipe(&IntegerRecipe::dynamic())?,
            noisy: calibration.noisy_sites(),
            sites: calibration.sites().to_vec(),
        })
    }
}

/// What calibration decided: the result of [`PreparedStaticQuantization::calibrate`].
#[derive(Debug, Clone, PartialEq)]
pub struct CalibratedStaticQuantization {
    recipe: Recipe,
    sites: Vec<SiteSensitivity>,
    noisy: Option<NoisyStaticSites>,
}

impl CalibratedStaticQuantization {
    /// The decision, with the scale of every static input.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// What a static range costs at each input, in execution order.
    pub fn sites(&self) -> &[SiteSensitivity] {
        &self.sites
    }

    /// Inputs that are static although one range costs much there, as a backend of PyTorch has it; none if there is none.
    pub fn noisy_static_inputs(&self) -> Option<&NoisyStaticSites> {
        self.noisy.as_ref()
    }
}
