//! Floats of 8 or 4 bits: linear layers.

use fewbit_checkpoint::compressed_tensors::{FloatScheme, WeightScales};
use fewbit_checkpoint::small_floats::SmallFloatType;
use fewbit_checkpoint::{CheckpointError, StoredWeight, TensorView};
use fewbit_kernels::Kernels;
use fewbit_numerics::error_statistics::ErrorSums;
use fewbit_numerics::small_floats::{fp8_scale, nvfp4_global_scale};

use super::float_slices::{FloatSlices, refuse};
use super::{Outcome, Output, matrix_shape};
use crate::QuantizeError;
use crate::weight_codecs::{SharedScale, largest_magnitude, quantize_small_floats};

/// Quantizes a matrix as `scheme` has it and writes it, slice by slice.
pub(super) fn quantize(
    view: &TensorView<'_>,
    scheme: FloatScheme,
    output: &mut Output<'_>,
) -> Result<Outcome, QuantizeError> {
    let [_, columns] = matrix_shape(view)?;
    let shared = shared_scale(view, scheme, output.kernels)?;
    let mut slices = FloatSlices::new(view, columns);
    let mut error = ErrorSums::default();
    while let Some((place, floats)) = slices.next_slice()? {
        let Some((weight, found)) = quantize_small_floats(floats, columns, scheme.kind, shared)
        else {
            return Err(refuse(view, place).into());
        };
        error.merge(&found);
        let first_row = place.start / columns;
        output.write_rows(view, &scheme, first_row, &StoredWeight::SmallFloats(weight))?;
        output.advance(place.len() * view.info.dtype.bytes(), &view.info.name);
    }
    Ok(Outcome {
        error: Some(error.statistics()),
        ..Outcome::default()
    })
}

/// What all rows have in common.
fn shared_scale(
    view: &TensorView<'_>,
    scheme: FloatScheme,
    kernels: &Kernels,
) -> Result<SharedScale, CheckpointError> {
    let of_largest = match (scheme.kind, scheme.weights) {
        (SmallFloatType::Fp8, WeightScales::PerTensor) => {
            |largest| SharedScale::Fp8(fp8_scale(largest))
        }
        (SmallFloatType::Nvfp4, _) => |largest| SharedScale::Nvfp4(nvfp4_global_scale(largest)),
        (SmallFloatType::Fp8 | SmallFloatType::Mxfp4, _) => return Ok(SharedScale::None),
    };
    let mut slices = FloatSlices::new(view, 1);
    let mut largest = 0.0f32;
    while let Some((place, floats)) = slices.next_slice()? {
        match largest_magnitude(kernels, floats) {
            Some(of_slice) => largest = largest.max(of_slice),
            None => return Err(refuse(view, place)),
        }
    }
    Ok(of_largest(largest))
}
