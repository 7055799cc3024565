//! Merged observers against observers of both streams, and observers that were saved.

use fewbit_quantize::Backend;
use fewbit_quantize::observers::histogram::HISTOGRAM_BINS;
use fewbit_quantize::observers::{
    ChannelAxis, Entropy, Histogram, MinMax, MovingAverageMinMax, MovingAveragePerChannelMinMax,
    Mse, ParameterRule, PerChannelMinMax, Percentile, QScheme, QuantizedDType, Statistics,
    ValueRange,
};

use crate::generated_values::generated;

/// Channels of the per-channel observers.
const CHANNELS: usize = 6;

/// One observer of each kind that has seen nothing.
fn every_kind() -> Vec<Statistics> {
    let averages = |axis| MovingAveragePerChannelMinMax::new(CHANNELS, axis, 0.2).unwrap();
    vec![
        Statistics::MinMax(MinMax::default()),
        Statistics::MovingAverageMinMax(MovingAverageMinMax::default()),
        Statistics::PerChannelMinMax(PerChannelMinMax::new(CHANNELS, ChannelAxis::First)),
        Statistics::PerChannelMinMax(PerChannelMinMax::new(CHANNELS, ChannelAxis::Last)),
        Statistics::MovingAveragePerChannelMinMax(averages(ChannelAxis::First)),
        Statistics::MovingAveragePerChannelMinMax(averages(ChannelAxis::Last)),
        Statistics::Histogram(Histogram::default()),
        Statistics::Percentile(Percentile::default()),
        Statistics::Mse(Mse::default()),
        Statistics::Entropy(Entropy::default()),
    ]
}

/// A rule that fits any observer.
fn affine() -> ParameterRule {
    ParameterRule::new(QuantizedDType::Quint8, QScheme::PerTensorAffine, false).unwrap()
}

/// Tensors of several distributions, whose ranges grow and shrink.
fn stream(seed: u32, updates: u32) -> Vec<Vec<f32>> {
    let names = ["bell", "heavy", "positive", "uniform", "zero", "rectified"];
    (0..updates)
        .map(|i| {
            let name = names[(i + seed) as usize % names.len()];
            let factor = 0.3 + ((i * 7 + seed) % 11) as f32;
            generated(name, seed + i, 6 * (20 + 13 * i as usize), factor, 0.1)
        })
        .collect()
}

fn observed(mut statistics: Statistics, stream: &[Vec<f32>]) -> Statistics {
    for values in stream {
        statistics.update(values).unwrap();
    }
    statistics
}

#[test]
fn merged_statistics_are_those_of_both_streams() {
    let (first, second) = (stream(3, 9), stream(50, 7));
    let both = [first.clone(), second.clone()].concat();
    let mut exact = 0;
    for empty in every_kind() {
        let mut merged = observed(empty.clone(), &first);
        merged.merge(&observed(empty.clone(), &second)).unwrap();
        let expected = observed(empty.clone(), &both);
        match empty {
            // Their bounds have tests of their own.
            Statistics::MovingAverageMinMax(_)
            | Statistics::MovingAveragePerChannelMinMax(_)
            | Statistics::Histogram(_) => {}
            _ => {
                assert_eq!(merged, expected);
                exact += 1;
            }
        }
    }
    assert_eq!(exact, 6);
}

#[test]
fn merging_with_nothing_seen_changes_nothing() {
    for empty in every_kind() {
        let seen = observed(empty.clone(), &stream(1, 5));
        let mut merged = seen.clone();
        merged.merge(&empty).unwrap();
        assert_eq!(merged, seen);
        let mut merged = empty.clone();
        merged.merge(&seen).unwrap();
        assert_eq!(merged, seen);
        let mut nothing = empty.clone();
        nothing.update(&[]).unwrap();
        assert_eq!(nothing, empty);
        assert!(nothing.ranges(affine()).is_err());
    }
}

#[test]
fn saved_statistics_are_read_back_whole() {
    for empty in every_kind() {
        for statistics in [empty.clone(), observed(empty, &stream(2, 8))] {
            let json = serde_json::to_string(&statistics).unwrap();
            let read: Statistics = serde_json::from_str(&json).unwrap();
            assert_eq!(read, statistics);
            assert!(json.contains(&format!("\"observer\":\"{}\"", statistics.name())));
        }
    }
}

/// The bound of `observers::moving_average` for a merged average against one of both streams, as both round: n updates err by at most
/// min(n, 1/c) u M (1 + 4c), on either side, and the merge by u M.
fn average_bound(constant: f32, updates: usize, magnitude: f32) -> f64 {
    let constant = f64::from(constant);
    let unit = 2f64.powi(-24) * f64::from(magnitude);
    let one_side = (updates as f64).min(1.0 / constant) * unit * (1.0 + 4.0 * constant);
    2.0 * one_side + unit
}

fn assert_near(found: ValueRange, expected: ValueRange, bound: f64) {
    for (found, expected) in [(found.min(), expected.min()), (found.max(), expected.max())] {
        let difference = (f64::from(found) - f64::from(expected)).abs();
        assert!(
            difference <= bound,
            "{found} for {expected}, bound {bound:e}"
        );
    }
}

#[test]
fn a_merged_moving_average_continues_with_the_updates_of_the_other() {
    for constant in [0.01, 0.2, 0.75, 1.0] {
        for (left, right) in [(1, 1), (1, 8), (8, 1), (30, 40), (3, 300)] {
            let (first, second) = (stream(7, left), stream(90, right));
            let both = [first.clone(), second.clone()].concat();
            let magnitude = both.iter().flatten().fold(0.0f32, |m, x| m.max(x.abs()));
            let bound = average_bound(constant, both.len(), magnitude);

            let empty = MovingAverageMinMax::new(constant).unwrap();
            let range = |stream: &[Vec<f32>]| {
                let mut observer = empty.clone();
                for values in stream {
                    observer.update(values).unwrap();
                }
                observer
            };
            let mut merged = range(&first);
            merged.merge(&range(&second)).unwrap();
            assert_near(
                merged.range().unwrap(),
                range(&both).range().unwrap(),
                bound,
            );
            // What comes after a merge is weighted as if nothing had been merged.
            let next = generated("bell", 5, 60, 3.0, 0.0);
            merged.update(&next).unwrap();
            let mut expected = range(&both);
            expected.update(&next).unwrap();
            let bound = average_bound(constant, both.len() + 1, magnitude);
            assert_near(merged.range().unwrap(), expected.range().unwrap(), bound);

            let empty =
                MovingAveragePerChannelMinMax::new(CHANNELS, ChannelAxis::Last, constant).unwrap();
            let seen = |stream: &[Vec<f32>]| {
                let mut observer = empty.clone();
                for values in stream {
                    observer.update(values).unwrap();
                }
                observer
            };
            let mut merged = seen(&first);
            merged.merge(&seen(&second)).unwrap();
            for (found, expected) in merged.ranges().zip(seen(&both).ranges()) {
                assert_near(found, expected, bound);
            }
        }
    }
}

/// For each bin edge t: the counts below t - d - w and t + d + w enclose the number of values counted below t, with d the displacement and w
/// the width of a bin. An edge is off by a thousandth of a bin at most: a value's bin by three roundings of numbers up to 2048, that is 3 *
/// 2048 * 2^-24 of a bin, and each regridding by as many for its edges and its middles.
///
/// Counts are sums in float32. A grid that becomes g times wider adds up at most 16 g + 2 parts in a bin, each sum erring by 2^-24 of itself;
/// over r regriddings that widen by G in all, the factors add up to at most G + r. So counts err by (16 (G + r) + 2 r) 2^-24 of all.
fn assert_counts_near_values(histogram: &Histogram, stream: &[Vec<f32>]) {
    let values = stream.concat();
    let widths = stream.iter().map(|values| {
        let (min, max) = values.iter().fold((f32::MAX, f32::MIN), |(min, max), &x| {
            (min.min(x), max.max(x))
        });
        f64::from(max) - f64::from(min)
    });
    // A range that is one point has its counts moved at once.
    let narrowest = widths
        .filter(|&width| width > 0.0)
        .fold(f64::INFINITY, f64::min);
    let range = histogram.full_range().unwrap();
    let (min, max) = (f64::from(range.min()), f64::from(range.max()));
    let width = (max - min) / HISTOGRAM_BINS as f64;
    let regriddings = stream.len() as f64 + 1.0;
    let growth = (max - min) / narrowest;
    let lost =
        (16.0 * (growth + regriddings) + 2.0 * regriddings) * 2f64.powi(-24) * values.len() as f64;
    let mut sorted: Vec<f64> = values.iter().map(|&x| f64::from(x)).collect();
    sorted.sort_by(f64::total_cmp);
    assert_eq!((sorted[0], *sorted.last().unwrap()), (min, max));
    let slack = histogram.displacement() + width * 1.01;
    let mut below = 0.0f64;
    for (bin, &count) in histogram.counts().iter().enumerate() {
        let edge = min + bin as f64 * width;
        let least = sorted.partition_point(|&x| x < edge - slack) as f64;
        let most = sorted.partition_point(|&x| x <= edge + slack) as f64;
        assert!(
            least - lost <= below && below <= most + lost,
            "edge {bin}: {below} in {least}..{most}"
        );
        below += f64::from(count);
    }
    assert!(
        (below - values.len() as f64).abs() <= lost,
        "{below} of {}",
        values.len()
    );
}

#[test]
fn merged_histograms_count_every_value_within_their_displacement() {
    for (left, right) in [(1, 1), (1, 6), (6, 1), (9, 9)] {
        for seed in [3, 4, 5, 20] {
            let (first, second) = (stream(seed, left), stream(seed + 40, right));
            let seen = |stream: &[Vec<f32>]| {
                let mut observer = Histogram::default();
                for values in stream {
                    observer.update(values).unwrap();
                }
                observer
            };
            let both = [first.clone(), second.clone()].concat();
            let mut merged = seen(&first);
            merged.merge(&seen(&second));
            assert_counts_near_values(&seen(&first), &first);
            assert_counts_near_values(&seen(&both), &both);
            assert_counts_near_values(&merged, &both);
            assert_eq!(merged.full_range(), seen(&both).full_range());
        }
    }
}

#[test]
fn histograms_of_one_range_merge_exactly() {
    let ends = [-3.0, 5.0];
    let (mut merged, mut more, mut both) = (
        Histogram::default(),
        Histogram::default(),
        Histogram::default(),
    );
    let (first, second) = (
        generated("bell", 1, 600, 1.0, 0.0),
        generated("heavy", 2, 600, 0.05, 0.0),
    );
    for (observer, values) in [(&mut merged, &first), (&mut more, &second)] {
        observer.update(&ends).unwrap();
        observer.update(values).unwrap();
        both.update(&ends).unwrap();
        both.update(values).unwrap();
    }
    merged.merge(&more);
    assert_eq!(merged, both);
    assert_eq!(merged.displacement(), 0.0);
}

#[test]
fn memory_does_not_grow_with_the_data() {
    // As saved text holds all of the state.
    let size = |statistics: &Statistics| serde_json::to_string(statistics).unwrap().len();
    for empty in every_kind() {
        let mut statistics = empty;
        let values = generated("heavy", 9, 6000, 1.0, 0.0);
        statistics.update(&values).unwrap();
        let (once, shape) = (size(&statistics), statistics.clone());
        for _ in 0..100 {
            statistics.update(&values).unwrap();
        }
        // Numbers get longer by digits: at most two for each of 4096 counts.
        assert!(
            size(&statistics) <= once + 2 * 4096 + 100,
            "{}",
            shape.name()
        );
    }
}

#[test]
fn default_activations_of_every_backend_can_be_split_and_merged() {
    for backend in Backend::ALL {
        let settings = backend.qconfig().activation();
        let empty = settings.statistics(0).unwrap();
        let mut merged = observed(empty.clone(), &stream(1, 4));
        merged
            .merge(&observed(empty.clone(), &stream(1, 4)))
            .unwrap();
        let once = observed(empty, &stream(1, 4));
        // Twice the same values have the same range; the histogram's search moves by shares of the total, which doubles.
        assert_eq!(
            merged.parameters(settings.rule()).unwrap(),
            once.parameters(settings.rule()).unwrap(),
            "{backend}"
        );
    }
}
