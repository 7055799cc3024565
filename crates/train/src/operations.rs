//! Operations on tensors with their gradients, where candle's own would be slower or take more memory.

pub(crate) mod linear;
