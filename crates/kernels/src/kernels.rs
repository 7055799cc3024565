//! The routines of one instruction set, behind checked arguments.

use fewbit_numerics::activation::MAX_TWELVE_BIT_COLUMNS;
use fewbit_numerics::affine::AffineParameters;
use fewbit_numerics::error_statistics::ErrorSums;

use crate::aligned::Scratch;
use crate::arch::TABLE;
use crate::attention::AttentionInput;
use crate::float_bytes::Elements;
use crate::generic::four_bit_codec::{DequantizeFourBit, QuantizeFourBit};
use crate::generic::four_bit_scales::FitFourBitScales;
use crate::generic::group_absmax::GroupAbsmax;
use crate::generic::int4_codec::{DequantizeInt4, EncodeInt4};
use crate::generic::int4_scales::FitInt4;
use crate::generic::int8_codec::{DequantizeInt8, QuantizeInt8};
use crate::generic::layer_norm::LayerNorm;
use crate::generic::linear::Linear;
use crate::generic::linear_int4::LinearInt4;
use crate::generic::linear_int8::{LinearInt8, Output, Requantize};
use crate::generic::panel_element::{Bf16, F16};
use crate::generic::panel_source::{DecodedFourBit, DecodedInt8, Stored};
use crate::generic::rotary::Rotate;
use crate::isa::{Isa, IsaError};
use crate::output_columns::OutputColumns;
use crate::packed_float::{FloatPanels, PackedFloat};
use crate::packed_four_bit::PackedFourBit;
use crate::packed_int4::PackedInt4;
use crate::packed_int8::PackedInt8;
use crate::packed_weight_only_int8::PackedWeightOnlyInt8;
use crate::panel_layout::PanelLayout;
use crate::panels::assert_shape;
use crate::quantized_rows::{QuantizedRows, RowScale};
use crate::quantized_sequence::QuantizedSequence;
use crate::row_operations::{Activation, Epilogue, Norm};
use crate::workspace::Workspace;

/// What a routine computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`Kernels::linear_float`] with f32 weights.
    LinearF32,
    /// [`Kernels::linear_float`] with f16 weights.
    LinearF16,
    /// [`Kernels::linear_float`] with bf16 weights.
    LinearBf16,
    /// [`Kernels::linear_weight_only_int8`]
    LinearWeightOnlyInt8,
    /// [`Kernels::linear_four_bit`]
    LinearFourBit,
    /// [`Kernels::linear_int8`]
    LinearInt8,
    /// [`Kernels::linear_int8`] with weights that are without
    /// [`saturating_pairs`](fewbit_numerics::saturation::saturating_pairs), where these have a tile of their own.
    LinearInt8SaturationProof,
    /// [`Kernels::linear_int4`]
    LinearInt4,
    /// [`Kernels::linear_int4`] with activations of 8 bits, where int4 weights have a tile of their own for these.
    LinearInt4SaturationProof,
    /// [`Kernels::linear_requantize`]
    LinearRequantize,
    /// [`Kernels::linear_requantize`] with such weights.
    LinearRequantizeSaturationProof,
    /// [`Kernels::quantize_rows`]
    QuantizeRows,
    /// [`Kernels::layer_norm`]
    LayerNorm,
    /// [`Kernels::layer_norm_quantize`]
    LayerNormQuantize,
    /// [`Kernels::activation`]
    Activation,
    /// [`Kernels::add`]
    Add,
    /// [`Kernels::rotate`]
    Rotate,
    /// [`Kernels::normalize`]
    Normalize,
    /// [`Kernels::attention`]
    Attention,
    /// [`Kernels::quantize_sequence`]
    QuantizeSequence,
    /// [`Kernels::attend`]
    AttentionInt8,
    /// [`Kernels::quantize_four_bit`] of f32 numbers.
    QuantizeFourBitF32,
    /// [`Kernels::quantize_four_bit`] of f16 numbers.
    QuantizeFourBitF16,
    /// [`Kernels::quantize_four_bit`] of bf16 numbers.
    QuantizeFourBitBf16,
    /// [`Kernels::dequantize_four_bit`]
    DequantizeFourBit,
    /// [`Kernels::fit_four_bit_scales`]
    FitFourBitScales,
    /// [`Kernels::fit_int4`]
    FitInt4,
    /// [`Kernels::encode_int4`]
    EncodeInt4,
    /// [`Kernels::dequantize_int4`]
    DequantizeInt4,
    /// [`Kernels::quantize_int8`] and [`Kernels::quantize_int8_with_scale`] of f32 numbers.
    QuantizeInt8F32,
    /// [`Kernels::quantize_int8`] and [`Kernels::quantize_int8_with_scale`] of f16 numbers.
    QuantizeInt8F16,
    /// [`Kernels::quantize_int8`] and [`Kernels::quantize_int8_with_scale`] of bf16 numbers.
    QuantizeInt8Bf16,
    /// [`Kernels::dequantize_int8`]
    DequantizeInt8,
    /// [`Kernels::group_absmax`] of f32 numbers.
    GroupAbsmaxF32,
    /// [`Kernels::group_absmax`] of f16 numbers.
    GroupAbsmaxF16,
    /// [`Kernels::group_absmax`] of bf16 numbers.
    GroupAbsmaxBf16,
    /// [`Kernels::error_sums`] of f32 numbers.
    ErrorSumsF32,
    /// [`Kernels::error_sums`] of f16 numbers.
    ErrorSumsF16,
    /// [`Kernels::error_sums`] of bf16 numbers.
    ErrorSumsBf16,
}

/// What a routine's result may depend on besides its arguments. It never depends on the other rows of the call, and integer sums never
/// saturate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exactness {
    /// Nothing: the bits of [`Isa::Scalar`].
    SameBits,
    /// The instruction set: operands are rounded to bfloat16 (nearest, ties to even) and products summed in f32 in that set's order, with
    /// subnormal operands, products and sums taken as zeros. Numbers that round beyond the range of bfloat16 become infinite.
    RoundedToBf16,
}

/// One row of the kernel table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routine {
    /// `{isa}_{operation}_{types}_{tile}`: the types of activations, weights and accumulators (one type where they are the same); the tile
    /// is rows x columns of the output that are computed together.
    pub name: &'static str,
    /// The instruction set.
    pub isa: Isa,
    /// What it computes.
    pub operation: Operation,
    /// The word of the name that stands for the operation.
    pub operation_name: &'static str,
    /// The types in the name.
    pub types: &'static str,
    /// The tile in the name.
    pub tile: &'static str,
    /// Whether it gives the same bits as other sets.
    pub exactness: Exactness,
}

impl Routine {
    /// Every routine in this program, also of instruction sets that this CPU lacks.
    ///
    /// ```
    /// use fewbit_kernels::Routine;
    /// for routine in Routine::all() {
    ///     assert!(routine.name.starts_with(routine.isa.name()));
    ///     let _runs_here = routine.is_supported();
    /// }
    /// ```
    pub fn all() -> impl Iterator<Item = &'static Routine> {
        TABLE.iter().flat_map(|kernels| {
            let more = kernels.saturation_proof.iter();
            kernels
                .routines
                .iter()
                .chain(more.flat_map(|proof| &proof.routines))
        })
    }

    /// Whether this CPU can run it.
    pub fn is_supported(&self) -> bool {
        self.isa.is_supported()
    }
}

/// Products with weights of which no two that are multiplied and added in 16 bits can saturate there: a faster instruction does for them.
#[derive(Debug)]
pub(crate) struct SaturationProof {
    pub(crate) routines: [Routine; 3],
    pub(crate) layout: PanelLayout,
    pub(crate) linear_int8: unsafe fn(LinearInt8<'_>, Output<'_>),
    pub(crate) linear_int4: unsafe fn(LinearInt4<'_>, Output<'_>),
    pub(crate) linear_requantize: unsafe fn(LinearInt8<'_>, Requantize<'_>),
}

/// Routines of one instruction set. A `Kernels` that you hold is one that this CPU can run.
///
/// All instruction sets give the same bits but for routines that say otherwise ([`Routine::exactness`]; none of a set that is chosen by
/// itself), and no row's result depends on the other rows of the call.
///
/// ```
/// use fewbit_kernels::{Epilogue, Kernels, OutputColumns, PackedFloat, Workspace};
/// let kernels = Kernels::from_environment()?;
/// let weight = PackedFloat::from_f32(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3, 2);
/// let mut out = [0.0; 3];
/// let epilogue = Epilogue::store(Some(&[0.5; 3]));
/// let all = OutputColumns::of_matrix(&mut out, 3);
/// kernels.linear_float(&[10.0, 1.0], 1, &weight, epilogue, all, &mut Workspace::new());
/// assert_eq!(out, [12.5, 34.5, 56.5]);
/// # Ok::<(), fewbit_kernels::IsaError>(())
/// ```
#[derive(Debug)]
pub struct Kernels {
    pub(crate) isa: Isa,
    pub(crate) routines: &'static [Routine],
    pub(crate) int8_layout: PanelLayout,
    /// What the int8 tile lowers activations by.
    pub(crate) int8_activation_offset: i32,
    /// None where it would gain nothing.
    pub(crate) saturation_proof: Option<SaturationProof>,
    pub(crate) linear_f32: unsafe fn(Linear<'_>, Stored<'_, f32>),
    pub(crate) linear_f16: unsafe fn(Linear<'_>, Stored<'_, F16>),
    pub(crate) linear_bf16: unsafe fn(Linear<'_>, Stored<'_, Bf16>),
    pub(crate) linear_weight_only_int8: unsafe fn(Linear<'_>, DecodedInt8<'_>),
    pub(crate) linear_four_bit: unsafe fn(Linear<'_>, DecodedFourBit<'_>),
    pub(crate) linear_int8: unsafe fn(LinearInt8<'_>, Output<'_>),
    pub(crate) linear_int4: unsafe fn(LinearInt4<'_>, Output<'_>),
    pub(crate) linear_requantize: unsafe fn(LinearInt8<'_>, Requantize<'_>),
    pub(crate) quantize_rows: unsafe fn(&[f32], RowScale, &mut QuantizedRows) -> bool,
    pub(crate) layer_norm: unsafe fn(LayerNorm<'_>),
    pub(crate) layer_norm_quantize: unsafe fn(LayerNorm<'_>, RowScale, &mut QuantizedRows) -> bool,
    pub(crate) activation: unsafe fn(Activation, &mut [f32]),
    pub(crate) add: unsafe fn(&mut [f32], &[f32]),
    pub(crate) rotate: unsafe fn(Rotate<'_>),
    pub(crate) normalize: unsafe fn(&mut [f32]),
    pub(crate) attention: unsafe fn(&AttentionInput<'_>, &mut [f32], &mut Workspace),
    pub(crate) quantize_sequence:
        unsafe fn(&AttentionInput<'_>, &mut QuantizedSequence, &mut Workspace),
    pub(crate) attend:
        unsafe fn(&AttentionInput<'_>, &QuantizedSequence, &mut [f32], &mut Workspace),
    pub(crate) quantize_four_bit_f32: unsafe fn(QuantizeFourBit<'_, f32>) -> bool,
    pub(crate) quantize_four_bit_f16: unsafe fn(QuantizeFourBit<'_, F16>) -> bool,
    pub(crate) quantize_four_bit_bf16: unsafe fn(QuantizeFourBit<'_, Bf16>) -> bool,
    pub(crate) dequantize_four_bit: unsafe fn(DequantizeFourBit<'_>),
    pub(crate) fit_four_bit_scales: unsafe fn(FitFourBitScales<'_>),
    pub(crate) fit_int4: unsafe fn(FitInt4<'_>),
    pub(crate) encode_int4: unsafe fn(EncodeInt4<'_>),
    pub(crate) dequantize_int4: unsafe fn(DequantizeInt4<'_>),
    pub(crate) quantize_int8_f32: unsafe fn(QuantizeInt8<'_, f32>) -> bool,
    pub(crate) quantize_int8_f16: unsafe fn(QuantizeInt8<'_, F16>) -> bool,
    pub(crate) quantize_int8_bf16: unsafe fn(QuantizeInt8<'_, Bf16>) -> bool,
    pub(crate) dequantize_int8: unsafe fn(DequantizeInt8<'_>),
    pub(crate) group_absmax_f32: unsafe fn(GroupAbsmax<'_, f32>) -> bool,
    pub(crate) group_absmax_f16: unsafe fn(GroupAbsmax<'_, F16>) -> bool,
    pub(crate) group_absmax_bf16: unsafe fn(GroupAbsmax<'_, Bf16>) -> bool,
    pub(crate) error_sums_f32: unsafe fn(Elements<'_, f32>, &[f32]) -> ErrorSums,
    pub(crate) error_sums_f16: unsafe fn(Elements<'_, F16>, &[f32]) -> ErrorSums,
    pub(crate) error_sums_bf16: unsafe fn(Elements<'_, Bf16>, &[f32]) -> ErrorSums,
    pub(crate) float_peak: unsafe fn(usize) -> usize,
    pub(crate) int8_peak: unsafe fn(usize) -> usize,
}

impl Kernels {
    /// The fastest supported set, or the one that the environment variable `FEWBIT_ISA` names.
    ///
    /// # Errors
    ///
    /// The variable names an unknown set or one that this CPU lacks.
    pub fn from_environment() -> Result<&'static Kernels, IsaError> {
        let isa = Isa::from_environment()?;
        Kernels::for_isa(isa).ok_or(IsaError::Unsupported { isa })
    }

    /// The routines of `isa`, if this CPU has it.
    pub fn for_isa(isa: Isa) -> Option<&'static Kernels> {
        Kernels::available().find(|kernels| kernels.isa == isa)
    }

    /// Every set that this CPU can run, from plain to fast.
    pub fn available() -> impl Iterator<Item = &'static Kernels> {
        TABLE
            .iter()
            .copied()
            .filter(|kernels| kernels.isa.is_supported())
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The rows of the kernel table that describe these routines.
    pub fn routines(&self) -> &'static [Routine] {
        self.routines
    }

    /// The epilogue of x (rows, in_features) * W^T, written to out (rows, out_features), of which only the columns that it has are computed.
    /// Each product is one chain of fused
    /// multiply-adds over k ascending that starts from 0; then comes one addition of the bias, if any. Where bf16 weights are
    /// [`Exactness::RoundedToBf16`], so are the activations, and the chain is one of `vdpbf16ps`, which adds two products at a time.
    ///
    /// # Panics
    ///
    /// If a slice does not have the length that its shape gives.
    pub fn linear_float(
        &self,
        x: &[f32],
        rows: usize,
        weight: &PackedFloat,
        epilogue: Epilogue<'_>,
        out: OutputColumns<'_>,
        workspace: &mut Workspace,
    ) {
        let depth = weight.in_features;
        let shape = [weight.out_features, depth];
        let scratch = &mut workspace.activations;
        let call = checked_linear(x, rows, shape, epilogue, out, scratch);
        // SAFETY: the CPU has the instruction set of this table (see `for_isa`).
        unsafe {
            match &weight.panels {
                FloatPanels::F32(panels) => (self.linear_f32)(call, Stored { panels, depth }),
                FloatPanels::F16(panels) => (self.linear_f16)(call, Stored { panels, depth }),
                FloatPanels::Bf16(panels) => (self.linear_bf16)(call, Stored { panels, depth }),
            }
        }
    }

    /// [`Kernels::linear_float`] of the dequantized f32 matrix, bit for bit.
    ///
    /// # Panics
    ///
    /// If a slice does not have the length that its shape gives.
    pub fn linear_weight_only_int8(
        &self,
        x: &[f32],
        rows: usize,
        weight: &PackedWeightOnlyInt8,
        epilogue: Epilogue<'_>,
        out: OutputColumns<'_>,
        workspace: &mut Workspace,
    ) {
        let shape = [weight.out_features, weight.in_features];
        let call = checked_linear(x, rows, shape, epilogue, out, &mut workspace.activations);
        let scratch = &mut workspace.panels;
        // SAFETY: the CPU has the instruction set of this table (see `for_isa`).
        unsafe { (self.linear_weight_only_int8)(call, DecodedInt8 { weight, scratch }) }
    }

    /// [`Kernels::linear_float`] of the dequantized f32 matrix, bit for bit.
    ///
    /// # Panics
    ///
    /// If a slice does not have the length that its shape gives.
    pub fn linear_four_bit(
        &self,
        x: &[f32],
        rows: usize,
        weight: &PackedFourBit,
        epilogue: Epilogue<'_>,
        out: OutputColumns<'_>,
        workspace: &mut Workspace,
    ) {
        let shape = [weight.out_features, weight.in_features];
        let call = checked_linear(x, rows, shape, epilogue, out, &mut workspace.activations);
        let scratch = &mut workspace.panels;
        // SAFETY: the CPU has the instruction set of this table (see `for_isa`).
        unsafe { (self.linear_four_bit)(call, DecodedFourBit { weight, scratch }) }
    }

    /// The epilogue of the product of x (rows, in_features) and W^T, written to out (rows, out_features), of which only the columns that it
    /// has are computed. The product with its bias is `y = fma(f32(acc), scale_row * scale_channel, bias or 0)` with `acc = sum over k of (code - zero_point_row) * weight`, exact in
    /// i32 for all codes.
    ///
    /// # Panics
    ///
    /// If x does not have the weight's in_features columns, the weight is packed for another instruction set, or a slice does not have the
    /// length that its shape gives.
    pub fn linear_int8(
        &self,
        x: &QuantizedRows,
        weight: &PackedInt8,
        epilogue: Epilogue<'_>,
        out: OutputColumns<'_>,
        workspace: &mut Workspace,
    ) {
        assert_output(&out, x.rows, weight.out_features);
        let call = self.checked_linear_int8(x, weight, epilogue.bias, workspace);
        let output = Output {
            columns: out,
            kind: epilogue.kind,
        };
        let routine = match self.saturation_proof_of(weight) {
            Some(proof) => proof.linear_int8,
            None => self.linear_int8,
        };
        // SAFETY: the CPU has the instruction set of this table (see `for_isa`).
        unsafe { routine(call, output) }
    }

    /// The epilogue of the product of x (rows, in_features) and W^T with int4 weights, written as [`Kernels::linear_int8`] does. With its bias it is
    /// `y = fma(fma(-zero_point_row, correction, sum), scale_row, bias or 0)`; `sum` starts from 0 and takes `fma(f32(acc), scale_group, sum)` of each group in order,
    /// `acc = sum over the group of code * (weight - zero_point_group)` being exact in i32, and `correction` is the same with 1 for every code.
    ///
    /// # Panics
    ///
    /// As [`Kernels::linear_int8`].
    pub fn linear_int4(
        &self,
        x: &QuantizedRows,
        weight: &PackedInt4,
        epilogue: Epilogue<'_>,
        out: OutputColumns<'_>,
        workspace: &mut Workspace,
    ) {
        assert_output(&out, x.rows, weight.out_features);
        let proof = self.checked_proof(x, weight.in_features, weight.layout);
        assert_bias(epilogue.bias, weight.out_features);
        let call = LinearInt4 {
            x,
            weight,
            bias: epilogue.bias,
            activations: &mut workspace.activations,
            panel: &mut workspace.panels,
        };
        let output = Output {
            columns: out,
            kind: epilogue.kind,
        };
        let routine = match proof {
            Some(proof) => proof.linear_int4,
            None => self.linear_int4,
        };
        // SAFETY: the CPU has the instruction set of this table (see `for_isa`).
        unsafe { routine(call, output) }
    }

    /// y of [`Kernels::linear_int8`] through an activation function and quantized with one scale and zero point (0..=255), so that it
    /// never exists in floats. `out` are columns of the codes (rows, out_features) that
    /// [`QuantizedRows::with_parameters`] makes room for. The bits are those of the separate operations.
    ///
    /// y must be finite, which is not checked: other codes mean nothing.
    ///
    /// # Panics
    ///
    /// If x does not have the weight's in_features columns, the weight is packed for another instruction set, the bias does not have
    /// out_features elements, or out is not of that shape.
    #[allow(
        clippy::too_many_arguments,
        reason = "a product, what follows it, and where it goes"
    )]
    pub fn linear_requantize(
        &self,
        x: &QuantizedRows,
        weight: &PackedInt8,
        bias: Option<&[f32]>,
        activation: Activation,
        parameters: AffineParameters,
        out: OutputColumns<'_, u8>,
        workspace: &mut Workspace,
    ) {
        assert_output(&out, x.rows, weight.out_features);
        let call = self.checked_linear_int8(x, weight, bias, workspace);
        let output = Requantize {
            activation,
            parameters,
            columns: out,
        };
        let routine = match self.saturation_proof_of(weight) {
            Some(proof) => proof.linear_requantize,
            None => self.linear_requantize,
        };
        // SAFETY: the CPU has the instruction set of this table (see `for_isa`).
        unsafe { routine(call, output) }
    }

    /// Quantizes x (rows, columns): the bits of [`fewbit_numerics::activation::quantize_row`] (or
    /// [`quantize_row_twelve_bit`](fewbit_numerics::activation::quantize_row_twelve_bit)) with a scale per token, those of
    /// [`AffineParameters::quantize`] with a static one. Returns whether all elements are finite: a row with NaN or infinities
    /// gets meaningless codes.
    ///
    /// # Panics
    ///
    /// If x does not have rows * columns elements.
    #[must_use = "codes of numbers that are not finite mean nothing"]
    pub fn quantize_rows(
        &self,
        x: &[f32],
        rows: usize,
        columns: usize,
        scale: RowScale,
        out: &mut QuantizedRows,
    ) -> bool {
        assert_shape("x", x.len(), rows, columns);
        out.resize(rows, columns, scale.planes());
        // SAFETY: the CPU has the instruction set of this table (see `for_isa`).
        unsafe { (self.quantize_rows)(x, scale, out) }
    }

    /// In place over rows of gamma.len() columns: x = LayerNorm(x + residual) * gamma + beta, the variance being that of the centred
    /// values divided by the number of columns; with [`NormKind::RootMeanSquare`](crate::NormKind::RootMeanSquare) values are not centred.
    ///
    /// # Panics
    ///
    /// If gamma and beta, or x and residual, have different lengths, or x does not consist of whole rows.
    pub fn layer_norm(&self, x: &mut [f32], residual: Option<&[f32]>, norm: Norm<'_>) {
        let call = checked_layer_norm(x, residual, norm);
        // SAFETY: the CPU has the instruction set of this table (see `for_isa`).
        unsafe { (self.layer_norm)(call) }
    }

    /// [`Kernels::layer_norm`] without a residual, and its rows quantized as [`Kernels::quantize_rows`] does while they are in the
    /// cache. Returns whether all of them are finite.
    ///
    /// # Panics
    ///
    /// As [`Kernels::layer_norm`].
    #[must_use = "codes of numbers that are not finite mean nothing"]
    pub fn layer_norm_quantize(
        &self,
        x: &mut [f32],
        norm: Norm<'_>,
        scale: RowScale,
        out: &mut QuantizedRows,
    ) -> bool {
        let call = checked_layer_norm(x, None, norm);
        let columns = norm.gamma.len();
        let rows = call.x.len() / columns.max(1);
        out.resize(rows, columns, scale.planes());
        // SAFETY: the CPU has the instruction set of this table (see `for_isa`).
        unsafe { (self.layer_norm_quantize)(call, scale, out) }
    }

    /// Applies an activation function to each element, in place.
    pub fn activation(&self, kind: Activation, x: &mut [f32]) {
        // SAFETY: the CPU has the instruction set of this table (see `for_isa`).
        unsafe { (self.activation)(kind, x) }
    }

    /// x += y
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn add(&self, x: &mut [f32], y: &[f32]) {
        assert_eq!(x.len(), y.len(), "add: as many elements in y as in x");
        // SAFETY: the CPU has the instruction set of this table (see `for_isa`).
        unsafe { (self.add)(x, y) }
    }

    /// Rotary position embeddings, in place over rows of `columns` columns, which are heads of `head_size`: features i and i + head_size / 2
    /// of a head, (x1, x2), become `(x1 * cos - x2 * sin, x2 * cos + x1 * sin)`. `turns` is (rows, head_size): the cosines of the pairs and
    /// then the sines.
    ///
    /// # Panics
    ///
    /// If `head_size` is odd or does not divide `columns`, or x and `turns` are not of as many whole rows.
    pub fn rotate(&self, x: &mut [f32], columns: usize, turns: &[f32], head_size: usize) {
        assert!(
            head_size.is_multiple_of(2) && columns.is_multiple_of(head_size.max(1)),
            "rotate: columns ({columns}) are heads of an even number of features, found {head_size}"
        );
        assert!(
            x.len().checked_div(columns) == turns.len().checked_div(head_size)
                && x.len().is_multiple_of(columns)
                && turns.len().is_multiple_of(head_size),
            "rotate: as many rows of x ({} elements) as of turns ({})",
            x.len(),
            turns.len()
        );
        let call = Rotate {
            x,
            columns,
            turns,
            head_size,
        };
        // SAFETY: the CPU has the instruction set of this table (see `for_isa`).
        unsafe { (self.rotate)(call) }
    }

    /// Bidirectional attention of one sequence, all heads; out (query tokens, heads * head_size).
    ///
    /// A score is one chain of fused multiply-adds over the features of a head, ascending; then the scale times log2(e) (with a bias: one
    /// fused multiply-add); softmax subtracts the greatest score and takes exponentials to base two; an output is one chain over the tokens,
    /// ascending, multiplied by the inverse of the sum of the exponentials. Scores of relative positions are such chains, added to that of query and
    /// key one after the other. Where attention is [`Exactness::RoundedToBf16`], that concerns queries,
    /// keys, values and the undivided exponentials; their sum is that of the unrounded ones.
    ///
    /// # Panics
    ///
    /// If a slice is too short for the shape (see [`AttentionInput`]), or out does not have its shape.
    pub fn attention(
        &self,
        input: &AttentionInput<'_>,
        out: &mut [f32],
        workspace: &mut Workspace,
    ) {
        let width = input.assert_valid();
        assert_shape("out", out.len(), input.query_tokens.len(), width);
        // SAFETY: the CPU has the instruction set of this table (see `for_isa`).
        unsafe { (self.attention)(input, out, workspace) }
    }

    /// [`Kernels::attention`] with both products in integers, which are exact: [`Kernels::quantize_sequence`] and [`Kernels::attend`].
    /// Queries, keys and values must be finite, which is not checked: else the output means nothing.
    ///
    /// - Queries and keys have a scale for each token and head, values one for each feature over the sequence; all symmetric with codes
    ///   -127..=127 ([`AffineParameters::symmetric`]).
    /// - `score = f32(sum of products of codes) * scale of the key`; times the factor `scale of the query * (scale * log2(e))` it is an exponent
    ///   of two. With a bias the exponent is `fma(score, factor, bias * log2(e))`.
    /// - The exponentials `p = 2^fma(score - greatest, factor, log2(65000))` have a polynomial of degree 3 and are rounded to integers. Their products
    ///   with the codes of values are summed exactly over segments of 256 tokens, each sum being rounded to f32 once. The first segment
    ///   gives `sum * (scale of the feature * (1 / sum of p))`, each later one is added by a fused multiply-add.
    ///
    /// # Panics
    ///
    /// As [`Kernels::attention`], if the scale is negative, or if there are more features of a head than [`PackedInt8::MAX_IN_FEATURES`].
    pub fn attention_int8(
        &self,
        input: &AttentionInput<'_>,
        out: &mut [f32],
        workspace: &mut Workspace,
    ) {
        let mut sequence = std::mem::take(&mut workspace.sequence);
        self.quantize_sequence(input, &mut sequence, workspace);
        self.attend(input, &sequence, out, workspace);
        workspace.sequence = sequence;
    }

    /// The keys and values of `input` as [`Kernels::attention_int8`] reads them; its queries take no part.
    ///
    /// # Panics
    ///
    /// As [`Kernels::attention_int8`].
    pub fn quantize_sequence(
        &self,
        input: &AttentionInput<'_>,
        out: &mut QuantizedSequence,
        workspace: &mut Workspace,
    ) {
        input.assert_valid();
        assert!(
            input.head_size <= PackedInt8::MAX_IN_FEATURES,
            "attention: at most {} features of a head, found {}: sums of products must fit in i32",
            PackedInt8::MAX_IN_FEATURES,
            input.head_size
        );
        // SAFETY: the CPU has the instruction set of this table (see `for_isa`).
        unsafe { (self.quantize_sequence)(input, out, workspace) }
    }

    /// [`Kernels::attention_int8`] with keys and values that were quantized before: those of `input` take no part.
    ///
    /// # Panics
    ///
    /// As [`Kernels::attention_int8`], or if `sequence` was not quantized by this instruction set from a sequence of that shape.
    pub fn attend(
        &self,
        input: &AttentionInput<'_>,
        sequence: &QuantizedSequence,
        out: &mut [f32],
        workspace: &mut Workspace,
    ) {
        let width = input.assert_valid();
        assert_shape("out", out.len(), input.query_tokens.len(), width);
        assert!(input.scale >= 0.0, "attention: the scale is not negative");
        assert!(
            input.positions.is_none(),
            "attention: relative positions have no scores in integers"
        );
        assert_eq!(
            (sequence.tokens, sequence.heads, sequence.head_size),
            (input.tokens, input.key_value_heads, input.head_size),
            "attention: the sequence is that of the input"
        );
        assert_eq!(
            sequence.layout,
            Some(self.int8_layout),
            "attention: the sequence is quantized by the instruction set that attends"
        );
        // SAFETY: the CPU has the instruction set of this table (see `for_isa`).
        unsafe { (self.attend)(input, sequence, out, workspace) }
    }

    /// L2-normalizes one vector in place; the norm is clamped below at 1e-12 (torch.nn.functional.normalize).
    pub fn normalize(&self, x: &mut [f32]) {
        // SAFETY: the CPU has the instruction set of this table (see `for_isa`).
        unsafe { (self.normalize)(x) }
    }

    /// The routines for `weight`, if it is packed for those.
    pub(crate) fn saturation_proof_of(&self, weight: &PackedInt8) -> Option<&SaturationProof> {
        self.proof_of_layout(weight.layout)
    }

    fn proof_of_layout(&self, layout: PanelLayout) -> Option<&SaturationProof> {
        let proof = self.saturation_proof.as_ref()?;
        (layout == proof.layout).then_some(proof)
    }

    /// The routines for a weight of `in_features` that lies like this, if it is packed for those. Panics where it cannot be multiplied by x.
    fn checked_proof(
        &self,
        x: &QuantizedRows,
        in_features: usize,
        layout: PanelLayout,
    ) -> Option<&SaturationProof> {
        assert_eq!(
            x.columns, in_features,
            "the columns of x are the in_features of the weight"
        );
        let proof = self.proof_of_layout(layout);
        assert!(
            proof.is_some() || layout == self.int8_layout,
            "the weight is packed for the instruction set that multiplies it"
        );
        assert!(
            proof.is_none() || x.planes == 1,
            "a weight that is packed for codes of 8 bits is multiplied by such codes"
        );
        proof
    }

    fn checked_linear_int8<'a>(
        &self,
        x: &'a QuantizedRows,
        weight: &'a PackedInt8,
        bias: Option<&'a [f32]>,
        workspace: &'a mut Workspace,
    ) -> LinearInt8<'a> {
        self.checked_proof(x, weight.in_features, weight.layout);
        assert!(
            x.planes == 1 || x.columns <= MAX_TWELVE_BIT_COLUMNS,
            "at most {MAX_TWELVE_BIT_COLUMNS} input features with codes of twelve bits, found {}: sums of products must fit in i32",
            x.columns
        );
        assert_bias(bias, weight.out_features);
        LinearInt8 {
            x,
            weight,
            bias,
            scratch: &mut workspace.activations,
        }
    }
}

/// Checks the shapes of a product with a weight of `shape` (out_features, in_features).
fn checked_linear<'a>(
    x: &'a [f32],
    rows: usize,
    shape: [usize; 2],
    epilogue: Epilogue<'a>,
    out: OutputColumns<'a>,
    scratch: &'a mut Scratch,
) -> Linear<'a> {
    let [out_features, in_features] = shape;
    assert_shape("x", x.len(), rows, in_features);
    assert_bias(epilogue.bias, out_features);
    assert_output(&out, rows, out_features);
    Linear {
        x,
        rows,
        in_features,
        out,
        epilogue,
        scratch,
    }
}

fn checked_layer_norm<'a>(
    x: &'a mut [f32],
    residual: Option<&'a [f32]>,
    norm: Norm<'a>,
) -> LayerNorm<'a> {
    let gamma = norm.gamma;
    assert_eq!(gamma.len(), norm.beta.len(), "gamma and beta: one a column");
    assert!(
        x.is_empty() || (!gamma.is_empty() && x.len().is_multiple_of(gamma.len())),
        "x: whole rows of {} columns, found {} elements",
        gamma.len(),
        x.len()
    );
    if let Some(residual) = residual {
        assert_eq!(residual.len(), x.len(), "residual: as many elements as x");
    }
    LayerNorm { x, residual, norm }
}

fn assert_output<T>(out: &OutputColumns<'_, T>, rows: usize, out_features: usize) {
    assert_eq!(
        (out.rows(), out.matrix_columns()),
        (if out_features == 0 { 0 } else { rows }, out_features),
        "out: rows and columns of the matrix"
    );
}

fn assert_bias(bias: Option<&[f32]>, out_features: usize) {
    if let Some(bias) = bias {
        assert_eq!(bias.len(), out_features, "bias: one for each output");
    }
}
