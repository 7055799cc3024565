//! NF4 and FP4 blocks against bitsandbytes on a CPU, bit for bit.

use crate::golden_input::{bits, bytes, cases, floats, input, number, sha256_of_floats};
use fewbit_numerics::four_bit::{FourBitType, dequantize_range, quantize_blocks};

#[test]
fn codes_absmax_and_dequantized_values_are_those_of_bitsandbytes() {
    let mut kinds_seen = [0, 0];
    for case in cases("four_bit.json") {
        let kind = match case["type"].as_str() {
            Some("nf4") => FourBitType::Nf4,
            Some("fp4") => FourBitType::Fp4,
            other => panic!("type {other:?}"),
        };
        kinds_seen[kind as usize] += 1;
        let block_size = number(&case, "block_size");
        let values = input(&case);
        let context = format!("{} block {block_size} of {}", kind.name(), case["input"]);

        let blocks = quantize_blocks(&values, block_size, kind);
        assert_eq!(
            bits(&blocks.absmax),
            bits(&floats(&case, "absmax")),
            "absmax: {context}"
        );
        assert_eq!(blocks.packed, bytes(&case, "packed"), "codes: {context}");

        let mut dequantized = vec![f32::NAN; values.len()];
        dequantize_range(
            &blocks.packed,
            &blocks.absmax,
            block_size,
            kind,
            0,
            &mut dequantized,
        );
        assert_eq!(
            sha256_of_floats(&dequantized),
            case["dequantized_sha256"].as_str().expect("text"),
            "dequantized: {context}"
        );
    }
    assert_eq!(kinds_seen[0], kinds_seen[1]);
}
