//! Accumulators of what a tensor holds, and the ranges that they choose for it.
//!
//! An observer takes values in (`update`), takes in what another has seen (`merge`), and says which range to quantize (`range`). It knows no
//! model and no file, its memory does not grow with the data, and it is data itself: serde saves it, so that statistics can be kept, merged
//! and resumed. A [`ParameterRule`] makes scale and zero point of a range.
//!
//! | observer | range | whose | `merge(a, b)` against having seen both |
//! |---|---|---|---|
//! | [`MinMax`] | least and greatest value | PyTorch | the same |
//! | [`MovingAverageMinMax`] | moving averages of both | PyTorch | what a would be after the updates of b, up to rounding |
//! | [`PerChannelMinMax`] | least and greatest of each channel | PyTorch | the same |
//! | [`MovingAveragePerChannelMinMax`] | moving averages of each channel | PyTorch | as above |
//! | [`Histogram`] | tails clipped while the error falls | PyTorch | counts moved by less than [`Histogram::displacement`] |
//! | [`Percentile`] | all but a share of the values | ours, after ONNX Runtime | the same |
//! | [`Mse`] | least squared error | ours | the same |
//! | [`Entropy`] | least Kullback-Leibler divergence | ours, after TensorRT and ONNX Runtime | the same |
//!
//! PyTorch's observers give PyTorch's bits: scale and zero point are tested against golden files of the real library. A NaN or an infinity is an
//! error naming its index, in every observer; PyTorch lets both through, or drops infinities with a warning.
//!
//! [`Statistics`] is any one of them.

mod counting;
mod dyadic_histogram;
pub mod entropy;
mod error;
pub mod histogram;
mod min_max;
pub mod moving_average;
pub mod mse;
mod parameter_rule;
mod per_channel;
pub mod percentile;
mod scan;
mod statistics;
mod value_range;

pub use entropy::Entropy;
pub use error::ObserverError;
pub use histogram::Histogram;
pub use min_max::MinMax;
pub use moving_average::{AveragingConstant, MovingAverageMinMax};
pub use mse::Mse;
pub use parameter_rule::{ParameterRule, QScheme, QuantizedDType};
pub use per_channel::{ChannelAxis, MovingAveragePerChannelMinMax, PerChannelMinMax};
pub use percentile::{KeptPercentage, Percentile};
pub use statistics::Statistics;
pub use value_range::ValueRange;
