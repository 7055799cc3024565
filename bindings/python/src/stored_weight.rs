//! The weight of a layer as Python hands it over.

use crate::error::FewbitError;
use crate::weights::four_bit_type;
use fewbit::checkpoint::StoredWeight;
use fewbit::checkpoint::stored_weight::Int8Activations;
use fewbit::numerics::activation::ActivationScheme;
use fewbit::numerics::affine::CodeRange;
use fewbit::numerics::dtype::DType;
use numpy::{PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;
use std::borrow::Cow;

/// The parts of a weight (out, in): each of them borrows an array.
#[derive(FromPyObject)]
pub(crate) enum WeightParts<'py> {
    /// int8 codes, a scale for each row, how inputs are quantized.
    Int8(
        PyReadonlyArray2<'py, i8>,
        PyReadonlyArray1<'py, f32>,
        Activations,
    ),
    /// int4 codes, scales (rows, groups), zero points of asymmetric groups, how inputs are quantized.
    Int4(
        PyReadonlyArray2<'py, i8>,
        PyReadonlyArray2<'py, f32>,
        Option<PyReadonlyArray2<'py, i8>>,
        Activations,
    ),
    /// 16-bit floats by their bits, and `fp16` or `bf16`.
    Half(PyReadonlyArray2<'py, i16>, String),
    /// Packed 4-bit codes, the absmax of each block, `nf4` or `fp4`, the size of a block, the dtype that values are rounded to.
    FourBit(
        PyReadonlyArray1<'py, u8>,
        PyReadonlyArray1<'py, f32>,
        String,
        usize,
        String,
    ),
}

/// How the inputs of an int8 layer are quantized.
#[derive(FromPyObject)]
pub(crate) enum Activations {
    /// One scale and zero point (of signed codes), and whether codes have 7 bits.
    Static(f32, i32, bool),
    /// `per-token`, `per-tensor`, `per-tensor-7-bit`, or `float` where the weight alone is int8.
    Named(String),
}

impl WeightParts<'_> {
    /// The weight, which borrows what it can.
    pub(crate) fn stored(&self) -> PyResult<StoredWeight<'_>> {
        Ok(match self {
            Self::Int8(codes, scales, activations) => {
                let codes = Cow::Borrowed(codes.as_slice()?);
                let scales = scales.as_slice()?.to_vec();
                match activations.of_int8()? {
                    Some(activations) => StoredWeight::Int8 {
                        codes,
                        scales,
                        activations,
                    },
                    None => {
                        let columns = codes.len() / scales.len().max(1);
                        StoredWeight::weight_only_int8(codes, scales, columns)
                    }
                }
            }
            Self::Int4(codes, scales, zero_points, activations) => {
                let groups = scales.shape()[1];
                let zero_points = match zero_points {
                    Some(points) => Some(points.as_slice()?.to_vec()),
                    None => None,
                };
                StoredWeight::Groups {
                    codes: Cow::Borrowed(codes.as_slice()?),
                    scales: scales.as_slice()?.to_vec(),
                    zero_points,
                    group_size: codes.shape()[1] / groups.max(1),
                    bits: 4,
                    activations: activations.of_int8()?,
                }
            }
            Self::Half(bits, dtype) => StoredWeight::FloatBytes {
                dtype: float_type(dtype)?,
                bytes: (bits.as_slice()?.iter())
                    .flat_map(|bits| bits.to_le_bytes())
                    .collect(),
            },
            Self::FourBit(packed, absmax, kind, block_size, dtype) => StoredWeight::FourBit {
                packed: Cow::Borrowed(packed.as_slice()?),
                absmax: absmax.as_slice()?.to_vec(),
                nested: None,
                block_size: *block_size,
                kind: four_bit_type(kind)?,
                dtype: float_type(dtype)?,
            },
        })
    }
}

impl Activations {
    fn of_int8(&self) -> PyResult<Option<Int8Activations>> {
        Ok(Some(match self {
            &Self::Static(scale, zero_point, seven_bits) => {
                let codes = match seven_bits {
                    true => CodeRange::INT8.reduced(),
                    false => CodeRange::INT8,
                };
                if !(scale >= f32::MIN_POSITIVE && scale.is_finite()) {
                    return Err(FewbitError::new_err(format!(
                        "input_scale: expected a positive normal number, found {scale}"
                    )));
                }
                if !(codes.min..=codes.max).contains(&zero_point) {
                    return Err(FewbitError::new_err(format!(
                        "input_zero_point: expected one of the codes {} to {}, found {zero_point}\n  hint: zero points of quint8 are 128 greater",
                        codes.min, codes.max
                    )));
                }
                Int8Activations::Static {
                    scale,
                    zero_point,
                    codes,
                }
            }
            Self::Named(name) => match name.as_str() {
                "per-token" => Int8Activations::Dynamic(ActivationScheme::Affine),
                "per-tensor" => Int8Activations::DynamicPerTensor {
                    reduce_range: false,
                },
                "per-tensor-7-bit" => Int8Activations::DynamicPerTensor { reduce_range: true },
                "float" => return Ok(None),
                _ => {
                    return Err(FewbitError::new_err(format!(
                        "activations: expected per-token, per-tensor, per-tensor-7-bit or float, found {name:?}"
                    )));
                }
            },
        }))
    }
}

fn float_type(name: &str) -> PyResult<DType> {
    Ok(match name {
        "fp32" => DType::F32,
        "fp16" => DType::F16,
        "bf16" => DType::BF16,
        _ => {
            return Err(FewbitError::new_err(format!(
                "dtype: expected fp32, fp16 or bf16, found {name:?}"
            )));
        }
    })
}
