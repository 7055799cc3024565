//! Reads the golden files and regenerates the inputs that `golden/generate.py` names but does not store.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(unreachable_pub, reason = "a module of test binaries")]

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The cases of a golden file.
pub fn cases(file: &str) -> Vec<Value> {
    let path = format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("the golden file is there");
    let content: Value = serde_json::from_str(&text).expect("the golden file is JSON");
    let cases = content["cases"]
        .as_array()
        .expect("a list of cases")
        .clone();
    assert!(!cases.is_empty(), "{file} has cases");
    cases
}

/// Bytes of a hexadecimal field.
pub fn bytes(case: &Value, field: &str) -> Vec<u8> {
    let text = case[field]
        .as_str()
        .unwrap_or_else(|| panic!("{field} is text in {case}"));
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).expect("hexadecimal digits"))
        .collect()
}

/// float32 values of a hexadecimal field.
pub fn floats(case: &Value, field: &str) -> Vec<f32> {
    bytes(case, field)
        .as_chunks()
        .0
        .iter()
        .map(|&b| f32::from_le_bytes(b))
        .collect()
}

/// An unsigned number.
pub fn number(case: &Value, field: &str) -> usize {
    case[field]
        .as_u64()
        .unwrap_or_else(|| panic!("{field} is a number in {case}")) as usize
}

/// Bit patterns, so that comparisons tell -0 from 0 and failures show every bit.
pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// SHA-256 of bytes in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// SHA-256 of the little-endian bytes of floats.
pub fn sha256_of_floats(values: &[f32]) -> String {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    sha256(&bytes)
}

/// The input of a case: stored bits, or a generator's name, seed and count.
pub fn input(case: &Value) -> Vec<f32> {
    let input = &case["input"];
    match input["generator"].as_str() {
        Some(name) => generated(name, number(input, "seed") as u32, number(input, "count")),
        None => floats(input, "bits"),
    }
}

/// The generators of `generate.py`, bit for bit.
pub fn generated(name: &str, seed: u32, count: usize) -> Vec<f32> {
    let values = (0..count as u32).map(|i| (i, mixed(seed, i)));
    match name {
        "bell" => values
            .map(|(i, h)| {
                let total: u32 = h.to_le_bytes().iter().map(|&byte| u32::from(byte)).sum();
                let fraction = mixed(seed.wrapping_add(1), i) & 8191;
                let whole = (total as i32 - 510) * 8192 + fraction as i32;
                whole as f32 / 16_777_216.0
            })
            .collect(),
        "bell_bf16" => generated("bell", seed, count)
            .iter()
            .map(|value| f32::from_bits(value.to_bits() & 0xffff_0000))
            .collect(),
        "positive" => values.map(|(_, h)| (h >> 8) as f32 / 1_048_576.0).collect(),
        "denormal" => values
            .map(|(_, h)| f32::from_bits(h & 0x807f_ffff))
            .collect(),
        "tiny" => values
            .map(|(_, h)| f32::from_bits(h & 0x80ff_ffff))
            .collect(),
        "big" => values
            .map(|(_, h)| {
                let exponent = if h & 0x0080_0000 != 0 {
                    0x7f00_0000
                } else {
                    0x7e80_0000
                };
                f32::from_bits(h & 0x807f_ffff | exponent)
            })
            .collect(),
        "zero" => vec![0.0; count],
        _ => panic!("no generator {name}"),
    }
}

fn mixed(seed: u32, i: u32) -> u32 {
    let mut h = i
        .wrapping_mul(2_654_435_761)
        .wrapping_add(seed.wrapping_mul(2_246_822_519))
        .wrapping_add(374_761_393);
    for (shift, factor) in [(15, 2_246_822_519u32), (13, 3_266_489_917)] {
        h = (h ^ h >> shift).wrapping_mul(factor);
    }
    h ^ h >> 16
}
