//! Products that round their operands to bf16, against the exact products of the rounded operands.

use fewbit_kernels::{Epilogue, Kernels, OutputColumns, PackedFloat, Workspace};
use fewbit_numerics::half_precision::{bf16_bytes_to_f32, f32_to_bf16_bytes};

use crate::products::{Product, every_bit_pattern, shapes};
use crate::support::{Failures, Numbers, ROUNDOFF};

/// Unit roundoff of bf16, which has eight significant bits.
pub(crate) const BF16_ROUNDOFF: f64 = 1.0 / 256.0;

/// The nearest bfloat16 number, ties to even; zero for subnormal ones.
pub(crate) fn to_bf16(value: f32) -> f32 {
    let (mut bytes, mut rounded) = ([0; 2], [0.0]);
    f32_to_bf16_bytes(&[normal_or_zero(value)], &mut bytes);
    bf16_bytes_to_f32(&bytes, &mut rounded);
    rounded[0]
}

fn normal_or_zero(value: f32) -> f32 {
    if value.is_subnormal() { 0.0 } else { value }
}

/// The exact product (row, output), the sum of the magnitudes of its finite terms and of the bias.
fn exact(product: &Product, weight: &[f32], row: usize, output: usize) -> (f64, f64) {
    let depth = product.in_features;
    let bias = product.bias.as_ref().map_or(0.0, |bias| bias[output]);
    let (mut sum, mut magnitude) = (f64::from(bias), f64::from(bias.abs()));
    for k in 0..depth {
        let x = to_bf16(product.x[row * depth + k]);
        let term = f64::from(x) * f64::from(normal_or_zero(weight[output * depth + k]));
        sum += term;
        if term.is_finite() {
            magnitude += term.abs();
        }
    }
    (sum, magnitude)
}

fn check(kernels: &Kernels, product: &Product, bytes: &[u8], failures: &mut Failures) {
    let (out_features, in_features) = (product.out_features, product.in_features);
    let mut weight = vec![0.0; bytes.len() / 2];
    bf16_bytes_to_f32(bytes, &mut weight);
    let packed = PackedFloat::from_bf16_bytes(bytes, out_features, in_features);
    let mut workspace = Workspace::new();
    let out = product.run(failures, |x, rows, epilogue, out| {
        kernels.linear_float(x, rows, &packed, epilogue, out, &mut workspace);
    });
    // A product of two bf16 numbers is exact in f32. Each is added with one rounding, also the zero beside the last of an odd number, and
    // then the bias. A product or sum below the normal numbers may become zero.
    let additions = (in_features + in_features % 2) as f64;
    for (index, &found) in out.iter().enumerate() {
        let (expected, magnitude) =
            exact(product, &weight, index / out_features, index % out_features);
        // Near the greatest number the order decides whether a sum overflows on its way.
        if magnitude > f64::from(f32::MAX) / 2.0 {
            continue;
        }
        let bound = 1.01 * (additions + 1.0) * ROUNDOFF * magnitude
            + 2.0 * additions * f64::from(f32::MIN_POSITIVE);
        let near = match expected.is_finite() {
            true => (f64::from(found) - expected).abs() <= bound,
            false => f64::from(found) == expected || (found.is_nan() && expected.is_nan()),
        };
        failures.check(near, || {
            let shape = product.shape();
            format!(
                "{shape}: element {index}: expected {expected:e}, found {found:e}, bound {bound:e}"
            )
        });
    }
}

pub(crate) fn linear_bf16(kernels: &Kernels, failures: &mut Failures) {
    let mut numbers = Numbers::new(2);
    for shape in shapes() {
        let product = Product::new(shape, &mut numbers);
        let elements = product.out_features * product.in_features;
        // Any bit pattern, NaN and infinities among them, and ordinary numbers.
        let mut bytes = numbers.bytes(2 * elements);
        check(kernels, &product, &bytes, failures);
        f32_to_bf16_bytes(&numbers.floats(elements, 1.0), &mut bytes);
        check(kernels, &product, &bytes, failures);
    }
    let (product, bytes) = every_bit_pattern();
    check(kernels, &product, &bytes, failures);
}

/// Values that lie between two bf16 numbers, and on the middle: times one, the result is the rounded operand.
#[test]
fn activations_are_rounded_to_nearest_even() {
    let halfway_to_even = f32::from_bits(0x3f80_8000);
    let halfway_to_odd = f32::from_bits(0x3f81_8000);
    let x = [
        halfway_to_even,
        halfway_to_odd,
        f32::from_bits(0x3f80_8001),
        -f32::from_bits(0x3f80_7fff),
        f32::MAX,
        f32::from_bits(1),
    ];
    let expected = [1.0, 1.015_625, 1.007_812_5, -1.0, f32::INFINITY, 0.0];
    let weight = PackedFloat::from_bf16_bytes(&0x3f80_u16.to_le_bytes(), 1, 1);
    for kernels in Kernels::available().filter(|kernels| !kernels.isa().keeps_same_bits()) {
        let mut out = [f32::NAN; 6];
        let store = Epilogue::store(None);
        let all_columns = OutputColumns::of_matrix(&mut out, 1);
        kernels.linear_float(&x, 6, &weight, store, all_columns, &mut Workspace::new());
        assert_eq!(out, expected, "{}", kernels.isa());
    }
}
