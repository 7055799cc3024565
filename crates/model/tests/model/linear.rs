//! Linear layers by themselves, and weights that are not a file's.

use crate::golden_files::golden;
use fewbit_checkpoint::compressed_tensors::{CompressedScheme, Int4Layout, Int4Scheme};
use fewbit_checkpoint::stored_weight::Int8Activations;
use fewbit_checkpoint::{Checkpoint, CheckpointError, StoredWeight};
use fewbit_model::{EncoderSpec, Linear, Module, Network, Role, WeightSource};
use fewbit_numerics::activation::ActivationScheme;
use fewbit_numerics::dtype::DType;
use fewbit_numerics::four_bit::{FourBitType, quantize_blocks};
use fewbit_numerics::int4_groups::{GroupScales, GroupStorage, Int4Settings, quantize_int4};
use fewbit_numerics::rows::quantize_rows_int8;
use std::borrow::Cow;

/// Numbers in -1..1.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// A weight in every form.
fn forms(weight: &[f32], [out, inside]: [usize; 2]) -> Vec<(&'static str, StoredWeight<'static>)> {
    let int8 =
        |scheme: CompressedScheme| scheme.stored_weight(quantize_rows_int8(weight, out, inside));
    let blocks = quantize_blocks(weight, 64, FourBitType::Nf4);
    let int4 = |group_size: Option<usize>, asymmetric: bool, activations| {
        let scheme = Int4Scheme {
            group_size,
            asymmetric,
            activations,
            layout: Int4Layout::Packed,
        };
        let settings = Int4Settings {
            group_size: scheme.group_size_of(inside),
            asymmetric,
            scales: GroupScales::Range,
            storage: GroupStorage::default(),
        };
        scheme.stored_weight(quantize_int4(weight, out, inside, settings))
    };
    let dynamic = Some(Int8Activations::Dynamic(ActivationScheme::Affine));
    vec![
        // Whole rows have tiles, groups of 35 columns do not.
        ("dynamic", int4(None, true, dynamic)),
        ("weight-only", int4(None, false, None)),
        ("weight-only in floats", int4(Some(35), false, None)),
        ("weight-only in floats", int4(Some(35), true, None)),
        ("floats", StoredWeight::of_values(weight)),
        ("dynamic", int8(CompressedScheme::DynamicInt8)),
        ("weight-only", int8(CompressedScheme::WeightOnlyInt8)),
        (
            "nf4",
            StoredWeight::FourBit {
                packed: Cow::Owned(blocks.packed),
                absmax: blocks.absmax,
                nested: None,
                block_size: 64,
                kind: FourBitType::Nf4,
                dtype: DType::F32,
            },
        ),
    ]
}

#[test]
fn every_form_gives_the_product_of_its_weight_on_any_number_of_threads() {
    let shape @ [out, inside] = [150, 70];
    let weight = values(out * inside, 1);
    let bias = values(out, 2);
    for (name, stored) in forms(&weight, shape) {
        let dequantized = stored.dequantize(shape).unwrap();
        let linear = Linear::new(stored, Some(&bias), shape).unwrap();
        for rows in [0, 1, 40] {
            let x = values(rows * inside, 3);
            let y = linear.forward(&x, 1).unwrap();
            assert_eq!(y.len(), rows * out);
            for (row, (x, y)) in x.chunks(inside).zip(y.chunks(out)).enumerate() {
                // An input is off by half a step: of 1/255 of the range 2 in int8, of 1/4095 where the weight alone is int8. Each term adds that
                // times a weight of at most 1, and each sum some rounding.
                let step = match name {
                    "dynamic" => 2.0 / 255.0,
                    "weight-only" => 2.0 / 4095.0,
                    _ => 0.0,
                };
                let bound = inside as f64 * (step / 2.0 + f64::from(f32::EPSILON)) + 1e-6;
                for (output, &y) in y.iter().enumerate() {
                    let weights = &dequantized[output * inside..][..inside];
                    let terms = x
                        .iter()
                        .zip(weights)
                        .map(|(&x, &w)| f64::from(x) * f64::from(w));
                    let exact = terms.sum::<f64>() + f64::from(bias[output]);
                    assert!(
                        (f64::from(y) - exact).abs() <= bound,
                        "{name}, row {row}, output {output}: {y}, expected {exact} within {bound}"
                    );
                }
            }
            for threads in [2, 3, 5] {
                assert_eq!(
                    linear.forward(&x, threads).unwrap(),
                    y,
                    "{name}, {threads} threads"
                );
            }
        }
    }
}

#[test]
fn what_is_no_linear_layer_is_refused() {
    let text = |result: Result<Linear, fewbit_model::ModelError>| result.unwrap_err().to_string();
    let weight = values(6, 1);
    assert!(
        text(Linear::from_matrix(&weight, None, [2, 4]))
            .contains("expected as many as shape [2, 4]")
    );
    assert!(
        text(Linear::from_matrix(&weight, Some(&[1.0]), [2, 3]))
            .contains("bias: expected 2 elements, found 1")
    );
    let bias = [0.0, f32::NAN];
    assert!(text(Linear::from_matrix(&weight, Some(&bias), [2, 3])).contains("bias, element 1"));
    let broken = [1.0, f32::INFINITY, 0.0, 0.0, 0.0, 0.0];
    assert!(text(Linear::from_matrix(&broken, None, [2, 3])).contains("weight, element 1"));
    let linear = Linear::from_matrix(&weight, None, [2, 3]).unwrap();
    let text = |result: Result<Vec<f32>, fewbit_model::ModelError>| result.unwrap_err().to_string();
    assert!(text(linear.forward(&[1.0; 4], 1)).contains("expected rows of 3 inputs"));
    assert!(text(linear.forward(&[1.0; 3], 0)).contains("threads: expected at least 1"));
    let linear = Linear::from_matrix(&[2.0; 6], None, [2, 3]).unwrap();
    assert!(text(linear.forward(&[f32::MAX; 3], 1)).contains("linear.output"));
}

#[test]
fn quantized_inputs_need_groups_that_have_tiles() {
    let weight = StoredWeight::Groups {
        codes: vec![1; 24].into(),
        scales: vec![1.0; 2],
        zero_points: None,
        group_size: 12,
        bits: 4,
        activations: Some(Int8Activations::Dynamic(ActivationScheme::Affine)),
    };
    let text = Linear::new(weight, None, [1, 24]).unwrap_err().to_string();
    assert!(text.contains("groups of a multiple of 8 columns"), "{text}");
    assert!(
        text.contains("found codes of 4 bits in groups of 12 of 24 columns"),
        "{text}"
    );
}

#[test]
fn a_source_that_gives_another_shape_is_refused() {
    struct Narrow(usize, f32);
    impl WeightSource for Narrow {
        fn weight(&self, module: &Module) -> Result<Option<StoredWeight<'_>>, CheckpointError> {
            let weight =
                StoredWeight::of_values(&vec![self.1; module.shape[0] * module.shape[1] - self.0]);
            Ok((module.role == Role::Key).then_some(weight))
        }
    }
    let checkpoint = Checkpoint::open(golden("architectures").join("bert")).unwrap();
    let spec = EncoderSpec::from_checkpoint(&checkpoint).unwrap();
    assert!(spec.catalogue().get(Role::Key, Some(0)).is_some());
    for (source, expected) in [
        (
            Narrow(1, 0.0),
            "bytes: expected as many as shape [32, 32] has, found 4092",
        ),
        (
            Narrow(0, f32::NAN),
            "element 0: expected a finite number, found NaN",
        ),
    ] {
        let error = Network::load_with_weights(&checkpoint, &source)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`encoder.layer.0.attention.self.key.weight`")
                && error.contains(expected),
            "{error}"
        );
    }
}

#[test]
fn many_rows_have_the_bits_of_single_ones_and_errors_name_their_row() {
    let shape @ [out, inside] = [40, 70];
    let weight = values(out * inside, 1);
    let rows = 300;
    for (name, stored) in forms(&weight, shape) {
        let linear = Linear::new(stored, None, shape).unwrap();
        let mut x = values(rows * inside, 2);
        let single: Vec<f32> = x
            .chunks(inside)
            .flat_map(|row| linear.forward(row, 1).unwrap())
            .collect();
        for threads in [1, 2, 3] {
            assert!(
                linear.forward(&x, threads).unwrap() == single,
                "{name}, {threads} threads"
            );
        }
        assert!(linear.forward(&x, 0).is_err());
        x[260 * inside] = f32::NAN;
        for threads in [1, 2] {
            let error = linear.forward(&x, threads).unwrap_err().to_string();
            assert!(error.contains("260"), "{name}: {error}");
        }
    }
}
