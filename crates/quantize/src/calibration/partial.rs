//! A calibration that is not at its end, saved so that an interruption costs little.
//!
//! Statistics are saved as they are, in full precision, together with what tells whether another run would see the same samples in the same
//! batches. Going on from there gives the statistics of a run without interruption, to the last bit.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::json_file;
use super::{CalibrationInput, CalibrationSamples, CalibrationStatistics};
use crate::QuantizeError;

/// What a calibration sees, and in which pieces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationRun {
    /// Name of the file, without its folder.
    file: String,
    /// Its size.
    bytes: u64,
    columns: Vec<String>,
    samples: u64,
    seed: u64,
    batch_size: u64,
    /// SHA-256 of the samples.
    digest: String,
}

impl CalibrationRun {
    /// The run over `samples`, which were drawn from `input` with `seed`, in batches of `batch_size`.
    ///
    /// # Errors
    /// [`QuantizeError::Io`] if the file is not there any more.
    pub fn new(
        input: &CalibrationInput,
        samples: &CalibrationSamples,
        seed: u64,
        batch_size: usize,
    ) -> Result<Self, QuantizeError> {
        let path = input.path();
        let metadata = std::fs::metadata(path).map_err(|source| QuantizeError::Io {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            file: path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            bytes: metadata.len(),
            columns: input.columns(),
            samples: samples.len() as u64,
            seed,
            batch_size: batch_size as u64,
            digest: samples.digest(),
        })
    }

    /// Samples that run through the model together.
    pub(super) fn batch_size(&self) -> usize {
        usize::try_from(self.batch_size).unwrap_or(usize::MAX)
    }

    /// The first thing in which the two differ: its name, what it is here, and what it is there.
    fn difference(&self, other: &Self) -> Option<(&'static str, String, String)> {
        let fields = |run: &Self| {
            [
                ("name of the calibration file", run.file.clone()),
                (
                    "size of the calibration file",
                    format!("{} bytes", run.bytes),
                ),
                ("columns", run.columns.join(", ")),
                ("number of samples", run.samples.to_string()),
                ("seed", run.seed.to_string()),
                ("batch size", run.batch_size.to_string()),
                ("SHA-256 of the samples", run.digest.clone()),
            ]
        };
        fields(self)
            .into_iter()
            .zip(fields(other))
            .find(|(here, there)| here != there)
            .map(|((name, here), (_, there))| (name, here, there))
    }
}

/// What a calibration has seen before it was at its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartialCalibration {
    run: CalibrationRun,
    statistics: CalibrationStatistics,
}

impl PartialCalibration {
    /// Where the partial statistics of `stats` lie: beside it, with `.partial` after its name.
    ///
    /// ```
    /// use fewbit_quantize::calibration::PartialCalibration;
    /// use std::path::Path;
    ///
    /// let path = PartialCalibration::path_beside(Path::new("folder/stats.json"));
    /// assert_eq!(path, Path::new("folder/stats.json.partial"));
    /// ```
    pub fn path_beside(stats: &Path) -> PathBuf {
        let mut name = stats.as_os_str().to_owned();
        name.push(".partial");
        name.into()
    }

    /// Writes what `run` has seen so far. The file is replaced as a whole: an interruption leaves the one before.
    ///
    /// # Errors
    /// [`QuantizeError::Checkpoint`]
    pub fn write(
        path: &Path,
        run: &CalibrationRun,
        statistics: &CalibrationStatistics,
    ) -> Result<(), QuantizeError> {
        #[derive(Serialize)]
        struct Partial<'a> {
            run: &'a CalibrationRun,
            statistics: &'a CalibrationStatistics,
        }
        json_file::write(path, &Partial { run, statistics }, true, || ())
    }

    /// Reads a file that [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// [`QuantizeError::Io`], or [`QuantizeError::Calibration`] for what is no such file.
    pub fn read(path: &Path) -> Result<Self, QuantizeError> {
        json_file::read(
            path,
            "partial statistics that `fewbit calibrate` wrote",
            "the file is damaged or was edited: remove it and calibrate again without --resume",
        )
    }

    /// The statistics, to go on from after [`CalibrationStatistics::samples`] samples of `run`.
    ///
    /// # Errors
    /// [`QuantizeError::Calibration`] if they are those of another run, or of more samples than it has.
    pub fn statistics_of(
        self,
        path: &Path,
        run: &CalibrationRun,
    ) -> Result<CalibrationStatistics, QuantizeError> {
        let differs = |what: &str, expected: String, found: String| {
            QuantizeError::Calibration {
            place: format!("{}: {what}", path.display()),
            expected,
            found,
            hint: "give the flags and the file of the run that was interrupted, or remove the partial statistics to start again".to_owned(),
        }
        };
        if let Some((what, here, there)) = run.difference(&self.run) {
            return Err(differs(what, here, there));
        }
        let seen = self.statistics.samples();
        if seen > run.samples || (seen < run.samples && !seen.is_multiple_of(run.batch_size.max(1)))
        {
            return Err(differs(
                "samples seen",
                format!("whole batches of {}", run.samples),
                seen.to_string(),
            ));
        }
        Ok(self.statistics)
    }
}
