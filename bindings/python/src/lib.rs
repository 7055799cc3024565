//! The native half of the Python package `fewbit`: thin functions over the crate `fewbit`, without a formula of their own. What users see is
//! the Python beside it, in `python/fewbit`.
//!
//! Arrays come and go by numpy; reports as JSON text, of which the Python half makes dataclasses. Whatever takes long runs through
//! [`run`], which lets other Python threads go on meanwhile, and makes exceptions of errors and of panics.

#![expect(
    clippy::needless_pass_by_value,
    reason = "what Python gives is converted, and comes by value"
)]

mod calibration;
mod compare;
mod convert;
mod convolution;
mod embedding;
mod encoder;
mod error;
mod fake_quantize;
mod given_codes;
mod inspect;
mod linear;
mod module_calibration;
mod network;
mod predictor;
mod quantize;
mod run;
mod sensitivity;
mod stored_weight;
mod token_batch;
mod training;
mod weights;

use pyo3::prelude::*;

#[pymodule]
mod _fewbit {
    #[pymodule_export]
    use crate::calibration::{calibrate, static_recipe};
    #[pymodule_export]
    use crate::compare::{bench, calibration_sweep, compare, measure_one_model};
    #[pymodule_export]
    use crate::convert::convert_model;
    #[pymodule_export]
    use crate::convolution::Convolution;
    #[pymodule_export]
    use crate::embedding::embedding_rows;
    #[pymodule_export]
    use crate::encoder::Encoder;
    #[pymodule_export]
    use crate::error::FewbitError;
    #[pymodule_export]
    use crate::fake_quantize::{
        fake_quantize_gradients, fake_quantize_groups, fake_quantize_int8_rows, fake_quantize_rows,
        fake_quantize_static, group_codes, int4_parameters,
    };
    #[pymodule_export]
    use crate::given_codes::convert_with_codes;
    #[pymodule_export]
    use crate::inspect::{inspect, inspect_gguf, isa, resolve};
    #[pymodule_export]
    use crate::linear::Linear;
    #[pymodule_export]
    use crate::module_calibration::{Calibration, default_qconfig};
    #[pymodule_export]
    use crate::network::{Network, dequantized_weights, encoder_model_types};
    #[pymodule_export]
    use crate::predictor::Predictor;
    #[pymodule_export]
    use crate::quantize::{QuantizationManager, quantize_model, read_recipe};
    #[pymodule_export]
    use crate::sensitivity::sensitivity;
    #[pymodule_export]
    use crate::threads_available;
    #[pymodule_export]
    use crate::version;
    #[pymodule_export]
    use crate::weights::{
        dequantize_absmax, dequantize_four_bit, dequantize_int8, quantize_absmax,
        quantize_four_bit, quantize_int8,
    };
}

/// The version of the package.
#[pyfunction]
fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// The number of threads to run on: `threads`, else what the environment says, else the CPUs that this process may use.
#[pyfunction]
#[pyo3(signature = (threads=None))]
fn threads_available(threads: Option<usize>) -> PyResult<usize> {
    let threads = fewbit::threads::resolve(threads);
    Ok(threads.map_err(error::exception)?.count)
}
