//! Operations on tensors with their gradients, where candle's own would be slower or take more memory.
//!
//! Each runs on the calling thread, forward by the kernels of the executor where there are such.

pub(crate) mod activation;
pub(crate) mod attention;
mod exponentials;
pub(crate) mod linear;
pub(crate) mod norm;
pub(crate) mod rotary;
pub(crate) mod sequence_means;
pub(crate) mod softmax;
pub(crate) mod values;

#[cfg(test)]
pub(crate) mod finite_differences;
