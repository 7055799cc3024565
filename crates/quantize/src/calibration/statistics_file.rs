//! A calibration whose statistics go into a file: what it has seen is saved on the way, and it goes on after an interruption.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fewbit_checkpoint::output_file::OutputFile;

use super::{CalibrationRun, CalibrationSamples, CalibrationStatistics, PartialCalibration};
use crate::{Calibrator, QuantizeError};

/// An interruption costs no more work than this and one batch.
const SAVE_EVERY: Duration = Duration::from_secs(10);

/// Where the statistics of a calibration go.
#[derive(Debug)]
pub struct StatisticsFile {
    path: PathBuf,
    partial: PathBuf,
    /// What an interrupted calibration left.
    interrupted: Option<PartialCalibration>,
}

impl StatisticsFile {
    /// A file that is to be written. With `resume` the calibration goes on from what an interrupted one left beside it, if it left something.
    ///
    /// # Errors
    /// [`QuantizeError::Calibration`] if the file is there already, or if there are partial statistics and nobody said `resume`; a folder that
    /// cannot be written to; partial statistics that are damaged.
    pub fn new(path: impl Into<PathBuf>, resume: bool) -> Result<Self, QuantizeError> {
        let path = path.into();
        let unexpected = |place: &Path, found: &str, hint: &str| QuantizeError::Calibration {
            place: place.display().to_string(),
            expected: "no file".to_owned(),
            found: found.to_owned(),
            hint: hint.to_owned(),
        };
        if path.exists() {
            return Err(unexpected(
                &path,
                "one",
                "name another, and give both to `fewbit quantize --stats`, or remove it",
            ));
        }
        OutputFile::check(&path, false)?;
        let partial = PartialCalibration::path_beside(&path);
        let interrupted = match (partial.exists(), resume) {
            (true, true) => Some(PartialCalibration::read(&partial)?),
            (true, false) => {
                return Err(unexpected(
                    &partial,
                    "the statistics of a calibration that was interrupted",
                    "go on with --resume, or remove the file to start again",
                ));
            }
            (false, _) => None,
        };
        Ok(Self {
            path,
            partial,
            interrupted,
        })
    }

    /// Whether there is an interrupted calibration to go on from.
    pub fn is_resumed(&self) -> bool {
        self.interrupted.is_some()
    }

    /// Where partial statistics are, or would be.
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// Observes the samples of `run` that an interrupted calibration has not seen, and writes the statistics. `progress` is told how many have
    /// been seen: once before the first batch, then after each.
    ///
    /// # Errors
    /// [`QuantizeError::Calibration`] if what is to be gone on from is of another run, model or observer; those of
    /// [`Calibrator::observe_batch`]; statistics that cannot be written.
    pub fn calibrate(
        self,
        mut calibrator: Calibrator,
        run: &CalibrationRun,
        samples: &CalibrationSamples,
        progress: &mut dyn FnMut(usize),
    ) -> Result<CalibratedFile, QuantizeError> {
        let mut resumed_after = 0;
        if let Some(interrupted) = self.interrupted {
            let statistics = interrupted.statistics_of(&self.partial, run)?;
            resumed_after = statistics.samples();
            calibrator.resume(statistics)?;
        }
        // Not more than there are samples, which a check of the partial statistics has seen to.
        let seen = resumed_after as usize;
        progress(seen);
        // The first batch is saved at once: that the folder cannot be written to should not come out at the end.
        let mut saved: Option<Instant> = None;
        calibrator.observe_samples(samples, seen, run.batch_size(), |calibrator, seen| {
            if seen < samples.len() && saved.is_none_or(|time| time.elapsed() >= SAVE_EVERY) {
                PartialCalibration::write(&self.partial, run, calibrator.statistics())?;
                tracing::info!(samples = seen, file = %self.partial.display(), "saved");
                saved = Some(Instant::now());
            }
            progress(seen);
            Ok(())
        })?;
        let statistics = calibrator.finish()?;
        statistics.write_in_place_of(&self.partial, &self.path)?;
        Ok(CalibratedFile {
            statistics,
            resumed_after,
        })
    }
}

/// What a calibration has written.
#[derive(Debug, Clone, PartialEq)]
pub struct CalibratedFile {
    /// The statistics in the file.
    pub statistics: CalibrationStatistics,
    /// Samples that an interrupted calibration had seen.
    pub resumed_after: u64,
}
