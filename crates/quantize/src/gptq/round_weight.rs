//! What becomes of one weight, given what was collected of its inputs.

use std::borrow::Cow;

use fewbit_checkpoint::StoredWeight;
use fewbit_checkpoint::bitsandbytes::FourBitLayout;
use fewbit_checkpoint::compressed_tensors::CompressedScheme;
use fewbit_kernels::{FloatBytes, Kernels};
use fewbit_numerics::double_quantization;

use super::four_bit::{FourBitScales, four_bit_codes, nearest_four_bit_codes};
use super::int4::{Int4Parameters, int4_codes, nearest_int4_codes};
use super::{ColumnOrder, InputStatistics, InverseFactor, int8_groups, int8_rows};
use crate::conversion::int4::settings as int4_settings;
use crate::weight_codecs::{Importance, fit_four_bit_scales, quantize_four_bit};
use crate::{BlockScales, Rounding, TensorAction};

/// What a weight is rounded by.
pub(super) struct RoundingInputs<'a> {
    pub(super) statistics: &'a InputStatistics,
    /// The factor of their Hessian in the order of the [`order_of`] the weight, if it has one.
    pub(super) factor: Option<&'a InverseFactor>,
    pub(super) kernels: &'static Kernels,
}

/// The order in which GPTQ rounds the columns of a weight; none for what is rounded without it.
pub(super) fn order_of(action: &TensorAction) -> Option<ColumnOrder> {
    match action {
        TensorAction::Int8LinearGptq {
            saturation_proof, ..
        }
        | TensorAction::EightBitLinear {
            rounding: Rounding::Gptq { saturation_proof },
        } => Some(match saturation_proof {
            true => ColumnOrder::FallingPairs,
            false => ColumnOrder::FallingSquares,
        }),
        TensorAction::FourBitBlocks { gptq: true, .. }
        | TensorAction::Int4Linear { gptq: true, .. } => Some(ColumnOrder::FallingSquares),
        _ => None,
    }
}

/// Rounds a weight (rows, columns; row-major, finite) as its action says, on the threads of the current pool.
///
/// # Panics
/// If the action takes no calibration, or there is no factor where it needs one.
pub(super) fn round_weight(
    weights: &[f32],
    action: &TensorAction,
    inputs: &RoundingInputs<'_>,
) -> StoredWeight<'static> {
    let factor = || inputs.factor.expect("GPTQ has a factor");
    match action {
        TensorAction::Int8LinearGptq {
            scheme,
            saturation_proof,
        } => scheme.stored_weight(match scheme {
            CompressedScheme::WeightOnlyInt8Groups { group_size, .. } => {
                int8_groups(weights, factor(), *group_size)
            }
            _ => int8_rows(weights, factor(), *saturation_proof),
        }),
        TensorAction::EightBitLinear {
            rounding: Rounding::Gptq { saturation_proof },
        } => {
            let scheme = CompressedScheme::WeightOnlyInt8;
            scheme.stored_weight(int8_rows(weights, factor(), *saturation_proof))
        }
        TensorAction::FourBitBlocks {
            layout,
            scales,
            gptq,
            ..
        } => {
            let factor = gptq.then(factor);
            four_bit(weights, layout, *scales, inputs, factor)
        }
        TensorAction::Int4Linear {
            layout,
            scales,
            gptq,
        } => {
            let importance = inputs.statistics.importance();
            let columns = importance.len();
            let settings = int4_settings(*layout, scales.of_groups(), columns);
            let is_weighted = *scales == BlockScales::ActivationWeighted;
            let parameters = Int4Parameters::of(
                inputs.kernels,
                weights,
                columns,
                settings,
                is_weighted.then_some(&importance),
            );
            layout.stored_weight(match gptq {
                true => int4_codes(weights, factor(), parameters),
                false => nearest_int4_codes(weights, parameters),
            })
        }
        _ => unreachable!("`{action}` takes no calibration"),
    }
}

/// Scales of the blocks first, with double quantization as a reader will see them, and codes under these.
fn four_bit(
    weights: &[f32],
    layout: &FourBitLayout,
    scales: BlockScales,
    inputs: &RoundingInputs<'_>,
    factor: Option<&InverseFactor>,
) -> StoredWeight<'static> {
    let FourBitLayout {
        kind, block_size, ..
    } = *layout;
    let source = FloatBytes::of_f32(weights);
    let mut blocks = quantize_four_bit(inputs.kernels, source, block_size, kind)
        .expect("the weights are finite");
    let of_columns = inputs.statistics.importance();
    let importance = match scales {
        BlockScales::ActivationWeighted => Importance::OfColumns(&of_columns),
        BlockScales::Absmax | BlockScales::Mse => Importance::Equal,
    };
    if scales != BlockScales::Absmax {
        let into = (&mut blocks.packed[..], &mut blocks.absmax[..]);
        fit_four_bit_scales(inputs.kernels, source, block_size, kind, importance, into);
    }
    let nested = layout
        .double_quantization
        .then(|| double_quantization::quantize(&blocks.absmax));
    let absmax = match &nested {
        Some(nested) => nested.dequantize(),
        None => blocks.absmax,
    };
    let blocks = FourBitScales {
        kind,
        block_size,
        scales: &absmax,
    };
    let packed = match factor {
        Some(factor) => four_bit_codes(weights, factor, blocks),
        None => nearest_four_bit_codes(weights, blocks),
    };
    StoredWeight::FourBit {
        packed: Cow::Owned(packed),
        absmax,
        nested,
        block_size,
        kind,
        dtype: layout.element_type(),
    }
}
