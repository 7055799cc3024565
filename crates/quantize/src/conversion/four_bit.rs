//! NF4 and FP4 with one absmax a block of the flattened weight.

use std::borrow::Cow;

use fewbit_checkpoint::bitsandbytes::FourBitLayout;
use fewbit_checkpoint::{StoredWeight, TensorView};
use fewbit_numerics::double_quantization::{self, DoubleQuantized, NESTED_BLOCK_SIZE};
use fewbit_numerics::dtype::DType;
use fewbit_numerics::dynamic_map::dynamic_map;
use fewbit_numerics::error_statistics::{ErrorStatistics, ErrorSums};
use fewbit_numerics::four_bit::{FourBitBlocks, dequantize_range, quantize_blocks};

use super::slices::Slices;
use super::{Outcome, Output};
use crate::QuantizeError;

/// Quantizes a matrix in blocks and writes it in the bitsandbytes layout.
pub(super) fn quantize(
    view: &TensorView<'_>,
    layout: &FourBitLayout,
    output: &mut Output<'_>,
) -> Result<Outcome, QuantizeError> {
    let elements = view.element_count();
    let mut blocks = FourBitBlocks {
        packed: Vec::with_capacity(elements.div_ceil(2)),
        absmax: Vec::with_capacity(elements.div_ceil(layout.block_size)),
    };
    // Slices are whole blocks, and blocks are of even length: neither an absmax nor a byte is shared
    // by two slices.
    let mut slices = Slices::new(view, layout.block_size);
    while let Some((_, values)) = slices.next_slice()? {
        let slice = quantize_blocks(values, layout.block_size, layout.kind);
        blocks.packed.extend_from_slice(&slice.packed);
        blocks.absmax.extend_from_slice(&slice.absmax);
        output.advance(values.len() * view.info.dtype.bytes(), &view.info.name);
    }
    let nested = layout
        .double_quantization
        .then(|| double_quantization::quantize(&blocks.absmax));
    if let Some(nested) = &nested {
        blocks.absmax = restored(nested);
    }
    let error = error_statistics(view, layout, &blocks)?;
    let weight = StoredWeight::FourBit {
        packed: Cow::Owned(blocks.packed),
        absmax: blocks.absmax,
        nested,
        block_size: layout.block_size,
        kind: layout.kind,
        dtype: match layout.dtype.as_str() {
            "float16" => DType::F16,
            "bfloat16" => DType::BF16,
            _ => DType::F32,
        },
    };
    output.write_rows(view, layout, 0, &weight)?;
    Ok(Outcome {
        error: Some(error),
        ..Outcome::default()
    })
}

/// The absmax values that codes stand for.
fn restored(nested: &DoubleQuantized) -> Vec<f32> {
    double_quantization::dequantize(
        &nested.codes,
        dynamic_map(),
        &nested.nested_absmax,
        NESTED_BLOCK_SIZE,
        nested.offset,
    )
}

/// The error of the blocks as a loader dequantizes them, before it rounds to the dtype of the layout.
fn error_statistics(
    view: &TensorView<'_>,
    layout: &FourBitLayout,
    blocks: &FourBitBlocks,
) -> Result<ErrorStatistics, QuantizeError> {
    let mut error = ErrorSums::default();
    let mut dequantized = Vec::new();
    let mut slices = Slices::new(view, layout.block_size);
    while let Some((start, values)) = slices.next_slice()? {
        dequantized.resize(values.len(), 0.0);
        dequantize_range(
            &blocks.packed,
            &blocks.absmax,
            layout.block_size,
            layout.kind,
            start,
            &mut dequantized,
        );
        error.add(values, &dequantized);
    }
    Ok(error.statistics())
}
