//! Clipping the tails of a histogram while the expected error falls.
//!
//! A greedy search: from quantile 0 and 1, one end at a time moves inwards by 1e-5 of the values, the one that would cross more bins.
//! It ends at the first step that makes the error larger, mostly after a few steps, so that clipping is slight.
//!
//! The expected error is that of rounding to 256 equal steps over the bins first..=last, the values of a bin spread evenly over it. PyTorch
//! takes 256 whatever the code range, so that reduce_range has no effect here.

use super::{HISTOGRAM_BINS, ValueRange, sum_in_torch_order};

/// Steps of the quantizer whose error is estimated.
const QUANTIZED_STEPS: f32 = 256.0;

/// Share of the values that an end moves by.
const STEP: f64 = 1e-5;

/// The range that PyTorch chooses: `min + width * first` to `min + width * (last + 1)` in float32.
pub(super) fn clipped_range(range: ValueRange, counts: &[f32]) -> ValueRange {
    let (first, last) = clipped_bins(range, counts);
    let width = range.max() - range.min();
    let bin_width = if width.is_finite() {
        width / HISTOGRAM_BINS as f32
    } else {
        super::bin_width(range) as f32
    };
    let edge = |bin: usize| (range.min() + bin_width * bin as f32).clamp(f32::MIN, f32::MAX);
    ValueRange::between(edge(first), edge(last + 1))
}

/// The first and the last bin that are kept.
fn clipped_bins(range: ValueRange, counts: &[f32]) -> (usize, usize) {
    let total = f64::from(sum_in_torch_order(counts));
    let mut below = Vec::with_capacity(HISTOGRAM_BINS);
    let mut sum = 0.0f64;
    for &count in counts {
        sum += f64::from(count);
        below.push(sum as f32);
    }
    let (mut first, mut last) = (0, HISTOGRAM_BINS - 1);
    let (mut alpha, mut beta) = (0.0, 1.0);
    let mut least = f64::INFINITY;
    while alpha < beta {
        let (next_alpha, next_beta) = (alpha + STEP, beta - STEP);
        let (left, right) = ((next_alpha * total) as f32, (next_beta * total) as f32);
        let mut next_first = first;
        while next_first < last && below[next_first] < left {
            next_first += 1;
        }
        let mut next_last = last;
        while next_last > first && below[next_last] > right {
            next_last -= 1;
        }
        if next_first - first > last - next_last {
            next_last = last;
            alpha = next_alpha;
        } else {
            next_first = first;
            beta = next_beta;
        }
        if (next_first, next_last) == (first, last) {
            continue;
        }
        let error = quantization_error(range, counts, next_first, next_last);
        // Not the same as "unless error <= least": a NaN goes on.
        if error > least {
            break;
        }
        least = error;
        (first, last) = (next_first, next_last);
    }
    (first, last)
}

/// The sum of squared errors of rounding to [`QUANTIZED_STEPS`] over the bins first..=last.
///
/// A bin from b to e (relative to the first kept bin) whose ends lie in the steps with centres p and q contributes, with N(x, y) = density
/// (y³ - x³) / 3 and d the width of a step: `N(b - p, d/2) + steps between * N(-d/2, d/2) + N(-d/2, e - q)`. With both ends in one step the
/// number between is -1 and the three terms leave one piece.
fn quantization_error(range: ValueRange, counts: &[f32], first: usize, last: usize) -> f64 {
    let bin_width = super::bin_width(range);
    let step = bin_width * (last as f64 - first as f64 + 1.0) / f64::from(QUANTIZED_STEPS);
    if step == 0.0 {
        return 0.0;
    }
    let (half, bin_width, step) = ((step / 2.0) as f32, bin_width as f32, step as f32);
    let between = cubes(-half, half);
    let errors: Vec<f32> = counts
        .iter()
        .enumerate()
        .map(|(bin, &count)| {
            let begin = (bin as f32 - first as f32) * bin_width;
            let end = begin + bin_width;
            let (begin_step, end_step) = (step_of(begin, step), step_of(end, step));
            let density = count / bin_width;
            let head = density * cubes(begin - (begin_step + 0.5) * step, half);
            let middle = (end_step - begin_step - 1.0) * (density * between);
            let tail = density * cubes(-half, end - (end_step * step + half));
            head + middle + tail
        })
        .collect();
    f64::from(sum_in_torch_order(&errors))
}

/// `(y³ - x³) / 3`
fn cubes(x: f32, y: f32) -> f32 {
    (y * y * y - x * x * x) / 3.0
}

/// Which of the 256 steps a point lies in: `torch.div(…, rounding_mode="floor")`, clamped.
fn step_of(point: f32, step: f32) -> f32 {
    let floored = if step == 0.0 {
        point / step
    } else {
        // The remainder is exact; the quotient without it is whole but for its rounding. Points and steps are not of opposite
        // sign where it matters: a quotient below 0 is clamped.
        let remainder = point % step;
        let mut quotient = (point - remainder) / step;
        if remainder != 0.0 && point < 0.0 {
            quotient -= 1.0;
        }
        let floor = quotient.floor();
        if quotient - floor > 0.5 {
            floor + 1.0
        } else {
            floor
        }
    };
    floored.clamp(0.0, QUANTIZED_STEPS - 1.0)
}
