//! Who opens and runs the models of a benchmark.

use super::facts::arithmetic_name;
use crate::Error;
use crate::measure::InProcess;
use fewbit_evaluate::{
    BatchShape, StageProfile, Startup, TextOrder, TextPass, peak_resident_bytes, time_shape,
};
use fewbit_kernels::peak::multiply_adds_per_second;
use fewbit_model::{EncodeOptions, Encoder, EncoderSettings, WeightOnlyArithmetic};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Opens models. `weight_only` says what layers compute with whose weights alone are int8; none: what
/// [`WeightOnlyArithmetic::from_environment`] says.
pub trait BenchHost {
    /// Opens the model in `directory`, embeds one text and lets go of it; each time anew.
    ///
    /// # Errors
    /// The model cannot be opened or run, or the measuring process failed.
    fn startup(
        &mut self,
        directory: &Path,
        weight_only: Option<WeightOnlyArithmetic>,
        threads: usize,
    ) -> Result<Startup, Error>;

    /// Opens the model in `directory` to measure it.
    ///
    /// # Errors
    /// As for [`BenchHost::startup`].
    fn open(
        &mut self,
        directory: &Path,
        weight_only: Option<WeightOnlyArithmetic>,
    ) -> Result<Box<dyn OpenModel>, Error>;
}

/// An open model. Every method fails if the model cannot do what is asked, or the measuring process failed.
pub trait OpenModel {
    /// What only the open model knows.
    ///
    /// # Errors
    /// See [`OpenModel`].
    fn facts(&mut self) -> Result<OpenFacts, Error>;

    /// Seconds of each timed pass over a batch of one shape; see [`time_shape`].
    ///
    /// # Errors
    /// See [`OpenModel`].
    fn time_shape(&mut self, request: &ShapeRequest) -> Result<Vec<f64>, Error>;

    /// The most multiply-adds a second that one thread reaches here, in the arithmetic of the model's linear layers.
    ///
    /// # Errors
    /// See [`OpenModel`].
    fn multiply_adds_per_second(&mut self) -> Result<f64, Error>;

    /// Where the time of a pass goes; see [`StageProfile::measure`].
    ///
    /// # Errors
    /// See [`OpenModel`].
    fn profile(&mut self, shape: BatchShape, minimum_seconds: f64) -> Result<StageProfile, Error>;

    /// One pass over all texts; see [`TextPass::measure`].
    ///
    /// # Errors
    /// See [`OpenModel`].
    fn time_texts(&mut self, request: &TextRequest) -> Result<TextPass, Error>;

    /// Memory so far.
    ///
    /// # Errors
    /// See [`OpenModel`].
    fn memory(&mut self) -> Result<Memory, Error>;
}

/// What only the open model knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFacts {
    /// Where config.json and the weights lie.
    pub checkpoint_directory: PathBuf,
    /// Arithmetic of most linear layers, see [`arithmetic_name`].
    pub arithmetic: String,
}

/// Passes over a batch of one shape.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ShapeRequest {
    /// The batch.
    pub shape: BatchShape,
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Passes follow one another until so many seconds have passed.
    pub minimum_seconds: f64,
    /// Whether a pass that is not timed comes first.
    pub warm_up: bool,
}

/// A pass over all texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextRequest {
    /// Texts to encode.
    pub texts: Vec<String>,
    /// Which texts make up a batch.
    pub order: TextOrder,
    /// Texts run together, at least 1.
    pub batch_size: usize,
    /// Worker threads, at least 1.
    pub threads: usize,
}

/// Bytes of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Parameters, in the form in which they are computed with.
    pub weight_memory_bytes: u64,
    /// Activation buffers that the executor keeps.
    pub scratch_bytes: u64,
    /// Peak resident memory of the measuring process since its start; `None` where the system does not tell.
    pub peak_resident_bytes: Option<u64>,
}

impl BenchHost for InProcess {
    fn startup(
        &mut self,
        directory: &Path,
        weight_only: Option<WeightOnlyArithmetic>,
        threads: usize,
    ) -> Result<Startup, Error> {
        let settings = EncoderSettings::with_weight_only(weight_only);
        Ok(Startup::measure(directory, &settings, threads)?)
    }

    fn open(
        &mut self,
        directory: &Path,
        weight_only: Option<WeightOnlyArithmetic>,
    ) -> Result<Box<dyn OpenModel>, Error> {
        let settings = EncoderSettings::with_weight_only(weight_only);
        Ok(Box::new(Encoder::open_with_settings(directory, &settings)?))
    }
}

impl OpenModel for Encoder {
    fn facts(&mut self) -> Result<OpenFacts, Error> {
        Ok(OpenFacts {
            checkpoint_directory: self.checkpoint_directory().to_owned(),
            arithmetic: arithmetic_name(self.network().arithmetic()).to_owned(),
        })
    }

    fn time_shape(&mut self, request: &ShapeRequest) -> Result<Vec<f64>, Error> {
        Ok(time_shape(
            self.network(),
            request.shape,
            request.threads,
            request.minimum_seconds,
            request.warm_up,
        )?)
    }

    fn multiply_adds_per_second(&mut self) -> Result<f64, Error> {
        let network = self.network();
        Ok(multiply_adds_per_second(
            network.kernels(),
            network.arithmetic(),
        ))
    }

    fn profile(&mut self, shape: BatchShape, minimum_seconds: f64) -> Result<StageProfile, Error> {
        Ok(StageProfile::measure(
            self.network(),
            shape,
            minimum_seconds,
        )?)
    }

    fn time_texts(&mut self, request: &TextRequest) -> Result<TextPass, Error> {
        let options = EncodeOptions {
            threads: request.threads,
            batch_size: request.batch_size,
        };
        Ok(TextPass::measure(
            self,
            &request.texts,
            request.order,
            &options,
        )?)
    }

    fn memory(&mut self) -> Result<Memory, Error> {
        Ok(Memory {
            weight_memory_bytes: self.network().memory_bytes() as u64,
            scratch_bytes: self.network().scratch_bytes() as u64,
            peak_resident_bytes: peak_resident_bytes(),
        })
    }
}
