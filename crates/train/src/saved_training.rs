//! A training that was interrupted, saved so that it goes on to the same bits.
//!
//! Beside the output `OUT` lies the directory `OUT.training`: `start`, the quantized model that training begins as, and `step-N`, a checkpoint of everything that changes.

use std::path::{Path, PathBuf};
use std::{fs, io};

use fewbit_checkpoint::unfinished::KeptDirectory;
use fewbit_checkpoint::{Checkpoint, CheckpointWriter, TensorPlan, path_beside};
use fewbit_numerics::dtype::DType;
use fewbit_quantize::QuantizeError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::TrainError;
use crate::held_out::Agreement;
use crate::optimizer::Moments;
use crate::student::{Student, TrainedTensor};
use crate::weight_quantizer::WeightQuantizer;
use crate::weights::Weights;

/// Goes up whenever a training comes out otherwise than before, or is saved otherwise.
const VERSION: u32 = 2;

/// The file that says what the result depends on.
const RECORD: &str = "run.json";

/// The directory beside an output.
#[derive(Debug)]
pub(crate) struct SavedTraining {
    directory: PathBuf,
    /// What the result depends on.
    run: Value,
}

/// How far a training came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Course {
    /// Steps that are done.
    pub(crate) steps: usize,
    /// The step after which the student was best on held-out texts.
    pub(crate) best_step: usize,
    /// How near to its teacher it was there.
    pub(crate) best: Agreement,
    /// The same of the student before the first step.
    pub(crate) first: Agreement,
}

impl SavedTraining {
    /// That of `out`, of a run that depends on `run`; with what was saved of one that was interrupted only if `resume` says so.
    ///
    /// # Errors
    /// There is something, and `resume` does not say so; it is of another run.
    pub(crate) fn beside(out: &Path, run: &Value, resume: bool) -> Result<Self, TrainError> {
        let saved = Self {
            directory: path_beside(out, ".training"),
            run: json!({"version": VERSION, "run": run}),
        };
        let record = saved.directory.join(RECORD);
        if saved.is_new()? {
            fs::create_dir_all(&saved.directory).map_err(saved.failed())?;
            fs::write(&record, format!("{:#}\n", saved.run)).map_err(saved.failed())?;
            return Ok(saved);
        }
        if !resume {
            return Err(TrainError::Option {
                option: "output",
                expected: format!("no {}", saved.directory.display()),
                found: "what an interrupted training has left there".to_owned(),
                hint: "go on with --resume, or remove the directory to start again".to_owned(),
            });
        }
        let bytes = fs::read(&record).map_err(saved.failed())?;
        let found: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if found != saved.run {
            let differs = |key: &&String| found["run"][key] != saved.run["run"][key];
            let keys = saved.run["run"].as_object();
            let mut keys = keys.into_iter().flat_map(serde_json::Map::keys);
            return Err(TrainError::OtherRun {
                path: saved.directory.display().to_string(),
                expected: keys
                    .find(differs)
                    .map_or("this version", String::as_str)
                    .to_owned(),
            });
        }
        Ok(saved)
    }

    /// Whether there is nothing that a training could go on from, or that someone else has put there.
    fn is_new(&self) -> Result<bool, TrainError> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            entries => entries.map_err(self.failed())?,
        };
        for entry in entries {
            if entry.map_err(self.failed())?.file_name() != RECORD {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What a program that a signal ends tells of, as long as this value lives.
    pub(crate) fn kept(&self) -> KeptDirectory {
        KeptDirectory::new(&self.directory)
    }

    /// Where the model lies that training begins as.
    pub(crate) fn start(&self) -> PathBuf {
        self.directory.join("start")
    }

    fn failed(&self) -> impl Fn(io::Error) -> TrainError + use<> {
        let path = self.directory.clone();
        move |source| {
            let path = path.clone();
            QuantizeError::Io { path, source }.into()
        }
    }

    /// The saved steps, the last one first.
    fn steps(&self) -> Result<Vec<(usize, PathBuf)>, TrainError> {
        let mut steps = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(self.failed())? {
            let path = entry.map_err(self.failed())?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let step = name.and_then(|name| name.strip_prefix("step-")?.parse().ok());
            if let Some(step) = step {
                steps.push((step, path));
            }
        }
        steps.sort_by(|a, b| b.cmp(a));
        Ok(steps)
    }

    /// Saves `student`, the average of its weights and the best of those, and removes what was saved earlier.
    ///
    /// # Errors
    /// Those of [`CheckpointWriter`].
    pub(crate) fn save(
        &self,
        student: &Student,
        average: &Weights,
        best: &Weights,
        course: &Course,
    ) -> Result<(), TrainError> {
        let earlier = self.steps()?;
        let path = self.directory.join(format!("step-{}", course.steps));
        let mut writer = CheckpointWriter::create(&path, true)?;
        let apart = average.0.iter().zip(&best.0);
        let parts = student.tensors.iter().zip(apart).flat_map(parts);
        let parts: Vec<(String, &[f32])> = parts.collect();
        let plan = parts
            .iter()
            .map(|(name, values)| TensorPlan::new(name.clone(), DType::F32, vec![values.len()]));
        writer.plan_tensors(plan.collect())?;
        for (name, values) in parts {
            let bytes: Vec<u8> = values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            writer.write_tensor(&name, &bytes)?;
        }
        writer.write_json("config.json", &json!({"course": course}))?;
        writer.finish()?;
        for (step, earlier) in earlier {
            if step != course.steps {
                fs::remove_dir_all(earlier).map_err(self.failed())?;
            }
        }
        Ok(())
    }

    /// Gives `student` what was saved last, and returns the average, what was best and how far it came; none if nothing was saved.
    ///
    /// # Errors
    /// It is damaged.
    pub(crate) fn load(
        &self,
        student: &mut Student,
    ) -> Result<Option<(Weights, Weights, Course)>, TrainError> {
        let Some((_, path)) = self.steps()?.into_iter().next() else {
            return Ok(None);
        };
        let saved = Checkpoint::open(&path)?;
        let damaged = |error: serde_json::Error| TrainError::OtherRun {
            path: path.display().to_string(),
            expected: format!("config.json with its course ({error})"),
        };
        let course = serde_json::from_value(saved.config()["course"].clone()).map_err(damaged)?;
        let mut average = Weights::of(student);
        let mut best = average.clone();
        let apart = average.0.iter_mut().zip(&mut best.0);
        for (tensor, (average, best)) in student.tensors.iter_mut().zip(apart) {
            let read = |(name, values): (String, &[f32])| {
                let read = saved.require(&name)?.to_f32()?.to_vec();
                if read.len() != values.len() {
                    return Err(TrainError::OtherRun {
                        path: path.display().to_string(),
                        expected: format!("{} values of {name}", values.len()),
                    });
                }
                Ok(read)
            };
            let parts = parts((&*tensor, (&*average, &*best))).into_iter();
            let parts = parts.map(read).collect::<Result<Vec<_>, _>>()?;
            let parts: [Vec<f32>; PARTS] = parts.try_into().expect("one of each");
            let [values, first, second, scales, of_scales @ ..] = parts;
            let [first_of_scales, second_of_scales, apart @ ..] = of_scales;
            let [average_values, average_scales, best_values, best_scales] = apart;
            tensor.values = values;
            tensor.moments = Moments { first, second };
            tensor.moments_of_scales = Moments {
                first: first_of_scales,
                second: second_of_scales,
            };
            if let WeightQuantizer::Groups(groups) = &mut tensor.quantizer {
                groups.scales = scales;
            }
            *average = (average_values, average_scales);
            *best = (best_values, best_scales);
        }
        Ok(Some((average, best, course)))
    }

    /// Removes everything if there is nothing that a training could go on from.
    ///
    /// # Errors
    /// [`QuantizeError::Io`]
    pub(crate) fn remove_unless_a_step_is_saved(self) -> Result<(), TrainError> {
        match self.steps()?.is_empty() {
            true => self.remove(),
            false => Ok(()),
        }
    }

    /// Removes everything.
    ///
    /// # Errors
    /// [`QuantizeError::Io`]
    pub(crate) fn remove(self) -> Result<(), TrainError> {
        fs::remove_dir_all(&self.directory).map_err(self.failed())
    }
}

/// Values and scales.
type Apart = (Vec<f32>, Vec<f32>);

/// How many arrays are saved of a tensor.
const PARTS: usize = 10;

/// What is saved of a tensor, by name.
fn parts<'a>(
    (tensor, (average, best)): (&'a TrainedTensor, (&'a Apart, &'a Apart)),
) -> [(String, &'a [f32]); PARTS] {
    let TrainedTensor {
        name,
        values,
        quantizer,
        moments,
        moments_of_scales,
        ..
    } = tensor;
    [
        (format!("{name}.values"), values),
        (format!("{name}.first"), &moments.first),
        (format!("{name}.second"), &moments.second),
        (format!("{name}.scales"), quantizer.scales()),
        (format!("{name}.scales.first"), &moments_of_scales.first),
        (format!("{name}.scales.second"), &moments_of_scales.second),
        (format!("{name}.average.values"), &average.0),
        (format!("{name}.average.scales"), &average.1),
        (format!("{name}.best.values"), &best.0),
        (format!("{name}.best.scales"), &best.1),
    ]
}
