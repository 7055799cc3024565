//! Moving the counts of one grid to a wider one.

use super::{HISTOGRAM_BINS, ValueRange, count_over, sum_in_torch_order};

/// Parts that a bin is cut into; each is counted where its middle lies.
const UPSAMPLE_RATE: usize = 16;

/// The counts of the grid over `old`, in the grid over `new`, which holds it and is not the same.
///
/// The counts of a bin are spread over its width in 16 equal parts. The counts of a range that is one point go to the bin of that
/// point. The total stays.
pub(super) fn regridded(counts: &[f32], old: ValueRange, new: ValueRange) -> Vec<f32> {
    let mut moved = vec![0.0; HISTOGRAM_BINS];
    if old.min() == old.max() {
        let mut place = vec![0; HISTOGRAM_BINS];
        count_over(&[old.min()], new, &mut place);
        let total = sum_in_torch_order(counts);
        for (count, hit) in moved.iter_mut().zip(place) {
            *count = hit as f32 * total;
        }
        return moved;
    }
    let parts = HISTOGRAM_BINS * UPSAMPLE_RATE;
    let part_width = step(old, parts);
    let begins = linspace(old, parts + 1);
    let boundaries: Vec<f32> = linspace(new, HISTOGRAM_BINS + 1).collect();
    let mut above = 0;
    let spread = counts
        .iter()
        .flat_map(|&count| [count / UPSAMPLE_RATE as f32; UPSAMPLE_RATE]);
    for (begin, count) in begins.zip(spread) {
        let middle = begin + 0.5 * part_width;
        // The number of boundaries at or below the middle. Middles rise, but for a rounding where linspace turns.
        while above < boundaries.len() && boundaries[above] <= middle {
            above += 1;
        }
        while above > 0 && boundaries[above - 1] > middle {
            above -= 1;
        }
        moved[above.saturating_sub(1).min(HISTOGRAM_BINS - 1)] += count;
    }
    moved
}

/// `(max - min) / parts`, finite for every range.
fn step(range: ValueRange, parts: usize) -> f32 {
    let parts = parts as f32;
    let width = range.max() - range.min();
    if width.is_finite() {
        width / parts
    } else {
        range.max() / parts - range.min() / parts
    }
}

/// `torch.linspace`: the first half of the points is counted from the minimum, the second from the maximum, each by one fused
/// multiply-add.
///
/// PyTorch's own build fuses the two where the CPU has the instruction; on CPUs without it its points differ in the last bit.
fn linspace(range: ValueRange, points: usize) -> impl Iterator<Item = f32> {
    let step = step(range, points - 1);
    (0..points).map(move |index| {
        if index < points / 2 {
            step.mul_add(index as f32, range.min())
        } else {
            (-step).mul_add((points - 1 - index) as f32, range.max())
        }
    })
}
