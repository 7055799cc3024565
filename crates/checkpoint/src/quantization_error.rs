//! What is wrong with a `quantization_config`, or not read here.
use crate::{CheckpointError, CheckpointErrorKind};
use std::fmt;

/// A quantization_config that contradicts its own format.
pub(crate) fn malformed(message: impl Into<String>) -> CheckpointError {
    CheckpointError::new(CheckpointErrorKind::Malformed, message)
}

/// A quantization that exists but is not read here; `what` names it.
pub(crate) fn unsupported(what: impl fmt::Display) -> CheckpointError {
    CheckpointError::new(CheckpointErrorKind::UnsupportedQuantization, format!("unsupported: {what}")).hint(
        "fewbit reads float checkpoints, bitsandbytes (nf4, fp4, 8-bit), compressed-tensors (int-quantized and pack-quantized with 4 or 8 bits, \
         float-quantized with 8 bits, nvfp4-pack-quantized, mxfp4-pack-quantized), GPTQ (gptq and gptq_v2 with 4 or 8 bits) and AWQ (gemm)",
    )
}
