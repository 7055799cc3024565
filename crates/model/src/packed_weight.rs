//! The forms in which the weight of a linear layer is held, and how each is made of a stored weight.

use crate::input_scale::InputScale;
use crate::weight_only::WeightOnlyArithmetic;
use fewbit_checkpoint::{CheckpointError, CheckpointErrorKind, StoredWeight, TensorView};
use fewbit_kernels::{
    ActivationBits, Kernels, PackedFloat, PackedFourBit, PackedInt4, PackedInt8,
    PackedWeightOnlyInt8, RowScale,
};
use fewbit_numerics::activation::MAX_TWELVE_BIT_COLUMNS;
use fewbit_numerics::dtype::DType;
use fewbit_numerics::half_precision::{f32_to_bf16_bytes, f32_to_f16_bytes, float_bytes_to_f32};

/// A weight in the form in which it is multiplied with.
pub(crate) enum PackedWeight {
    Float(PackedFloat),
    Int8 {
        packed: PackedInt8,
        scale: InputScale,
        limits: OutputLimits,
    },
    Int4 {
        packed: Box<PackedInt4>,
        scale: InputScale,
        limits: OutputLimits,
    },
    WeightOnlyInt8(PackedWeightOnlyInt8),
    FourBit(PackedFourBit),
}

/// How large the outputs of a layer of integer codes can become.
pub(crate) struct OutputLimits {
    /// |y - b| of a row is at most this times the row's activation scale.
    largest_gain: f32,
    /// The largest |b|.
    largest_bias: f32,
}

impl OutputLimits {
    fn new(bits: ActivationBits, largest_weight: f32, inside: usize, bias: &[f32]) -> Self {
        let greatest_code = match bits {
            ActivationBits::Eight => 255.0,
            ActivationBits::Twelve => 4095.0,
        };
        Self {
            largest_gain: largest_weight * greatest_code * inside as f32,
            largest_bias: largest_magnitude(bias),
        }
    }

    /// Whether no output can overflow for rows whose greatest activation scale this is.
    pub(crate) fn are_finite_for(&self, largest_scale: f32) -> bool {
        largest_scale * self.largest_gain < f32::MAX / 4.0 && self.largest_bias < f32::MAX / 4.0
    }
}

impl PackedWeight {
    /// How large the outputs of integer codes can become; none of floats.
    pub(crate) fn limits(&self) -> Option<&OutputLimits> {
        match self {
            Self::Int8 { limits, .. } | Self::Int4 { limits, .. } => Some(limits),
            _ => None,
        }
    }

    /// How the inputs of integer codes are quantized; none of floats.
    pub(crate) fn input_scale(&self) -> Option<InputScale> {
        match self {
            Self::Int8 { scale, .. } | Self::Int4 { scale, .. } => Some(*scale),
            _ => None,
        }
    }

    /// [`input_scale`](Self::input_scale), to be changed.
    pub(crate) fn input_scale_mut(&mut self) -> Option<&mut InputScale> {
        match self {
            Self::Int8 { scale, .. } | Self::Int4 { scale, .. } => Some(scale),
            _ => None,
        }
    }

    /// Packs a stored weight of `shape` (out, in) for `kernels`. `name` is the module's path in the checkpoint, `bias` that of its layer.
    ///
    /// # Errors
    /// A float tensor cannot be read, or an int8 weight has more columns than sums of products fit in 32 bits.
    pub(crate) fn new(
        name: &str,
        stored: StoredWeight<'_>,
        bias: &[f32],
        shape: [usize; 2],
        kernels: &Kernels,
        weight_only: WeightOnlyArithmetic,
    ) -> Result<Self, CheckpointError> {
        let [out, inside] = shape;
        Ok(match stored {
            StoredWeight::Float(view) => Self::Float(pack_view(&view, shape)?),
            StoredWeight::FloatBytes { dtype, bytes } => {
                Self::Float(pack_float_bytes(dtype, &bytes, shape))
            }
            StoredWeight::Int8 {
                codes,
                scales,
                activations,
            } => {
                check_int8_columns(name, inside)?;
                let (bits, input) = (ActivationBits::Eight, InputScale::of(activations));
                Self::int8(kernels, bits, &codes, &scales, shape, input, bias)
            }
            StoredWeight::Groups { .. } => {
                return Self::groups(name, &stored, bias, shape, kernels, weight_only);
            }
            // There is no product with these codes.
            StoredWeight::SmallFloats(_) => Self::Float(PackedFloat::from_f32(
                &stored.dequantize(shape)?,
                out,
                inside,
            )),
            StoredWeight::FourBit { dtype, .. } if dtype != DType::F32 => {
                let values = stored.dequantize(shape)?;
                Self::Float(pack_rounded(dtype, &values, shape))
            }
            StoredWeight::FourBit {
                packed,
                absmax,
                block_size,
                kind,
                ..
            } => Self::FourBit(PackedFourBit::new(
                packed.into_owned(),
                absmax,
                block_size,
                kind,
                out,
                inside,
            )),
        })
    }

    /// Packs integer codes with a scale for each group of columns. Float inputs become codes of twelve bits where sums of products are exact, unless `weight_only` says
    /// otherwise.
    fn groups(
        name: &str,
        stored: &StoredWeight<'_>,
        bias: &[f32],
        shape: [usize; 2],
        kernels: &Kernels,
        weight_only: WeightOnlyArithmetic,
    ) -> Result<Self, CheckpointError> {
        let [out, inside] = shape;
        let StoredWeight::Groups {
            codes,
            scales,
            zero_points,
            group_size,
            bits,
            activations,
        } = stored
        else {
            unreachable!("the caller has seen groups");
        };
        let zero_points = zero_points.as_deref();
        let integers = match activations {
            Some(activations) => Some((ActivationBits::Eight, InputScale::of(*activations))),
            None if weight_only == WeightOnlyArithmetic::Integers => Some((
                ActivationBits::Twelve,
                InputScale::Rows(RowScale::PerTokenTwelveBit),
            )),
            None => None,
        };
        Ok(match integers {
            Some((activation_bits, scale))
                if *bits == 4
                    && inside <= PackedInt4::MAX_IN_FEATURES
                    && PackedInt4::has_tiles_for(*group_size, inside) =>
            {
                let parts = (&codes[..], &scales[..], zero_points);
                let largest_weight = largest_magnitude(scales) * 15.0;
                Self::Int4 {
                    packed: Box::new(PackedInt4::new(
                        kernels,
                        activation_bits,
                        parts,
                        *group_size,
                        shape,
                    )),
                    limits: OutputLimits::new(activation_bits, largest_weight, inside, bias),
                    scale,
                }
            }
            Some((activation_bits, scale))
                if activations.is_none()
                    && zero_points.is_none()
                    && is_one_sum_of_integers(*group_size, inside) =>
            {
                Self::int8(kernels, activation_bits, codes, scales, shape, scale, bias)
            }
            _ if activations.is_some() => {
                return Err(CheckpointError::new(
                    CheckpointErrorKind::UnsupportedQuantization,
                    format!(
                        "expected int4 codes in groups of a multiple of 8 columns, or in whole rows of at most {} columns, beside quantized activations, found \
                         codes of {bits} bits in groups of {group_size} of {inside} columns",
                        PackedInt4::MAX_IN_FEATURES
                    ),
                )
                .at_tensor(format!("{name}.weight"))
                .hint("quantize the layer with another group size, or only its weight"));
            }
            // Differences of codes and zero points may not fit in a byte.
            _ if zero_points.is_some() => Self::Float(PackedFloat::from_f32(
                &stored.dequantize(shape)?,
                out,
                inside,
            )),
            _ => Self::WeightOnlyInt8(PackedWeightOnlyInt8::new(
                codes,
                scales,
                *group_size,
                out,
                inside,
            )),
        })
    }

    /// Packs int8 codes with one scale for each output, to be multiplied with activations of `bits`.
    fn int8(
        kernels: &Kernels,
        bits: ActivationBits,
        codes: &[i8],
        scales: &[f32],
        [out, inside]: [usize; 2],
        scale: InputScale,
        bias: &[f32],
    ) -> Self {
        Self::Int8 {
            packed: PackedInt8::new(kernels, bits, codes, scales, out, inside),
            scale,
            limits: OutputLimits::new(bits, largest_magnitude(scales) * 128.0, inside, bias),
        }
    }

    /// Bytes held in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        match self {
            Self::Float(weight) => weight.memory_bytes(),
            Self::Int8 { packed, .. } => packed.memory_bytes(),
            Self::Int4 { packed, .. } => packed.memory_bytes(),
            Self::WeightOnlyInt8(weight) => weight.memory_bytes(),
            Self::FourBit(weight) => weight.memory_bytes(),
        }
    }
}

/// Packs a float tensor of the checkpoint in its own precision.
fn pack_view(
    view: &TensorView<'_>,
    [out, inside]: [usize; 2],
) -> Result<PackedFloat, CheckpointError> {
    Ok(match view.info.dtype {
        DType::F16 => PackedFloat::from_f16_bytes(&view.bytes()?, out, inside),
        DType::BF16 => PackedFloat::from_bf16_bytes(&view.bytes()?, out, inside),
        _ => PackedFloat::from_f32(&view.to_f32()?, out, inside),
    })
}

/// Packs floats in memory in their own precision.
fn pack_float_bytes(dtype: DType, bytes: &[u8], [out, inside]: [usize; 2]) -> PackedFloat {
    match dtype {
        DType::F16 => PackedFloat::from_f16_bytes(bytes, out, inside),
        DType::BF16 => PackedFloat::from_bf16_bytes(bytes, out, inside),
        _ => {
            let mut values = vec![0.0; out * inside];
            float_bytes_to_f32(dtype, bytes, &mut values);
            PackedFloat::from_f32(&values, out, inside)
        }
    }
}

/// Packs the values of 4-bit codes, rounded to the half type `dtype` that the layer says they are rounded to. (A product with 4-bit codes
/// would be that of the unrounded f32 values.)
fn pack_rounded(dtype: DType, values: &[f32], [out, inside]: [usize; 2]) -> PackedFloat {
    let mut bytes = vec![0; 2 * values.len()];
    if dtype == DType::F16 {
        f32_to_f16_bytes(values, &mut bytes);
        PackedFloat::from_f16_bytes(&bytes, out, inside)
    } else {
        f32_to_bf16_bytes(values, &mut bytes);
        PackedFloat::from_bf16_bytes(&bytes, out, inside)
    }
}

/// Whether a product with int8 codes of which `group_size` neighbours in a row share a scale is one sum of integers for each output, which
/// fits in 32 bits with activations of 12 bits.
fn is_one_sum_of_integers(group_size: usize, inside: usize) -> bool {
    group_size == inside && (1..=MAX_TWELVE_BIT_COLUMNS).contains(&inside)
}

fn check_int8_columns(name: &str, inside: usize) -> Result<(), CheckpointError> {
    if inside <= PackedInt8::MAX_IN_FEATURES {
        return Ok(());
    }
    Err(CheckpointError::new(
        CheckpointErrorKind::UnsupportedQuantization,
        format!(
            "expected at most {} input features, whose sums of int8 products fit in 32 bits, found {inside}",
            PackedInt8::MAX_IN_FEATURES
        ),
    )
    .at_tensor(format!("{name}.weight"))
    .hint("keep this layer in floats, or quantize its weight only"))
}

/// The greatest absolute value.
pub(crate) fn largest_magnitude(values: &[f32]) -> f32 {
    let magnitudes = values.iter().map(|value| value.abs());
    magnitudes.fold(0.0, f32::max)
}
