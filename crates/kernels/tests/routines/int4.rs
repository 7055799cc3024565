//! Products of quantized activations and int4 weights: exact integers in each group, then one fused multiply-add for each group.

use fewbit_kernels::{
    ActivationBits, Epilogue, Kernels, OutputColumns, PackedInt4, QuantizedRows, Workspace,
};
use fewbit_numerics::int4_groups::MAX_INT4_COLUMNS;

use crate::products::{check_epilogues, shapes};
use crate::support::{Failures, Numbers};

struct Product {
    bits: ActivationBits,
    codes: Vec<u16>,
    row_scales: Vec<f32>,
    row_zero_points: Vec<i32>,
    weight: Vec<i8>,
    scales: Vec<f32>,
    zero_points: Option<Vec<i8>>,
    bias: Option<Vec<f32>>,
    group_size: usize,
    /// (rows, outputs, inputs)
    shape: [usize; 3],
}

impl Product {
    /// The formula, with sums in i64, where nothing can overflow.
    fn expected(&self) -> Vec<f32> {
        let [rows, outputs, inputs] = self.shape;
        let groups = inputs / self.group_size.max(1);
        let mut out = Vec::new();
        for row in 0..rows {
            let codes = &self.codes[row * inputs..][..inputs];
            for output in 0..outputs {
                let (mut sum, mut correction) = (0.0f32, 0.0f32);
                for group in 0..groups {
                    let point = self
                        .zero_points
                        .as_ref()
                        .map_or(0, |points| points[output * groups + group]);
                    let columns = group * self.group_size..(group + 1) * self.group_size;
                    let (mut exact, mut of_ones) = (0i64, 0i64);
                    for column in columns {
                        let weight = self.weight[output * inputs + column];
                        let weight = i64::from(weight) - i64::from(point);
                        exact += i64::from(codes[column]) * weight;
                        of_ones += weight;
                    }
                    let float = |sum: i64| i32::try_from(sum).expect("the sum fits in i32") as f32;
                    let scale = self.scales[output * groups + group];
                    sum = float(exact).mul_add(scale, sum);
                    correction = float(of_ones).mul_add(scale, correction);
                }
                let zero_point = self.row_zero_points[row] as f32;
                let bias = self.bias.as_ref().map_or(0.0, |bias| bias[output]);
                let sum = (-zero_point).mul_add(correction, sum);
                out.push(sum.mul_add(self.row_scales[row], bias));
            }
        }
        out
    }

    fn rows(&self, rows: std::ops::Range<usize>) -> QuantizedRows {
        let inputs = self.shape[2];
        let codes = &self.codes[rows.start * inputs..rows.end * inputs];
        let scales = self.row_scales[rows.clone()].to_vec();
        let points = self.row_zero_points[rows].to_vec();
        match self.bits {
            ActivationBits::Eight => {
                let bytes: Vec<u8> = codes.iter().map(|&code| code as u8).collect();
                QuantizedRows::from_parts(&bytes, scales, points, inputs)
            }
            ActivationBits::Twelve => {
                QuantizedRows::from_twelve_bit_parts(codes, scales, points, inputs)
            }
        }
    }

    fn packed(&self, kernels: &Kernels) -> PackedInt4 {
        let weight = (
            &self.weight[..],
            &self.scales[..],
            self.zero_points.as_deref(),
        );
        let [_, outputs, inputs] = self.shape;
        PackedInt4::new(
            kernels,
            self.bits,
            weight,
            self.group_size,
            [outputs, inputs],
        )
    }

    fn check(&self, kernels: &Kernels, failures: &mut Failures, workspace: &mut Workspace) {
        let [rows, outputs, _] = self.shape;
        let shape = format!(
            "{:?}, groups of {}, {:?} bits, zero points: {}",
            self.shape,
            self.group_size,
            self.bits,
            self.zero_points.is_some()
        );
        let (weight, expected) = (self.packed(kernels), self.expected());
        let bias = self.bias.as_deref();
        let store = Epilogue::store(bias);
        let x = self.rows(0..rows);
        let mut out = vec![f32::NAN; expected.len()];
        let all_columns = OutputColumns::of_matrix(&mut out, outputs);
        kernels.linear_int4(&x, &weight, store, all_columns, workspace);
        failures.same_bits(&shape, &out, &expected);
        let mut alone = vec![f32::NAN; expected.len()];
        for row in 0..rows {
            let out = OutputColumns::of_matrix(&mut alone[row * outputs..][..outputs], outputs);
            kernels.linear_int4(&self.rows(row..row + 1), &weight, store, out, workspace);
        }
        failures.same_bits(format!("{shape}, row by row"), &alone, &expected);
        let y = (&expected[..], outputs);
        check_epilogues(&shape, y, bias, failures, |epilogue, out| {
            kernels.linear_int4(&x, &weight, epilogue, out, workspace);
        });
    }

    fn new(
        bits: ActivationBits,
        shape: [usize; 3],
        group_size: usize,
        asymmetric: bool,
        numbers: &mut Numbers,
    ) -> Self {
        let [rows, outputs, inputs] = shape;
        let most = greatest(bits);
        let groups = outputs * (inputs / group_size.max(1));
        let mut int4 =
            |count: usize| -> Vec<i8> { (0..count).map(|_| numbers.below(16) as i8 - 8).collect() };
        let (weight, zero_points) = (int4(outputs * inputs), asymmetric.then(|| int4(groups)));
        Product {
            bits,
            codes: (0..rows * inputs)
                .map(|_| numbers.below(usize::from(most) + 1) as u16)
                .collect(),
            row_scales: numbers.rough(rows),
            row_zero_points: (0..rows)
                .map(|_| numbers.below(usize::from(most) + 1) as i32)
                .collect(),
            weight,
            scales: numbers.floats(groups, 0.1),
            zero_points,
            bias: (numbers.below(3) > 0).then(|| numbers.floats(outputs, 1.0)),
            group_size,
            shape,
        }
    }

    /// All codes and all weights the same.
    fn uniform(bits: ActivationBits, inputs: usize, code: u16, weight: i8, point: i8) -> Self {
        Product {
            bits,
            codes: vec![code; 2 * inputs],
            row_scales: vec![0.5; 2],
            row_zero_points: vec![0, greatest(bits).into()],
            weight: vec![weight; 17 * inputs],
            scales: vec![1.0; 17],
            zero_points: Some(vec![point; 17]),
            bias: None,
            group_size: inputs,
            shape: [2, 17, inputs],
        }
    }
}

fn greatest(bits: ActivationBits) -> u16 {
    match bits {
        ActivationBits::Eight => 255,
        ActivationBits::Twelve => 4095,
    }
}

pub(crate) fn linear_int4(kernels: &Kernels, failures: &mut Failures) {
    check_bits(
        &[ActivationBits::Eight, ActivationBits::Twelve],
        kernels,
        failures,
    );
}

pub(crate) fn linear_int4_saturation_proof(kernels: &Kernels, failures: &mut Failures) {
    check_bits(&[ActivationBits::Eight], kernels, failures);
}

fn check_bits(all: &[ActivationBits], kernels: &Kernels, failures: &mut Failures) {
    let mut numbers = Numbers::new(21);
    let mut workspace = Workspace::new();
    for &bits in all {
        for asymmetric in [false, true] {
            // One group of any number of columns.
            for (rows, outputs, inputs) in shapes() {
                let shape = [rows, outputs, inputs];
                let product = Product::new(bits, shape, inputs, asymmetric, &mut numbers);
                product.check(kernels, failures, &mut workspace);
            }
            // Groups that are one, an odd number, and many pairs of lines; every height of a tile, and widths about those of panels.
            for (rows, outputs, groups, group_size) in [
                (1, 64, 3, 8),
                (2, 65, 2, 24),
                (3, 17, 5, 32),
                (4, 130, 2, 64),
                (5, 16, 1, 128),
                (6, 48, 4, 40),
                (7, 70, 3, 16),
                (13, 33, 2, 32),
            ] {
                let shape = [rows, outputs, groups * group_size];
                let product = Product::new(bits, shape, group_size, asymmetric, &mut numbers);
                product.check(kernels, failures, &mut workspace);
            }
        }
        // All codes at the ends of their ranges, up to the greatest length.
        for inputs in [64, MAX_INT4_COLUMNS] {
            for (weight, point) in [(-8, 7), (7, -8), (-8, 0), (0, 7)] {
                for code in [0, greatest(bits)] {
                    let product = Product::uniform(bits, inputs, code, weight, point);
                    product.check(kernels, failures, &mut workspace);
                }
            }
        }
    }
}

/// Formula against f64: the error of the sum of groups is that of one rounding for each group and each step after them.
#[test]
fn a_product_is_near_the_exact_one() {
    let mut numbers = Numbers::new(22);
    for asymmetric in [false, true] {
        let shape = [3, 20, 512];
        let product = Product {
            row_scales: vec![0.01, 1.0, 30.0],
            ..Product::new(ActivationBits::Eight, shape, 64, asymmetric, &mut numbers)
        };
        let [rows, outputs, inputs] = shape;
        let groups = inputs / 64;
        let found = product.expected();
        for row in 0..rows {
            for output in 0..outputs {
                let (mut exact, mut magnitude) = (0.0f64, 0.0f64);
                for column in 0..inputs {
                    let group = output * groups + column / 64;
                    let point = product
                        .zero_points
                        .as_ref()
                        .map_or(0, |points| points[group]);
                    let weight = f64::from(product.weight[output * inputs + column]);
                    let weight = (weight - f64::from(point)) * f64::from(product.scales[group]);
                    let code = f64::from(product.codes[row * inputs + column]);
                    exact += (code - f64::from(product.row_zero_points[row])) * weight;
                    // Codes and zero points are summed apart.
                    magnitude += (code + f64::from(product.row_zero_points[row])) * weight.abs();
                }
                let scale = f64::from(product.row_scales[row]);
                let bias = product
                    .bias
                    .as_ref()
                    .map_or(0.0, |bias| f64::from(bias[output]));
                let (exact, magnitude) =
                    (exact * scale + bias, magnitude * scale.abs() + bias.abs());
                // Each of the sums over groups is rounded `groups` times, and there are two more roundings.
                let bound = magnitude * (groups as f64 + 2.0) * f64::from(f32::EPSILON) / 2.0;
                let error = (f64::from(found[row * outputs + output]) - exact).abs();
                assert!(error <= bound * 1.01, "{error} > {bound}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "groups of 12 of 24 columns")]
fn groups_that_have_no_tiles_are_refused() {
    let kernels = Kernels::for_isa(fewbit_kernels::Isa::Scalar).unwrap();
    assert!(!PackedInt4::has_tiles_for(12, 24));
    let weight = (&[0i8; 24][..], &[1.0f32; 2][..], None);
    PackedInt4::new(kernels, ActivationBits::Eight, weight, 12, [1, 24]);
}

#[test]
#[should_panic(expected = "codes are in -8..=7")]
fn codes_of_more_bits_are_refused() {
    let kernels = Kernels::for_isa(fewbit_kernels::Isa::Scalar).unwrap();
    let weight = (&[8i8; 8][..], &[1.0f32][..], None);
    PackedInt4::new(kernels, ActivationBits::Eight, weight, 8, [1, 8]);
}
