//! Products of quantized activations and int8 weights.

use fewbit_numerics::affine::AffineParameters;

use crate::aligned::Scratch;
use crate::generic::activation::{Function, WithFunction, with_function};
use crate::generic::int8_panels::{Int8Rows, TileEpilogue, TileSums, multiply_panels};
use crate::generic::quantize_rows::Encoder;
use crate::int8_tile::{Int8Accumulators, Int8Tile};
use crate::output_columns::OutputColumns;
use crate::packed_int8::PackedInt8;
use crate::quantized_rows::{PLANES, QuantizedRows};
use crate::row_operations::{Activation, EpilogueKind};
use crate::simd::{LANES, Simd};
use std::ops::Range;

/// `y(r, o) = fma(f32(acc), scale_row(r) * scale_channel(o), bias(o) or 0)` with
/// `acc = sum over k of code(r, k) * weight(o, k) - zero_point(r) * sum over k of weight(o, k)`, exact in i32: what leaves it on the way
/// wraps, and comes back.
pub(crate) struct LinearInt8<'a> {
    /// (rows, in_features)
    pub(crate) x: &'a QuantizedRows,
    pub(crate) weight: &'a PackedInt8,
    /// (out_features)
    pub(crate) bias: Option<&'a [f32]>,
    /// Holds the prepared activations.
    pub(crate) scratch: &'a mut Scratch,
}

/// The columns that y is written to, and the epilogue.
pub(crate) struct Output<'a> {
    /// Columns of (rows, out_features), from a whole panel on.
    pub(crate) columns: OutputColumns<'a>,
    pub(crate) kind: EpilogueKind,
}

/// y goes through an activation function and becomes codes of one scale.
pub(crate) struct Requantize<'a> {
    pub(crate) activation: Activation,
    pub(crate) parameters: AffineParameters,
    /// Columns of (rows, out_features), from a whole panel on.
    pub(crate) columns: OutputColumns<'a, u8>,
}

#[inline(always)]
pub(crate) fn linear_int8<S: Simd, T: Int8Tile>(
    s: S,
    t: T,
    call: LinearInt8<'_>,
    output: Output<'_>,
) {
    multiply_into(s, Int8Product { t, call }, output);
}

/// A product that passes its outputs to an epilogue.
pub(super) trait IntegerProduct<S: Simd> {
    /// Computes the outputs `columns`, which are whole panels but for the last one.
    fn multiply(self, s: S, columns: Range<usize>, epilogue: &mut impl VectorEpilogue<S>);
}

/// The product of [`linear_int8`].
struct Int8Product<'a, T> {
    t: T,
    call: LinearInt8<'a>,
}

impl<S: Simd, T: Int8Tile> IntegerProduct<S> for Int8Product<'_, T> {
    #[inline(always)]
    fn multiply(self, s: S, columns: Range<usize>, epilogue: &mut impl VectorEpilogue<S>) {
        multiply(s, self.t, self.call, columns, epilogue);
    }
}

/// The product with the epilogue that `output` asks for.
#[inline(always)]
pub(super) fn multiply_into<S: Simd, P: IntegerProduct<S>>(s: S, product: P, output: Output<'_>) {
    let Output { columns, kind } = output;
    let range = columns.columns();
    let activation = match kind {
        EpilogueKind::Add => return product.multiply(s, range, &mut AddEpilogue { columns }),
        EpilogueKind::Multiply => {
            return product.multiply(s, range, &mut MultiplyEpilogue { columns });
        }
        EpilogueKind::Store => Activation::Identity,
        EpilogueKind::Activation(activation) => activation,
    };
    let task = MultiplyAndStore {
        s,
        product,
        columns,
    };
    with_function(activation, task);
}

/// A product whose outputs go through a function and are stored.
struct MultiplyAndStore<'a, S, P> {
    s: S,
    product: P,
    columns: OutputColumns<'a>,
}

impl<S: Simd, P: IntegerProduct<S>> WithFunction for MultiplyAndStore<'_, S, P> {
    #[inline(always)]
    fn with<F: Function>(self) {
        let range = self.columns.columns();
        let mut epilogue = StoreEpilogue::<F>::new(self.columns);
        self.product.multiply(self.s, range, &mut epilogue);
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
        columns,
    } = output;
    let task = MultiplyAndEncode {
        s,
        t,
        call,
        encoder: Encoder::new(s, parameters),
        columns,
    };
    with_function(activation, task);
}

/// [`multiply`], whose outputs go through a function and become codes.
struct MultiplyAndEncode<'a, S: Simd, T> {
    s: S,
    t: T,
    call: LinearInt8<'a>,
    encoder: Encoder<S>,
    columns: OutputColumns<'a, u8>,
}

impl<S: Simd, T: Int8Tile> WithFunction for MultiplyAndEncode<'_, S, T> {
    #[inline(always)]
    fn with<F: Function>(self) {
        let range = self.columns.columns();
        let mut epilogue = EncodeEpilogue::<S, F>::new(self.encoder, self.columns);
        multiply(self.s, self.t, self.call, range, &mut epilogue);
    }
}

/// What is computed from a vector of outputs before it is stored.
pub(super) trait VectorEpilogue<S: Simd> {
    /// `value` is y(row, column..column + count), count being at most sixteen, and columns counted from the first one of the output.
    fn apply(&mut self, s: S, value: S::F32, row: usize, column: usize, count: usize);
}

/// `out = f(y)`
struct StoreEpilogue<'a, F> {
    columns: OutputColumns<'a>,
    function: std::marker::PhantomData<F>,
}

impl<'a, F> StoreEpilogue<'a, F> {
    #[inline(always)]
    fn new(columns: OutputColumns<'a>) -> Self {
        Self {
            columns,
            function: std::marker::PhantomData,
        }
    }
}

impl<S: Simd, F: Function> VectorEpilogue<S> for StoreEpilogue<'_, F> {
    #[inline(always)]
    fn apply(&mut self, s: S, value: S::F32, row: usize, column: usize, count: usize) {
        let out = self.columns.slice(row, column, count);
        s.store_up_to(F::apply(s, value), out);
    }
}

/// `out += y`
struct AddEpilogue<'a> {
    columns: OutputColumns<'a>,
}

impl<S: Simd> VectorEpilogue<S> for AddEpilogue<'_> {
    #[inline(always)]
    fn apply(&mut self, s: S, value: S::F32, row: usize, column: usize, count: usize) {
        let out = self.columns.slice(row, column, count);
        let sum = s.add(value, s.load_up_to(out, 0.0));
        s.store_up_to(sum, out);
    }
}

/// `out *= y`
struct MultiplyEpilogue<'a> {
    columns: OutputColumns<'a>,
}

impl<S: Simd> VectorEpilogue<S> for MultiplyEpilogue<'_> {
    #[inline(always)]
    fn apply(&mut self, s: S, value: S::F32, row: usize, column: usize, count: usize) {
        let out = self.columns.slice(row, column, count);
        let product = s.mul(value, s.load_up_to(out, 0.0));
        s.store_up_to(product, out);
    }
}

/// `codes = encode(f(y))`
struct EncodeEpilogue<'a, S: Simd, F> {
    encoder: Encoder<S>,
    columns: OutputColumns<'a, u8>,
    function: std::marker::PhantomData<F>,
}

impl<'a, S: Simd, F> EncodeEpilogue<'a, S, F> {
    #[inline(always)]
    fn new(encoder: Encoder<S>, columns: OutputColumns<'a, u8>) -> Self {
        Self {
            encoder,
            columns,
            function: std::marker::PhantomData,
        }
    }
}

impl<S: Simd, F: Function> VectorEpilogue<S> for EncodeEpilogue<'_, S, F> {
    #[inline(always)]
    fn apply(&mut self, s: S, value: S::F32, row: usize, column: usize, count: usize) {
        let out = self.columns.slice(row, column, count);
        self.encoder.encode_up_to(s, F::apply(s, value), out);
    }
}

/// Computes the outputs `columns`, which are whole panels but for the last one, and passes them to `epilogue`.
#[inline(always)]
fn multiply<S: Simd, T: Int8Tile>(
    s: S,
    t: T,
    call: LinearInt8<'_>,
    columns: Range<usize>,
    epilogue: &mut impl VectorEpilogue<S>,
) {
    let LinearInt8 {
        x,
        weight,
        bias,
        scratch,
    } = call;
    let (codes, stride) = t.activations(x, scratch);
    // A tile of 16-bit activations takes codes of two bytes as they are.
    let planes = if T::WIDE { 1 } else { x.planes };
    let rows = Int8Rows {
        codes,
        stride,
        rows: x.rows * planes,
        planes,
    };
    let mut dequantize = Dequantize {
        x,
        planes,
        activation_offset: T::ACTIVATION_OFFSET,
        weight,
        bias,
        columns: columns.clone(),
        epilogue,
    };
    let panels = weight.panels(columns);
    multiply_panels(
        s,
        t,
        rows,
        panels,
        &mut Int8Accumulators::new(),
        &mut dequantize,
    );
}

/// Makes y of the sums of a tile and passes it on.
struct Dequantize<'a, E> {
    x: &'a QuantizedRows,
    /// Rows of sums of a row of x: two of high and of low bytes, or one.
    planes: usize,
    /// That of the tile.
    activation_offset: i32,
    weight: &'a PackedInt8,
    bias: Option<&'a [f32]>,
    /// Those of the weight's outputs that are computed.
    columns: Range<usize>,
    epilogue: &'a mut E,
}

impl<S: Simd, E: VectorEpilogue<S>> TileEpilogue<S> for Dequantize<'_, E> {
    #[inline(always)]
    fn apply<const VECTORS: usize>(&mut self, s: S, tile: TileSums<'_>) {
        let (x, weight) = (self.x, self.weight);
        let first = tile.first_vector * LANES;
        // Sums of at most 2^15 weights are at most 2^22 in magnitude.
        let short = weight.in_features <= 1 << 15 && x.planes == 1;
        let activation_offset = match self.planes {
            1 => self.activation_offset,
            _ => self.activation_offset * 257,
        };
        let mut scales = [s.splat(0.0); VECTORS];
        let mut biases = [s.splat(0.0); VECTORS];
        let mut sums_of_weights = [s.splat_i32(0); VECTORS];
        for vector in 0..VECTORS {
            let column = self.columns.start + first + vector * LANES;
            scales[vector] = s.load(&weight.scales.as_chunks().0[column / LANES]);
            let sums = s.load_i32(&weight.row_sums.as_chunks().0[column / LANES]);
            sums_of_weights[vector] = if short { s.long_factor(sums) } else { sums };
            if let Some(bias) = self.bias {
                let end = self.columns.end.min(column + LANES);
                biases[vector] = s.load_up_to(&bias[column..end], 0.0);
            }
        }
        for index in 0..tile.rows / self.planes {
            let row = tile.first_row / self.planes + index;
            let zero_point = x.zero_points[row] - activation_offset;
            let zero_point = if short {
                s.short_factor(zero_point)
            } else {
                s.splat_i32(zero_point)
            };
            let row_scale = s.splat(x.scales[row]);
            let sums = tile.row::<VECTORS>(self.planes * index);
            for vector in 0..VECTORS {
                let (mut sums, of_weights) = (s.load_i32(&sums[vector]), sums_of_weights[vector]);
                if self.planes == PLANES {
                    let low = tile.row::<VECTORS>(PLANES * index + 1);
                    let high = s.mul_i32(sums, s.splat_i32(256));
                    sums = s.add_i32(high, s.load_i32(&low[vector]));
                }
                let sums = if short {
                    s.sub_product(sums, of_weights, zero_point)
                } else {
                    s.sub_i32(sums, s.mul_i32(of_weights, zero_point))
                };
                let scale = s.mul(row_scale, scales[vector]);
                let value = s.fma(s.to_f32(sums), scale, biases[vector]);
                let column = first + vector * LANES;
                let count = LANES.min(self.columns.len() - column);
                self.epilogue.apply(s, value, row, column, count);
            }
        }
    }
}
