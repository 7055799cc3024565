//! A linear layer of the executor, whatever form its weight is held in.

use crate::ModelError;
use crate::finite::check_values;
use crate::input_scale::InputScale;
use crate::packed_weight::{PackedWeight, largest_magnitude};
use crate::shared_columns::share_columns;
use crate::weight_only::WeightOnlyArithmetic;
use fewbit_checkpoint::{CheckpointError, StoredWeight};
use fewbit_kernels::{
    Activation, Arithmetic, Epilogue, Kernels, OutputColumns, QuantizedRows, RowScale, Workspace,
};
use fewbit_numerics::affine::AffineParameters;
use fewbit_numerics::dynamic_linear::per_tensor_parameters;

/// `y = x W^T + b`, with W in whatever form the checkpoint holds it.
pub(crate) struct PackedLinear {
    /// Module path at sites, see [`crate::tap`].
    site: String,
    weight: PackedWeight,
    /// (out)
    bias: Vec<f32>,
    /// (out, in)
    shape: [usize; 2],
}

/// The epilogue of a linear layer, whose product with its bias is y.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum LinearEpilogue {
    /// out = y
    Store,
    /// out = out + y
    Add,
    /// out = out * y
    Multiply,
    /// out = activation(y)
    Activate(Activation),
}

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

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn values(&self) -> &'a [f32] {
        self.values
    }

    /// The rows, quantized with `scale`, the input scale of `linear`.
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
        let weight = PackedWeight::new(name, stored, &bias, shape, kernels, weight_only)?;
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

    /// The arithmetic of its products.
    pub(crate) fn arithmetic(&self) -> Arithmetic {
        match &self.weight {
            PackedWeight::Int8 { .. } | PackedWeight::Int4 { .. } => Arithmetic::Int8,
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
        self.weight.input_scale()
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
        self.weight.input_scale_mut()
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
        then: LinearEpilogue,
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
            .map(|(linear, out)| OutputColumns::of_matrix(out, linear.out_features()));
        share_columns(outputs, workspaces, &|index, out, workspace| {
            let bias = Some(linears[index].bias.as_slice());
            let epilogue = match then {
                LinearEpilogue::Store => Epilogue::store(bias),
                LinearEpilogue::Add => Epilogue::add(bias),
                LinearEpilogue::Multiply => Epilogue::multiply(bias),
                LinearEpilogue::Activate(activation) => Epilogue::activation(bias, activation),
            };
            match (&linears[index].weight, quantized) {
                (PackedWeight::Float(weight), _) => {
                    kernels.linear_float(x, rows, weight, epilogue, out, workspace);
                }
                (PackedWeight::WeightOnlyInt8(weight), _) => {
                    kernels.linear_weight_only_int8(x, rows, weight, epilogue, out, workspace);
                }
                (PackedWeight::FourBit(weight), _) => {
                    kernels.linear_four_bit(x, rows, weight, epilogue, out, workspace);
                }
                (PackedWeight::Int8 { packed, .. }, quantized) => {
                    let x = quantized.expect("int8 layers have an input scale");
                    kernels.linear_int8(x, packed, epilogue, out, workspace);
                }
                (PackedWeight::Int4 { packed, .. }, quantized) => {
                    let x = quantized.expect("int4 layers have an input scale");
                    kernels.linear_int4(x, packed, epilogue, out, workspace);
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
        let PackedWeight::Int8 { packed, scale, .. } = &self.weight else {
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

    /// Whether no output of a layer of integer codes can overflow for these rows: finite codes and small scales cannot.
    fn is_finite_for(&self, quantized: &QuantizedRows) -> bool {
        let largest = largest_magnitude(quantized.scales());
        let limits = self.weight.limits();
        limits.is_some_and(|limits| limits.are_finite_for(largest))
    }

    /// Bytes held in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.weight.memory_bytes() + size_of_val(self.bias.as_slice())
    }
}
