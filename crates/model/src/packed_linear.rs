//! The seam between the executor and the forms in which a weight is held.

use crate::ModelError;
use crate::finite::check_values;
use crate::shared_columns::share_columns;
use crate::weight_only::WeightOnlyArithmetic;
use fewbit_checkpoint::stored_weight::Int8Activations;
use fewbit_checkpoint::{CheckpointError, CheckpointErrorKind, StoredWeight};
use fewbit_kernels::{
    Activation, ActivationBits, Arithmetic, Epilogue, Kernels, OutputColumns, PackedFloat,
    PackedFourBit, PackedInt8, PackedWeightOnlyInt8, QuantizedRows, RowScale, Workspace,
};
use fewbit_numerics::activation::MAX_TWELVE_BIT_COLUMNS;
use fewbit_numerics::affine::{AffineParameters, CodeRange};
use fewbit_numerics::dtype::DType;
use fewbit_numerics::dynamic_linear::per_tensor_parameters;
use fewbit_numerics::half_precision::{f32_to_bf16_bytes, f32_to_f16_bytes, float_bytes_to_f32};

/// `y = x W^T + b`, with W in whatever form the checkpoint holds it.
pub(crate) struct PackedLinear {
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
        scale: InputScale,
        /// |y - b| of a row is at most this times the row's activation scale.
        largest_gain: f32,
        /// The largest |b|.
        largest_bias: f32,
    },
    WeightOnlyInt8(PackedWeightOnlyInt8),
    FourBit(PackedFourBit),
}

/// Where the scale and the zero point of an int8 layer's input come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum InputScale {
    /// What a kernel does, also in passing.
    Rows(RowScale),
    /// One for all rows, known beforehand, and codes (unsigned) that end before those of 8 bits.
    Clamped(AffineParameters, CodeRange),
    /// The range of all rows of a text, at run time, as in PyTorch's dynamic layers.
    Text { reduce_range: bool },
}

impl InputScale {
    pub(crate) fn of(activations: Int8Activations) -> Self {
        match activations {
            Int8Activations::Dynamic(scheme) => Self::Rows(RowScale::PerToken(scheme)),
            Int8Activations::DynamicPerTensor { reduce_range } => Self::Text { reduce_range },
            Int8Activations::Static {
                scale,
                zero_point,
                codes,
            } => {
                let parameters = AffineParameters {
                    scale,
                    zero_point: zero_point + UNSIGNED_OFFSET,
                };
                match codes {
                    CodeRange::INT8 => Self::Rows(RowScale::Static(parameters)),
                    CodeRange { min, max } => {
                        let (min, max) = (min + UNSIGNED_OFFSET, max + UNSIGNED_OFFSET);
                        Self::Clamped(parameters, CodeRange { min, max })
                    }
                }
            }
        }
    }
}

/// What becomes of a layer's output y.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Then {
    /// out = y
    Store,
    /// out = out + y
    Add,
    /// out = activation(y)
    Activate(Activation),
}

/// Codes of compressed-tensors are signed, those of the kernels are not: both codes and zero points are shifted by this.
const UNSIGNED_OFFSET: i32 = 128;

/// Rows that one or several linear layers read; quantized at most once for each scale.
pub(crate) struct LinearInput<'a> {
    rows: usize,
    /// (rows, columns), or empty if the rows exist as codes only.
    values: &'a [f32],
    quantized: &'a mut QuantizedRows,
    /// How `quantized` holds `values`, if it does.
    scale: Option<InputScale>,
}

impl<'a> LinearInput<'a> {
    /// `values` is (rows, columns); `quantized` holds them as `scale` says, or is a buffer to reuse.
    pub(crate) fn new(
        rows: usize,
        values: &'a [f32],
        quantized: &'a mut QuantizedRows,
        scale: Option<RowScale>,
    ) -> Self {
        Self {
            rows,
            values,
            quantized,
            scale: scale.map(InputScale::Rows),
        }
    }

    /// Rows that exist as codes only, for a layer whose [`PackedLinear::input_scale`] is `scale`.
    pub(crate) fn of_codes(quantized: &'a mut QuantizedRows, scale: RowScale) -> Self {
        Self::new(quantized.rows(), &[], quantized, Some(scale))
    }

    pub(crate) fn values(&self) -> &'a [f32] {
        self.values
    }

    /// The rows of `linear`'s input as it wants them.
    fn quantize(
        &mut self,
        scale: InputScale,
        linear: &PackedLinear,
        kernels: &Kernels,
    ) -> Result<&QuantizedRows, ModelError> {
        if self.scale != Some(scale) {
            let (rows, columns) = (self.rows, linear.in_features());
            let by_row = match scale {
                InputScale::Rows(by_row) => by_row,
                InputScale::Clamped(parameters, _) => RowScale::Static(parameters),
                InputScale::Text { reduce_range } => {
                    RowScale::Static(per_tensor_parameters(self.values, reduce_range))
                }
            };
            // A quantized row cannot hold NaN or infinity: they would become codes that look like any other.
            if !kernels.quantize_rows(self.values, rows, columns, by_row, self.quantized) {
                check_values(self.values, columns, 0, &linear.site, "input")?;
            }
            if let InputScale::Clamped(_, codes) = scale {
                self.quantized.clamp_codes(codes);
            }
            self.scale = Some(scale);
        }
        Ok(self.quantized)
    }
}

impl PackedLinear {
    /// Packs a stored weight of `shape` (out, in) for `kernels`. `site` is the module's path at sites, `name` its path in the checkpoint.
    pub(crate) fn new(
        site: String,
        name: &str,
        stored: StoredWeight<'_>,
        bias: Vec<f32>,
        shape: [usize; 2],
        kernels: &Kernels,
        weight_only: WeightOnlyArithmetic,
    ) -> Result<Self, CheckpointError> {
        let [out, inside] = shape;
        let weight = match stored {
            StoredWeight::Float(view) => Packed::Float(match view.info.dtype {
                DType::F16 => PackedFloat::from_f16_bytes(&view.bytes()?, out, inside),
                DType::BF16 => PackedFloat::from_bf16_bytes(&view.bytes()?, out, inside),
                _ => PackedFloat::from_f32(&view.to_f32()?, out, inside),
            }),
            StoredWeight::FloatBytes { dtype, bytes } => Packed::Float(match dtype {
                DType::F16 => PackedFloat::from_f16_bytes(&bytes, out, inside),
                DType::BF16 => PackedFloat::from_bf16_bytes(&bytes, out, inside),
                _ => {
                    let mut values = vec![0.0; out * inside];
                    float_bytes_to_f32(dtype, &bytes, &mut values);
                    PackedFloat::from_f32(&values, out, inside)
                }
            }),
            StoredWeight::Int8 { .. } if inside > PackedInt8::MAX_IN_FEATURES => {
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
                activations,
            } => Packed::Int8 {
                packed: PackedInt8::new(
                    kernels,
                    ActivationBits::Eight,
                    &codes,
                    &scales,
                    out,
                    inside,
                ),
                scale: InputScale::of(activations),
                largest_gain: largest_magnitude(&scales) * (255.0 * 128.0) * inside as f32,
                largest_bias: largest_magnitude(&bias),
            },
            // One scale for each output: the product is one sum of integers.
            StoredWeight::WeightOnly {
                codes,
                scales,
                group_size,
                ..
            } if weight_only == WeightOnlyArithmetic::Integers
                && group_size == inside
                && (1..=MAX_TWELVE_BIT_COLUMNS).contains(&inside) =>
            {
                Packed::Int8 {
                    packed: PackedInt8::new(
                        kernels,
                        ActivationBits::Twelve,
                        &codes,
                        &scales,
                        out,
                        inside,
                    ),
                    scale: InputScale::Rows(RowScale::PerTokenTwelveBit),
                    largest_gain: largest_magnitude(&scales) * (4095.0 * 128.0) * inside as f32,
                    largest_bias: largest_magnitude(&bias),
                }
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

    /// What its multiply-adds are.
    pub(crate) fn arithmetic(&self) -> Arithmetic {
        match &self.weight {
            Packed::Int8 { .. } => Arithmetic::Int8,
            _ => Arithmetic::F32,
        }
    }

    /// How this layer's input can be quantized while it is written, if it can.
    pub(crate) fn input_scale(&self) -> Option<RowScale> {
        match self.scale() {
            Some(InputScale::Rows(scale)) => Some(scale),
            _ => None,
        }
    }

    /// How it quantizes its input, if it does.
    fn scale(&self) -> Option<InputScale> {
        match &self.weight {
            Packed::Int8 { scale, .. } => Some(*scale),
            _ => None,
        }
    }

    /// Whether its activations are codes of 8 bits.
    pub(crate) fn has_eight_bit_activations(&self) -> bool {
        !matches!(self.input_scale(), None | Some(RowScale::PerTokenTwelveBit))
    }

    /// Whether its input must be all rows of one text.
    pub(crate) fn reads_whole_texts(&self) -> bool {
        matches!(self.scale(), Some(InputScale::Text { .. }))
    }

    /// How this layer quantizes its input, to be changed, if it does.
    pub(crate) fn input_scale_mut(&mut self) -> Option<&mut InputScale> {
        match &mut self.weight {
            Packed::Int8 { scale, .. } => Some(scale),
            _ => None,
        }
    }

    /// Runs layers that read the same input, each into its output (rows, out_features), whose columns are shared out to as many threads of
    /// the current pool as there are workspaces.
    ///
    /// # Errors
    /// [`ModelError::NonFinite`] if an int8 layer's input, or any layer's output, holds NaN or infinity. Where an activation
    /// function follows, its output is meant: one that has a limit there may give it for minus infinity.
    pub(crate) fn forward<const N: usize>(
        mut layers: [(&Self, &mut [f32]); N],
        input: &mut LinearInput<'_>,
        then: Then,
        kernels: &Kernels,
        workspaces: &mut [Workspace],
    ) -> Result<(), ModelError> {
        let linears = layers.each_ref().map(|(linear, _)| *linear);
        let Some(scale) = linears.first().map(|linear| linear.scale()) else {
            return Ok(());
        };
        if linears.iter().any(|linear| linear.scale() != scale) {
            return layers
                .into_iter()
                .try_for_each(|layer| Self::forward([layer], input, then, kernels, workspaces));
        }
        let (rows, x) = (input.rows, input.values);
        let quantized = match scale {
            None => None,
            Some(scale) => Some(input.quantize(scale, linears[0], kernels)?),
        };
        let outputs = layers
            .each_mut()
            .map(|(linear, out)| OutputColumns::whole(out, linear.out_features()));
        share_columns(outputs, workspaces, &|index, out, workspace| {
            let bias = Some(linears[index].bias.as_slice());
            let epilogue = match then {
                Then::Store => Epilogue::store(bias),
                Then::Add => Epilogue::add(bias),
                Then::Activate(activation) => Epilogue::activation(bias, activation),
            };
            match (&linears[index].weight, quantized) {
                (Packed::Float(weight), _) => {
                    kernels.linear_float(x, rows, weight, epilogue, out, workspace);
                }
                (Packed::WeightOnlyInt8(weight), _) => {
                    kernels.linear_weight_only_int8(x, rows, weight, epilogue, out, workspace);
                }
                (Packed::FourBit(weight), _) => {
                    kernels.linear_four_bit(x, rows, weight, epilogue, out, workspace);
                }
                (Packed::Int8 { packed, .. }, quantized) => {
                    let x = quantized.expect("int8 layers have an input scale");
                    kernels.linear_int8(x, packed, epilogue, out, workspace);
                }
            }
        });
        for (linear, out) in layers {
            // Of int8 layers only what can overflow is worth a look.
            if !quantized.is_some_and(|rows| linear.is_finite_for(rows)) {
                check_values(out, linear.out_features(), 0, &linear.site, "output")?;
            }
        }
        Ok(())
    }

    /// The codes that a layer with static activations reads of activation(y), without y in floats: the same codes. Returns
    /// whether `codes` now holds them; where not, for want of int8 products or because y could overflow, nothing is done.
    ///
    /// # Errors
    /// [`ModelError::NonFinite`] if the input holds NaN or infinity.
    pub(crate) fn forward_to_codes(
        &self,
        input: &mut LinearInput<'_>,
        activation: Activation,
        parameters: AffineParameters,
        codes: &mut QuantizedRows,
        kernels: &Kernels,
        workspaces: &mut [Workspace],
    ) -> Result<bool, ModelError> {
        let Packed::Int8 { packed, scale, .. } = &self.weight else {
            return Ok(false);
        };
        let quantized = input.quantize(*scale, self, kernels)?;
        if !self.is_finite_for(quantized) {
            return Ok(false);
        }
        let bias = Some(self.bias.as_slice());
        let columns = codes.with_parameters(quantized.rows(), self.out_features(), parameters);
        share_columns([columns], workspaces, &|_, out, workspace| {
            kernels.linear_requantize(
                quantized, packed, bias, activation, parameters, out, workspace,
            );
        });
        Ok(true)
    }

    /// Whether no output of an int8 layer can overflow for these rows: finite codes and small scales cannot.
    fn is_finite_for(&self, quantized: &QuantizedRows) -> bool {
        match &self.weight {
            Packed::Int8 {
                largest_gain,
                largest_bias,
                ..
            } => {
                let largest = largest_magnitude(quantized.scales()) * largest_gain;
                largest < f32::MAX / 4.0 && *largest_bias < f32::MAX / 4.0
            }
            _ => false,
        }
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

fn largest_magnitude(values: &[f32]) -> f32 {
    let magnitudes = values.iter().map(|value| value.abs());
    magnitudes.fold(0.0, f32::max)
}
