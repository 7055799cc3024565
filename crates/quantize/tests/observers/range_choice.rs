//! Percentile, Mse and Entropy against hand-computed ranges and slow references.

use fewbit_quantize::observers::{
    Entropy, Mse, ParameterRule, Percentile, QScheme, QuantizedDType, ValueRange,
};

use crate::generated_values::generated;

/// Bins over a range that is extended to zero number at least this many: a bin is no wider than this part of it.
const LEAST_BINS: f64 = 2047.0;

fn rule(dtype: QuantizedDType, qscheme: QScheme) -> ParameterRule {
    ParameterRule::new(dtype, qscheme, false).unwrap()
}

fn affine() -> ParameterRule {
    rule(QuantizedDType::Quint8, QScheme::PerTensorAffine)
}

fn symmetric() -> ParameterRule {
    rule(QuantizedDType::Qint8, QScheme::PerTensorSymmetric)
}

/// Every rule that an activation may have.
fn rules() -> Vec<ParameterRule> {
    let mut rules = Vec::new();
    for dtype in [QuantizedDType::Qint8, QuantizedDType::Quint8] {
        for qscheme in [QScheme::PerTensorAffine, QScheme::PerTensorSymmetric] {
            for reduce_range in [false, true] {
                rules.extend(ParameterRule::new(dtype, qscheme, reduce_range));
            }
        }
    }
    assert_eq!(rules.len(), 7);
    rules
}

/// A bell without the steps that `generated` has.
fn bell(seed: u32) -> Vec<f32> {
    let mut values = generated("bell", seed, 20_000, 1.0, 0.0);
    let fractions = generated("uniform", seed + 100, values.len(), 1.0 / 256.0, 0.0);
    for (x, fraction) in values.iter_mut().zip(fractions) {
        *x += fraction;
    }
    values
}

/// Distributions of sites: centred, with tails, one-signed, with outliers.
fn distributions() -> Vec<(&'static str, Vec<f32>)> {
    let each = |seed, change: fn(f32) -> f32| bell(seed).into_iter().map(change).collect();
    let mut outliers = bell(1);
    outliers.extend([40.0, -55.0, 40.0]);
    vec![
        ("bell", bell(2)),
        ("heavy", each(3, |x| 0.3 * x.powi(5))),
        ("shifted", each(4, |x| 0.3 * x.powi(5) + 2.0)),
        ("rectified", each(5, |x| x.max(0.0))),
        ("negative", each(6, |x| x.powi(3).min(0.0))),
        ("uniform", generated("uniform", 7, 20_000, 7.0, 0.0)),
        ("outliers", outliers),
        ("small", each(8, |x| 1e-3 * x.powi(5))),
    ]
}

fn width_of_a_bin(values: &[f32]) -> f64 {
    let (min, max) = values
        .iter()
        .fold((0.0f32, 0.0f32), |(min, max), &x| (min.min(x), max.max(x)));
    (f64::from(max) - f64::from(min)) / LEAST_BINS
}

#[test]
fn percentile_bounds_leave_out_no_more_than_they_may_and_are_a_bin_from_the_quantile() {
    for (name, values) in distributions() {
        for percentile in [99.99, 99.9, 99.0, 90.0, 100.0] {
            let mut observer = Percentile::new(percentile).unwrap();
            observer.update(&values).unwrap();
            let width = width_of_a_bin(&values);
            let left_out = values.len() as f64 * ((100.0 - percentile) / 100.0);

            let range = observer.range(affine()).unwrap();
            let mut sorted = values.clone();
            sorted.sort_by(f32::total_cmp);
            let beyond = (left_out / 2.0).floor() as usize;
            for (bound, quantile, outside) in [
                (
                    range.min(),
                    sorted[beyond],
                    values.iter().filter(|&&x| x < range.min()).count(),
                ),
                (
                    range.max(),
                    sorted[values.len() - 1 - beyond],
                    values.iter().filter(|&&x| x > range.max()).count(),
                ),
            ] {
                assert!(outside as f64 <= left_out / 2.0, "{name} {percentile}");
                let distance = (f64::from(bound) - f64::from(quantile)).abs();
                assert!(
                    distance <= width,
                    "{name} {percentile}: {bound} for {quantile}"
                );
            }
            assert!(
                range.min() <= sorted[beyond] && range.max() >= sorted[values.len() - 1 - beyond]
            );

            let range = observer.range(symmetric()).unwrap();
            sorted.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
            let quantile = sorted[values.len() - 1 - left_out.floor() as usize].abs();
            let bound = range.absmax();
            let distance = f64::from(bound) - f64::from(quantile);
            assert!(
                (0.0..=width).contains(&distance),
                "{name} {percentile}: {bound} for {quantile}"
            );
        }
    }
}

#[test]
fn percentiles_by_hand() {
    // 0 to 999 in steps of 1: bins are a quarter wide, so that each holds one value or none, and a bound is the upper edge of one.
    let values: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let range = |percentile: f64, rule| {
        let mut observer = Percentile::new(percentile).unwrap();
        observer.update(&values).unwrap();
        let range = observer.range(rule).unwrap();
        (range.min(), range.max())
    };
    assert_eq!(range(100.0, affine()), (0.0, 999.0));
    // Ten on either side may be left out: 0..=9 and 990..=999.
    assert_eq!(range(98.0, affine()), (10.0, 989.25));
    assert_eq!(range(98.0, symmetric()), (0.0, 979.25));
    let mut constant = Percentile::default();
    constant.update(&[-3.0; 7]).unwrap();
    assert_eq!(
        constant.range(affine()),
        Some(ValueRange::between(-3.0, -3.0))
    );
}

/// The mean squared error of the values themselves, each quantized and dequantized.
fn true_error(values: &[f32], range: ValueRange, rule: ParameterRule) -> f64 {
    let parameters = rule.parameters(range);
    let squares = values.iter().map(|&x| {
        let code = parameters.quantize(x, rule.code_range());
        let restored = f64::from(code - parameters.zero_point) * f64::from(parameters.scale);
        (f64::from(x) - restored).powi(2)
    });
    squares.sum::<f64>() / values.len() as f64
}

#[test]
fn the_error_of_bins_is_that_of_values_spread_evenly() {
    // 64 values for each of 4096 bins from 0 to 1, at the middles of 64 equal parts of the bin. A sum at middles of parts of width h differs
    // from the integral by h²/24 times the sum of the second derivative 2, that is h²/12 on the mean, where no code ends within a part; the
    // at most 256 ends of codes add at most the change of the square over a part, step * h, times their share of the parts.
    let parts = 4096 * 64;
    let values: Vec<f32> = (0..parts)
        .map(|i| (i as f32 + 0.5) / parts as f32)
        .collect();
    let mut observer = Mse::default();
    observer.update(&values).unwrap();
    for rule in rules() {
        for max in [1.0, 0.7, 0.31, 0.05] {
            let range = ValueRange::between(0.0, max);
            let found = observer.mean_squared_error(range, rule);
            let expected = true_error(&values, range, rule);
            let (h, step) = (
                1.0 / f64::from(parts),
                f64::from(rule.parameters(range).scale),
            );
            // x * (1 / scale) is rounded to float32: codes end up to 2^-23 of their number from where they should, which is less than a part.
            let ends = 256.0 * 2.0 * step * h / f64::from(parts);
            // The outer bins end at the outer values, half a part from where they should. That moves the two times 64 values in them by at most
            // as much, and the slope of a squared error is at most 2.
            let outer = 2.0 * (h / 2.0 * 2.0) / 4096.0;
            let bound = h * h / 12.0 + ends + outer + 1e-12 * expected;
            assert!(
                (found - expected).abs() <= bound,
                "{rule:?} {max}: {found:e} for {expected:e}, bound {bound:e}"
            );
        }
    }
}

#[test]
fn the_range_of_least_error_is_the_best_of_all_candidates() {
    // All pairs of the 81 ends, by the observer's own error, which the test above holds against the values'.
    for (name, values) in distributions() {
        let mut observer = Mse::default();
        observer.update(&values).unwrap();
        let (min, max) = values.iter().fold((f32::MAX, f32::MIN), |(min, max), &x| {
            (min.min(x), max.max(x))
        });
        let shrunk = |end: f32, i: i32| (f64::from(end) * (-f64::from(i) / 16.0).exp2()) as f32;
        let two_sided = min < 0.0 && max > 0.0;
        let mut least = f64::INFINITY;
        for high in 0..81 {
            for low in if two_sided { 0..81 } else { high..high + 1 } {
                let range = ValueRange::between(shrunk(min, low), shrunk(max, high));
                least = least.min(observer.mean_squared_error(range, affine()));
            }
        }
        let range = observer.range(affine()).unwrap();
        assert_eq!(
            observer.mean_squared_error(range, affine()),
            least,
            "{name}"
        );

        let absmax = min.abs().max(max.abs());
        for rule in rules()
            .into_iter()
            .filter(|rule| rule.qscheme().is_symmetric())
        {
            let range = observer.range(rule).unwrap();
            let found = observer.mean_squared_error(range, rule);
            for i in 0..81 {
                let bound = shrunk(absmax, i);
                let candidate = ValueRange::between(min.max(-bound), max.min(bound));
                assert!(
                    found <= observer.mean_squared_error(candidate, rule),
                    "{name} {i}"
                );
            }
        }
    }
}

#[test]
fn clipping_by_least_error_never_costs_and_pays_with_tails() {
    let mut better = 0;
    for (name, values) in distributions() {
        let mut observer = Mse::default();
        observer.update(&values).unwrap();
        let (min, max) = values.iter().fold((f32::MAX, f32::MIN), |(min, max), &x| {
            (min.min(x), max.max(x))
        });
        for rule in rules() {
            let full = true_error(&values, ValueRange::between(min, max), rule);
            let chosen = true_error(&values, observer.range(rule).unwrap(), rule);
            assert!(
                chosen <= full,
                "{name} {rule:?}: {chosen:e}, unclipped {full:e}"
            );
            better += usize::from(chosen < full);
        }
    }
    assert!(better >= 14, "{better}: both heavy tails, under every rule");
}

#[test]
fn least_error_by_hand() {
    // Values on codes: nothing is gained by clipping, and no error is left.
    let codes: Vec<f32> = (0..256).map(|i| i as f32).collect();
    let range_of = |values: &[f32], rule| {
        let mut observer = Mse::default();
        observer.update(values).unwrap();
        (observer.range(rule).unwrap(), observer)
    };
    let constant = range_of(&[2.0; 9], affine());
    assert_eq!(constant.0, ValueRange::between(2.0, 2.0));
    // 255 steps of 2/255 end at 2, up to the rounding of the scale.
    assert!(constant.1.mean_squared_error(constant.0, affine()) < 1e-12);
    let (range, _) = range_of(&codes, affine());
    assert_eq!(range.max(), 255.0);
    let zeros = range_of(&[0.0; 9], symmetric());
    assert_eq!(zeros.0, ValueRange::between(0.0, 0.0));
    // A hundred thousand values up to 1, and one at 16: clipping it to t costs (16 - t)² once, a step of t/255 costs t²/255²/12 each. The sum
    // (16 - t)² + 100000 t² / 780300 is least at t = 16 / 1.1282 = 14.18; of the candidates 16 * 2^(-i/16), i = 3 is nearest: 14.05.
    let mut values = generated("positive", 1, 100_000, 1.0, 0.0);
    values.push(16.0);
    let (range, _) = range_of(&values, affine());
    assert_eq!(range.max(), (16.0 * (-3.0f64 / 16.0).exp2()) as f32);
}

/// The bound of the window with the least divergence, by the definition in `observers::entropy`, from the values.
fn slow_entropy_bound(values: &[f32], width: f64, half: usize) -> f64 {
    const CODES: usize = 128;
    let count = |bin: i64| {
        let inside = values.iter().filter(|&&x| {
            let magnitude = (f64::from(x.abs()) / width).floor() as i64;
            (if x < 0.0 { -1 - magnitude } else { magnitude }) == bin
        });
        inside.count() as f64
    };
    let half = half as i64;
    let counts: Vec<f64> = (-half..half).map(count).collect();
    let at = |bin: i64| counts[(bin + half) as usize];
    let mut best = (f64::INFINITY, 0);
    for window in CODES as i64 / 2..=half {
        let bins: Vec<i64> = (-window..window).collect();
        let p: Vec<f64> = bins
            .iter()
            .map(|&bin| match bin {
                _ if bin == -window => (-half..=bin).map(at).sum(),
                _ if bin == window - 1 => (bin..half).map(at).sum(),
                _ => at(bin),
            })
            .collect();
        let mut q = vec![0.0; bins.len()];
        for group in 0..CODES {
            let begin = (bins.len() * group) / CODES;
            let end = (bins.len() * (group + 1)) / CODES;
            let sum: f64 = bins[begin..end].iter().map(|&bin| at(bin)).sum();
            let occupied = p[begin..end].iter().filter(|&&p| p > 0.0).count();
            for i in (begin..end).filter(|&i| p[i] > 0.0) {
                q[i] = sum / occupied as f64;
            }
        }
        let smoothed = |side: &[f64]| {
            let side: Vec<f64> = side
                .iter()
                .map(|&x| if x == 0.0 { 1e-4 } else { x })
                .collect();
            let sum: f64 = side.iter().sum();
            side.iter().map(|x| x / sum).collect::<Vec<f64>>()
        };
        let (p, q) = (smoothed(&p), smoothed(&q));
        let divergence = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum();
        if divergence <= best.0 {
            best = (divergence, window);
        }
    }
    best.1 as f64 * width
}

#[test]
fn entropy_chooses_the_window_of_a_slow_search() {
    for (seed, name) in [(1, "bell"), (2, "heavy"), (3, "rectified")] {
        let mut values: Vec<f32> = generated(name, seed, 3000, 0.1, 0.0)
            .into_iter()
            .map(|x| x.clamp(-0.27, 0.27))
            .collect();
        values.push(0.2725);
        let mut observer = Entropy::default();
        observer.update(&values).unwrap();
        // At most 1024 bins on either side: those of 2^-12 end at 0.25, so that they are 2^-11 wide, and 0.2725 is in bin 558.
        let found = f64::from(observer.range().unwrap().absmax());
        let expected = slow_entropy_bound(&values, 2f64.powi(-11), 559);
        assert_eq!(found, expected.min(f64::from(0.2725f32)), "{name}");
    }
}

#[test]
fn entropy_by_hand() {
    let range_of = |values: &[f32]| {
        let mut observer = Entropy::default();
        observer.update(values).unwrap();
        observer.range().unwrap()
    };
    // Nothing is lost by any window that holds the only value: the widest wins.
    assert_eq!(range_of(&[3.0; 10]), ValueRange::between(3.0, 3.0));
    assert_eq!(range_of(&[0.0; 10]), ValueRange::between(0.0, 0.0));
    // One value in 200,000 far out: windows of the others lose next to nothing. 32 is in bin 512 of bins of a 16th, so that the narrowest
    // window, 64 bins, ends at 4: it holds the whole bell, and joins the fewest bins.
    let mut values = generated("bell", 4, 200_000, 1.0, 0.0);
    values.push(32.0);
    let range = range_of(&values);
    assert_eq!(range.max(), 4.0);
    assert!(range.min() > -2.0);
}
