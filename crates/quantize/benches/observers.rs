//! Speed of the observers, in bytes of float32 a second, and of choosing a range.
//!
//! `cargo bench -p fewbit-quantize`; an argument selects lines that contain it: `cargo bench -p fewbit-quantize -- update`.
#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use fewbit_quantize::observers::{ChannelAxis, ParameterRule, QScheme, QuantizedDType, Statistics};
use fewbit_quantize::{ObserverKind, ObserverSettings};

/// Tokens of a batch, and features: the middle of a small encoder's feed-forward, and more than a cache holds.
const SHAPES: [(usize, usize); 2] = [(128, 1536), (16_384, 1536)];

fn main() {
    let (options, filters): (Vec<String>, Vec<String>) = std::env::args()
        .skip(1)
        .partition(|argument| argument.starts_with("--"));
    let filter = filters.first().cloned().unwrap_or_default();
    // `cargo bench` passes --bench; as a test, everything runs a few times only.
    let measured = options.iter().any(|option| option == "--bench");
    let patience = Duration::from_millis(if measured { 500 } else { 0 });
    let shapes = if measured { &SHAPES[..] } else { &SHAPES[..1] };
    for &(tokens, features) in shapes {
        let values = values(tokens * features);
        for (name, kind) in kinds() {
            let qscheme = match name.contains("channel") {
                true => QScheme::PerChannelAffine,
                false => QScheme::PerTensorAffine,
            };
            let rule =
                ParameterRule::new(QuantizedDType::Quint8, qscheme, false).expect("an affine rule");
            let settings = ObserverSettings::new(kind, rule).expect("settings that fit");
            // The first update finds the range; the grid of a histogram is then there, as it mostly is in calibration.
            let mut statistics = settings.statistics(features).expect("an observer");
            statistics.update(&values).expect("finite values");
            let line = format!("{name} update {tokens}x{features}");
            if line.contains(&filter) {
                let time = best_time(patience, || {
                    black_box(&mut statistics)
                        .update(black_box(&values))
                        .expect("finite values");
                });
                let rate = (4 * values.len()) as f64 / time.as_nanos() as f64;
                println!("{line:<52} {rate:8.2} GB/s {:10.1} us", micros(time));
            }
            let line = format!("{name} parameters {tokens}x{features}");
            if line.contains(&filter) {
                let time = best_time(patience, || {
                    black_box(Statistics::parameters(&statistics, rule)).expect("values were seen");
                });
                println!("{line:<52} {:>13} {:10.1} us", "", micros(time));
            }
        }
    }
}

fn kinds() -> Vec<(&'static str, ObserverKind)> {
    let averaging_constant = Default::default();
    let percentile = Default::default();
    vec![
        ("min_max", ObserverKind::MinMax),
        (
            "moving_average_min_max",
            ObserverKind::MovingAverageMinMax { averaging_constant },
        ),
        (
            "per_channel_min_max first",
            ObserverKind::PerChannelMinMax {
                axis: ChannelAxis::First,
            },
        ),
        (
            "per_channel_min_max last",
            ObserverKind::PerChannelMinMax {
                axis: ChannelAxis::Last,
            },
        ),
        ("histogram", ObserverKind::Histogram),
        ("percentile", ObserverKind::Percentile { percentile }),
        ("mse", ObserverKind::Mse),
        ("entropy", ObserverKind::Entropy),
    ]
}

/// A bell with a tail, from a generator that needs no seed.
fn values(count: usize) -> Vec<f32> {
    let mut state = 1u32;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let total: u32 = state
                .to_le_bytes()
                .iter()
                .map(|&byte| u32::from(byte))
                .sum();
            let x = (total as f32 - 510.0 + (state >> 8) as f32 / 16_777_216.0) / 256.0;
            x + x * x * x
        })
        .collect()
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}

/// The least time of one call among many.
fn best_time(patience: Duration, mut call: impl FnMut()) -> Duration {
    call();
    let begin = Instant::now();
    let mut best = Duration::MAX;
    let mut calls = 0;
    while calls < 3 || begin.elapsed() < patience {
        let start = Instant::now();
        call();
        best = best.min(start.elapsed());
        calls += 1;
    }
    best
}
