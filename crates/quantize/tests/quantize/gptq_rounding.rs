//! GPTQ: its Hessians, its factor and its rounding.

use fewbit_kernels::Kernels;
use fewbit_numerics::affine::{AffineParameters, CodeRange};
use fewbit_numerics::four_bit::{FourBitType, dequantize_range, pack, quantize_blocks};
use fewbit_numerics::int4_groups::{
    GroupScales, GroupStorage, Int4Groups, Int4Settings, quantize_int4,
};
use fewbit_numerics::rows::{dequantize_groups, quantize_rows_int8, row_scale};
use fewbit_numerics::saturation::{saturating_pairs, saturation_proof_scale};
use fewbit_quantize::gptq::{
    ColumnOrder, ColumnQuantizer, DAMPING, FourBitCodes, FourBitScales, Hessian, Int4Codes,
    Int4Parameters, InverseFactor, NearestCodes, SaturationProofCodes, four_bit_codes, int4_codes,
    int8_groups, int8_rows, nearest_four_bit_codes, nearest_int4_codes, round_rows,
};

/// Reproducible values in -1..1.
fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        values.push((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0);
    }
    values
}

/// Rows whose columns are correlated: each column has half of the one before.
fn correlated(seed: u64, rows: usize, columns: usize) -> Vec<f32> {
    let mut values = random(seed, rows * columns);
    for row in values.chunks_exact_mut(columns) {
        for column in 1..columns {
            row[column] += 0.5 * row[column - 1];
        }
    }
    values
}

fn hessian(rows: &[f32], columns: usize) -> Hessian {
    let mut hessian = Hessian::new(columns);
    hessian.add_rows(rows);
    hessian.finish();
    hessian
}

fn factor(rows: &[f32], columns: usize) -> InverseFactor {
    InverseFactor::of(&hessian(rows, columns), ColumnOrder::Natural).unwrap()
}

/// The squared change of the outputs of some rows, for all rows of a weight.
pub(crate) fn output_error(
    inputs: &[f32],
    weights: &[f32],
    approximations: &[f32],
    columns: usize,
) -> f64 {
    let rows = weights
        .chunks_exact(columns)
        .zip(approximations.chunks_exact(columns));
    let of_row = |(weights, approximations): (&[f32], &[f32])| -> f64 {
        let of_input = |input: &[f32]| {
            let terms = input.iter().zip(weights.iter().zip(approximations));
            let change: f64 = terms
                .map(|(x, (w, q))| f64::from(*x) * (f64::from(*w) - f64::from(*q)))
                .sum();
            change * change
        };
        inputs.chunks_exact(columns).map(of_input).sum()
    };
    rows.map(of_row).sum()
}

#[test]
fn hessians_are_sums_of_products_to_the_rounding_of_a_block() {
    // Columns that fill no panel, rows that fill no block; magnitudes from 1e-3 to 1e3.
    let (rows, columns) = (1000, 37);
    let mut values = random(1, rows * columns);
    for (index, value) in values.iter_mut().enumerate() {
        *value *= 10f32.powi((index % columns) as i32 % 7 - 3);
    }
    let hessian = hessian(&values, columns);
    assert_eq!(hessian.rows(), rows as u64);
    // 256 products and sums in f32, each rounded by 2^-24 at most: n u / (1 - n u). What is added in f64 is off by far less than 1e-9.
    let n_u = 256.0 * 2f64.powi(-24);
    let bound = n_u / (1.0 - n_u) + 1e-9;
    for i in 0..columns {
        for j in 0..columns {
            let products = values
                .chunks_exact(columns)
                .map(|row| f64::from(row[i]) * f64::from(row[j]));
            let (exact, magnitudes) = products.fold((0.0, 0.0), |(sum, magnitudes), product| {
                (sum + product, magnitudes + product.abs())
            });
            let error = (hessian.entry(i, j) - exact).abs();
            assert!(error <= bound * magnitudes, "{i} {j}: {error:e}");
            assert_eq!(hessian.entry(i, j), hessian.entry(j, i));
        }
    }
}

#[test]
fn hessians_do_not_depend_on_how_rows_come_or_on_threads() {
    let (rows, columns) = (700, 24);
    let values = random(2, rows * columns);
    let whole = hessian(&values, columns);
    for (cut, threads) in [(1, 1), (255, 3), (256, 2), (511, 4)] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let parts = pool.build().unwrap().install(|| {
            let mut hessian = Hessian::new(columns);
            for part in values.chunks(cut * columns) {
                hessian.add_rows(part);
            }
            hessian.finish();
            hessian
        });
        assert_eq!(parts, whole, "{cut} {threads}");
    }
}

/// The inverse by Gauss and Jordan.
fn inverse(matrix: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let size = matrix.len();
    let mut left = matrix.to_vec();
    let mut right: Vec<Vec<f64>> = (0..size)
        .map(|i| (0..size).map(|j| f64::from(u8::from(i == j))).collect())
        .collect();
    for pivot in 0..size {
        let divisor = left[pivot][pivot];
        for column in 0..size {
            left[pivot][column] /= divisor;
            right[pivot][column] /= divisor;
        }
        for row in (0..size).filter(|&row| row != pivot) {
            let times = left[row][pivot];
            for column in 0..size {
                left[row][column] -= times * left[pivot][column];
                right[row][column] -= times * right[pivot][column];
            }
        }
    }
    right
}

/// H with damping, as the paper has it.
fn damped(hessian: &Hessian, damping: f64) -> Vec<Vec<f64>> {
    let size = hessian.columns();
    let mean = hessian.diagonal().sum::<f64>() / size as f64;
    let entry =
        |i: usize, j: usize| hessian.entry(i, j) + f64::from(u8::from(i == j)) * damping * mean;
    (0..size)
        .map(|i| (0..size).map(|j| entry(i, j)).collect())
        .collect()
}

#[test]
fn the_factor_is_that_of_the_inverse() {
    // More rows than a block has.
    for columns in [1, 2, 7, 64, 150] {
        let values = correlated(3, 2 * columns, columns);
        let hessian = hessian(&values, columns);
        let factor = InverseFactor::of(&hessian, ColumnOrder::Natural).unwrap();
        assert_eq!(factor.damping(), DAMPING);
        let inverse = inverse(&damped(&hessian, DAMPING));
        let largest = (0..columns).map(|i| inverse[i][i]).fold(0.0, f64::max);
        for (i, of_row) in inverse.iter().enumerate() {
            for (j, expected) in of_row.iter().enumerate().skip(i) {
                // (Uᵀ U)[i][j], where U[k][i] is entry i - k of row k.
                let products = (0..=i).map(|k| factor.row(k)[i - k] * factor.row(k)[j - k]);
                let error = (products.sum::<f64>() - expected).abs();
                // Damping bounds the condition by trace / (0.01 * trace / n) = 100 n: two inversions lose less than that times n of f64's digits.
                let bound = (100 * columns * columns) as f64 * f64::EPSILON * largest;
                assert!(error <= bound, "{columns}: {i} {j}: {error:e} {bound:e}");
            }
        }
    }
}

/// GPTQ as the textbook has it (Optimal Brain Surgeon): after each column the whole inverse is updated, which costs n^3 for each row.
fn by_the_book<Q: ColumnQuantizer>(
    row: &[f32],
    hessian: &Hessian,
    order: ColumnOrder,
    quantizer: &mut Q,
) {
    let order = order.columns(hessian);
    let mut weights: Vec<f64> = order.iter().map(|&j| f64::from(row[j])).collect();
    let damped = damped(hessian, DAMPING);
    let in_order = |i: &usize| order.iter().map(|&j| damped[*i][j]).collect::<Vec<f64>>();
    let mut inverse = inverse(&order.iter().map(in_order).collect::<Vec<_>>());
    for position in 0..weights.len() {
        let value = quantizer.quantize(order[position], &weights[position..]);
        let error = (weights[position] - value) / inverse[position][position];
        for (weight, entry) in weights.iter_mut().zip(&inverse[position]).skip(position) {
            *weight -= error * entry;
        }
        let eliminated = inverse[position].clone();
        for row in &mut inverse {
            let times = row[position] / eliminated[position];
            for (entry, eliminated) in row.iter_mut().zip(&eliminated) {
                *entry -= times * eliminated;
            }
        }
    }
}

#[test]
fn codes_are_those_of_the_textbook() {
    // The last has more columns than are rounded before others hear of it, and no multiple of those that hear of it together.
    for (seed, rows, columns) in [(4, 20, 33), (5, 9, 70), (6, 3, 1), (7, 17, 2), (30, 5, 299)] {
        let inputs = correlated(seed, 3 * columns, columns);
        let hessian = hessian(&inputs, columns);
        let weights = random(seed + 100, rows * columns);
        for (order, saturation_proof) in [
            (ColumnOrder::Natural, false),
            (ColumnOrder::Natural, true),
            (ColumnOrder::FallingSquares, false),
            (ColumnOrder::FallingPairs, true),
        ] {
            let factor = InverseFactor::of(&hessian, order).unwrap();
            let found = int8_rows(&weights, &factor, saturation_proof);
            for (index, row) in weights.chunks_exact(columns).enumerate() {
                let largest = row.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
                let mut codes = vec![0; columns];
                let scale = if saturation_proof {
                    let scale = saturation_proof_scale(largest);
                    let mut quantizer = SaturationProofCodes::new(scale, &mut codes);
                    by_the_book(row, &hessian, order, &mut quantizer);
                    scale
                } else {
                    let scale = row_scale(largest);
                    let scales = [scale];
                    let mut quantizer = NearestCodes::new(&scales, columns, &mut codes);
                    by_the_book(row, &hessian, order, &mut quantizer);
                    scale
                };
                assert_eq!(found.scales[index], scale);
                let range = index * columns..(index + 1) * columns;
                assert_eq!(found.codes[range], codes, "{columns} columns, row {index}");
            }
        }
    }
}

/// Takes down what it is shown.
struct Shown {
    step: f64,
    shown: Vec<(usize, f64)>,
}

impl ColumnQuantizer for Shown {
    fn quantize(&mut self, column: usize, remaining: &[f64]) -> f64 {
        self.shown.push((column, remaining[0]));
        (remaining[0] / self.step).round() * self.step
    }
}

#[test]
fn blocks_change_no_bit() {
    // Rows that do and do not fill a panel; columns that end before, at and after the end of a block.
    for (rows, columns) in [(1, 7), (6, 128), (9, 129), (4, 131), (7, 300)] {
        let inputs = correlated(rows as u64, 2 * columns, columns);
        let factor = InverseFactor::of(&hessian(&inputs, columns), ColumnOrder::FallingSquares);
        let factor = factor.unwrap();
        let weights = random(40 + rows as u64, rows * columns);
        let quantizers = || -> Vec<Shown> {
            let shown = |row| Shown {
                step: 0.1 + 0.01 * row as f64,
                shown: Vec::new(),
            };
            (0..rows).map(shown).collect()
        };
        let mut found = quantizers();
        round_rows(&weights, &factor, &mut found);
        // Each column at once tells all that come after it.
        for ((row, mut expected), found) in
            weights.chunks_exact(columns).zip(quantizers()).zip(&found)
        {
            let order = factor.columns();
            let mut left: Vec<f64> = order.iter().map(|&j| f64::from(row[j])).collect();
            for position in 0..columns {
                let of_factor = factor.row(position);
                let value = expected.quantize(order[position], &left[position..]);
                let error = (left[position] - value) / of_factor[0];
                for (weight, entry) in left[position + 1..].iter_mut().zip(&of_factor[1..]) {
                    *weight -= error * entry;
                }
            }
            assert_eq!(found.shown, expected.shown, "{rows} x {columns}");
        }
    }
}

const KINDS: [FourBitType; 2] = [FourBitType::Nf4, FourBitType::Fp4];

#[test]
fn four_bit_codes_are_those_of_the_textbook() {
    // Blocks that end with rows, that cross them, that hold several, and a last one that is short, of an odd number of elements.
    for (seed, rows, columns, block_size) in [
        (31, 4, 64, 32),
        (32, 9, 70, 32),
        (33, 5, 33, 64),
        (34, 20, 3, 32),
        (35, 2, 299, 64),
    ] {
        let inputs = correlated(seed, 3 * columns, columns);
        let hessian = hessian(&inputs, columns);
        let order = ColumnOrder::FallingSquares;
        let factor = InverseFactor::of(&hessian, order).unwrap();
        let mut weights = random(seed + 100, rows * columns);
        // A block of zeros, which what others lose is added to.
        weights[..block_size.min(columns)].fill(0.0);
        for kind in KINDS {
            let mut scales = quantize_blocks(&weights, block_size, kind).absmax;
            // Double quantization can give such a one.
            *scales.last_mut().unwrap() *= -1.0;
            let blocks = FourBitScales {
                kind,
                block_size,
                scales: &scales,
            };
            let mut codes = vec![0; weights.len()];
            let of_rows = codes.chunks_exact_mut(columns);
            for (index, (row, codes)) in weights.chunks_exact(columns).zip(of_rows).enumerate() {
                let mut quantizer = FourBitCodes::new(blocks, index * columns, codes);
                by_the_book(row, &hessian, order, &mut quantizer);
            }
            let found = four_bit_codes(&weights, &factor, blocks);
            assert_eq!(found, pack(&codes, kind), "{kind:?} {rows} x {columns}");
        }
    }
}

fn kernels() -> &'static Kernels {
    Kernels::from_environment().expect("an instruction set of this CPU")
}

fn int4_settings(group_size: usize, asymmetric: bool) -> Int4Settings {
    Int4Settings {
        group_size,
        asymmetric,
        scales: GroupScales::LeastSquaredError,
        storage: GroupStorage::default(),
    }
}

#[test]
fn int4_codes_are_those_of_the_textbook() {
    for (seed, rows, columns, group_size) in [
        (36, 5, 64, 32),
        (37, 3, 33, 33),
        (38, 2, 300, 50),
        (39, 4, 6, 1),
    ] {
        let inputs = correlated(seed, 3 * columns, columns);
        let hessian = hessian(&inputs, columns);
        let order = ColumnOrder::FallingSquares;
        let factor = InverseFactor::of(&hessian, order).unwrap();
        let weights = random(seed + 100, rows * columns);
        for asymmetric in [false, true] {
            let settings = int4_settings(group_size, asymmetric);
            let parameters = Int4Parameters::of(kernels(), &weights, columns, settings, None);
            let mut codes = vec![0; weights.len()];
            let of_rows = codes.chunks_exact_mut(columns);
            let groups = parameters.groups.chunks_exact(columns / group_size);
            for ((row, codes), groups) in weights.chunks_exact(columns).zip(of_rows).zip(groups) {
                let mut quantizer = Int4Codes::new(groups, group_size, codes);
                by_the_book(row, &hessian, order, &mut quantizer);
            }
            let found = int4_codes(&weights, &factor, parameters.clone());
            assert_eq!(found.codes, codes, "{rows} x {columns}");
            // Scales and zero points, and the nearest codes, are those of weights that are not calibrated.
            let plain = quantize_int4(&weights, rows, columns, settings);
            assert_eq!(
                (&found.scales, &found.zero_points),
                (&plain.scales, &plain.zero_points)
            );
            assert_eq!(nearest_int4_codes(&weights, parameters), plain);
        }
    }
}

#[test]
fn int8_codes_of_groups_are_those_of_the_textbook() {
    for (seed, rows, columns, group_size) in [(8, 20, 36, 12), (9, 3, 70, 1), (10, 5, 288, 32)] {
        let inputs = correlated(seed, 3 * columns, columns);
        let hessian = hessian(&inputs, columns);
        let weights = random(seed + 100, rows * columns);
        let order = ColumnOrder::FallingSquares;
        let factor = InverseFactor::of(&hessian, order).unwrap();
        let found = int8_groups(&weights, &factor, group_size);
        let nearest = quantize_rows_int8(&weights, weights.len() / group_size, group_size);
        assert_eq!(found.scales, nearest.scales);
        assert_eq!((found.rows, found.columns), (nearest.rows, group_size));
        let mut codes = vec![0; weights.len()];
        let of_rows = codes.chunks_exact_mut(columns);
        let scales = nearest.scales.chunks_exact(columns / group_size);
        for ((row, codes), scales) in weights.chunks_exact(columns).zip(of_rows).zip(scales) {
            let mut quantizer = NearestCodes::new(scales, group_size, codes);
            by_the_book(row, &hessian, order, &mut quantizer);
        }
        assert_eq!(found.codes, codes, "{rows} x {columns}");
        // Whole rows are those of channels.
        let whole = int8_groups(&weights, &factor, columns);
        assert_eq!(whole, int8_rows(&weights, &factor, false));
    }
}

#[test]
fn four_bit_outputs_change_less_than_with_the_nearest_codes() {
    for seed in 0..20 {
        let (rows, columns, block_size) = (16, 24 + seed as usize, 32);
        let inputs = correlated(seed, 200, columns);
        let weights = random(seed + 50, rows * columns);
        let factor = InverseFactor::of(&hessian(&inputs, columns), ColumnOrder::FallingSquares);
        let factor = factor.unwrap();
        for kind in KINDS {
            let nearest = quantize_blocks(&weights, block_size, kind);
            let blocks = FourBitScales {
                kind,
                block_size,
                scales: &nearest.absmax,
            };
            let error = |packed: &[u8]| {
                let mut values = vec![0.0; weights.len()];
                dequantize_range(packed, &nearest.absmax, block_size, kind, 0, &mut values);
                output_error(&inputs, &weights, &values, columns)
            };
            let rounded = four_bit_codes(&weights, &factor, blocks);
            assert!(error(&rounded) < error(&nearest.packed), "{kind:?} {seed}");
            // But for the last block, which is short: there values are divided, and not multiplied by a reciprocal.
            let whole = weights.len() / block_size * block_size / 2;
            let found = nearest_four_bit_codes(&weights, blocks);
            assert_eq!(found[..whole], nearest.packed[..whole]);
        }
        for asymmetric in [false, true] {
            let parameters = || {
                let settings = int4_settings(columns, asymmetric);
                Int4Parameters::of(kernels(), &weights, columns, settings, None)
            };
            let error = |groups: Int4Groups| {
                let zero_points = groups.zero_points.as_deref();
                let values = dequantize_groups(&groups.codes, &groups.scales, zero_points, columns);
                output_error(&inputs, &weights, &values.collect::<Vec<_>>(), columns)
            };
            let nearest = error(nearest_int4_codes(&weights, parameters()));
            let rounded = error(int4_codes(&weights, &factor, parameters()));
            assert!(rounded < nearest, "{asymmetric} {seed}");
        }
    }
}

#[test]
fn outputs_change_less_than_with_the_nearest_codes() {
    for seed in 0..20 {
        let (rows, columns) = (16, 24 + seed as usize);
        let inputs = correlated(seed, 200, columns);
        let weights = random(seed + 50, rows * columns);
        let nearest = quantize_rows_int8(&weights, rows, columns);
        let rounded = int8_rows(&weights, &factor(&inputs, columns), false);
        assert_eq!(rounded.scales, nearest.scales);
        let error = |codes: &[i8], scales: &[f32]| {
            let values: Vec<f32> = dequantize_groups(codes, scales, None, columns).collect();
            output_error(&inputs, &weights, &values, columns)
        };
        let before = error(&nearest.codes, &nearest.scales);
        let after = error(&rounded.codes, &rounded.scales);
        assert!(after < before, "{seed}: {after} {before}");
    }
}

#[test]
fn inputs_that_have_nothing_to_do_with_one_another_give_the_nearest_codes() {
    // One input at a time: H is a diagonal matrix.
    let columns = 19;
    let inputs: Vec<f32> = (0..columns * columns)
        .map(|i| {
            if i / columns == i % columns {
                1.0 + i as f32
            } else {
                0.0
            }
        })
        .collect();
    let weights = random(8, 5 * columns);
    let rounded = int8_rows(&weights, &factor(&inputs, columns), false);
    assert_eq!(rounded, quantize_rows_int8(&weights, 5, columns));
}

#[test]
fn dead_inputs_neither_give_nor_take() {
    let (rows, columns, dead) = (6, 20, [3, 11, 19]);
    let mut inputs = correlated(9, 100, columns);
    for row in inputs.chunks_exact_mut(columns) {
        dead.iter().for_each(|&column| row[column] = 0.0);
    }
    let mut weights = random(10, rows * columns);
    for row in weights.chunks_exact_mut(columns) {
        // No row has its largest weight, and so its scale, at a dead input.
        dead.iter().for_each(|&column| row[column] *= 0.5);
        row[0] = 1.0;
    }
    let without = |values: &[f32]| -> Vec<f32> {
        let live = values.iter().enumerate();
        live.filter(|(index, _)| !dead.contains(&(index % columns)))
            .map(|(_, value)| *value)
            .collect()
    };
    let all = int8_rows(&weights, &factor(&inputs, columns), false);
    let live_columns = columns - dead.len();
    let live = int8_rows(
        &without(&weights),
        &factor(&without(&inputs), live_columns),
        false,
    );
    for row in 0..rows {
        let codes = &all.codes[row * columns..(row + 1) * columns];
        let live_codes: Vec<i8> = (0..columns)
            .filter(|column| !dead.contains(column))
            .map(|column| codes[column])
            .collect();
        assert_eq!(
            live_codes,
            live.codes[row * live_columns..(row + 1) * live_columns]
        );
        let parameters = AffineParameters {
            scale: all.scales[row],
            zero_point: 0,
        };
        for column in dead {
            let weight = weights[row * columns + column];
            let nearest = parameters.quantize(weight, CodeRange::INT8);
            assert_eq!(i32::from(codes[column]), nearest);
        }
    }
    // Nothing but zeros.
    let zeros = vec![0.0; 4 * columns];
    let rounded = int8_rows(&weights, &factor(&zeros, columns), false);
    assert_eq!(rounded, quantize_rows_int8(&weights, rows, columns));
}

#[test]
fn damping_makes_a_factor_of_what_has_none() {
    // One row, and two columns that are always alike: both of rank 1.
    for inputs in [random(11, 12), vec![1.0; 2 * 12]] {
        let hessian = hessian(&inputs, 12);
        assert!(InverseFactor::with_damping(&hessian, ColumnOrder::Natural, 0.0).is_none());
        let factor = InverseFactor::of(&hessian, ColumnOrder::Natural).unwrap();
        assert_eq!(factor.damping(), DAMPING);
        let weights = random(12, 3 * 12);
        let rounded = int8_rows(&weights, &factor, false);
        let values: Vec<f32> =
            dequantize_groups(&rounded.codes, &rounded.scales, None, 12).collect();
        let nearest = quantize_rows_int8(&weights, 3, 12);
        let nearest: Vec<f32> =
            dequantize_groups(&nearest.codes, &nearest.scales, None, 12).collect();
        assert!(
            output_error(&inputs, &weights, &values, 12)
                < output_error(&inputs, &weights, &nearest, 12)
        );
    }
    let infinite = hessian(&[f32::MAX, 1.0, 1.0, 1.0], 2);
    assert!(!infinite.is_finite());
    let error = InverseFactor::of(&infinite, ColumnOrder::Natural).unwrap_err();
    assert_eq!(error.damping, 100.0 * DAMPING);
}

#[test]
fn no_pair_can_saturate_whatever_the_weights() {
    // Odd columns: the last has no neighbour. Some rows are flat, so that most pairs are too wide for ordinary codes.
    for columns in [1, 2, 31, 64] {
        let rows = 12;
        let mut weights = random(13, rows * columns);
        for (index, weight) in weights.iter_mut().enumerate() {
            if (index / columns).is_multiple_of(2) {
                *weight = weight.signum() * (0.9 + 0.1 * weight.abs());
            }
        }
        let inputs = correlated(14, 100, columns);
        let factor = factor(&inputs, columns);
        let ordinary = int8_rows(&weights, &factor, false);
        let proof = int8_rows(&weights, &factor, true);
        assert_eq!(saturating_pairs(&proof.codes, columns), 0, "{columns}");
        assert!(!proof.codes.contains(&i8::MIN));
        if columns > 1 {
            assert!(saturating_pairs(&ordinary.codes, columns) > 0, "{columns}");
        }
    }
}
