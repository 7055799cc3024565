//! The dynamic map and double quantization against bitsandbytes on a CPU, bit for bit.

use crate::golden_input::{bits, bytes, cases, floats, input, sha256, sha256_of_floats};
use fewbit_numerics::double_quantization::{NESTED_BLOCK_SIZE, dequantize, quantize_with_offset};
use fewbit_numerics::dynamic_map::dynamic_map;

#[test]
fn the_dynamic_map_is_that_of_bitsandbytes() {
    assert_eq!(
        sha256_of_floats(dynamic_map()),
        "e732639a65f497b4ad684bb166a4467708255edd5207757de8b8f0c7e1fda89c"
    );
}

#[test]
fn codes_and_dequantized_values_are_those_of_bitsandbytes() {
    for case in cases("double_quantization.json") {
        if case["input"]["every_step"] == true {
            continue;
        }
        let absmax: Vec<f32> = input(&case).iter().map(|value| value.abs()).collect();
        let offset = floats(&case, "offset")[0];
        let context = &case["input"];
        let quantized = quantize_with_offset(&absmax, offset);
        assert_eq!(quantized.offset.to_bits(), offset.to_bits());
        assert_eq!(
            bits(&quantized.nested_absmax),
            bits(&floats(&case, "nested_absmax")),
            "nested absmax: {context}"
        );
        assert_eq!(quantized.codes, bytes(&case, "codes"), "codes: {context}");
        let restored = dequantize(
            &quantized.codes,
            dynamic_map(),
            &quantized.nested_absmax,
            NESTED_BLOCK_SIZE,
            offset,
        );
        assert_eq!(
            sha256_of_floats(&restored),
            case["dequantized_sha256"].as_str().expect("text"),
            "dequantized: {context}"
        );
    }
}

#[test]
fn every_step_of_the_code_table_is_that_of_bitsandbytes() {
    let case = cases("double_quantization.json")
        .into_iter()
        .find(|case| case["input"]["every_step"] == true)
        .expect("the case is there");
    let mut values = Vec::new();
    for step in 0..65535 {
        if step % 255 == 0 {
            values.push(1.0);
        }
        values.push(-1.0 + 2.0 * step as f32 / 65535.0);
    }
    let quantized = quantize_with_offset(&values, 0.0);
    assert!(quantized.nested_absmax.iter().all(|&absmax| absmax == 1.0));
    assert_eq!(
        sha256(&quantized.codes),
        case["codes_sha256"].as_str().expect("text")
    );
}
