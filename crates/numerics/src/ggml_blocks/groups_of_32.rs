//! Blocks of 32 elements. In those of 4 and 5 bits, byte j holds elements j (low nibble) and j + 16 (high nibble).

use super::{get_f16, put_f16, reciprocal_or_zero, signed_largest};

/// Elements in half of a block.
const HALF: usize = 16;

pub(super) fn quantize_q8_0(values: &[f32], block: &mut [u8]) -> bool {
    let scale = signed_largest(values).abs() / 127.0;
    let inverse = reciprocal_or_zero(scale);
    let (head, codes) = block.split_at_mut(2);
    for (code, value) in codes.iter_mut().zip(values) {
        // Ties away from zero, as C's roundf.
        *code = (value * inverse).round() as i8 as u8;
    }
    put_f16(scale, head).is_finite()
}

pub(super) fn dequantize_q8_0(block: &[u8], values: &mut [f32]) {
    let scale = get_f16(block);
    for (value, code) in values.iter_mut().zip(&block[2..]) {
        *value = f32::from(*code as i8) * scale;
    }
}

/// Codes 0..=`most` of a symmetric block: the element of largest magnitude gets code 0, so that the scale has the other sign.
fn symmetric_codes(values: &[f32], most: u8) -> (f32, [u8; 2 * HALF]) {
    let middle = f32::from(most / 2 + 1);
    let scale = signed_largest(values) / -middle;
    let inverse = reciprocal_or_zero(scale);
    let mut codes = [0; 2 * HALF];
    for (code, value) in codes.iter_mut().zip(values) {
        *code = ((value * inverse + (middle + 0.5)) as u8).min(most);
    }
    (scale, codes)
}

fn put_nibbles(codes: &[u8; 2 * HALF], bytes: &mut [u8]) {
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = codes[at] & 0x0f | codes[at + HALF] << 4;
    }
}

fn nibble(bytes: &[u8], element: usize) -> u8 {
    match element < HALF {
        true => bytes[element] & 0x0f,
        false => bytes[element - HALF] >> 4,
    }
}

pub(super) fn quantize_q4_0(values: &[f32], block: &mut [u8]) -> bool {
    let (scale, codes) = symmetric_codes(values, 15);
    put_nibbles(&codes, &mut block[2..]);
    put_f16(scale, &mut block[..2]).is_finite()
}

pub(super) fn dequantize_q4_0(block: &[u8], values: &mut [f32]) {
    let scale = get_f16(block);
    for (element, value) in values.iter_mut().enumerate() {
        *value = (f32::from(nibble(&block[2..], element)) - 8.0) * scale;
    }
}

pub(super) fn quantize_q4_1(values: &[f32], block: &mut [u8]) -> bool {
    let (mut least, mut most) = (values[0], values[0]);
    for &value in values {
        least = if value < least { value } else { least };
        most = if value > most { value } else { most };
    }
    let scale = (most - least) / 15.0;
    let inverse = reciprocal_or_zero(scale);
    let mut codes = [0; 2 * HALF];
    for (code, value) in codes.iter_mut().zip(values) {
        *code = (((value - least) * inverse + 0.5) as u8).min(15);
    }
    put_nibbles(&codes, &mut block[4..]);
    let scale = put_f16(scale, &mut block[..2]);
    let least = put_f16(least, &mut block[2..4]);
    scale.is_finite() && least.is_finite()
}

pub(super) fn dequantize_q4_1(block: &[u8], values: &mut [f32]) {
    let (scale, least) = (get_f16(block), get_f16(&block[2..]));
    for (element, value) in values.iter_mut().enumerate() {
        *value = f32::from(nibble(&block[4..], element)) * scale + least;
    }
}

pub(super) fn quantize_q5_0(values: &[f32], block: &mut [u8]) -> bool {
    let (scale, codes) = symmetric_codes(values, 31);
    put_nibbles(&codes, &mut block[6..]);
    let fifth_bits = codes
        .iter()
        .enumerate()
        .fold(0u32, |bits, (element, code)| {
            bits | u32::from(code >> 4) << element
        });
    block[2..6].copy_from_slice(&fifth_bits.to_le_bytes());
    put_f16(scale, &mut block[..2]).is_finite()
}

pub(super) fn dequantize_q5_0(block: &[u8], values: &mut [f32]) {
    let scale = get_f16(block);
    let fifth_bits = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    for (element, value) in values.iter_mut().enumerate() {
        let fifth = (fifth_bits >> element & 1) as u8;
        let code = nibble(&block[6..], element) | fifth << 4;
        *value = (f32::from(code) - 16.0) * scale;
    }
}
