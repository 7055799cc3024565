//! Attention against its definition in f64.

use fewbit_kernels::{
    AttentionInput, DistanceBias, Exactness, Isa, Kernels, Operation, RelativePositions, Workspace,
};

use crate::positions::Positions;
use crate::rounded::{BF16_ROUNDOFF, to_bf16};
use crate::support::{Failures, Numbers, ROUNDOFF, exactness};

/// A random sequence.
pub(crate) struct Case {
    pub(crate) tokens: usize,
    pub(crate) heads: usize,
    pub(crate) key_value_heads: usize,
    pub(crate) head_size: usize,
    pub(crate) stride: usize,
    pub(crate) scale: f32,
    /// (tokens, stride): queries, keys and values next to one another.
    pub(crate) values: Vec<f32>,
    /// (heads, 2 * tokens - 1): from the last key before the first query to the last key after it.
    pub(crate) bias: Option<Vec<f32>>,
    pub(crate) positions: Option<Positions>,
}

/// One of the two kinds of attention.
pub(crate) type Routine = fn(&Kernels, &AttentionInput<'_>, &mut [f32], &mut Workspace);

impl Case {
    pub(crate) fn new(
        tokens: usize,
        heads: usize,
        head_size: usize,
        numbers: &mut Numbers,
    ) -> Self {
        // All heads have keys of their own, or all share them, or two each.
        let group =
            [1, heads.max(1), 2][numbers.below(if heads.is_multiple_of(2) { 3 } else { 2 })];
        let key_value_heads = heads / group;
        let width = (heads + 2 * key_value_heads) * head_size;
        // Rows with something between them that must not be read as a head.
        let stride = width + numbers.below(5);
        Case {
            tokens,
            heads,
            key_value_heads,
            head_size,
            stride,
            scale: 1.0 / (head_size as f32).sqrt(),
            values: numbers.floats(tokens * stride, 2.0),
            bias: (numbers.below(2) == 0)
                .then(|| numbers.floats(heads * (2 * tokens).saturating_sub(1), 3.0)),
            positions: None,
        }
    }

    pub(crate) fn width(&self) -> usize {
        self.heads * self.head_size
    }

    /// Where the queries (part 0), keys (1) or values (2) of a row begin.
    fn first_column(&self, part: usize) -> usize {
        let heads = [0, self.heads, self.heads + self.key_value_heads][part];
        heads * self.head_size
    }

    fn input(&self) -> AttentionInput<'_> {
        let start = |part: usize| &self.values[self.first_column(part).min(self.values.len())..];
        AttentionInput {
            queries: start(0),
            keys: start(1),
            values: start(2),
            row_stride: self.stride,
            key_row_stride: self.stride,
            query_tokens: 0..self.tokens,
            tokens: self.tokens,
            heads: self.heads,
            key_value_heads: self.key_value_heads,
            head_size: self.head_size,
            scale: self.scale,
            bias: self.bias.as_deref().map(|values| DistanceBias {
                values,
                head_stride: (2 * self.tokens).saturating_sub(1),
                center: self.tokens.saturating_sub(1),
            }),
            positions: self.positions.as_ref().map(|positions| {
                let queries = &positions.values[self.width().min(positions.values.len())..];
                RelativePositions {
                    keys: positions.has_keys.then_some(&positions.values),
                    queries: positions.has_queries.then_some(queries),
                    row_stride: positions.stride,
                    buckets: &positions.buckets,
                    center: self.tokens.saturating_sub(1),
                }
            }),
        }
    }

    /// The factors of the score of a query and a key, beside those of their own elements: the element of the query with that of the key of the
    /// position, and the element of the key with that of the query of the position.
    fn position_factors(&self, head: usize, i: usize, j: usize, d: usize) -> Vec<[f32; 2]> {
        let Some(positions) = &self.positions else {
            return Vec::new();
        };
        let bucket = positions.buckets[self.tokens - 1 + j - i] as usize;
        let element = |part: usize| {
            let column = part * self.width() + head * self.head_size + d;
            positions.values[bucket * positions.stride + column]
        };
        let with_key = [self.element(0, i, head, d), element(0)];
        let with_query = [self.element(1, j, head, d), element(1)];
        let present = [
            (positions.has_keys, with_key),
            (positions.has_queries, with_query),
        ];
        let present = present.into_iter().filter(|(present, _)| *present);
        present.map(|(_, factors)| factors).collect()
    }

    /// Element d of a head of the queries (part 0), keys (1) or values (2).
    pub(crate) fn element(&self, part: usize, token: usize, head: usize, d: usize) -> f32 {
        let head = match part {
            0 => head,
            _ => head / (self.heads / self.key_value_heads),
        };
        let column = self.first_column(part) + head * self.head_size + d;
        self.values[token * self.stride + column]
    }

    /// What is added to a score.
    pub(crate) fn bias_of(&self, head: usize, i: usize, j: usize) -> f64 {
        let place = head * (2 * self.tokens - 1) + self.tokens - 1 + j - i;
        self.bias
            .as_ref()
            .map_or(0.0, |bias| f64::from(bias[place]))
    }

    pub(crate) fn run_with(
        &self,
        routine: Routine,
        kernels: &Kernels,
        workspace: &mut Workspace,
    ) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.tokens * self.width()];
        routine(kernels, &self.input(), &mut out, workspace);
        out
    }

    pub(crate) fn run(&self, kernels: &Kernels, workspace: &mut Workspace) -> Vec<f32> {
        self.run_with(Kernels::attention, kernels, workspace)
    }

    /// The tokens `query_tokens` alone.
    pub(crate) fn run_part(
        &self,
        query_tokens: std::ops::Range<usize>,
        routine: Routine,
        kernels: &Kernels,
        workspace: &mut Workspace,
    ) -> Vec<f32> {
        let mut out = vec![f32::NAN; query_tokens.len() * self.width()];
        let all = self.input();
        let input = AttentionInput {
            queries: &all.queries[query_tokens.start * self.stride..],
            query_tokens,
            ..all
        };
        routine(kernels, &input, &mut out, workspace);
        out
    }

    /// Bits that do not depend on the instruction set, nor on which queries are asked for.
    pub(crate) fn check_sameness(
        &self,
        routine: Routine,
        kernels: &Kernels,
        out: &[f32],
        failures: &mut Failures,
    ) {
        let what = format!(
            "{} tokens, {} heads of {}",
            self.tokens, self.heads, self.head_size
        );
        let middle = self.tokens / 3..self.tokens - self.tokens / 4;
        let rows = middle.start * self.width()..middle.end * self.width();
        let part = self.run_part(middle, routine, kernels, &mut Workspace::new());
        failures.same_bits(format!("{what}, some queries"), &part, &out[rows]);
        if kernels.isa().keeps_same_bits() {
            let portable = Kernels::for_isa(Isa::Scalar).unwrap();
            let portable = self.run_with(routine, portable, &mut Workspace::new());
            failures.same_bits(&what, out, &portable);
        }
    }

    /// Each output and its error bound.
    fn expected(&self, exactness: Exactness) -> Vec<(f64, f64)> {
        let rounded = exactness == Exactness::RoundedToBf16;
        let rounded_to = |element: f32| f64::from(if rounded { to_bf16(element) } else { element });
        let element = |part: usize, token: usize, head: usize, d: usize| {
            rounded_to(self.element(part, token, head, d))
        };
        // Two roundings for each pair, also for one that has one product, and what is below the normal numbers may become zero; the exponentials
        // are rounded too, or become zero.
        let (odd, subnormal, exponential_error) = match rounded {
            true => (1.0, f64::from(f32::MIN_POSITIVE), BF16_ROUNDOFF),
            false => (0.0, 0.0, 0.0),
        };
        let (tokens, head_size) = (self.tokens, self.head_size);
        let mut out = vec![(0.0, 0.0); tokens * self.width()];
        for head in 0..self.heads {
            for i in 0..tokens {
                let mut scores = Vec::new();
                let mut score_error = 0.0f64;
                for j in 0..tokens {
                    let terms = (0..head_size).flat_map(|d| {
                        let of_positions = self.position_factors(head, i, j, d).into_iter();
                        let of_positions = of_positions.map(|factors| factors.map(rounded_to));
                        std::iter::once([element(0, i, head, d), element(1, j, head, d)])
                            .chain(of_positions)
                            .map(|[x, y]| x * y)
                            .collect::<Vec<_>>()
                    });
                    let bias = self.bias_of(head, i, j);
                    let scale = f64::from(self.scale);
                    let score = terms.clone().sum::<f64>() * scale + bias;
                    let magnitude = terms.map(f64::abs).sum::<f64>() * scale + bias.abs();
                    // A chain of head_size roundings, two more of scores of positions with two additions, the scale, log2(e) as a number and times the scale, the product with the score (and
                    // the bias), and the subtraction of the greatest.
                    let lost = 6.0 * (head_size as f64 + odd) * subnormal * scale;
                    let roundings = head_size as f64 + odd + 8.0;
                    score_error = score_error.max(roundings * ROUNDOFF * magnitude + lost);
                    scores.push(score);
                }
                let greatest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores
                    .iter()
                    .map(|score| (score - greatest).exp())
                    .collect();
                let sum: f64 = weights.iter().sum();
                for d in 0..head_size {
                    let terms = weights
                        .iter()
                        .enumerate()
                        .map(|(j, w)| w * element(2, j, head, d));
                    let value = terms.clone().sum::<f64>() / sum;
                    let magnitude = terms.map(f64::abs).sum::<f64>() / sum;
                    // Both the numerator and the sum have weights wrong by the error of a score and of the greatest score; exponentials
                    // (2^-22, four roundings, each), the chain over tokens, the sum over tokens / 16 vectors and a tree, the inverse and
                    // the product with it.
                    let roundings = 8.0 + tokens as f64 + odd + tokens as f64 / 16.0 + 7.0;
                    let relative = 4.0 * score_error + roundings * ROUNDOFF + exponential_error;
                    // Of each token an exponential and two sums; no value is above 2, and the sum of the exponentials is at least 1.
                    let lost = 4.0 * (tokens as f64 + odd) * subnormal;
                    out[i * self.width() + head * head_size + d] =
                        (value, magnitude * relative * 1.01 + lost);
                }
            }
        }
        out
    }
}

pub(crate) fn attention(kernels: &Kernels, failures: &mut Failures) {
    let exactness = exactness(kernels, Operation::Attention);
    let mut numbers = Numbers::new(50);
    let mut workspace = Workspace::new();
    let mut cases = vec![
        (0, 2, 16),
        (3, 0, 16),
        (3, 2, 0),
        (300, 1, 32),
        (150, 2, 20),
    ];
    for tokens in [1, 2, 6, 11, 12, 13, 15, 16, 17, 24, 25, 33] {
        for head_size in [1, 5, 16, 32, 33, 64, 80] {
            cases.push((tokens, 1 + (tokens + head_size) % 3, head_size));
        }
    }
    for (tokens, heads, head_size) in cases {
        let mut case = Case::new(tokens, heads, head_size, &mut numbers);
        let parts = [
            None,
            Some((true, true)),
            Some((true, false)),
            Some((false, true)),
        ];
        case.positions = parts[numbers.below(4)]
            .map(|parts| Positions::new(tokens, case.width(), parts, &mut numbers));
        let what = format!(
            "{tokens} tokens, {heads} heads of {head_size}, positions {}",
            case.positions.is_some()
        );
        let out = case.run(kernels, &mut workspace);
        for (index, (&found, (expected, bound))) in
            out.iter().zip(case.expected(exactness)).enumerate()
        {
            let error = (f64::from(found) - expected).abs();
            failures.check(error <= bound, || {
                format!("{what}: element {index}: expected {expected}, found {found}, error {error:e} > {bound:e}")
            });
        }
        case.check_sameness(Kernels::attention, kernels, &out, failures);
    }
}

/// A query's output does not depend on its place among the queries, in whichever tile or block that is.
#[test]
fn queries_do_not_see_one_another() {
    for kernels in Kernels::available() {
        let (tokens, heads, head_size) = (29, 2, 20);
        let width = heads * head_size;
        let mut numbers = Numbers::new(51);
        let queries = numbers.floats(tokens * width, 1.0);
        let (keys, values) = (
            numbers.floats(tokens * width, 1.0),
            numbers.floats(tokens * width, 1.0),
        );
        let run = |queries: &[f32]| {
            let mut out = vec![0.0; tokens * width];
            let input = AttentionInput {
                queries,
                keys: &keys,
                values: &values,
                row_stride: width,
                key_row_stride: width,
                query_tokens: 0..tokens,
                tokens,
                heads,
                key_value_heads: heads,
                head_size,
                scale: 0.25,
                bias: None,
                positions: None,
            };
            kernels.attention(&input, &mut out, &mut Workspace::new());
            out
        };
        let mut expected = run(&queries);
        for shift in [1, 5, 17] {
            let mut rotated = queries.clone();
            rotated.rotate_left(shift * width);
            let found = run(&rotated);
            expected.rotate_left(shift * width);
            assert_eq!(found, expected, "{}, shift {shift}", kernels.isa());
            expected.rotate_right(shift * width);
        }
    }
}

/// A window: one bias for all heads, and keys from within the sequence, as far as the queries see.
#[test]
fn a_bias_of_minus_infinity_hides_keys() {
    const TOKENS: usize = 40;
    const WINDOW: usize = 3;
    let queries = 17..30;
    let window: Vec<f32> = (0..2 * TOKENS - 1)
        .map(|place| match place.abs_diff(TOKENS - 1) {
            0..=WINDOW => 0.0,
            _ => f32::NEG_INFINITY,
        })
        .collect();
    for kernels in Kernels::available() {
        let mut numbers = Numbers::new(52);
        let mut case = Case::new(TOKENS, 2, 8, &mut numbers);
        case.bias = None;
        let width = case.width();
        let run = |case: &Case, routine: Routine, values: &[f32]| {
            let bias = DistanceBias {
                values,
                head_stride: 0,
                center: TOKENS - 1,
            };
            let all = case.input();
            let input = AttentionInput {
                queries: &all.queries[queries.start * case.stride..],
                query_tokens: queries.clone(),
                bias: Some(bias),
                ..all
            };
            let mut out = vec![0.0; queries.len() * width];
            routine(kernels, &input, &mut out, &mut Workspace::new());
            out
        };
        // Keys and values of hidden tokens are looked at for the scales of integers, whose largest are elsewhere.
        for routine in [Kernels::attention as Routine, Kernels::attention_int8] {
            let expected = run(&case, routine, &window);
            assert!(expected.iter().all(|value| value.is_finite()));
            let mut other = Case::new(TOKENS, 2, 8, &mut Numbers::new(52));
            for hidden in (0..queries.start - WINDOW).chain(queries.end + WINDOW..TOKENS) {
                // Keys and values lie behind the queries.
                let row = hidden * case.stride..(hidden + 1) * case.stride;
                for value in &mut other.values[row][width..] {
                    *value = -*value;
                }
            }
            let found = run(&other, routine, &window);
            assert_eq!(found, expected, "{}", kernels.isa());
            // Hiding all keys leaves nothing to average.
            let nothing = run(&case, routine, &[f32::NEG_INFINITY; 2 * TOKENS - 1]);
            assert!(
                nothing.iter().all(|value| value.is_nan()),
                "{}",
                kernels.isa()
            );
        }
    }
}

#[test]
#[should_panic(expected = "a number for each distance from the queries 0..5 to the keys 0..5")]
fn a_bias_that_is_too_short_is_refused() {
    let mut case = Case::new(5, 2, 4, &mut Numbers::new(53));
    case.bias = Some(vec![0.0; 2 * 9 - 1]);
    case.run(
        Kernels::for_isa(Isa::Scalar).unwrap(),
        &mut Workspace::new(),
    );
}

#[test]
fn scores_far_apart_do_not_overflow() {
    for kernels in Kernels::available() {
        let (tokens, width) = (20, 4);
        let mut queries = vec![0.0; tokens * width];
        let mut keys = vec![0.0; tokens * width];
        queries
            .iter_mut()
            .step_by(width)
            .for_each(|query| *query = 1e15);
        keys.iter_mut()
            .step_by(width)
            .enumerate()
            .for_each(|(token, key)| *key = token as f32 * 1e15);
        let values: Vec<f32> = (0..tokens * width).map(|index| index as f32).collect();
        let input = AttentionInput {
            queries: &queries,
            keys: &keys,
            values: &values,
            row_stride: width,
            key_row_stride: width,
            query_tokens: 0..tokens,
            tokens,
            heads: 1,
            key_value_heads: 1,
            head_size: width,
            scale: 0.5,
            bias: None,
            positions: None,
        };
        let mut out = vec![0.0; tokens * width];
        kernels.attention(&input, &mut out, &mut Workspace::new());
        // All weight on the last token.
        assert!(out.chunks(width).all(|row| row == &values[19 * width..]));
    }
}

#[test]
#[should_panic(expected = "attention: keys have at least 40 elements, found 39")]
fn short_keys_are_refused() {
    let values = vec![0.0; 40];
    let input = AttentionInput {
        queries: &values,
        keys: &values[1..],
        values: &values,
        row_stride: 8,
        key_row_stride: 8,
        query_tokens: 0..5,
        tokens: 5,
        heads: 2,
        key_value_heads: 2,
        head_size: 4,
        scale: 1.0,
        bias: None,
        positions: None,
    };
    let kernels = Kernels::for_isa(Isa::Scalar).unwrap();
    kernels.attention(&input, &mut [0.0; 40], &mut Workspace::new());
}

#[test]
#[should_panic(
    expected = "attention: the heads of keys and values (2) divide those of queries (3)"
)]
fn heads_that_cannot_share_keys_are_refused() {
    let mut case = Case::new(2, 3, 4, &mut Numbers::new(54));
    case.key_value_heads = 2;
    case.run(
        Kernels::for_isa(Isa::Scalar).unwrap(),
        &mut Workspace::new(),
    );
}
