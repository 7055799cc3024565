//! Scales, zero points and codes against PyTorch's eager quantization and compressed-tensors, bit for bit.

use crate::golden_input::{bits, bytes, cases, floats, number, sha256_of_floats};
use fewbit_numerics::activation::{ActivationScheme, quantize_row};
use fewbit_numerics::affine::{AffineParameters, CodeRange};
use fewbit_numerics::rows::quantize_rows_int8;

#[test]
fn parameters_and_codes_are_those_of_torch_observers() {
    for case in cases("affine.json") {
        let range = match case["range"].as_str() {
            Some("int8") => CodeRange::INT8,
            Some("uint8") => CodeRange::UINT8,
            Some("int4") => CodeRange::INT4,
            other => panic!("range {other:?}"),
        };
        let (low, high) = (floats(&case, "low")[0], floats(&case, "high")[0]);
        let parameters = match case["scheme"].as_str() {
            Some("symmetric") => AffineParameters::symmetric(low.abs().max(high.abs()), range),
            Some("affine") => AffineParameters::affine(low, high, range),
            other => panic!("scheme {other:?}"),
        };
        let context = format!("{} {range:?} of {low}..{high}", case["scheme"]);
        assert_eq!(
            parameters.scale.to_bits(),
            floats(&case, "scale")[0].to_bits(),
            "scale: {context}"
        );
        assert_eq!(
            Some(i64::from(parameters.zero_point)),
            case["zero_point"].as_i64(),
            "zero point: {context}"
        );

        let values = floats(&case, "values");
        let codes: Vec<i32> = values
            .iter()
            .map(|&x| parameters.quantize(x, range))
            .collect();
        let expected: Vec<i32> = bytes(&case, "codes")
            .as_chunks()
            .0
            .iter()
            .map(|&b| i32::from(i16::from_le_bytes(b)))
            .collect();
        assert_eq!(codes, expected, "codes: {context}");
        let dequantized: Vec<f32> = codes
            .iter()
            .map(|&code| parameters.dequantize(code))
            .collect();
        assert_eq!(
            sha256_of_floats(&dequantized),
            case["dequantized_sha256"].as_str().expect("text"),
            "dequantized: {context}"
        );
    }
}

#[test]
fn weight_rows_have_the_scales_of_compressed_tensors() {
    let cases = cases("rows.json");
    let case = cases
        .iter()
        .find(|case| case["kind"] == "weight")
        .expect("the case is there");
    let (rows, columns) = (number(case, "rows"), number(case, "columns"));
    let quantized = quantize_rows_int8(&floats(case, "values"), rows, columns);
    assert_eq!((quantized.rows, quantized.columns), (rows, columns));
    assert_eq!(bits(&quantized.scales), bits(&floats(case, "scales")));
    let expected: Vec<i8> = bytes(case, "codes")
        .iter()
        .map(|&byte| byte.cast_signed())
        .collect();
    assert_eq!(quantized.codes, expected);
}

#[test]
fn activation_rows_are_those_of_torch_min_max_observers() {
    let mut seen = 0;
    for case in cases("rows.json") {
        let scheme = match case["kind"].as_str() {
            Some("affine") => ActivationScheme::Affine,
            Some("symmetric") => ActivationScheme::Symmetric,
            _ => continue,
        };
        seen += 1;
        let row = floats(&case, "values");
        let mut codes = vec![0; row.len()];
        let parameters = quantize_row(&row, scheme, &mut codes);
        assert_eq!(
            parameters.scale.to_bits(),
            floats(&case, "scale")[0].to_bits(),
            "{scheme:?} row {seen}"
        );
        assert_eq!(
            Some(i64::from(parameters.zero_point)),
            case["zero_point"].as_i64(),
            "{scheme:?} row {seen}"
        );
        assert_eq!(codes, bytes(&case, "codes"), "{scheme:?} row {seen}");
    }
    assert_eq!(seen, 18);
}
