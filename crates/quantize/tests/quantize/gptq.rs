//! GPTQ: its Hessians, its factor, its rounding, and whole conversions.

use fewbit_checkpoint::{Checkpoint, StoredWeight};
use fewbit_data::TokenRow;
use fewbit_model::{Encoder, Tap};
use fewbit_numerics::affine::{AffineParameters, CodeRange};
use fewbit_numerics::rows::{dequantize_groups, quantize_rows_int8, row_scale};
use fewbit_numerics::saturation::{saturating_pairs, saturation_proof_scale};
use fewbit_quantize::calibration::{CalibrationSamples, Calibrator, calibration_sites};
use fewbit_quantize::gptq::{
    ColumnQuantizer, DAMPING, Hessian, InverseFactor, NearestCodes, SaturationProofCodes, int8_rows,
};
use fewbit_quantize::{
    Backend, DynamicInputs, EmbeddingStorage, GptqCalibration, IntegerRecipe, Method,
    QuantizeError, Recipe, Rounding, quantize_model, quantize_model_with_gptq,
};

use crate::calibration::source;
use crate::tiny_bert::{HIDDEN, INTERMEDIATE, Source, TinyBert};

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
    InverseFactor::of(&hessian(rows, columns)).unwrap()
}

/// The squared change of the outputs of some rows, for all rows of a weight.
fn output_error(inputs: &[f32], weights: &[f32], approximations: &[f32], columns: usize) -> f64 {
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
        let factor = InverseFactor::of(&hessian).unwrap();
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
fn by_the_book<Q: ColumnQuantizer>(row: &[f32], hessian: &Hessian, quantizer: &mut Q) {
    let mut weights: Vec<f64> = row.iter().copied().map(f64::from).collect();
    let mut inverse = inverse(&damped(hessian, DAMPING));
    for column in 0..weights.len() {
        let value = quantizer.quantize(column, &weights[column..]);
        let error = (weights[column] - value) / inverse[column][column];
        for (weight, entry) in weights.iter_mut().zip(&inverse[column]).skip(column) {
            *weight -= error * entry;
        }
        let eliminated = inverse[column].clone();
        for row in &mut inverse {
            let times = row[column] / eliminated[column];
            for (entry, eliminated) in row.iter_mut().zip(&eliminated) {
                *entry -= times * eliminated;
            }
        }
    }
}

#[test]
fn codes_are_those_of_the_textbook() {
    for (seed, rows, columns) in [(4, 20, 33), (5, 9, 70), (6, 3, 1), (7, 17, 2)] {
        let inputs = correlated(seed, 3 * columns, columns);
        let hessian = hessian(&inputs, columns);
        let factor = InverseFactor::of(&hessian).unwrap();
        let weights = random(seed + 100, rows * columns);
        for saturation_proof in [false, true] {
            let found = int8_rows(&weights, &factor, saturation_proof);
            for (index, row) in weights.chunks_exact(columns).enumerate() {
                let largest = row.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
                let mut codes = vec![0; columns];
                let scale = if saturation_proof {
                    let scale = saturation_proof_scale(largest);
                    by_the_book(
                        row,
                        &hessian,
                        &mut SaturationProofCodes::new(scale, &mut codes),
                    );
                    scale
                } else {
                    let scale = row_scale(largest);
                    by_the_book(row, &hessian, &mut NearestCodes::new(scale, &mut codes));
                    scale
                };
                assert_eq!(found.scales[index], scale);
                let range = index * columns..(index + 1) * columns;
                assert_eq!(found.codes[range], codes, "{columns} columns, row {index}");
            }
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
        assert!(InverseFactor::with_damping(&hessian, 0.0).is_none());
        let factor = InverseFactor::of(&hessian).unwrap();
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
    let error = InverseFactor::of(&infinite).unwrap_err();
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

const TEXTS: [&str; 5] = ["a b c", "d e", "f g h i", "a i", "z y x w v u"];

fn texts(texts: &[&str]) -> CalibrationSamples {
    CalibrationSamples::Texts(texts.iter().map(|&text| text.to_owned()).collect())
}

fn calibration(samples: CalibrationSamples) -> GptqCalibration {
    GptqCalibration::new(samples, 2)
}

fn convert(
    source: &Source,
    recipe: &Recipe,
    calibration: &GptqCalibration,
    name: &str,
) -> Result<Checkpoint, QuantizeError> {
    let out = source.out(name);
    quantize_model_with_gptq(
        &source.directory,
        recipe,
        calibration,
        &out,
        false,
        &mut |_, _, _| {},
    )?;
    Ok(Checkpoint::open(&out)?)
}

fn weights_of(source: &Source, name: &str) -> Vec<u8> {
    std::fs::read(source.out(name).join("model.safetensors")).unwrap()
}

/// The rows of one site.
struct Site<'a>(&'a str, Vec<f32>);

impl Tap for Site<'_> {
    fn wants(&self, site: &str) -> bool {
        site == self.0
    }

    fn see(&mut self, _site: &str, _rows: usize, _columns: usize, values: &[f32]) {
        self.1.extend_from_slice(values);
    }
}

#[test]
fn the_outputs_of_each_layer_change_less_than_without_gptq() {
    let source = source(TinyBert::f32());
    let plain = Recipe::new(Method::Dynamic);
    source
        .quantize_into(&plain, &source.out("plain"), false)
        .unwrap();
    let plain = Checkpoint::open(source.out("plain")).unwrap();
    let recipe = Recipe::from(IntegerRecipe::dynamic().with_rounding(Rounding::Gptq {
        saturation_proof: false,
    }));
    let gptq = convert(&source, &recipe, &calibration(texts(&TEXTS)), "gptq").unwrap();
    let encoder = Encoder::open(&source.directory).unwrap();
    let spec = encoder.network().spec();
    let batch = encoder.batch(&TEXTS).unwrap();
    let float = source.open();
    let catalogue = spec.catalogue();
    let mut modules = catalogue.linear_modules();
    for site in calibration_sites(&catalogue) {
        let mut inputs = Site(&site.name, Vec::new());
        encoder
            .network()
            .hidden_states_tapped(&batch, &mut inputs)
            .unwrap();
        for module in modules.by_ref().take(site.modules.len()) {
            let values = |checkpoint: &Checkpoint| {
                let weight = module.stored_weight(checkpoint).unwrap();
                weight.dequantize(module.shape).unwrap()
            };
            let error = |checkpoint| {
                output_error(
                    &inputs.1,
                    &values(&float),
                    &values(checkpoint),
                    module.shape[1],
                )
            };
            assert!(error(&gptq) < error(&plain), "{}", module.name);
        }
    }
}

#[test]
fn every_int8_method_can_have_it() {
    let source = source(TinyBert::f32());
    let mut calibrator =
        Calibrator::prepare(&source.directory, Backend::Native.qconfig().activation()).unwrap();
    calibrator.observe(&TEXTS).unwrap();
    let fixed = calibrator.finish().unwrap().recipe().unwrap();
    let calibration = calibration(texts(&TEXTS));
    for options in [
        IntegerRecipe::dynamic().with_embeddings(EmbeddingStorage::Keep),
        fixed
            .integer()
            .unwrap()
            .clone()
            .with_embeddings(EmbeddingStorage::Keep),
        IntegerRecipe::weight_only().with_embeddings(EmbeddingStorage::Int8),
        IntegerRecipe::from(DynamicInputs::default().with_weight_only(["*.intermediate.dense"]))
            .with_embeddings(EmbeddingStorage::Keep),
    ] {
        for saturation_proof in [false, true] {
            let rounding = Rounding::Gptq { saturation_proof };
            let recipe = Recipe::from(options.clone().with_rounding(rounding));
            let name = recipe.label();
            let checkpoint = convert(&source, &recipe, &calibration, &name).unwrap();
            let spec = fewbit_model::EncoderSpec::from_checkpoint(&checkpoint).unwrap();
            let mut pairs = 0;
            for module in spec.catalogue().linear_modules() {
                let codes = match module.stored_weight(&checkpoint).unwrap() {
                    StoredWeight::Int8 { codes, .. } => codes,
                    StoredWeight::Groups { codes, .. } => codes,
                    other => panic!("{other:?}"),
                };
                pairs += saturating_pairs(&codes, module.shape[1]);
            }
            assert_eq!(pairs == 0, saturation_proof, "{name}");
            Encoder::open(source.out(&name)).unwrap();
            let written = std::fs::read_to_string(source.out(&name).join("recipe.toml")).unwrap();
            assert_eq!(Recipe::from_toml(&written).unwrap(), recipe);
        }
    }
}

#[test]
fn the_result_depends_on_the_samples_alone() {
    let source = source(TinyBert::f32());
    let recipe = Recipe::from(IntegerRecipe::weight_only().with_rounding(Rounding::Gptq {
        saturation_proof: false,
    }));
    convert(&source, &recipe, &calibration(texts(&TEXTS)), "two").unwrap();
    for threads in [1, 5] {
        let calibration = GptqCalibration::new(texts(&TEXTS), threads);
        let name = threads.to_string();
        convert(&source, &recipe, &calibration, &name).unwrap();
        assert_eq!(weights_of(&source, &name), weights_of(&source, "two"));
    }
    // The same texts as token ids.
    let encoder = Encoder::open(&source.directory).unwrap();
    let rows = TEXTS.map(|text| {
        let encoding = encoder.tokenizer().tokenize(text).unwrap();
        TokenRow {
            token_ids: encoding.token_ids,
            token_type_ids: encoding.token_type_ids,
        }
    });
    let rows = calibration(CalibrationSamples::Tokens(rows.to_vec()));
    convert(&source, &recipe, &rows, "rows").unwrap();
    assert_eq!(weights_of(&source, "rows"), weights_of(&source, "two"));
    // Other texts, one of them alone: other codes.
    let one = calibration(texts(&TEXTS[..1]));
    convert(&source, &recipe, &one, "one").unwrap();
    assert_ne!(weights_of(&source, "one"), weights_of(&source, "two"));
}

/// Converts to `out` and returns what progress was told; panics at the first step that is about `stop`.
fn steps(
    source: &Source,
    recipe: &Recipe,
    calibration: &GptqCalibration,
    stop: &str,
) -> Vec<String> {
    let mut told = Vec::new();
    let mut tell = |_: usize, _: usize, what: &str| {
        assert!(!what.starts_with(stop), "interrupted");
        told.push(what.to_owned());
    };
    let (source, out) = (&source.directory, source.out("out"));
    quantize_model_with_gptq(source, recipe, calibration, out, false, &mut tell).unwrap();
    told
}

#[test]
fn an_interrupted_run_goes_on_after_the_last_finished_layers() {
    goes_on(&IntegerRecipe::weight_only(), &IntegerRecipe::dynamic());
    let mixed = DynamicInputs::default().with_weight_only(["*.intermediate.dense"]);
    let other = mixed.clone().with_weight_only(["*.query"]);
    goes_on(&mixed.into(), &other.into());
}

/// GPTQ with `options` can be interrupted; with the `others` it cannot take what is finished.
fn goes_on(options: &IntegerRecipe, others: &IntegerRecipe) {
    let rounded = |options: &IntegerRecipe, saturation_proof| {
        let rounding = Rounding::Gptq { saturation_proof };
        Recipe::from(options.clone().with_rounding(rounding))
    };
    let source = source(TinyBert::f32());
    let whole = calibration(texts(&TEXTS));
    let recipe = &rounded(options, false);
    convert(&source, recipe, &whole, "whole").unwrap();
    let finished = source.out("out.partial");
    assert_eq!(GptqCalibration::path_beside(&source.out("out")), finished);
    // A layer a pass.
    let by_layer = GptqCalibration {
        hessian_bytes: 0,
        finished_layers: Some(finished),
        ..whole
    };
    let interrupted =
        std::panic::catch_unwind(|| steps(&source, recipe, &by_layer, "GPTQ, pass 2 of 2"));
    assert!(interrupted.is_err());
    assert_eq!(source.siblings(), ["out.partial", "whole"]);

    // Of other texts, or another recipe, nothing can be used.
    let other_texts = GptqCalibration {
        samples: texts(&TEXTS[1..]),
        ..by_layer.clone()
    };
    let refused = convert(&source, recipe, &other_texts, "out")
        .unwrap_err()
        .to_string();
    let expected = "out.partial/pass-1: expected layers of the same model, recipe and calibration samples, found those of others";
    assert!(refused.contains(expected), "{refused}");
    for other in [rounded(options, true), rounded(others, false)] {
        let refused = convert(&source, &other, &by_layer, "out")
            .unwrap_err()
            .to_string();
        assert!(refused.contains(expected), "{refused}");
    }
    assert_eq!(source.siblings(), ["out.partial", "whole"]);

    let told = steps(&source, recipe, &by_layer, "GPTQ, pass 1 of 2");
    assert!(
        told.iter()
            .any(|what| what == "GPTQ, pass 2 of 2: 5 of 5 samples")
    );
    assert_eq!(weights_of(&source, "out"), weights_of(&source, "whole"));
    assert_eq!(source.siblings(), ["out", "whole"]);
}

#[test]
fn skipped_layers_stay_float_and_others_are_reported_in_file_order() {
    let source = source(TinyBert::f32());
    let nearest = IntegerRecipe::dynamic()
        .with_skip(["*.layer.0.*"])
        .with_embeddings(EmbeddingStorage::Int8);
    let recipe = Recipe::from(nearest.clone().with_rounding(Rounding::Gptq {
        saturation_proof: false,
    }));
    let mut steps = Vec::new();
    let report = quantize_model_with_gptq(
        &source.directory,
        &recipe,
        &calibration(texts(&TEXTS)),
        source.out("out"),
        false,
        &mut |done, total, what| steps.push((done, total, what.to_owned())),
    )
    .unwrap();
    let plain = source
        .quantize_into(&nearest.into(), &source.out("plain"), false)
        .unwrap();
    let modules = |report: &fewbit_quantize::QuantizeReport| -> Vec<String> {
        let modules = report.modules.iter();
        modules.map(|module| module.module.clone()).collect()
    };
    assert_eq!(modules(&report), modules(&plain));
    assert_eq!(report.output_bytes, plain.output_bytes);
    // Bytes never go back, and reach the end; what is collected is told, too.
    assert!(steps.is_sorted_by_key(|(done, ..)| *done));
    assert!(steps.last().is_some_and(|(done, total, _)| done == total));
    assert!(
        steps
            .iter()
            .any(|(.., what)| what == "GPTQ, pass 1 of 1: 5 of 5 samples")
    );
}

#[test]
fn what_gptq_cannot_do_is_refused_and_leaves_nothing() {
    let good = source(TinyBert::f32());
    let recipe = Recipe::from(IntegerRecipe::dynamic().with_rounding(Rounding::Gptq {
        saturation_proof: false,
    }));
    let text = |result: Result<Checkpoint, QuantizeError>| result.unwrap_err().to_string();
    let without = quantize_model(
        &good.directory,
        &recipe,
        good.out("out"),
        false,
        &mut |_, _, _| {},
    );
    insta::assert_snapshot!(without.unwrap_err(), @"
    recipe: `gptq`: expected calibration texts beside it, found none
      hint: give some: `quantize_model_with_gptq`, or `--calibration FILE` on the command line
    ");
    insta::assert_snapshot!(text(convert(&good, &recipe, &calibration(texts(&[])), "out")), @"
    gptq: expected at least one calibration text, found none
      hint: a few hundred texts like those that the model will see
    ");
    let none = GptqCalibration::new(texts(&TEXTS), 0);
    insta::assert_snapshot!(text(convert(&good, &recipe, &none, "out")), @"threads: expected at least 1 that can be started, found 0");
    assert_eq!(good.siblings(), [""; 0]);

    // Activations of 1e24, which later weights bring back: finite, but not their squares.
    let mut large = TinyBert::f32();
    let layer = "bert.encoder.layer.1";
    for column in 0..HIDDEN {
        large.poke(&format!("{layer}.intermediate.dense.weight"), column, 1e24);
    }
    for row in 0..HIDDEN {
        let output = format!("{layer}.output.dense.weight");
        large.poke(&output, row * INTERMEDIATE, 1e-24);
    }
    let large = source(large);
    insta::assert_snapshot!(text(convert(&large, &recipe, &calibration(texts(&TEXTS)), "out")), @"
    encoder.layer.1.output.dense.input: expected activations whose squares are finite in f32, found larger ones, or NaN
      hint: the model overflows on one of the calibration texts: quantize it without GPTQ, or skip the layer
    ");
    let skipping = recipe.integer().unwrap().clone();
    let skipping = skipping.with_skip(["*.layer.1.output.dense"]).into();
    convert(&large, &skipping, &calibration(texts(&TEXTS)), "skipping").unwrap();
    assert_eq!(large.siblings(), ["skipping"]);

    // Activations that overflow are the model's own error.
    let mut infinite = TinyBert::f32();
    for column in 0..HIDDEN {
        infinite.poke(&format!("{layer}.intermediate.dense.weight"), column, 3e38);
    }
    let infinite = source(infinite);
    let error = text(convert(
        &infinite,
        &recipe,
        &calibration(texts(&TEXTS)),
        "out",
    ));
    assert!(
        error.contains("encoder.layer.1.intermediate.dense"),
        "{error}"
    );
    assert_eq!(infinite.siblings(), [""; 0]);
}
