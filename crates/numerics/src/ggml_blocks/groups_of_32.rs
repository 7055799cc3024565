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

/// Codes 0..=`most` of a block with a minimum, and what they are counted in and from.
fn codes_from_minimum(values: &[f32], most: u8) -> (f32, f32, [u8; 2 * HALF]) {
    let (mut least, mut largest) = (values[0], values[0]);
    for &value in values {
        least = if value < least { value } else { least };
        largest = if value > largest { value } else { largest };
    }
    let scale = (largest - least) / f32::from(most);
    let inverse = reciprocal_or_zero(scale);
    let mut codes = [0; 2 * HALF];
    for (code, value) in codes.iter_mut().zip(values) {
        *code = (((value - least) * inverse + 0.5) as u8).min(most);
    }
    (scale, least, codes)
}

fn put_scale_and_minimum(scale: f32, minimum: f32, head: &mut [u8]) -> bool {
    let scale = put_f16(scale, &mut head[..2]);
    let minimum = put_f16(minimum, &mut head[2..4]);
    scale.is_finite() && minimum.is_finite()
}

pub(super) fn quantize_q4_1(values: &[f32], block: &mut [u8]) -> bool {
    let (scale, minimum, codes) = codes_from_minimum(values, 15);
    put_nibbles(&codes, &mut block[4..]);
    put_scale_and_minimum(scale, minimum, block)
}

pub(super) fn dequantize_q4_1(block: &[u8], values: &mut [f32]) {
    let (scale, least) = (get_f16(block), get_f16(&block[2..]));
    for (element, value) in values.iter_mut().enumerate() {
        *value = f32::from(nibble(&block[4..], element)) * scale + least;
    }
}

/// The fifth bits of codes, that of element i in bit i.
fn put_fifth_bits(codes: &[u8; 2 * HALF], bytes: &mut [u8]) {
    let bits = codes.iter().enumerate();
    let bits = bits.fold(0u32, |bits, (element, code)| {
        bits | u32::from(code >> 4) << element
    });
    bytes.copy_from_slice(&bits.to_le_bytes());
}

/// A code of 5 bits: the fifth in `high`, the others in `low`.
fn five_bits(high: &[u8], low: &[u8], element: usize) -> u8 {
    let fifth = high[element / 8] >> (element % 8) & 1;
    nibble(low, element) | fifth << 4
}

pub(super) fn quantize_q5_0(values: &[f32], block: &mut [u8]) -> bool {
    let (scale, codes) = symmetric_codes(values, 31);
    put_nibbles(&codes, &mut block[6..]);
    put_fifth_bits(&codes, &mut block[2..6]);
    put_f16(scale, &mut block[..2]).is_finite()
}

pub(super) fn dequantize_q5_0(block: &[u8], values: &mut [f32]) {
    let scale = get_f16(block);
    for (element, value) in values.iter_mut().enumerate() {
        let code = five_bits(&block[2..6], &block[6..], element);
        *value = (f32::from(code) - 16.0) * scale;
    }
}

pub(super) fn quantize_q5_1(values: &[f32], block: &mut [u8]) -> bool {
    let (scale, minimum, codes) = codes_from_minimum(values, 31);
    put_nibbles(&codes, &mut block[8..]);
    put_fifth_bits(&codes, &mut block[4..8]);
    put_scale_and_minimum(scale, minimum, block)
}

pub(super) fn dequantize_q5_1(block: &[u8], values: &mut [f32]) {
    let (scale, minimum) = (get_f16(block), get_f16(&block[2..]));
    for (element, value) in values.iter_mut().enumerate() {
        let code = five_bits(&block[4..8], &block[8..], element);
        *value = f32::from(code) * scale + minimum;
    }
}
