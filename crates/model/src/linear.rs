//! The seam between the executor and the forms in which a weight is held.

use crate::ModelError;
use crate::finite::check_values;
use fewbit_checkpoint::stored_weight::Int8Activations;
use fewbit_checkpoint::{CheckpointError, CheckpointErrorKind, StoredWeight};
use fewbit_kernels::{
    Epilogue, Kernels, PackedFloat, PackedFourBit, PackedInt8, PackedWeightOnlyInt8, QuantizedRows,
    RowScale, Workspace,
};
use fewbit_numerics::activation::ActivationScheme;
use fewbit_numerics::dtype::DType;
use fewbit_numerics::half_precision::{f32_to_bf16_bytes, f32_to_f16_bytes};

/// `y = x W^T + b`, with W in whatever form the checkpoint holds it.
pub(crate) struct Linear {
    /// Module path at sites, see [`crate::tap`].
    site: String,
    weight: Packed,
    /// (out)
    bias: Vec<f32>,
    /// (out, in)
    shape: [usize; 2],
}

enum Packed {
    Float(PackedFloat),
    Int8 {
        packed: PackedInt8,
        scheme: ActivationScheme,
        /// |y - b| of a row is at most this times the row's activation scale.
        largest_gain: f32,
    },
    WeightOnlyInt8(PackedWeightOnlyInt8),
    FourBit(PackedFourBit),
}

/// Rows that one or several linear layers read; quantized at most once.
pub(crate) struct LinearInput<'a> {
    /// (rows, columns)
    values: &'a [f32],
    rows: usize,
    quantized: &'a mut QuantizedRows,
    /// What `quantized` holds of `values`.
    scheme: Option<ActivationScheme>,
}

impl<'a> LinearInput<'a> {
    /// `values` is (rows, columns); `quantized` is a buffer to reuse.
    pub(crate) fn new(values: &'a [f32], rows: usize, quantized: &'a mut QuantizedRows) -> Self {
        Self {
            values,
            rows,
            quantized,
            scheme: None,
        }
    }

    pub(crate) fn values(&self) -> &'a [f32] {
        self.values
    }

    fn quantize(
        &mut self,
        scheme: ActivationScheme,
        kernels: &Kernels,
        site: &str,
    ) -> Result<(), ModelError> {
        if self.scheme == Some(scheme) {
            return Ok(());
        }
        let columns = self.values.len() / self.rows;
        // A quantized row cannot hold NaN or infinity: they would become codes that look like any other.
        let scale = RowScale::PerToken(scheme);
        if !kernels.quantize_rows(self.values, self.rows, columns, scale, self.quantized) {
            check_values(self.values, columns, 0, site, "input")?;
        }
        self.scheme = Some(scheme);
        Ok(())
    }
}

impl Linear {
    /// Packs a stored weight of `shape` (out, in). `site` is the module's path at sites, `name` its path in the checkpoint.
    pub(crate) fn new(
        site: String,
        name: &str,
        stored: StoredWeight<'_>,
        bias: Vec<f32>,
        shape: [usize; 2],
    ) -> Result<Self, CheckpointError> {
        let [out, inside] = shape;
        let weight = match stored {
            StoredWeight::Float(view) => Packed::Float(match view.info.dtype {
                DType::F16 => PackedFloat::from_f16_bytes(view.bytes, out, inside),
                DType::BF16 => PackedFloat::from_bf16_bytes(view.bytes, out, inside),
                _ => PackedFloat::from_f32(&view.to_f32()?, out, inside),
            }),
            StoredWeight::Int8 {
                activations: Int8Activations::Dynamic(_),
                ..
            } if inside > PackedInt8::MAX_IN_FEATURES => {
                return Err(CheckpointError::new(
                    CheckpointErrorKind::UnsupportedQuantization,
                    format!(
                        "expected at most {} input features, whose sums of int8 products fit in 32 bits, found {inside}",
                        PackedInt8::MAX_IN_FEATURES
                    ),
                )
                .at_tensor(format!("{name}.weight"))
                .hint("keep this layer in floats, or quantize its weight only"));
            }
            StoredWeight::Int8 {
                codes,
                scales,
                activations: Int8Activations::Dynamic(scheme),
            } => Packed::Int8 {
                packed: PackedInt8::new(&codes, &scales, out, inside),
                scheme,
                largest_gain: scales
                    .iter()
                    .fold(0.0f32, |largest, scale| largest.max(scale.abs()))
                    * (255.0 * 128.0)
                    * inside as f32,
            },
            StoredWeight::Int8 {
                activations: Int8Activations::Static { .. },
                ..
            } => {
                return Err(CheckpointError::new(
                    CheckpointErrorKind::UnsupportedQuantization,
                    "expected int8 activations quantized per token at run time, found a stored (static) activation scale",
                )
                .at_tensor(format!("{name}.input_scale"))
                .hint("static int8 models can be read but not run yet; quantize the float model with `--method dynamic`"));
            }
            StoredWeight::WeightOnly {
                codes,
                scales,
                group_size,
                ..
            } => Packed::WeightOnlyInt8(PackedWeightOnlyInt8::new(
                &codes, &scales, group_size, out, inside,
            )),
            // A product with 4-bit codes is that of the unrounded f32 values; where the layer says that they are rounded to
            // a half type, the rounded values are what is kept.
            StoredWeight::FourBit { dtype, .. } if dtype != DType::F32 => {
                let values = stored.dequantize(shape)?;
                let mut bytes = vec![0; 2 * values.len()];
                Packed::Float(if dtype == DType::F16 {
                    f32_to_f16_bytes(&values, &mut bytes);
                    PackedFloat::from_f16_bytes(&bytes, out, inside)
                } else {
                    f32_to_bf16_bytes(&values, &mut bytes);
                    PackedFloat::from_bf16_bytes(&bytes, out, inside)
                })
            }
            StoredWeight::FourBit {
                packed,
                absmax,
                block_size,
                kind,
                ..
            } => Packed::FourBit(PackedFourBit::new(
                packed.into_owned(),
                absmax,
                block_size,
                kind,
                out,
                inside,
            )),
        };
        Ok(Self {
            site,
            weight,
            bias,
            shape,
        })
    }

    /// Module path at sites.
    pub(crate) fn site(&self) -> &str {
        &self.site
    }

    pub(crate) fn out_features(&self) -> usize {
        self.shape[0]
    }

    pub(crate) fn in_features(&self) -> usize {
        self.shape[1]
    }

    /// Writes (rows, out_features) to `out`.
    ///
    /// # Errors
    /// [`ModelError::NonFinite`] if an int8 layer's input, or any layer's output, holds NaN or infinity.
    pub(crate) fn forward(
        &self,
        input: &mut LinearInput<'_>,
        out: &mut [f32],
        kernels: &Kernels,
        workspace: &mut Workspace,
    ) -> Result<(), ModelError> {
        let (rows, epilogue) = (input.rows, Epilogue::store(Some(&self.bias)));
        match &self.weight {
            Packed::Float(weight) => {
                kernels.linear_float(input.values, rows, weight, epilogue, out, workspace);
            }
            Packed::WeightOnlyInt8(weight) => {
                kernels.linear_weight_only_int8(
                    input.values,
                    rows,
                    weight,
                    epilogue,
                    out,
                    workspace,
                );
            }
            Packed::FourBit(weight) => {
                kernels.linear_four_bit(input.values, rows, weight, epilogue, out, workspace);
            }
            Packed::Int8 {
                packed,
                scheme,
                largest_gain,
            } => {
                input.quantize(*scheme, kernels, &self.site)?;
                kernels.linear_int8(input.quantized, packed, epilogue, out, workspace);
                // Finite codes and small scales cannot overflow; only otherwise is the output worth a look.
                let scale = input
                    .quantized
                    .scales()
                    .iter()
                    .fold(0.0f32, |largest, &scale| largest.max(scale));
                if scale * largest_gain < f32::MAX / 2.0 {
                    return Ok(());
                }
            }
        }
        check_values(out, self.out_features(), 0, &self.site, "output")
    }

    /// Bytes held in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        let weight = match &self.weight {
            Packed::Float(weight) => weight.memory_bytes(),
            Packed::Int8 { packed, .. } => packed.memory_bytes(),
            Packed::WeightOnlyInt8(weight) => weight.memory_bytes(),
            Packed::FourBit(weight) => weight.memory_bytes(),
        };
        weight + size_of_val(self.bias.as_slice())
    }
}
