//! Products of quantized activations: exact integers, then one fused multiply-add.

use fewbit_kernels::{
    Activation, ActivationBits, COLUMN_SPLIT, Epilogue, Isa, Kernels, Operation, OutputColumns,
    PackedInt8, QuantizedRows, Routine, Workspace,
};
use fewbit_numerics::activation::{MAX_TWELVE_BIT_COLUMNS, TWELVE_BIT_CODES};
use fewbit_numerics::affine::{AffineParameters, CodeRange};

use crate::products::{check_epilogues, parts, shapes};
use crate::support::{Failures, Numbers};

struct Product {
    bits: ActivationBits,
    codes: Vec<u16>,
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
        let codes = &self.codes[rows.start * self.in_features..rows.end * self.in_features];
        let (scales, zero_points) = (
            self.scales[rows.clone()].to_vec(),
            self.zero_points[rows].to_vec(),
        );
        match self.bits {
            ActivationBits::Eight => {
                let bytes: Vec<u8> = codes.iter().map(|&code| code as u8).collect();
                QuantizedRows::from_parts(&bytes, scales, zero_points, self.in_features)
            }
            ActivationBits::Twelve => {
                QuantizedRows::from_twelve_bit_parts(codes, scales, zero_points, self.in_features)
            }
        }
    }

    fn packed(&self, kernels: &Kernels) -> PackedInt8 {
        let out_features = self.channel_scales.len();
        PackedInt8::new(
            kernels,
            self.bits,
            &self.weight,
            &self.channel_scales,
            out_features,
            self.in_features,
        )
    }

    fn shape(&self) -> String {
        let (rows, out_features) = (self.scales.len(), self.channel_scales.len());
        format!(
            "{rows}x{out_features}x{}, {:?} bits",
            self.in_features, self.bits
        )
    }

    fn check(&self, kernels: &Kernels, failures: &mut Failures, workspace: &mut Workspace) {
        let (rows, out_features) = (self.scales.len(), self.channel_scales.len());
        let (shape, weight) = (self.shape(), self.packed(kernels));
        let expected = self.expected();
        let bias = self.bias.as_deref();
        let store = Epilogue::store(bias);
        let x = self.rows(0..rows);
        let mut out = vec![f32::NAN; expected.len()];
        let all_columns = OutputColumns::of_matrix(&mut out, out_features);
        kernels.linear_int8(&x, &weight, store, all_columns, workspace);
        failures.same_bits(&shape, &out, &expected);
        let mut alone = vec![f32::NAN; expected.len()];
        for row in 0..rows {
            let out = &mut alone[row * out_features..][..out_features];
            let all_columns = OutputColumns::of_matrix(out, out_features);
            kernels.linear_int8(
                &self.rows(row..row + 1),
                &weight,
                store,
                all_columns,
                workspace,
            );
        }
        failures.same_bits(format!("{shape}, row by row"), &alone, &expected);
        let y = (&expected[..], out_features);
        check_epilogues(&shape, y, bias, failures, |epilogue, out| {
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
        let (x, weight, bias) = (
            self.rows(0..rows),
            self.packed(kernels),
            self.bias.as_deref(),
        );
        let mut check = |found: &QuantizedRows, how| {
            failures.check(*found == expected, || {
                let shape = self.shape();
                format!("{shape}, {activation:?}, {parameters:?}{how}: codes differ")
            });
        };
        let all = found.with_parameters(rows, out_features, parameters);
        kernels.linear_requantize(&x, &weight, bias, activation, parameters, all, workspace);
        check(&found, "");
        if out_features > COLUMN_SPLIT {
            let mut found = QuantizedRows::from_parts(&[7; 600], vec![3.0; 2], vec![1; 2], 300);
            let all = found.with_parameters(rows, out_features, parameters);
            for part in parts(all) {
                kernels
                    .linear_requantize(&x, &weight, bias, activation, parameters, part, workspace);
            }
            check(&found, ", in parts");
        }
    }
}

pub(crate) fn linear_requantize(kernels: &Kernels, failures: &mut Failures) {
    let mut numbers = Numbers::new(11);
    let mut workspace = Workspace::new();
    for (index, (rows, out_features, in_features)) in shapes().into_iter().enumerate() {
        // Only a finite y has a code: ordinary scales.
        let bits = [ActivationBits::Eight, ActivationBits::Twelve][index % 2];
        let product = Product {
            scales: numbers.floats(rows, 0.1),
            channel_scales: numbers.floats(out_features, 0.1),
            ..Product::new(bits, [rows, out_features, in_features], &mut numbers)
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

const BITS: [ActivationBits; 2] = [ActivationBits::Eight, ActivationBits::Twelve];

/// The greatest code.
fn greatest(bits: ActivationBits) -> u16 {
    match bits {
        ActivationBits::Eight => 255,
        ActivationBits::Twelve => TWELVE_BIT_CODES.max as u16,
    }
}

/// The most input features.
fn longest(bits: ActivationBits) -> usize {
    match bits {
        ActivationBits::Eight => PackedInt8::MAX_IN_FEATURES,
        ActivationBits::Twelve => MAX_TWELVE_BIT_COLUMNS,
    }
}

impl Product {
    fn new(
        bits: ActivationBits,
        [rows, out_features, in_features]: [usize; 3],
        numbers: &mut Numbers,
    ) -> Self {
        let most = usize::from(greatest(bits));
        let ends = [0, most as i32, most as i32 / 2 + 1];
        Product {
            bits,
            codes: (0..rows * in_features)
                .map(|_| numbers.below(most + 1) as u16)
                .collect(),
            scales: numbers.rough(rows),
            zero_points: (0..rows)
                .map(|_| match numbers.below(4) {
                    3 => numbers.below(most + 1) as i32,
                    end => ends[end],
                })
                .collect(),
            weight: numbers.signed_bytes(out_features * in_features),
            channel_scales: numbers.rough(out_features),
            bias: (numbers.below(3) > 0).then(|| numbers.floats(out_features, 1.0)),
            in_features,
        }
    }

    /// All codes and all pairs of weights the same.
    fn uniform(bits: ActivationBits, in_features: usize, code: u16, pair: [i8; 2]) -> Self {
        let row = pair.into_iter().cycle().take(in_features);
        Product {
            bits,
            codes: vec![code; 2 * in_features],
            scales: vec![0.5; 2],
            zero_points: vec![0, greatest(bits).into()],
            weight: row.collect::<Vec<i8>>().repeat(17),
            channel_scales: vec![1.0; 17],
            bias: None,
            in_features,
        }
    }
}

pub(crate) fn linear_int8(kernels: &Kernels, failures: &mut Failures) {
    let mut numbers = Numbers::new(10);
    let mut workspace = Workspace::new();
    for (rows, out_features, in_features) in shapes() {
        for bits in BITS {
            let product = Product::new(bits, [rows, out_features, in_features], &mut numbers);
            product.check(kernels, failures, &mut workspace);
        }
    }

    // All codes at the ends of their ranges, where i16 sums of pairs would saturate, up to the greatest length.
    for bits in BITS {
        for in_features in [64, 4096, longest(bits)] {
            for code in [0, greatest(bits)] {
                for weight in [-128, 127] {
                    let product = Product::uniform(bits, in_features, code, [weight; 2]);
                    product.check(kernels, failures, &mut workspace);
                }
            }
        }
    }
}

/// Weights whose pairs have magnitudes of at most 128 together.
fn saturation_proof(weight: &mut [i8], in_features: usize) {
    for row in weight.chunks_mut(in_features.max(1)) {
        for [first, second] in row.as_chunks_mut::<2>().0 {
            let free = 128 - i16::from(*first).abs();
            *second = i16::from(*second).clamp(-free, free.min(127)) as i8;
        }
    }
}

pub(crate) fn linear_saturation_proof(kernels: &Kernels, failures: &mut Failures) {
    let mut numbers = Numbers::new(12);
    let mut workspace = Workspace::new();
    let bits = ActivationBits::Eight;
    for (rows, out_features, in_features) in shapes() {
        let mut product = Product::new(bits, [rows, out_features, in_features], &mut numbers);
        saturation_proof(&mut product.weight, in_features);
        failures.check(
            in_features == 0 || product.packed(kernels).has_saturation_proof_layout(kernels),
            || format!("{}: not packed for the faster tile", product.shape()),
        );
        product.check(kernels, failures, &mut workspace);
    }
    // Sums of 255 * 128, which just fit, of either sign and however the pair shares the 128.
    for pair in [
        [127, 1],
        [1, 127],
        [64, 64],
        [-128, 0],
        [0, -128],
        [-64, -64],
        [127, -1],
    ] {
        for code in [0, 255] {
            for in_features in [64, PackedInt8::MAX_IN_FEATURES] {
                let product = Product::uniform(bits, in_features, code, pair);
                product.check(kernels, failures, &mut workspace);
            }
        }
    }
}

pub(crate) fn linear_requantize_saturation_proof(kernels: &Kernels, failures: &mut Failures) {
    let mut numbers = Numbers::new(13);
    let mut workspace = Workspace::new();
    for (index, (rows, out_features, in_features)) in shapes().into_iter().enumerate() {
        let shape = [rows, out_features, in_features];
        let mut product = Product {
            scales: numbers.floats(rows, 0.1),
            channel_scales: numbers.floats(out_features, 0.1),
            ..Product::new(ActivationBits::Eight, shape, &mut numbers)
        };
        saturation_proof(&mut product.weight, in_features);
        let parameters = AffineParameters {
            scale: 0.02,
            zero_point: 128,
        };
        let activation = Activation::ALL[index % Activation::ALL.len()];
        product.check_requantized(activation, parameters, kernels, failures, &mut workspace);
    }
}

/// One pair that could saturate is enough to keep a weight off the faster tile, and so are activations that it does not take.
#[test]
fn only_weights_that_cannot_saturate_have_the_faster_tile() {
    for kernels in Kernels::available() {
        let has_routine = Routine::all().any(|routine| {
            routine.isa == kernels.isa()
                && routine.operation == Operation::LinearInt8SaturationProof
        });
        let packed = |bits, codes: &[i8], in_features| {
            let out_features = codes.len() / in_features;
            let scales = vec![1.0; out_features];
            PackedInt8::new(kernels, bits, codes, &scales, out_features, in_features)
                .has_saturation_proof_layout(kernels)
        };
        let (eight, twelve) = (ActivationBits::Eight, ActivationBits::Twelve);
        let codes = [64; 40];
        assert_eq!(packed(eight, &codes, 10), has_routine);
        assert!(!packed(twelve, &codes, 10));
        // A last column has no neighbour: those of the next row are none.
        let mut codes = [1; 33];
        (codes[10], codes[11]) = (127, 127);
        assert_eq!(packed(eight, &codes, 11), has_routine);
        codes[12] = 2;
        assert!(!packed(eight, &codes, 11));
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
    let kernels = Kernels::for_isa(Isa::Scalar).unwrap();
    let bits = ActivationBits::Eight;
    PackedInt8::new(kernels, bits, &vec![0; in_features], &[1.0], 1, in_features);
}

#[test]
#[should_panic(expected = "at most 4097 input features")]
fn a_longer_weight_for_twelve_bits_is_refused() {
    let in_features = MAX_TWELVE_BIT_COLUMNS + 1;
    let kernels = Kernels::for_isa(Isa::Scalar).unwrap();
    let bits = ActivationBits::Twelve;
    PackedInt8::new(kernels, bits, &vec![0; in_features], &[1.0], 1, in_features);
}

#[test]
#[should_panic(expected = "packed for the instruction set")]
fn a_weight_of_another_set_is_refused() {
    let scalar = Kernels::for_isa(Isa::Scalar).unwrap();
    let weight = PackedInt8::new(scalar, ActivationBits::Eight, &[1; 8], &[1.0; 2], 2, 4);
    let x = QuantizedRows::from_parts(&[0; 4], vec![1.0], vec![0], 4);
    let layouts_differ =
        |kernels: &&'static Kernels| ["avx2", "neon"].contains(&kernels.isa().name());
    let Some(other) = Kernels::available().find(layouts_differ) else {
        panic!("packed for the instruction set: no other here");
    };
    let epilogue = Epilogue::store(None);
    let mut out = [0.0; 2];
    let out = OutputColumns::of_matrix(&mut out, 2);
    other.linear_int8(&x, &weight, epilogue, out, &mut Workspace::new());
}

#[test]
#[should_panic(expected = "the columns of x are the in_features of the weight")]
fn activations_of_another_width_are_refused() {
    let kernels = Kernels::for_isa(Isa::Scalar).unwrap();
    let weight = PackedInt8::new(kernels, ActivationBits::Eight, &[1; 8], &[1.0; 2], 2, 4);
    let x = QuantizedRows::from_parts(&[0; 3], vec![1.0], vec![0], 3);
    let epilogue = Epilogue::store(None);
    let mut out = [0.0; 2];
    let out = OutputColumns::of_matrix(&mut out, 2);
    kernels.linear_int8(&x, &weight, epilogue, out, &mut Workspace::new());
}
