//! ggml's blocks against ggml, bit for bit.

use crate::golden_input::{bytes, cases, floats, sha256_of_floats};
use fewbit_numerics::ggml_blocks::{BlockType, dequantize_blocks, quantize_blocks};

#[test]
fn blocks_are_those_of_ggml() {
    let cases = cases("ggml_blocks.json");
    assert_eq!(cases.len(), BlockType::ALL.len());
    let values = floats(&cases[0], "values");
    for case in &cases {
        let named = |kind: &BlockType| case["type"] == kind.name();
        let kind = BlockType::ALL.into_iter().find(named).unwrap();
        let expected = bytes(case, "blocks");
        let mut blocks = vec![0xaa; expected.len()];
        assert_eq!(quantize_blocks(kind, &values, &mut blocks), None);
        let pairs = blocks.chunks(kind.bytes());
        for (index, (found, expected)) in pairs.zip(expected.chunks(kind.bytes())).enumerate() {
            assert_eq!(found, expected, "{kind}, block {index}");
        }
        let mut back = vec![f32::NAN; values.len()];
        dequantize_blocks(kind, &blocks, &mut back);
        assert_eq!(
            case["dequantized_sha256"],
            sha256_of_floats(&back),
            "{kind}"
        );
    }
}

/// No value is further from its block than half the widest step that the type has, where its range is [-1, 1].
#[test]
fn values_come_back_within_a_step() {
    let values: Vec<f32> = (0..4096)
        .map(|index| (index as f32 * 0.731).sin())
        .collect();
    for (kind, steps) in [
        (BlockType::Q8_0, 127.0),
        (BlockType::Q6_K, 32.0),
        (BlockType::Q5_0, 16.0),
        (BlockType::Q5_1, 15.5),
        (BlockType::Q4_0, 8.0),
        (BlockType::Q4_1, 7.5),
        (BlockType::Q5_K, 15.5),
        (BlockType::Q4_K, 7.5),
    ] {
        let mut blocks = vec![0; values.len() / kind.elements() * kind.bytes()];
        quantize_blocks(kind, &values, &mut blocks);
        let mut back = vec![0.0; values.len()];
        dequantize_blocks(kind, &blocks, &mut back);
        // The end of a symmetric range that has a code less is a whole step away; fp16 scales add 2^-11, and the integer scales of
        // the K types half of 1/63, of a range.
        let most = 1.0 / steps * (1.0 + 1.0 / 63.0) + 1.0 / 1024.0;
        for (value, back) in values.iter().zip(&back) {
            assert!((value - back).abs() <= most, "{kind}: {value} {back}");
        }
    }
}

#[test]
fn a_scale_beyond_fp16_is_reported() {
    let mut values = vec![1.0f32; 512];
    values[300] = 1e9;
    for kind in BlockType::ALL {
        let mut blocks = vec![0; values.len() / kind.elements() * kind.bytes()];
        assert_eq!(
            quantize_blocks(kind, &values, &mut blocks),
            Some(300 / kind.elements()),
            "{kind}"
        );
    }
}
