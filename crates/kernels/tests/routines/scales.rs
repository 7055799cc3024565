//! Scales with the least squared error, bit for bit against `fewbit-numerics`.

use fewbit_kernels::Kernels;
use fewbit_numerics::absmax::absmax;
use fewbit_numerics::four_bit::FourBitType;
use fewbit_numerics::four_bit_scales::{least_error_scale, least_weighted_error_scale};
use fewbit_numerics::int4_groups::{GroupScales, group_parameters, weighted_group_parameters};

use crate::support::{Failures, Numbers};

/// Fewer groups than a vector has lanes, as many, and more.
const NUMBERS_OF_GROUPS: [usize; 6] = [0, 1, 2, 15, 16, 35];

/// Groups of that size, each of another kind: usual numbers, all zeros, all the same, one that is not zero, the largest and the smallest floats.
fn groups(number: usize, size: usize, numbers: &mut Numbers) -> Vec<f32> {
    let mut values = Vec::with_capacity(number * size);
    for group in 0..number {
        let usual = numbers.floats(size, 2.0);
        match group % 8 {
            1 => values.extend(vec![0.0; size]),
            2 => values.extend(vec![-0.7; size]),
            3 => values.extend((0..size).map(|index| if index == size / 2 { -3.0 } else { 0.0 })),
            4 => values.extend(usual.iter().map(|x| x / 2.0 * f32::MAX)),
            5 => values.extend(usual.iter().map(|x| x * f32::MIN_POSITIVE)),
            6 => values.extend(usual.iter().map(|x| x.abs() + 0.25)),
            _ => values.extend(usual),
        }
    }
    values
}

/// Some elements count nothing; where the squares of a group are finite, their products are, too.
fn importance(elements: usize, numbers: &mut Numbers) -> Vec<f32> {
    let floats = numbers.floats(elements, 1.0);
    floats.into_iter().map(|x| x.max(0.0)).collect()
}

/// Calls `check` with values and importance of groups of each size and number.
fn each_case(sizes: &[usize], mut check: impl FnMut(usize, usize, &[f32], Option<&[f32]>)) {
    let mut numbers = Numbers::new(11);
    for &size in sizes {
        for number in NUMBERS_OF_GROUPS {
            let values = groups(number, size, &mut numbers);
            let importance = importance(values.len(), &mut numbers);
            check(size, number, &values, None);
            check(size, number, &values, Some(&importance));
        }
    }
}

pub(crate) fn fit_four_bit_scales(kernels: &Kernels, failures: &mut Failures) {
    for kind in [FourBitType::Nf4, FourBitType::Fp4] {
        each_case(&[2, 6, 32, 64, 130], |size, number, values, importance| {
            let absmax: Vec<f32> = values.chunks(size).map(absmax).collect();
            let blocks = values.chunks(size).zip(&absmax).enumerate();
            let expected: Vec<f32> = blocks
                .map(|(index, (block, &absmax))| match importance {
                    None => least_error_scale(block, absmax, kind),
                    Some(importance) => {
                        let importance = &importance[index * size..][..size];
                        least_weighted_error_scale(block, importance, absmax, kind)
                    }
                })
                .collect();
            let mut found = absmax.clone();
            kernels.fit_four_bit_scales(values, importance, size, kind, &mut found);
            let weighted = importance.is_some();
            let what = format!("{kind:?}, {number} blocks of {size}, weighted: {weighted}");
            failures.same_bits(what, &found, &expected);
        });
    }
}

pub(crate) fn fit_int4(kernels: &Kernels, failures: &mut Failures) {
    for asymmetric in [false, true] {
        each_case(&[1, 3, 8, 13, 64], |size, number, values, importance| {
            let parameters = values.chunks(size).enumerate();
            let expected: Vec<_> = parameters
                .map(|(index, group)| match importance {
                    None => group_parameters(group, asymmetric, GroupScales::LeastSquaredError),
                    Some(importance) => {
                        let importance = &importance[index * size..][..size];
                        weighted_group_parameters(group, importance, asymmetric)
                    }
                })
                .collect();
            let mut scales = vec![f32::NAN; number];
            let mut zero_points = asymmetric.then(|| vec![99; number]);
            let points = zero_points.as_deref_mut();
            kernels.fit_int4(values, importance, size, &mut scales, points);
            let weighted = importance.is_some();
            let what = format!(
                "asymmetric: {asymmetric}, {number} groups of {size}, weighted: {weighted}"
            );
            let expected_scales: Vec<f32> = expected.iter().map(|found| found.scale).collect();
            failures.same_bits(&what, &scales, &expected_scales);
            for (index, (found, expected)) in
                zero_points.iter().flatten().zip(&expected).enumerate()
            {
                failures.check(i32::from(*found) == expected.zero_point, || {
                    format!("{what}: zero point {index}: {found}, {expected:?}")
                });
            }
        });
    }
}
