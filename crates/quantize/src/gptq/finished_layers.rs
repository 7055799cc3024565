//! Layers that are rounded already, saved so that an interruption costs little.
//!
//! After each pass the weights that were rounded with it are written to a directory of their own, `pass-N`, as a checkpoint that has them
//! as I8 and their scales as F32, with what tells whether another run would round the same. It gets its name when it is whole.

use std::path::{Path, PathBuf};
use std::{fs, io};

use fewbit_checkpoint::{Checkpoint, CheckpointWriter, TensorPlan};
use fewbit_model::Catalogue;
use fewbit_numerics::dtype::DType;
use fewbit_numerics::rows::Int8Rows;
use serde_json::{Value, json};

use crate::calibration::CalibrationSamples;
use crate::calibration::fingerprint::fingerprint;
use crate::{PlanRow, QuantizeError, Recipe};

/// A directory of finished layers.
pub(crate) struct FinishedLayers {
    directory: PathBuf,
    /// What a run depends on.
    run: Value,
}

impl FinishedLayers {
    /// Those in `directory`, which need not be there, of the run that rounds the model as `recipe` says for these samples, with the Hessians of
    /// `hessian_bytes` at a time.
    pub(crate) fn new(
        directory: &Path,
        checkpoint: &Checkpoint,
        catalogue: &Catalogue,
        recipe: &Recipe,
        samples: &CalibrationSamples,
        hessian_bytes: usize,
    ) -> Result<Self, QuantizeError> {
        Ok(Self {
            directory: directory.to_owned(),
            run: json!({
                "model": fingerprint(checkpoint, catalogue)?,
                "recipe": recipe.to_toml(),
                "samples": samples.digest(),
                "hessian_bytes": hessian_bytes,
            }),
        })
    }

    fn of_pass(&self, pass: usize) -> PathBuf {
        self.directory.join(format!("pass-{pass}"))
    }

    /// The weights of a pass, in the order of `rows`; none if that pass has not been finished.
    ///
    /// # Errors
    /// They are of another run, or damaged.
    pub(super) fn read(
        &self,
        pass: usize,
        rows: &[&PlanRow],
    ) -> Result<Option<Vec<Int8Rows>>, QuantizeError> {
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
        let weights = rows.iter().map(|row| read_weight(&saved, row));
        weights.collect::<Result<_, _>>().map(Some)
    }

    /// Saves the weights of a pass.
    ///
    /// # Errors
    /// Those of [`CheckpointWriter`].
    pub(super) fn write(
        &self,
        pass: usize,
        weights: &[(&PlanRow, Int8Rows)],
    ) -> Result<(), QuantizeError> {
        let mut writer = CheckpointWriter::create(self.of_pass(pass), false)?;
        let plans = weights.iter().flat_map(|(row, weight)| {
            [
                TensorPlan::new(&row.tensor, DType::I8, [weight.rows, weight.columns]),
                TensorPlan::new(scale_of(row), DType::F32, [weight.rows]),
            ]
        });
        writer.plan_tensors(plans.collect())?;
        for (row, weight) in weights {
            let codes: Vec<u8> = weight
                .codes
                .iter()
                .map(|code| code.cast_unsigned())
                .collect();
            let scales = weight.scales.iter().flat_map(|scale| scale.to_le_bytes());
            writer.write_tensor(&row.tensor, &codes)?;
            writer.write_tensor(&scale_of(row), &scales.collect::<Vec<u8>>())?;
        }
        writer.write_json("config.json", &json!({"gptq": self.run}))?;
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

fn scale_of(row: &PlanRow) -> String {
    format!("{}_scale", row.tensor)
}

fn read_weight(saved: &Checkpoint, row: &PlanRow) -> Result<Int8Rows, QuantizeError> {
    let codes = saved.require(&row.tensor)?;
    codes.expect_dtype(&[DType::I8])?;
    codes.expect_shape(&row.shape)?;
    let scales = saved.require(&scale_of(row))?;
    scales.expect_shape(&row.shape[..1])?;
    Ok(Int8Rows {
        rows: row.shape[0],
        columns: row.shape[1],
        codes: codes
            .bytes()?
            .iter()
            .map(|byte| byte.cast_signed())
            .collect(),
        scales: scales.to_f32()?,
    })
}
