//! NF4 and FP4 with one absmax a block of the flattened weight.

use std::borrow::Cow;
use std::ops::Range;

use fewbit_checkpoint::bitsandbytes::FourBitLayout;
use fewbit_checkpoint::{CheckpointError, StoredWeight, TensorView};
use fewbit_kernels::Kernels;
use fewbit_numerics::double_quantization;
use fewbit_numerics::error_statistics::ErrorSums;
use fewbit_numerics::four_bit::FourBitBlocks;

use super::float_slices::{FloatSlices, refuse};
use super::{Outcome, Output, matrix_shape};
use crate::weight_codecs::{
    ErrorFigures, Importance, fit_four_bit_scales, four_bit_error, quantize_four_bit_into,
};
use crate::{BlockScales, QuantizeError};

/// Quantizes a matrix, or its transpose, in blocks and writes it in the bitsandbytes layout.
pub(super) fn quantize(
    view: &TensorView<'_>,
    layout: &FourBitLayout,
    scales: BlockScales,
    transposed: bool,
    output: &mut Output<'_>,
) -> Result<Outcome, QuantizeError> {
    let (elements, block_size) = (view.element_count(), layout.block_size);
    let mut blocks = FourBitBlocks {
        packed: vec![0; elements.div_ceil(2)],
        absmax: vec![0.0; elements.div_ceil(block_size)],
    };
    // With other scales, and with double quantization, the codes come to stand for something else.
    let are_final = scales == BlockScales::Absmax && !layout.double_quantization;
    let figures = match are_final {
        true => ErrorFigures::Sum,
        false => ErrorFigures::Skip,
    };
    let kernels = output.kernels;
    let mut error = ErrorSums::default();
    // Slices are whole blocks, and blocks are of even length: neither an absmax nor a byte is shared by two slices.
    let mut slices = slices_of(view, block_size, transposed)?;
    while let Some((place, floats)) = slices.next_slice()? {
        let packed = &mut blocks.packed[place.start / 2..place.end.div_ceil(2)];
        let absmax = &mut blocks.absmax[blocks_of(&place, block_size)];
        let into = (&mut *packed, &mut *absmax);
        let found = quantize_four_bit_into(kernels, floats, block_size, layout.kind, into, figures);
        if !found.finite {
            let place = if transposed { 0..elements } else { place };
            return Err(refuse(view, place).into());
        }
        if scales == BlockScales::Mse {
            let importance = Importance::Equal;
            fit_four_bit_scales(
                output.kernels,
                floats,
                block_size,
                layout.kind,
                importance,
                (packed, absmax),
            );
        }
        error.merge(&found.error);
        output.advance(place.len() * view.info.dtype.bytes(), &view.info.name);
    }
    let nested = layout
        .double_quantization
        .then(|| double_quantization::quantize(&blocks.absmax));
    if let Some(nested) = &nested {
        blocks.absmax = nested.dequantize();
    }
    if !are_final {
        let mut slices = slices_of(view, block_size, transposed)?;
        error = error_sums(&mut slices, layout, &blocks, kernels)?;
    }
    let weight = StoredWeight::FourBit {
        packed: Cow::Owned(blocks.packed),
        absmax: blocks.absmax,
        nested,
        block_size: layout.block_size,
        kind: layout.kind,
        dtype: layout.element_type(),
    };
    let [rows, columns] = matrix_shape(view)?;
    let shape = match transposed {
        false => [rows, columns],
        true => [columns, rows],
    };
    output.write_rows_of(view, shape, layout, 0, &weight)?;
    Ok(Outcome {
        error: Some(error.statistics()),
        ..Outcome::default()
    })
}

fn slices_of<'a>(
    view: &'a TensorView<'a>,
    block_size: usize,
    transposed: bool,
) -> Result<FloatSlices<'a>, CheckpointError> {
    match transposed {
        false => Ok(FloatSlices::new(view, block_size)),
        true => FloatSlices::of_transpose(view, block_size),
    }
}

/// The error of the blocks as a loader dequantizes them, before it rounds to the dtype of the layout.
fn error_sums(
    slices: &mut FloatSlices<'_>,
    layout: &FourBitLayout,
    blocks: &FourBitBlocks,
    kernels: &Kernels,
) -> Result<ErrorSums, QuantizeError> {
    let block_size = layout.block_size;
    let mut error = ErrorSums::default();
    while let Some((place, floats)) = slices.next_slice()? {
        let packed = &blocks.packed[place.start / 2..place.end.div_ceil(2)];
        let absmax = &blocks.absmax[blocks_of(&place, block_size)];
        let part = four_bit_error(kernels, floats, packed, absmax, block_size, layout.kind);
        error.merge(&part);
    }
    Ok(error)
}

/// The blocks of elements that begin with one.
fn blocks_of(elements: &Range<usize>, block_size: usize) -> Range<usize> {
    elements.start / block_size..elements.end.div_ceil(block_size)
}
