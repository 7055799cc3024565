//! Attention in integers against its definition: codes as the numerics crate has them, the rest in f64.

use fewbit_kernels::{AttentionInput, Isa, Kernels, QuantizedSequence, Workspace};
use fewbit_numerics::affine::{AffineParameters, CodeRange};

use crate::attention::Case;
use crate::support::{Failures, Numbers, ROUNDOFF};

const CODES: CodeRange = CodeRange {
    min: -127,
    max: 127,
};

/// What the code of the greatest exponential is at least.
const GREATEST_POWER: f64 = 64_990.0;

/// Numbers as their codes stand for them.
fn dequantized(numbers: impl Iterator<Item = f32> + Clone) -> Vec<f64> {
    let absmax = numbers.clone().fold(0.0f32, |most, x| most.max(x.abs()));
    let parameters = AffineParameters::symmetric(absmax, CODES);
    numbers
        .map(|x| f64::from(parameters.quantize(x, CODES)) * f64::from(parameters.scale))
        .collect()
}

/// Each output and its error bound.
fn expected(case: &Case) -> Vec<(f64, f64)> {
    let (tokens, head_size) = (case.tokens, case.head_size);
    let mut out = vec![(0.0, 0.0); tokens * case.width()];
    for head in 0..case.heads {
        let row = |part, token| {
            dequantized((0..head_size).map(move |d| case.element(part, token, head, d)))
        };
        let keys: Vec<_> = (0..tokens).map(|token| row(1, token)).collect();
        let values: Vec<_> = (0..head_size)
            .map(|d| dequantized((0..tokens).map(move |token| case.element(2, token, head, d))))
            .collect();
        for i in 0..tokens {
            let query = row(0, i);
            let scores: Vec<f64> = (0..tokens)
                .map(|j| {
                    let product: f64 = query.iter().zip(&keys[j]).map(|(q, k)| q * k).sum();
                    product * f64::from(case.scale) + case.bias_of(head, i, j)
                })
                .collect();
            let greatest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let largest = scores.iter().map(|score| score.abs()).fold(0.0, f64::max);
            let biases = (0..tokens).map(|j| case.bias_of(head, i, j).abs());
            // With a bias both summands of a score count.
            let largest = largest + 2.0 * biases.fold(0.0, f64::max);
            let exponentials: Vec<f64> = scores
                .iter()
                .map(|score| (score - greatest).exp())
                .collect();
            let sum: f64 = exponentials.iter().sum();
            // An exponent: the two scales, the factor (scale, log2(e) and their products) and the product with the score are eight roundings of a
            // score, twice for the greatest one; the logarithm of 65000 is at most 16. The polynomial is within 2^-13.
            let exponent = (16.0 * largest + 16.0) * ROUNDOFF;
            let relative =
                1.01 * exponent + 2.0f64.powi(-13) + (tokens as f64 / 16.0 + 16.0) * ROUNDOFF;
            for (d, values) in values.iter().enumerate() {
                let terms = exponentials.iter().zip(values);
                let value = terms
                    .clone()
                    .map(|(exponential, value)| exponential * value)
                    .sum::<f64>()
                    / sum;
                // Of the products and of the sum that divides them; then half a code of each exponential; then the last five operations.
                let magnitude = terms
                    .map(|(exponential, value)| exponential * value.abs())
                    .sum::<f64>()
                    / sum;
                let codes = values.iter().map(|value| value.abs() * 0.5).sum::<f64>();
                let bound = magnitude * (2.0 * relative + 5.0 * ROUNDOFF)
                    + codes / GREATEST_POWER / sum * 1.001;
                out[i * case.width() + head * head_size + d] = (value, bound * 1.001);
            }
        }
    }
    out
}

fn check(case: &Case, kernels: &Kernels, workspace: &mut Workspace, failures: &mut Failures) {
    let out = case.run_with(Kernels::attention_int8, kernels, workspace);
    for (index, (&found, (expected, bound))) in out.iter().zip(expected(case)).enumerate() {
        let error = (f64::from(found) - expected).abs();
        failures.check(error <= bound, || {
            let Case { tokens, heads, head_size, .. } = case;
            format!("{tokens} tokens, {heads} heads of {head_size}: element {index}: expected {expected}, found {found}, error {error:e} > {bound:e}")
        });
    }
    case.check_sameness(Kernels::attention_int8, kernels, &out, failures);
}

pub(crate) fn attention_int8(kernels: &Kernels, failures: &mut Failures) {
    let mut numbers = Numbers::new(55);
    let mut workspace = Workspace::new();
    let mut sizes = vec![
        (0, 2, 16),
        (3, 0, 16),
        (3, 2, 0),
        (300, 1, 32),
        (530, 1, 3),
        (70, 17, 4),
    ];
    for tokens in [1, 2, 3, 5, 15, 16, 17, 31, 33, 63, 64, 65] {
        for head_size in [1, 5, 16, 32, 33, 64, 80] {
            sizes.push((tokens, 1 + (tokens + head_size) % 3, head_size));
        }
    }
    for (tokens, heads, head_size) in sizes {
        let mut case = Case::new(tokens, heads, head_size, &mut numbers);
        check(&case, kernels, &mut workspace, failures);
        // Every code at an end of its range, as in a kernel that saturates: scores of up to 65536 products of 255 and 127.
        let ends = |x: &mut f32| *x = if *x < -1.0 { -3.0 } else { 3.0 };
        case.values.iter_mut().for_each(ends);
        check(&case, kernels, &mut workspace, failures);
    }
    // Zeros have the least scale, and all weights are equal.
    let mut case = Case::new(19, 2, 16, &mut numbers);
    case.bias = None;
    case.values.fill(0.0);
    let out = case.run_with(Kernels::attention_int8, kernels, &mut workspace);
    failures.same_bits("zeros", &out, &vec![0.0; out.len()]);
    // Numbers far below the least scale have codes of zero.
    case.values.fill(f32::from_bits(1));
    let out = case.run_with(Kernels::attention_int8, kernels, &mut workspace);
    failures.same_bits("subnormal numbers", &out, &vec![0.0; out.len()]);
}

/// Attention to keys and values that were quantized before, in a buffer that held others.
fn attend_to_quantized(
    kernels: &Kernels,
    input: &AttentionInput<'_>,
    out: &mut [f32],
    workspace: &mut Workspace,
) {
    let mut sequence = QuantizedSequence::new();
    let other = [3.0; 90];
    let longer = AttentionInput {
        queries: &other,
        query_tokens: 0..0,
        keys: &other,
        values: &other,
        row_stride: 1,
        key_row_stride: 1,
        tokens: 90,
        heads: 1,
        key_value_heads: 1,
        head_size: 1,
        scale: 1.0,
        bias: None,
        positions: None,
    };
    kernels.quantize_sequence(&longer, &mut sequence, workspace);
    kernels.quantize_sequence(input, &mut sequence, workspace);
    let without_keys = AttentionInput {
        keys: &vec![f32::NAN; input.keys.len()],
        values: &vec![f32::NAN; input.values.len()],
        ..input.clone()
    };
    kernels.attend(&without_keys, &sequence, out, &mut Workspace::new());
}

pub(crate) fn quantize_sequence(kernels: &Kernels, failures: &mut Failures) {
    let mut numbers = Numbers::new(57);
    for (tokens, heads, head_size) in [
        (300, 2, 5),
        (1, 1, 1),
        (70, 3, 16),
        (0, 1, 4),
        (17, 0, 4),
        (33, 2, 80),
    ] {
        let case = Case::new(tokens, heads, head_size, &mut numbers);
        let expected = case.run_with(Kernels::attention_int8, kernels, &mut Workspace::new());
        let found = case.run_with(attend_to_quantized, kernels, &mut Workspace::new());
        failures.same_bits(format!("{tokens} tokens, {heads} heads"), &found, &expected);
    }
}

#[test]
#[should_panic(expected = "the sequence is that of the input")]
fn a_sequence_of_another_length_is_refused() {
    let kernels = Kernels::for_isa(Isa::Scalar).unwrap();
    let x = [0.5; 8];
    let input = |tokens| AttentionInput {
        queries: &x,
        query_tokens: 0..1,
        keys: &x,
        values: &x,
        row_stride: 4,
        key_row_stride: 4,
        tokens,
        heads: 1,
        key_value_heads: 1,
        head_size: 4,
        scale: 1.0,
        bias: None,
        positions: None,
    };
    let (mut sequence, mut workspace) = (QuantizedSequence::new(), Workspace::new());
    kernels.quantize_sequence(&input(2), &mut sequence, &mut workspace);
    assert_eq!(sequence.tokens(), 2);
    kernels.attend(&input(1), &sequence, &mut [0.0; 4], &mut workspace);
}

/// Scores whose differences overflow the range of exponents give all weight to the greatest.
#[test]
fn scores_far_apart_do_not_overflow() {
    for kernels in Kernels::available() {
        let mut case = Case::new(20, 1, 4, &mut Numbers::new(57));
        case.bias = None;
        for token in 0..20 {
            let row = &mut case.values[token * case.stride..];
            row[..4].copy_from_slice(&[1e15, 0.0, 0.0, 0.0]);
            row[4..8].copy_from_slice(&[token as f32 * 1e15, 0.0, 0.0, 0.0]);
            row[8..12].fill(127.0 - token as f32);
        }
        let out = case.run_with(Kernels::attention_int8, kernels, &mut Workspace::new());
        // The value of the last token, a code of a scale of 1, to the precision of an exponential's code.
        assert!(
            out.iter()
                .all(|value| (value - 108.0).abs() < 108.0 / 8192.0),
            "{out:?}"
        );
    }
}

#[test]
#[should_panic(expected = "attention: the scale is not negative")]
fn a_negative_scale_is_refused() {
    let mut case = Case::new(2, 1, 4, &mut Numbers::new(58));
    case.scale = -1.0;
    let kernels = Kernels::for_isa(Isa::Scalar).unwrap();
    case.run_with(Kernels::attention_int8, kernels, &mut Workspace::new());
}
