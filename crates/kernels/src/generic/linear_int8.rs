//! Products of quantized activations and int8 weights.

use fewbit_numerics::affine::AffineParameters;

use crate::aligned::Scratch;
use crate::generic::activation::{Function, WithFunction, with_function};
use crate::generic::f32_tile::row_tiles;
use crate::generic::quantize_rows::Encoder;
use crate::int8_tile::{INT8_GROUP, Int8Accumulators, Int8Operands, Int8Tile, Prefetch};
use crate::packed_int8::{PANEL_OUTPUTS, PackedInt8};
use crate::quantized_rows::QuantizedRows;
use crate::row_operations::{Activation, EpilogueKind};
use crate::simd::{LANES, Simd};

/// `y(r, o) = fma(f32(acc), scale_row(r) * scale_channel(o), bias(o) or 0)` with
/// `acc = sum over k of code(r, k) * weight(o, k) - zero_point(r) * sum over k of weight(o, k)`, exact in i32.
pub(crate) struct LinearInt8<'a> {
    /// (rows, in_features)
    pub(crate) x: &'a QuantizedRows,
    pub(crate) weight: &'a PackedInt8,
    /// (out_features)
    pub(crate) bias: Option<&'a [f32]>,
    /// Holds the prepared activations.
    pub(crate) scratch: &'a mut Scratch,
}

/// Where y goes, and how.
pub(crate) struct Output<'a> {
    /// (rows, out_features)
    pub(crate) values: &'a mut [f32],
    pub(crate) kind: EpilogueKind,
}

/// y goes through an activation function and becomes codes of one scale.
pub(crate) struct Requantize<'a> {
    pub(crate) activation: Activation,
    pub(crate) parameters: AffineParameters,
    /// (rows, out_features)
    pub(crate) codes: &'a mut QuantizedRows,
}

#[inline(always)]
pub(crate) fn linear_int8<S: Simd, T: Int8Tile>(
    s: S,
    t: T,
    call: LinearInt8<'_>,
    output: Output<'_>,
) {
    let stride = call.weight.out_features;
    let Output { values, kind } = output;
    let activation = match kind {
        EpilogueKind::Add => return run(s, t, call, &mut Added { values, stride }),
        EpilogueKind::Store => Activation::Identity,
        EpilogueKind::Activation(activation) => activation,
    };
    let task = RunStored {
        s,
        t,
        call,
        values,
        stride,
    };
    with_function(activation, task);
}

/// [`run`] into floats, through a function.
struct RunStored<'a, S, T> {
    s: S,
    t: T,
    call: LinearInt8<'a>,
    values: &'a mut [f32],
    stride: usize,
}

impl<S: Simd, T: Int8Tile> WithFunction for RunStored<'_, S, T> {
    #[inline(always)]
    fn with<F: Function>(self) {
        let mut finish = Stored::<F>::new(self.values, self.stride);
        run(self.s, self.t, self.call, &mut finish);
    }
}

#[inline(always)]
pub(crate) fn linear_requantize<S: Simd, T: Int8Tile>(
    s: S,
    t: T,
    call: LinearInt8<'_>,
    output: Requantize<'_>,
) {
    let Requantize {
        activation,
        parameters,
        codes,
    } = output;
    let task = RunEncoded {
        s,
        t,
        call,
        encoder: Encoder::new(s, parameters),
        codes,
    };
    with_function(activation, task);
}

/// [`run`] into codes, through a function.
struct RunEncoded<'a, S: Simd, T> {
    s: S,
    t: T,
    call: LinearInt8<'a>,
    encoder: Encoder<S>,
    codes: &'a mut QuantizedRows,
}

impl<S: Simd, T: Int8Tile> WithFunction for RunEncoded<'_, S, T> {
    #[inline(always)]
    fn with<F: Function>(self) {
        let stride = self.codes.stride;
        let codes = self.codes.codes.as_mut_slice();
        let mut finish = Encoded::<S, F>::new(self.encoder, codes, stride);
        run(self.s, self.t, self.call, &mut finish);
    }
}

/// What happens to a vector of outputs while it is in a register.
trait Finish<S: Simd> {
    /// `value` is y(row, column..column + count), count being at most sixteen.
    fn finish(&mut self, s: S, value: S::F32, row: usize, column: usize, count: usize);
}

/// `out = f(y)`
struct Stored<'a, F> {
    values: &'a mut [f32],
    stride: usize,
    function: std::marker::PhantomData<F>,
}

impl<'a, F> Stored<'a, F> {
    #[inline(always)]
    fn new(values: &'a mut [f32], stride: usize) -> Self {
        Self {
            values,
            stride,
            function: std::marker::PhantomData,
        }
    }
}

impl<S: Simd, F: Function> Finish<S> for Stored<'_, F> {
    #[inline(always)]
    fn finish(&mut self, s: S, value: S::F32, row: usize, column: usize, count: usize) {
        let start = row * self.stride + column;
        s.store_up_to(F::apply(s, value), &mut self.values[start..start + count]);
    }
}

/// `out += y`
struct Added<'a> {
    values: &'a mut [f32],
    stride: usize,
}

impl<S: Simd> Finish<S> for Added<'_> {
    #[inline(always)]
    fn finish(&mut self, s: S, value: S::F32, row: usize, column: usize, count: usize) {
        let start = row * self.stride + column;
        let out = &mut self.values[start..start + count];
        let sum = s.add(value, s.load_up_to(out, 0.0));
        s.store_up_to(sum, out);
    }
}

/// `codes = encode(f(y))`
struct Encoded<'a, S: Simd, F> {
    encoder: Encoder<S>,
    codes: &'a mut [u8],
    stride: usize,
    function: std::marker::PhantomData<F>,
}

impl<'a, S: Simd, F> Encoded<'a, S, F> {
    #[inline(always)]
    fn new(encoder: Encoder<S>, codes: &'a mut [u8], stride: usize) -> Self {
        Self {
            encoder,
            codes,
            stride,
            function: std::marker::PhantomData,
        }
    }
}

impl<S: Simd, F: Function> Finish<S> for Encoded<'_, S, F> {
    #[inline(always)]
    fn finish(&mut self, s: S, value: S::F32, row: usize, column: usize, count: usize) {
        let start = row * self.stride + column;
        let out = &mut self.codes[start..start + count];
        self.encoder.encode_up_to(s, F::apply(s, value), out);
    }
}

/// How many bytes ahead of a panel memory is asked for, at least: enough for a long panel at the start of the next weight.
const PREFETCH_DISTANCE: usize = 96 << 10;

/// Panels outside, row tiles inside: a panel is read once and stays in the cache for all rows. While they run, later panels are asked
/// for, so that few rows do not wait for memory.
#[inline(always)]
fn run<S: Simd, T: Int8Tile>(s: S, t: T, call: LinearInt8<'_>, finish: &mut impl Finish<S>) {
    let LinearInt8 {
        x,
        weight,
        bias,
        scratch,
    } = call;
    if x.rows == 0 {
        return;
    }
    let groups = weight.groups;
    let (activations, stride) = t.activations(x, scratch);
    let scales = weight.scales.as_chunks::<LANES>().0;
    let row_sums = weight.row_sums.as_chunks::<LANES>().0;
    let mut accumulators = Int8Accumulators::new();
    for first in (0..weight.out_features).step_by(PANEL_OUTPUTS) {
        let panel_start = first * groups * INT8_GROUP;
        let panel_vectors = PANEL_OUTPUTS.min(weight.row_sums.len() - first) / LANES;
        let group_stride = panel_vectors * LANES * INT8_GROUP;
        let panel = &weight.codes[panel_start..][..groups * group_stride];
        // Each of the row tiles asks for its share of what comes later. Past the end of this weight that is most likely the next one
        // to be used: weights lie in memory in the order in which they were packed.
        let later = panel
            .as_ptr()
            .wrapping_add(panel.len().max(PREFETCH_DISTANCE));
        let tiles = row_tiles(x.rows).count();
        let share = (groups * panel_vectors).div_ceil(tiles);
        for vector in (0..panel_vectors).step_by(T::VECTORS) {
            let vectors = T::VECTORS.min(panel_vectors - vector);
            for (tile, (row, rows)) in row_tiles(x.rows).enumerate() {
                // A panel that is read once is a stream that the CPU follows by itself.
                let prefetch = if tiles == 1 || vector > 0 {
                    Prefetch::NONE
                } else {
                    let line = tile * share * LANES * INT8_GROUP;
                    Prefetch {
                        line: later.wrapping_add(line),
                        rate: (share * 256).div_ceil(groups.max(1)),
                    }
                };
                let operands = Int8Operands {
                    activations: activations[row * stride..][..rows * stride].as_ptr(),
                    stride,
                    rows,
                    weights: panel.as_ptr().wrapping_add(vector * LANES * INT8_GROUP),
                    group_stride,
                    groups,
                    vectors,
                    prefetch,
                };
                // SAFETY: activations and panel were cut to the sizes that the tile reads, rows are padded to whole groups, panels
                // are whole cache lines, and there are as many vectors as the panel has from this one on.
                unsafe { t.multiply(operands, &mut accumulators) };
                for index in 0..vectors {
                    let block = first / LANES + vector + index;
                    let column = block * LANES;
                    let count = LANES.min(weight.out_features - column);
                    let bias = match bias {
                        Some(bias) => s.load_up_to(&bias[column..column + count], 0.0),
                        None => s.splat(0.0),
                    };
                    let channel_scales = s.load(&scales[block]);
                    let sums_of_weights = s.load_i32(&row_sums[block]);
                    for (row, lines) in (row..row + rows).zip(&accumulators.0) {
                        let zero_point = x.zero_points[row] - T::ACTIVATION_OFFSET;
                        let correction = s.mul_i32(s.splat_i32(zero_point), sums_of_weights);
                        let sums = s.sub_i32(s.load_i32(&lines[index]), correction);
                        let scale = s.mul(s.splat(x.scales[row]), channel_scales);
                        let value = s.fma(s.to_f32(sums), scale, bias);
                        finish.finish(s, value, row, column, count);
                    }
                }
            }
        }
    }
}
