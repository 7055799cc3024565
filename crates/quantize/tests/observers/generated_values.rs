//! The inputs of `tests/golden/observers/generate.py`, bit for bit.

use serde_json::Value;

/// Values of a generator, times `factor` plus `offset`; each operation on floats is one rounding.
pub(crate) fn generated(name: &str, seed: u32, count: usize, factor: f32, offset: f32) -> Vec<f32> {
    let integers = (0..count as u32).map(|i| mixed(seed, i));
    let bell = |h: u32| {
        let total: u32 = h.to_le_bytes().iter().map(|&byte| u32::from(byte)).sum();
        (total as i32 - 510) as f32 / 256.0
    };
    integers
        .map(|h| match name {
            "uniform" => ((h >> 8) as i32 - (1 << 23)) as f32 / 8_388_608.0,
            "positive" => (h >> 8) as f32 / 16_777_216.0,
            "bell" => bell(h),
            "heavy" => {
                let square = bell(h) * bell(h);
                square * square * bell(h)
            }
            "rectified" => bell(h).max(0.0),
            "three" => (h % 3) as f32 - 1.0,
            "denormal" => f32::from_bits(h & 0x807f_ffff),
            "zero" => 0.0,
            _ => panic!("no generator {name}"),
        })
        .map(|value| value * factor + offset)
        .collect()
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

/// The values of each update of a stream of the golden file.
pub(crate) fn updates(stream: &Value) -> Vec<Vec<f32>> {
    let seed = stream["seed"].as_u64().expect("a number") as u32;
    let updates = stream["updates"].as_array().expect("a list");
    let tensors = updates.iter().enumerate().map(|(number, update)| {
        generated(
            update["generator"].as_str().expect("text"),
            seed + number as u32,
            update["count"].as_u64().expect("a number") as usize,
            floats(&update["factor"])[0],
            floats(&update["offset"])[0],
        )
    });
    tensors.collect()
}

/// float32 values of hexadecimal text.
pub(crate) fn floats(text: &Value) -> Vec<f32> {
    let text = text.as_str().expect("hexadecimal text");
    let bytes: Vec<u8> = (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).expect("hexadecimal digits"))
        .collect();
    let (words, _) = bytes.as_chunks();
    words.iter().map(|&word| f32::from_le_bytes(word)).collect()
}

/// A golden file of observers.
pub(crate) fn golden(file: &str) -> Value {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/observers");
    let text =
        std::fs::read_to_string(format!("{folder}/{file}")).expect("the golden file is there");
    serde_json::from_str(&text).expect("the golden file is JSON")
}
