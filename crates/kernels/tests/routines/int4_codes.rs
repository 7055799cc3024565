//! int4 codes of groups and back, bit for bit against `fewbit-numerics`.

use fewbit_kernels::Kernels;
use fewbit_numerics::int4_groups::encode_groups;
use fewbit_numerics::rows::dequantize_groups;

use crate::support::{Failures, Numbers};

/// (group size, groups): sizes that are whole vectors, lines and neither, and ends that fill no line.
const CASES: [(usize, usize); 14] = [
    (1, 0),
    (64, 0),
    (1, 5),
    (3, 7),
    (8, 9),
    (15, 3),
    (16, 1),
    (16, 11),
    (32, 5),
    (48, 7),
    (64, 3),
    (80, 2),
    (128, 5),
    (1000, 2),
];

/// Scales of any magnitude and sign whose inverses are finite, and zero points.
fn parameters(groups: usize, numbers: &mut Numbers) -> (Vec<f32>, Vec<i8>) {
    let magnitudes = [1.0, 0.013, f32::MIN_POSITIVE, 1e-30, 1e30, 65504.0];
    let scales = (0..groups)
        .map(|group| {
            let sign = if numbers.below(4) == 0 { -1.0 } else { 1.0 };
            sign * magnitudes[group % magnitudes.len()]
        })
        .collect();
    let zero_points = (0..groups).map(|_| numbers.below(16) as i8 - 8).collect();
    (scales, zero_points)
}

pub(crate) fn encode_int4(kernels: &Kernels, failures: &mut Failures) {
    let mut numbers = Numbers::new(91);
    for (size, groups) in CASES {
        let (scales, zero_points) = parameters(groups, &mut numbers);
        // Multiples of half a step, which are ties, and their neighbours; steps beyond the codes; other numbers; the greatest floats.
        let values: Vec<f32> = (0..size * groups)
            .map(|index| {
                let scale = scales[index / size];
                let halves = numbers.below(81) as f32 - 40.0;
                let value = halves / 2.0 * scale;
                match numbers.below(8) {
                    0 => value.next_up(),
                    1 => value.next_down(),
                    2 => numbers.floats(1, 12.0)[0] * scale,
                    3 => [0.0, -0.0, f32::MAX, f32::MIN][index % 4],
                    _ => value,
                }
            })
            .map(|value| if value.is_finite() { value } else { f32::MAX })
            .collect();
        for points in [None, Some(&zero_points[..])] {
            let (mut found, mut expected) = (vec![99; values.len()], vec![0; values.len()]);
            kernels.encode_int4(&values, size, &scales, points, &mut found);
            encode_groups(&values, size, &scales, points, &mut expected);
            let different = found.iter().zip(&expected).position(|(a, b)| a != b);
            failures.check(different.is_none(), || {
                let index = different.unwrap_or(0);
                format!(
                    "{groups} groups of {size}, zero points: {}: element {index}, {:e} with {:e}: expected {}, found {}",
                    points.is_some(),
                    values[index],
                    scales[index / size],
                    expected[index],
                    found[index]
                )
            });
        }
    }
}

pub(crate) fn dequantize_int4(kernels: &Kernels, failures: &mut Failures) {
    let mut numbers = Numbers::new(92);
    for (size, groups) in CASES {
        let (scales, zero_points) = parameters(groups, &mut numbers);
        let codes: Vec<i8> = (0..size * groups)
            .map(|_| numbers.below(16) as i8 - 8)
            .collect();
        for points in [None, Some(&zero_points[..])] {
            let mut found = vec![f32::NAN; codes.len()];
            kernels.dequantize_int4(&codes, size, &scales, points, &mut found);
            let expected: Vec<f32> = dequantize_groups(&codes, &scales, points, size).collect();
            let what = format!(
                "{groups} groups of {size}, zero points: {}",
                points.is_some()
            );
            failures.same_bits(what, &found, &expected);
        }
    }
}
