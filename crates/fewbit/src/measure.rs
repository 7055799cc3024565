//! Who opens and runs the models that are measured.
//!
//! [`compare`](crate::compare::compare) and [`bench`](crate::bench::bench()) ask a [`ModelHost`] to open each model, and the
//! [`OpenModel`] for every measurement. [`InProcess`] opens models in this process; [`MeasuringProcesses`] opens each in a process of its
//! own, so that its peak memory is its own, too.

mod processes;
mod requests;
mod rounds;

pub use processes::MeasuringProcesses;
pub use requests::answer_requests;
pub(crate) use rounds::in_rounds;

use crate::Error;
use fewbit_evaluate::{
    BatchShape, ShapeRequest, StageProfile, TextPass, TextRequest, peak_resident_bytes, time_shape,
};
use fewbit_kernels::peak::{Arithmetic, multiply_adds_per_second};
use fewbit_model::prediction::TextLogits;
use fewbit_model::{
    Embeddings, Encoder, EncoderSettings, Network, Predictor, PredictorSettings,
    WeightOnlyArithmetic,
};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Opens models.
pub trait ModelHost {
    /// Opens the model in `directory` for `output`. `weight_only` says what layers compute with whose weights alone are int8; none: what
    /// [`WeightOnlyArithmetic::from_environment`] says.
    ///
    /// # Errors
    /// The model cannot be opened, or the measuring process failed.
    fn open(
        &mut self,
        directory: &Path,
        weight_only: Option<WeightOnlyArithmetic>,
        output: ModelOutput,
    ) -> Result<Box<dyn OpenModel>, Error>;
}

/// What a model is to make of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelOutput {
    /// An embedding of each text.
    Embeddings,
    /// The logits of its labels: the model has a head for sequence classification.
    Logits,
}

/// An open model. What measures fails if the model cannot do what is asked, or the measuring process failed.
pub trait OpenModel {
    /// What was found when it was opened.
    fn facts(&self) -> &OpenFacts;

    /// The embeddings of the texts, or the logits if it was opened for these, in the order of the texts, all of them given to the model at once,
    /// whatever [`TextRequest::order`] says.
    fn encode(&mut self, request: &TextRequest) -> Result<Embeddings, Error>;

    /// One pass over all texts; see [`TextPass::measure`].
    fn time_texts(&mut self, request: &TextRequest) -> Result<TextPass, Error>;

    /// Seconds of each timed pass over a batch of one shape; see [`time_shape`].
    fn time_shape(&mut self, request: &ShapeRequest) -> Result<Vec<f64>, Error>;

    /// The most multiply-adds a second that one thread reaches here, in the arithmetic of the model's linear layers.
    fn multiply_adds_per_second(&mut self) -> Result<f64, Error>;

    /// Where the time of a pass goes; see [`StageProfile::measure`].
    fn profile(&mut self, shape: BatchShape, minimum_seconds: f64) -> Result<StageProfile, Error>;

    /// Memory so far.
    fn memory(&mut self) -> Result<Memory, Error>;
}

/// What is found when a model is opened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenFacts {
    /// Where config.json and the weights lie.
    pub checkpoint_directory: PathBuf,
    /// Arithmetic of most linear layers: `int8` or `f32`.
    pub arithmetic: String,
    /// Seconds to open the directory and prepare the weights.
    pub load_seconds: f64,
}

/// Bytes of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Parameters, in the form in which they are computed with.
    pub weight_memory_bytes: u64,
    /// Activation buffers that the executor keeps.
    pub scratch_bytes: u64,
    /// Peak resident memory of the measuring process since its start; `None` where the system does not tell. Of this model only
    /// if the process did nothing else.
    pub peak_resident_bytes: Option<u64>,
}

/// Opens models in this process. The peak memory that it finds is that of everything the process has done so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct InProcess;

impl ModelHost for InProcess {
    fn open(
        &mut self,
        directory: &Path,
        weight_only: Option<WeightOnlyArithmetic>,
        output: ModelOutput,
    ) -> Result<Box<dyn OpenModel>, Error> {
        let started = Instant::now();
        let model = match output {
            ModelOutput::Embeddings => {
                let settings = EncoderSettings::with_weight_only(weight_only);
                Model::Encoder(Box::new(Encoder::open_with_settings(directory, &settings)?))
            }
            ModelOutput::Logits => {
                let settings = PredictorSettings {
                    weight_only,
                    ..PredictorSettings::default()
                };
                Model::Classifier(Box::new(Predictor::open_with_settings(
                    directory, &settings,
                )?))
            }
        };
        let load_seconds = started.elapsed().as_secs_f64();
        let arithmetic = match model.network().arithmetic() {
            Arithmetic::Int8 => "int8",
            Arithmetic::F32 => "f32",
        };
        let facts = OpenFacts {
            checkpoint_directory: match &model {
                Model::Encoder(encoder) => encoder.checkpoint_directory().to_owned(),
                Model::Classifier(predictor) => predictor.directory().to_owned(),
            },
            arithmetic: arithmetic.to_owned(),
            load_seconds,
        };
        Ok(Box::new(OpenHere { model, facts }))
    }
}

/// A model that is open in this process.
struct OpenHere {
    model: Model,
    facts: OpenFacts,
}

enum Model {
    Encoder(Box<Encoder>),
    Classifier(Box<Predictor>),
}

impl Model {
    fn network(&self) -> &Network {
        match self {
            Self::Encoder(encoder) => encoder.network(),
            Self::Classifier(predictor) => predictor.model().network(),
        }
    }
}

impl OpenModel for OpenHere {
    fn facts(&self) -> &OpenFacts {
        &self.facts
    }

    fn encode(&mut self, request: &TextRequest) -> Result<Embeddings, Error> {
        Ok(match &self.model {
            Model::Encoder(encoder) => encoder.encode(&request.texts, &request.options())?,
            Model::Classifier(predictor) => {
                let TextLogits {
                    rows,
                    columns,
                    values,
                    truncated,
                    tokens,
                } = predictor.text_logits(&request.inputs(), &request.options())?;
                Embeddings {
                    rows,
                    columns,
                    values,
                    truncated,
                    tokens,
                }
            }
        })
    }

    fn time_texts(&mut self, request: &TextRequest) -> Result<TextPass, Error> {
        Ok(match &self.model {
            Model::Encoder(encoder) => TextPass::measure(encoder, request)?,
            Model::Classifier(predictor) => TextPass::measure_classifier(predictor, request)?,
        })
    }

    fn time_shape(&mut self, request: &ShapeRequest) -> Result<Vec<f64>, Error> {
        Ok(time_shape(self.model.network(), request)?)
    }

    fn multiply_adds_per_second(&mut self) -> Result<f64, Error> {
        let network = self.model.network();
        let (kernels, arithmetic) = (network.kernels(), network.arithmetic());
        Ok(multiply_adds_per_second(kernels, arithmetic))
    }

    fn profile(&mut self, shape: BatchShape, minimum_seconds: f64) -> Result<StageProfile, Error> {
        let network = self.model.network();
        Ok(StageProfile::measure(network, shape, minimum_seconds)?)
    }

    fn memory(&mut self) -> Result<Memory, Error> {
        let weights = match &self.model {
            Model::Encoder(encoder) => encoder.network().memory_bytes(),
            Model::Classifier(predictor) => predictor.model().memory_bytes(),
        };
        Ok(Memory {
            weight_memory_bytes: weights as u64,
            scratch_bytes: self.model.network().scratch_bytes() as u64,
            peak_resident_bytes: peak_resident_bytes(),
        })
    }
}
