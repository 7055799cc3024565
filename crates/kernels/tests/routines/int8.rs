//! Products of quantized activations: exact integers, then one fused multiply-add.

use fewbit_kernels::{Activation, Epilogue, Isa, Kernels, PackedInt8, QuantizedRows, Workspace};
use fewbit_numerics::affine::{AffineParameters, CodeRange};

use crate::products::{check_epilogues, shapes};
use crate::support::{Failures, Numbers};

struct Product {
    codes: Vec<u8>,
    scales: Vec<f32>,
    zero_points: Vec<i32>,
    weight: Vec<i8>,
    channel_scales: Vec<f32>,
    bias: Option<Vec<f32>>,
    in_features: usize,
}

impl Product {
    /// The sums in i64, where nothing can overflow.
    fn expected(&self) -> Vec<f32> {
        let mut out = Vec::new();
        for (row, (&scale, &zero_point)) in self.scales.iter().zip(&self.zero_points).enumerate() {
            let codes = &self.codes[row * self.in_features..][..self.in_features];
            for (output, &channel_scale) in self.channel_scales.iter().enumerate() {
                let weight = &self.weight[output * self.in_features..][..self.in_features];
                let sum: i64 = codes
                    .iter()
                    .zip(weight)
                    .map(|(&code, &weight)| {
                        (i64::from(code) - i64::from(zero_point)) * i64::from(weight)
                    })
                    .sum();
                let sum = i32::try_from(sum).expect("the sum fits in i32");
                let bias = self.bias.as_ref().map_or(0.0, |bias| bias[output]);
                out.push((sum as f32).mul_add(scale * channel_scale, bias));
            }
        }
        out
    }

    fn rows(&self, rows: std::ops::Range<usize>) -> QuantizedRows {
        QuantizedRows::from_parts(
            &self.codes[rows.start * self.in_features..rows.end * self.in_features],
            self.scales[rows.clone()].to_vec(),
            self.zero_points[rows].to_vec(),
            self.in_features,
        )
    }

    fn packed(&self) -> PackedInt8 {
        let out_features = self.channel_scales.len();
        PackedInt8::new(
            &self.weight,
            &self.channel_scales,
            out_features,
            self.in_features,
        )
    }

    fn shape(&self) -> String {
        let (rows, out_features) = (self.scales.len(), self.channel_scales.len());
        format!("{rows}x{out_features}x{}", self.in_features)
    }

    fn check(&self, kernels: &Kernels, failures: &mut Failures, workspace: &mut Workspace) {
        let (rows, out_features) = (self.scales.len(), self.channel_scales.len());
        let (shape, weight) = (self.shape(), self.packed());
        let expected = self.expected();
        let bias = self.bias.as_deref();
        let store = Epilogue::store(bias);
        let x = self.rows(0..rows);
        let mut out = vec![f32::NAN; expected.len()];
        kernels.linear_int8(&x, &weight, store, &mut out, workspace);
        failures.same_bits(&shape, &out, &expected);
        let mut alone = vec![f32::NAN; expected.len()];
        for row in 0..rows {
            let out = &mut alone[row * out_features..][..out_features];
            kernels.linear_int8(&self.rows(row..row + 1), &weight, store, out, workspace);
        }
        failures.same_bits(format!("{shape}, row by row"), &alone, &expected);
        check_epilogues(&shape, &expected, bias, failures, |epilogue, out| {
            kernels.linear_int8(&x, &weight, epilogue, out, workspace);
        });
    }

    /// Codes of one scale have the bits of the rounding rule on the activated product.
    fn check_requantized(
        &self,
        activation: Activation,
        parameters: AffineParameters,
        kernels: &Kernels,
        failures: &mut Failures,
        workspace: &mut Workspace,
    ) {
        let (rows, out_features) = (self.scales.len(), self.channel_scales.len());
        let mut y = self.expected();
        let portable = Kernels::for_isa(Isa::Scalar).unwrap();
        portable.activation(activation, &mut y);
        let code = |&y| u8::try_from(parameters.quantize(y, CodeRange::UINT8)).unwrap();
        let codes: Vec<u8> = y.iter().map(code).collect();
        let expected = QuantizedRows::from_parts(
            &codes,
            vec![parameters.scale; rows],
            vec![parameters.zero_point; rows],
            out_features,
        );
        // A buffer that held something else: nothing of it may stay, not even in the padding.
        let mut found = QuantizedRows::from_parts(&[7; 600], vec![3.0; 2], vec![1; 2], 300);
        let (x, weight, bias) = (self.rows(0..rows), self.packed(), self.bias.as_deref());
        kernels.linear_requantize(
            &x, &weight, bias, activation, parameters, &mut found, workspace,
        );
        failures.check(found == expected, || {
            format!(
                "{}, {activation:?}, {parameters:?}: codes differ",
                self.shape()
            )
        });
    }
}

pub(crate) fn linear_requantize(kernels: &Kernels, failures: &mut Failures) {
    let mut numbers = Numbers::new(11);
    let mut workspace = Workspace::new();
    for (index, (rows, out_features, in_features)) in shapes().into_iter().enumerate() {
        // Only a finite y has a code: ordinary scales.
        let product = Product {
            scales: numbers.floats(rows, 0.1),
            channel_scales: numbers.floats(out_features, 0.1),
            ..Product::new(rows, out_features, in_features, &mut numbers)
        };
        let parameters = AffineParameters {
            // From scales where everything is clamped to one where all is the zero point.
            scale: [1e-6, 0.02, 1.0, 1e20][numbers.below(4)],
            zero_point: [0, 255, 128, 77][numbers.below(4)],
        };
        let activation = Activation::ALL[index % Activation::ALL.len()];
        product.check_requantized(activation, parameters, kernels, failures, &mut workspace);
    }
}

impl Product {
    fn new(rows: usize, out_features: usize, in_features: usize, numbers: &mut Numbers) -> Self {
        Product {
            codes: numbers.bytes(rows * in_features),
            scales: numbers.rough(rows),
            zero_points: (0..rows)
                .map(|_| [0, 255, 128, numbers.below(256) as i32][numbers.below(4)])
                .collect(),
            weight: numbers.signed_bytes(out_features * in_features),
            channel_scales: numbers.rough(out_features),
            bias: (numbers.below(3) > 0).then(|| numbers.floats(out_features, 1.0)),
            in_features,
        }
    }
}

pub(crate) fn linear_int8(kernels: &Kernels, failures: &mut Failures) {
    let mut numbers = Numbers::new(10);
    let mut workspace = Workspace::new();
    for (rows, out_features, in_features) in shapes() {
        let product = Product::new(rows, out_features, in_features, &mut numbers);
        product.check(kernels, failures, &mut workspace);
    }

    // All codes at the ends of their ranges, where i16 sums of pairs would saturate, up to the greatest length.
    for in_features in [64, 4096, PackedInt8::MAX_IN_FEATURES] {
        for code in [0, 255] {
            for weight in [-128, 127] {
                let product = Product {
                    codes: vec![code; 2 * in_features],
                    scales: vec![0.5; 2],
                    zero_points: vec![0, 255],
                    weight: vec![weight; 17 * in_features],
                    channel_scales: vec![1.0; 17],
                    bias: None,
                    in_features,
                };
                product.check(kernels, failures, &mut workspace);
            }
        }
    }
}

#[test]
fn the_greatest_length_just_fits() {
    let worst = 255 * 128 * PackedInt8::MAX_IN_FEATURES as i64;
    assert!(i32::try_from(worst).is_ok());
    assert!(i32::try_from(worst + 255 * 128).is_err());
}

#[test]
#[should_panic(expected = "sums of products must fit in i32")]
fn a_longer_weight_is_refused() {
    let in_features = PackedInt8::MAX_IN_FEATURES + 1;
    PackedInt8::new(&vec![0; in_features], &[1.0], 1, in_features);
}

#[test]
#[should_panic(expected = "the columns of x are the in_features of the weight")]
fn activations_of_another_width_are_refused() {
    let weight = PackedInt8::new(&[1; 8], &[1.0; 2], 2, 4);
    let x = QuantizedRows::from_parts(&[0; 3], vec![1.0], vec![0], 3);
    let kernels = Kernels::for_isa(Isa::Scalar).unwrap();
    let epilogue = Epilogue::store(None);
    kernels.linear_int8(&x, &weight, epilogue, &mut [0.0; 2], &mut Workspace::new());
}
