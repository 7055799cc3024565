//! A weight matrix in the form in which it is stored.
use crate::small_floats::SmallFloats;
use crate::{CheckpointError, CheckpointErrorKind, TensorView};
use fewbit_numerics::activation::ActivationScheme;
use fewbit_numerics::affine::CodeRange;
use fewbit_numerics::double_quantization::DoubleQuantized;
use fewbit_numerics::dtype::DType;
use fewbit_numerics::four_bit::{FourBitType, dequantize_range};
use fewbit_numerics::half_precision::{
    bf16_bytes_to_f32, f16_bytes_to_f32, f32_to_bf16_bytes, f32_to_f16_bytes, float_bytes_to_f32,
};
use fewbit_numerics::rows::dequantize_groups;
use std::borrow::Cow;
use std::ops::Range;

/// A (out, in) weight. Codes and packed bytes are row-major over that shape; all scales are finite.
#[derive(Debug, Clone)]
pub enum StoredWeight<'a> {
    /// F32, F16, BF16 or F64.
    Float(TensorView<'a>),
    /// The same in memory: a part of a tensor, or a weight that is not of a file.
    FloatBytes {
        /// F32, F16 or BF16.
        dtype: DType,
        /// Little-endian (out, in)
        bytes: Cow<'a, [u8]>,
    },
    /// int8 weight with one scale a row and 8-bit activations (compressed-tensors int-quantized W8A8).
    Int8 {
        /// (out, in)
        codes: Cow<'a, [i8]>,
        /// (out)
        scales: Vec<f32>,
        /// How the inputs are quantized.
        activations: Int8Activations,
    },
    /// Integer codes with a scale for each group of columns (compressed-tensors W4A16, W8A16, W4A8; LLM.int8).
    Groups {
        /// (out, in), one a byte.
        codes: Cow<'a, [i8]>,
        /// (out, in / group_size)
        scales: Vec<f32>,
        /// The codes of 0, (out, in / group_size); none of symmetric codes, whose zero points are 0.
        zero_points: Option<Vec<i8>>,
        /// Neighbouring columns of a row that share a scale; divides `in`.
        group_size: usize,
        /// Bits of a code: 4 (codes -8..=7) or 8.
        bits: usize,
        /// How the inputs are quantized; none: not as far as the file goes.
        activations: Option<Int8Activations>,
    },
    /// Floats of 8 or 4 bits (compressed-tensors float-quantized, nvfp4-pack-quantized, mxfp4-pack-quantized).
    SmallFloats(SmallFloats<'a>),
    /// bitsandbytes NF4 / FP4.
    FourBit {
        /// Two codes a byte, the first in the high nibble: (ceil(out * in / 2))
        packed: Cow<'a, [u8]>,
        /// (ceil(out * in / block_size))
        absmax: Vec<f32>,
        /// With double quantization, the 8-bit codes that give `absmax`. None also of a file whose codes stand for other values than those of
        /// the usual [`dynamic_map`](fewbit_numerics::dynamic_map::dynamic_map).
        nested: Option<DoubleQuantized>,
        /// Elements of the flattened weight that share an absmax.
        block_size: usize,
        /// The code table.
        kind: FourBitType,
        /// F32, F16 or BF16: what dequantized values are rounded to (the dtype of the weight that was quantized).
        dtype: DType,
    },
}

/// How the inputs of an int8 layer are quantized.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Int8Activations {
    /// Per token, at run time.
    Dynamic(ActivationScheme),
    /// One scale for a whole input, at run time, chosen as PyTorch's dynamic layers do
    /// ([`fewbit_numerics::dynamic_linear::per_tensor_parameters`]).
    DynamicPerTensor {
        /// Whether the scale is that of 7 bits.
        reduce_range: bool,
    },
    /// One stored scale and zero point (signed int8 convention of compressed-tensors).
    Static {
        /// Scale, finite and at least the least positive normal float.
        scale: f32,
        /// Zero point, one of `codes`.
        zero_point: i32,
        /// The codes that inputs are clamped to: -128..=127, or -64..=63 of 7 bits.
        codes: CodeRange,
    },
}

impl<'a> StoredWeight<'a> {
    /// The same weight, its codes or floats where they are.
    pub fn borrowed(&self) -> StoredWeight<'_> {
        fn there<T: Clone>(values: &[T]) -> Cow<'_, [T]> {
            Cow::Borrowed(values)
        }
        match self {
            Self::Float(view) => StoredWeight::Float(*view),
            Self::FloatBytes { dtype, bytes } => StoredWeight::FloatBytes {
                dtype: *dtype,
                bytes: there(bytes),
            },
            Self::SmallFloats(floats) => StoredWeight::SmallFloats(floats.borrowed()),
            Self::Int8 {
                codes,
                scales,
                activations,
            } => StoredWeight::Int8 {
                codes: there(codes),
                scales: scales.clone(),
                activations: *activations,
            },
            Self::Groups {
                codes,
                scales,
                zero_points,
                group_size,
                bits,
                activations,
            } => StoredWeight::Groups {
                codes: there(codes),
                scales: scales.clone(),
                zero_points: zero_points.clone(),
                group_size: *group_size,
                bits: *bits,
                activations: *activations,
            },
            Self::FourBit {
                packed,
                absmax,
                nested,
                block_size,
                kind,
                dtype,
            } => StoredWeight::FourBit {
                packed: there(packed),
                absmax: absmax.clone(),
                nested: nested.clone(),
                block_size: *block_size,
                kind: *kind,
                dtype: *dtype,
            },
        }
    }

    /// The outputs `rows` of a weight of `columns` inputs, in the same form; 4-bit codes whose blocks begin elsewhere become floats, which
    /// products take them for anyhow.
    ///
    /// Errors if a float weight that an adapter updates cannot be read.
    ///
    /// # Panics
    /// If there are no such rows.
    pub fn rows(&self, rows: Range<usize>, columns: usize) -> Result<Self, CheckpointError> {
        let elements = rows.start * columns..rows.end * columns;
        Ok(match self {
            Self::Float(view) if view.info.dtype == DType::F64 => {
                let mut values = vec![0.0; elements.len()];
                view.read_f32_range(elements.start, &mut values)?;
                Self::of_values(&values)
            }
            Self::Float(view) => {
                let dtype = view.info.dtype;
                let bytes = elements.start * dtype.bytes()..elements.end * dtype.bytes();
                let bytes = part(&view.bytes()?, bytes);
                Self::FloatBytes { dtype, bytes }
            }
            Self::FloatBytes { dtype, bytes } => {
                let range = elements.start * dtype.bytes()..elements.end * dtype.bytes();
                Self::FloatBytes {
                    dtype: *dtype,
                    bytes: part(bytes, range),
                }
            }
            Self::SmallFloats(floats) => Self::SmallFloats(floats.rows(rows, columns)),
            Self::Int8 {
                codes,
                scales,
                activations,
            } => Self::Int8 {
                codes: part(codes, elements),
                scales: scales[rows].to_vec(),
                activations: *activations,
            },
            Self::Groups {
                codes,
                scales,
                zero_points,
                group_size,
                bits,
                activations,
            } => {
                let groups = elements.start / group_size..elements.end / group_size;
                Self::Groups {
                    codes: part(codes, elements),
                    scales: scales[groups.clone()].to_vec(),
                    zero_points: zero_points.as_ref().map(|points| points[groups].to_vec()),
                    group_size: *group_size,
                    bits: *bits,
                    activations: *activations,
                }
            }
            Self::FourBit {
                packed,
                absmax,
                block_size,
                kind,
                dtype,
                ..
            } => {
                // Two codes are a byte.
                let begins =
                    elements.start.is_multiple_of(*block_size) && elements.start.is_multiple_of(2);
                if begins {
                    Self::FourBit {
                        packed: part(packed, elements.start / 2..elements.end.div_ceil(2)),
                        absmax: absmax
                            [elements.start / block_size..elements.end.div_ceil(*block_size)]
                            .to_vec(),
                        // Its blocks begin elsewhere.
                        nested: None,
                        block_size: *block_size,
                        kind: *kind,
                        dtype: *dtype,
                    }
                } else {
                    let mut values = vec![0.0; elements.len()];
                    dequantize_range(
                        packed,
                        absmax,
                        *block_size,
                        *kind,
                        elements.start,
                        &mut values,
                    );
                    round_to(*dtype, &mut values);
                    Self::of_values(&values)
                }
            }
        })
    }

    /// int8 codes with one scale a row, and float activations.
    pub fn weight_only_int8(codes: Cow<'a, [i8]>, scales: Vec<f32>, columns: usize) -> Self {
        Self::Groups {
            codes,
            scales,
            zero_points: None,
            group_size: columns,
            bits: 8,
            activations: None,
        }
    }

    /// The same in memory of its own, so that what it was read of need not stay open.
    ///
    /// Errors if a float weight that is computed cannot be read.
    pub fn into_owned(self) -> Result<StoredWeight<'static>, CheckpointError> {
        Ok(match self {
            Self::Float(view) if view.info.dtype == DType::F64 => {
                StoredWeight::of_values(&view.to_f32()?)
            }
            Self::Float(view) => StoredWeight::FloatBytes {
                dtype: view.info.dtype,
                bytes: Cow::Owned(view.bytes()?.into_owned()),
            },
            Self::FloatBytes { dtype, bytes } => StoredWeight::FloatBytes {
                dtype,
                bytes: Cow::Owned(bytes.into_owned()),
            },
            Self::SmallFloats(floats) => StoredWeight::SmallFloats(floats.into_owned()),
            Self::Int8 {
                codes,
                scales,
                activations,
            } => StoredWeight::Int8 {
                codes: Cow::Owned(codes.into_owned()),
                scales,
                activations,
            },
            Self::Groups {
                codes,
                scales,
                zero_points,
                group_size,
                bits,
                activations,
            } => StoredWeight::Groups {
                codes: Cow::Owned(codes.into_owned()),
                scales,
                zero_points,
                group_size,
                bits,
                activations,
            },
            Self::FourBit {
                packed,
                absmax,
                nested,
                block_size,
                kind,
                dtype,
            } => StoredWeight::FourBit {
                packed: Cow::Owned(packed.into_owned()),
                absmax,
                nested,
                block_size,
                kind,
                dtype,
            },
        })
    }

    /// Values in memory.
    pub fn of_values(values: &[f32]) -> Self {
        Self::FloatBytes {
            dtype: DType::F32,
            bytes: values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        }
    }

    /// The (out, in) matrix in f32.
    ///
    /// - Float: widened.
    /// - int8 and groups: `(code - zero_point) * scale` in f32, which is what compressed-tensors computes with F32 scales; with F16 or
    ///   BF16 scales it computes in that dtype, that is, rounds this result to it. A bitsandbytes 8-bit weight was read
    ///   with scale `SCB / 127`, rounded; bitsandbytes itself evaluates `code * SCB * (1 / 127)`, so that the two can differ in
    ///   the last two bits.
    /// - FP8, NVFP4, MXFP4: the value of a code times its scale in f32, as compressed-tensors computes with F32 scales; of 4 bits it computes in bf16, that is, rounds
    ///   this result to it.
    /// - NF4, FP4: `table[code] * absmax`, rounded to `dtype`, bit for bit what bitsandbytes gives (but for the sign of a zero,
    ///   on which its own backends differ for FP4).
    ///
    /// Errors if `shape` is not the shape that the weight was read with.
    pub fn dequantize(&self, shape: [usize; 2]) -> Result<Vec<f32>, CheckpointError> {
        self.expect_shape(shape)?;
        let [rows, columns] = shape;
        Ok(match self {
            StoredWeight::Float(view) => view.to_f32()?,
            StoredWeight::FloatBytes { dtype, bytes } => {
                let mut values = vec![0.0; rows * columns];
                float_bytes_to_f32(*dtype, bytes, &mut values);
                values
            }
            StoredWeight::SmallFloats(floats) => floats.values(columns),
            StoredWeight::Int8 { codes, scales, .. } => {
                dequantize_groups(codes, scales, None, columns).collect()
            }
            StoredWeight::Groups {
                codes,
                scales,
                zero_points,
                group_size,
                ..
            } => dequantize_groups(codes, scales, zero_points.as_deref(), *group_size).collect(),
            StoredWeight::FourBit {
                packed,
                absmax,
                block_size,
                kind,
                dtype,
                ..
            } => {
                let mut values = vec![0.0; rows * columns];
                dequantize_range(packed, absmax, *block_size, *kind, 0, &mut values);
                round_to(*dtype, &mut values);
                values
            }
        })
    }

    /// Errors if the parts are not those of a weight of `shape` (out, in).
    pub fn expect_shape(&self, shape: [usize; 2]) -> Result<(), CheckpointError> {
        let [rows, columns] = shape;
        let wrong = |what: &str, found: usize| {
            let message = format!("{what}: expected as many as shape {shape:?} has, found {found}");
            Err(CheckpointError::new(
                CheckpointErrorKind::WrongShape,
                message,
            ))
        };
        let Some(elements) = rows.checked_mul(columns) else {
            return wrong("elements", usize::MAX);
        };
        match self {
            StoredWeight::Float(view) => view.expect_shape(&shape),
            StoredWeight::FloatBytes { dtype, bytes } => {
                match elements.checked_mul(dtype.bytes()) == Some(bytes.len()) {
                    true => Ok(()),
                    false => wrong("bytes", bytes.len()),
                }
            }
            StoredWeight::SmallFloats(floats) => floats.expect_shape(shape),
            StoredWeight::Int8 { codes, scales, .. } => match () {
                () if codes.len() != elements => wrong("codes", codes.len()),
                () if scales.len() != rows => wrong("scales", scales.len()),
                () => Ok(()),
            },
            StoredWeight::Groups {
                codes,
                scales,
                zero_points,
                group_size,
                ..
            } => match () {
                () if codes.len() != elements => wrong("codes", codes.len()),
                () if *group_size == 0 || !columns.is_multiple_of(*group_size) => {
                    wrong("columns of a group", *group_size)
                }
                () if scales.len() != elements / group_size => wrong("scales", scales.len()),
                () if zero_points
                    .as_ref()
                    .is_some_and(|points| points.len() != scales.len()) =>
                {
                    wrong("zero points", zero_points.as_ref().map_or(0, Vec::len))
                }
                () => Ok(()),
            },
            StoredWeight::FourBit {
                packed,
                absmax,
                block_size,
                ..
            } => match () {
                () if *block_size == 0 => wrong("elements of a block", 0),
                () if packed.len() != elements.div_ceil(2) => wrong("packed bytes", packed.len()),
                () if absmax.len() != elements.div_ceil(*block_size) => {
                    wrong("absmax", absmax.len())
                }
                () => Ok(()),
            },
        }
    }
}

/// A part of borrowed elements, borrowed, or a copy of that of owned ones.
fn part<'a, T: Clone>(whole: &Cow<'a, [T]>, range: Range<usize>) -> Cow<'a, [T]> {
    match whole {
        Cow::Borrowed(whole) => Cow::Borrowed(&whole[range]),
        Cow::Owned(whole) => Cow::Owned(whole[range].to_vec()),
    }
}

/// Rounds values to F16 or BF16 and widens them again, as the dequantized values of a 4-bit weight are; to any other dtype they stay as they are.
pub fn round_to(dtype: DType, values: &mut [f32]) {
    let mut bytes = [0; 2 * 1024];
    for values in values.chunks_mut(1024) {
        let bytes = &mut bytes[..2 * values.len()];
        match dtype {
            DType::F16 => {
                f32_to_f16_bytes(values, bytes);
                f16_bytes_to_f32(bytes, values);
            }
            DType::BF16 => {
                f32_to_bf16_bytes(values, bytes);
                bf16_bytes_to_f32(bytes, values);
            }
            _ => {}
        }
    }
}
