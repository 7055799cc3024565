//! Parameters chosen at run time, and dynamic linear layers, against PyTorch, bit for bit.

use crate::golden_input::{bits, bytes, cases, floats, input, number};
use fewbit_numerics::affine::CodeRange;
use fewbit_numerics::choose_parameters::choose_parameters;
use fewbit_numerics::dynamic_linear::{dynamic_linear, quantize_per_tensor_int8};

#[test]
fn parameters_are_those_of_torch_choose_qparams_per_tensor() {
    let case = &cases("choose_parameters.json")[0];
    let ranges = floats(case, "ranges");
    let (ranges, _) = ranges.as_chunks::<2>();
    let mut failures = Vec::new();
    for (name, codes) in [
        ("full", CodeRange::UINT8),
        ("reduced", CodeRange::UINT8.reduced()),
    ] {
        let scales = floats(case, &format!("{name}_scales"));
        let zero_points = bytes(case, &format!("{name}_zero_points"));
        assert_eq!(
            (scales.len(), zero_points.len()),
            (ranges.len(), ranges.len())
        );
        for ((&[min, max], scale), zero_point) in ranges.iter().zip(scales).zip(zero_points) {
            let found = choose_parameters(min, max, codes, false);
            if (found.scale.to_bits(), found.zero_point) != (scale.to_bits(), i32::from(zero_point))
            {
                failures.push(format!(
                    "{min:e}..{max:e} {name}: {found:?}, torch {scale:e} {zero_point}"
                ));
            }
        }
    }
    assert!(ranges.len() > 2000, "{} ranges", ranges.len());
    assert!(failures.is_empty(), "{}: {failures:#?}", failures.len());
}

#[test]
fn symmetric_parameters_are_those_of_torch_fused_training() {
    let case = &cases("choose_parameters.json")[0];
    let ranges = floats(case, "symmetric_ranges");
    let (ranges, _) = ranges.as_chunks::<2>();
    assert!(ranges.len() > 1000, "{} ranges", ranges.len());
    let scales = floats(case, "symmetric_scales");
    let zero_points = bytes(case, "symmetric_zero_points");
    assert_eq!(
        (scales.len(), zero_points.len()),
        (ranges.len(), ranges.len())
    );
    for ((&[min, max], scale), zero_point) in ranges.iter().zip(scales).zip(zero_points) {
        let found = choose_parameters(min, max, CodeRange::INT8, true);
        assert_eq!(
            (found.scale.to_bits(), found.zero_point),
            (scale.to_bits(), i32::from(zero_point.cast_signed())),
            "{min:e}..{max:e}: {found:?}, torch {scale:e}"
        );
    }
}

#[test]
fn outputs_are_those_of_torch_quantize_dynamic() {
    let cases = cases("dynamic_linear.json");
    assert_eq!(cases.len(), 15);
    for (index, case) in cases.iter().enumerate() {
        let weight = quantize_per_tensor_int8(&input(&case["weight"]));
        assert_eq!(
            weight.scale.to_bits(),
            floats(case, "weight_scale")[0].to_bits(),
            "case {index}"
        );
        let codes: Vec<u8> = weight
            .codes
            .iter()
            .map(|code| code.cast_unsigned())
            .collect();
        assert_eq!(codes, bytes(case, "weight_codes"), "case {index}");
        let bias = input(&case["bias"]);
        let bias = (case["has_bias"] == true).then_some(bias.as_slice());
        let x = input(case);
        for (name, reduce_range) in [("reduced", true), ("full", false)] {
            let out = dynamic_linear(&x, number(case, "in_features"), &weight, bias, reduce_range);
            assert_eq!(
                bits(&out),
                bits(&floats(case, name)),
                "case {index}, {name}"
            );
        }
    }
}
