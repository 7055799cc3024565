//! Layers that are rounded already, saved so that an interruption costs little.
//!
//! After each pass the weights that were rounded with it are written to a directory of their own, `pass-N`, as a checkpoint that has them
//! in the layout of the output, with what tells whether another run would round the same. It gets its name when it is whole.

use std::path::{Path, PathBuf};
use std::{fs, io};

use fewbit_checkpoint::{Checkpoint, CheckpointWriter, StoredWeight};
use fewbit_model::Catalogue;
use serde_json::{Value, json};

use crate::calibration::CalibrationSamples;
use crate::calibration::fingerprint::fingerprint;
use crate::{QuantizeError, QuantizePlan};

use super::GptqModule;

/// Goes up whenever weights come out otherwise than before, or are saved otherwise.
const VERSION: u32 = 2;

/// A directory of finished layers.
pub(crate) struct FinishedLayers {
    directory: PathBuf,
    /// What a run depends on.
    run: Value,
    /// How the weights are to be read.
    quantization_config: Value,
}

impl FinishedLayers {
    /// Those in `directory`, which need not be there, of the run that carries out `plan` for these samples, with the Hessians of
    /// `hessian_bytes` at a time.
    pub(crate) fn new(
        directory: &Path,
        checkpoint: &Checkpoint,
        catalogue: &Catalogue,
        plan: &QuantizePlan,
        samples: &CalibrationSamples,
        hessian_bytes: usize,
    ) -> Result<Self, QuantizeError> {
        Ok(Self {
            directory: directory.to_owned(),
            run: json!({
                "version": VERSION,
                "model": fingerprint(checkpoint, catalogue.linear_modules())?,
                "recipe": plan.recipe().to_toml(),
                "samples": samples.digest(),
                "hessian_bytes": hessian_bytes,
            }),
            quantization_config: plan.quantization_config().cloned().unwrap_or_default(),
        })
    }

    fn of_pass(&self, pass: usize) -> PathBuf {
        self.directory.join(format!("pass-{pass}"))
    }

    /// The weights of a pass, as a checkpoint of nothing else; none if that pass has not been finished.
    ///
    /// # Errors
    /// They are of another run, or damaged.
    pub(super) fn read(&self, pass: usize) -> Result<Option<Checkpoint>, QuantizeError> {
        let directory = self.of_pass(pass);
        if !directory.exists() {
            return Ok(None);
        }
        let saved = Checkpoint::open(&directory)?;
        if saved.config()["gptq"] != self.run {
            return Err(QuantizeError::Calibration {
                place: directory.display().to_string(),
                expected: "layers of the same model, recipe and calibration samples".to_owned(),
                found: "those of others".to_owned(),
                hint: format!(
                    "give the flags and the file of the run that was interrupted, or remove {} to start again",
                    self.directory.display()
                ),
            });
        }
        Ok(Some(saved))
    }

    /// Saves the weights of a pass.
    ///
    /// # Errors
    /// Those of [`CheckpointWriter`].
    pub(super) fn write(
        &self,
        pass: usize,
        weights: &[(&GptqModule<'_>, StoredWeight<'_>)],
    ) -> Result<(), QuantizeError> {
        let mut writer = CheckpointWriter::create(self.of_pass(pass), false)?;
        let plans = weights.iter().flat_map(|(module, _)| &module.row.outputs);
        writer.plan_tensors(plans.cloned().collect())?;
        for (module, weight) in weights {
            let layout = module.row.action.layout().expect("it is quantized");
            writer.write_weight(layout, module.name(), module.shape(), 0, weight)?;
        }
        writer.write_json(
            "config.json",
            &json!({"gptq": self.run, "quantization_config": self.quantization_config}),
        )?;
        writer.finish()?;
        Ok(())
    }

    /// Removes what was saved, when it is not needed any more; what else lies in the directory stays, and the directory with it.
    ///
    /// # Errors
    /// [`QuantizeError::Io`]
    pub(crate) fn remove(&self) -> Result<(), QuantizeError> {
        let failed = |path: PathBuf| move |source: io::Error| QuantizeError::Io { path, source };
        let passes = (1..).map(|pass| self.of_pass(pass));
        for pass in passes.take_while(|pass| pass.exists()) {
            fs::remove_dir_all(&pass).map_err(failed(pass))?;
        }
        match fs::remove_dir(&self.directory) {
            Err(error)
                if ![io::ErrorKind::NotFound, io::ErrorKind::DirectoryNotEmpty]
                    .contains(&error.kind()) =>
            {
                Err(failed(self.directory.clone())(error))
            }
            _ => Ok(()),
        }
    }
}
