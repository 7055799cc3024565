//! Blocks of 256 elements ("K-quants"): groups with small integer scales that share one fp16 scale.
//!
//! The scales are found by search: candidates near that of the largest magnitude, each with codes by rounding and then the scale (and
//! minimum) of least weighted squared error for these codes. Rounding is to nearest, ties to even.

use super::{get_f16, put_f16, signed_largest};

/// Elements of a block.
const BLOCK: usize = 256;
/// Elements of a group of `Q4_K` and `Q5_K`.
const AFFINE_GROUP: usize = 32;
/// Elements of a group of `Q6_K`.
const Q6_GROUP: usize = 16;
/// Below this magnitude everything is taken for zero.
const NOTHING: f32 = 1e-15;

fn nearest(value: f32, least: i32, most: i32) -> i32 {
    (value.round_ties_even() as i32).clamp(least, most)
}

/// How the scale of a group of `Q4_K` or `Q5_K` is searched.
struct AffineSearch {
    /// The largest code.
    most: u8,
    /// What the first candidate has beyond it, in codes: less than 0.
    first: f32,
    /// How many tenths of a code further the last candidate is.
    tenths: i32,
}

const Q4_K: AffineSearch = AffineSearch {
    most: 15,
    first: -1.0,
    tenths: 20,
};
const Q5_K: AffineSearch = AffineSearch {
    most: 31,
    first: -0.5,
    tenths: 15,
};

/// A group: `scale * code - minimum`.
struct AffineGroup {
    scale: f32,
    minimum: f32,
    codes: [u8; AFFINE_GROUP],
}

fn squared_error(
    values: &[f32],
    weights: &[f32; AFFINE_GROUP],
    codes: &[u8; AFFINE_GROUP],
    scale: f32,
    offset: f32,
) -> f32 {
    let mut error = 0.0;
    for ((value, weight), code) in values.iter().zip(weights).zip(codes) {
        let difference = scale * f32::from(*code) + offset - value;
        error += weight * (difference * difference);
    }
    error
}

/// Weights are `sqrt(mean of squares) + |x|`. The offset of the best so far is that which the codes of the next
/// candidate are counted from.
fn search_affine(values: &[f32], search: &AffineSearch) -> AffineGroup {
    let most_code = i32::from(search.most);
    let mut squares = 0.0;
    for value in values {
        squares += value * value;
    }
    let root = (squares / AFFINE_GROUP as f32).sqrt();
    let mut weights = [0.0; AFFINE_GROUP];
    for (weight, value) in weights.iter_mut().zip(values) {
        *weight = root + value.abs();
    }
    let (mut offset, mut most) = (values[0], values[0]);
    let (mut sum_w, mut sum_x) = (weights[0], weights[0] * values[0]);
    for (&value, weight) in values.iter().zip(&weights).skip(1) {
        offset = if value < offset { value } else { offset };
        most = if value > most { value } else { most };
        sum_w += weight;
        sum_x += weight * value;
    }
    offset = if offset > 0.0 { 0.0 } else { offset };
    if most == offset {
        return AffineGroup {
            scale: 0.0,
            minimum: -offset,
            codes: [0; AFFINE_GROUP],
        };
    }
    let codes_by = |inverse: f32, offset: f32| {
        let mut codes = [0; AFFINE_GROUP];
        for (code, value) in codes.iter_mut().zip(values) {
            *code = nearest(inverse * (value - offset), 0, most_code) as u8;
        }
        codes
    };
    let largest_code = f32::from(search.most);
    let inverse = largest_code / (most - offset);
    let mut scale = 1.0 / inverse;
    let mut codes = codes_by(inverse, offset);
    let mut least_error = squared_error(values, &weights, &codes, scale, offset);
    for step in 0..=search.tenths {
        let inverse = (search.first + 0.1 * step as f32 + largest_code) / (most - offset);
        let tried = codes_by(inverse, offset);
        let (mut sum_q, mut sum_qq, mut sum_xq) = (0.0f32, 0.0f32, 0.0f32);
        for ((value, weight), code) in values.iter().zip(&weights).zip(&tried) {
            let code = f32::from(*code);
            sum_q += weight * code;
            sum_qq += weight * code * code;
            sum_xq += weight * code * value;
        }
        let determinant = sum_w * sum_qq - sum_q * sum_q;
        if determinant > 0.0 {
            let mut tried_scale = (sum_w * sum_xq - sum_x * sum_q) / determinant;
            let mut tried_offset = (sum_qq * sum_x - sum_q * sum_xq) / determinant;
            if tried_offset > 0.0 {
                tried_offset = 0.0;
                tried_scale = sum_xq / sum_qq;
            }
            let error = squared_error(values, &weights, &tried, tried_scale, tried_offset);
            if error < least_error {
                (codes, least_error, scale, offset) = (tried, error, tried_scale, tried_offset);
            }
        }
    }
    AffineGroup {
        scale,
        minimum: -offset,
        codes,
    }
}

/// The 6-bit numbers of `values` to their largest, of which 63 is.
fn six_bits<'a>(values: impl Iterator<Item = f32> + 'a, largest: f32) -> impl Iterator<Item = u8> {
    let inverse = match largest > 0.0 {
        true => 63.0 / largest,
        false => 0.0,
    };
    // A scale below zero wraps as it does in ggml.
    values.map(move |value| ((inverse * value).round_ties_even() as i32 as u8).min(63))
}

/// The groups of a block, whose 16 bytes of scales are written apart, and whether these are within fp16.
struct AffineBlock {
    groups: Vec<AffineGroup>,
    is_finite: bool,
}

fn quantize_affine(values: &[f32], search: &AffineSearch, head: &mut [u8]) -> AffineBlock {
    let groups = values.chunks(AFFINE_GROUP);
    let mut groups: Vec<AffineGroup> = groups.map(|values| search_affine(values, search)).collect();
    let largest = |of: fn(&AffineGroup) -> f32| groups.iter().map(of).fold(0.0, f32::max);
    let (largest_scale, largest_minimum) =
        (largest(|group| group.scale), largest(|group| group.minimum));
    let scales = six_bits(groups.iter().map(|group| group.scale), largest_scale);
    let minima = six_bits(groups.iter().map(|group| group.minimum), largest_minimum);
    let pairs: Vec<(u8, u8)> = scales.zip(minima).collect();
    let scale = put_f16(largest_scale / 63.0, &mut head[..2]);
    let minimum = put_f16(largest_minimum / 63.0, &mut head[2..4]);
    put_pairs(&pairs, &mut head[4..]);
    for ((group, values), pair) in groups
        .iter_mut()
        .zip(values.chunks(AFFINE_GROUP))
        .zip(&pairs)
    {
        let (scale, minimum) = (scale * f32::from(pair.0), minimum * f32::from(pair.1));
        if scale != 0.0 {
            for (code, value) in group.codes.iter_mut().zip(values) {
                *code = nearest((value + minimum) / scale, 0, i32::from(search.most)) as u8;
            }
        }
    }
    AffineBlock {
        groups,
        is_finite: scale.is_finite() && minimum.is_finite(),
    }
}

/// Nibbles of the codes: two groups share their bytes, of which the first has the low ones.
fn put_nibbles(groups: &[AffineGroup], bytes: &mut [u8]) {
    for (two, bytes) in groups.chunks(2).zip(bytes.chunks_mut(AFFINE_GROUP)) {
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = two[0].codes[at] & 0x0f | two[1].codes[at] << 4;
        }
    }
}

pub(super) fn quantize_q4_k(values: &[f32], block: &mut [u8]) -> bool {
    let (head, codes) = block.split_at_mut(16);
    let AffineBlock { groups, is_finite } = quantize_affine(values, &Q4_K, head);
    put_nibbles(&groups, codes);
    is_finite
}

pub(super) fn quantize_q5_k(values: &[f32], block: &mut [u8]) -> bool {
    let (head, codes) = block.split_at_mut(16);
    let AffineBlock { groups, is_finite } = quantize_affine(values, &Q5_K, head);
    let (high, low) = codes.split_at_mut(AFFINE_GROUP);
    put_nibbles(&groups, low);
    // The fifth bits of all groups at one place are a byte.
    for (at, byte) in high.iter_mut().enumerate() {
        let bits = groups.iter().zip(0..);
        *byte = bits.fold(0, |byte, (group, number)| {
            byte | group.codes[at] >> 4 << number
        });
    }
    is_finite
}

/// Eight pairs of 6-bit numbers in 12 bytes: those of the first four groups whole, the last four in nibbles and in the two bits that the
/// first leave.
fn put_pairs(pairs: &[(u8, u8)], bytes: &mut [u8]) {
    for at in 0..4 {
        let ((scale, minimum), (later_scale, later_minimum)) = (pairs[at], pairs[at + 4]);
        bytes[at] = scale | later_scale >> 4 << 6;
        bytes[at + 4] = minimum | later_minimum >> 4 << 6;
        bytes[at + 8] = later_scale & 0x0f | later_minimum << 4;
    }
}

fn pair(bytes: &[u8], group: usize) -> (u8, u8) {
    match group < 4 {
        true => (bytes[group] & 63, bytes[group + 4] & 63),
        false => (
            bytes[group + 4] & 0x0f | bytes[group - 4] >> 6 << 4,
            bytes[group + 4] >> 4 | bytes[group] >> 6 << 4,
        ),
    }
}

pub(super) fn dequantize_q4_k(block: &[u8], values: &mut [f32]) {
    dequantize_affine(block, &block[16..], None, values);
}

pub(super) fn dequantize_q5_k(block: &[u8], values: &mut [f32]) {
    let (high, low) = block[16..].split_at(AFFINE_GROUP);
    dequantize_affine(block, low, Some(high), values);
}

/// Of codes whose nibbles are `codes`, and whose fifth bits `high`, if they have any.
fn dequantize_affine(block: &[u8], codes: &[u8], high: Option<&[u8]>, values: &mut [f32]) {
    let (scale, minimum) = (get_f16(block), get_f16(&block[2..]));
    for (group, values) in values.chunks_mut(AFFINE_GROUP).enumerate() {
        let (s, m) = pair(&block[4..16], group);
        let (scale, minimum) = (scale * f32::from(s), minimum * f32::from(m));
        let bytes = &codes[group / 2 * AFFINE_GROUP..][..AFFINE_GROUP];
        for (at, (value, byte)) in values.iter_mut().zip(bytes).enumerate() {
            let fifth = high.map_or(0, |high| high[at] >> group & 1);
            let code = byte >> (4 * (group % 2)) & 0x0f | fifth << 4;
            *value = scale * f32::from(code) - minimum;
        }
    }
}

/// The scale of a group of `Q6_K` and its codes 0..=63, that stand for `scale * (code - 32)`: of 19 candidates that of least squared error,
/// weighted by squares.
fn search_symmetric(values: &[f32]) -> (f32, [u8; Q6_GROUP]) {
    let largest = signed_largest(values);
    if largest.abs() < NOTHING {
        return (0.0, [0; Q6_GROUP]);
    }
    let codes_by = |inverse: f32| {
        let mut codes = [0i32; Q6_GROUP];
        for (code, value) in codes.iter_mut().zip(values) {
            *code = nearest(inverse * value, -32, 31);
        }
        codes
    };
    let sums = |codes: &[i32; Q6_GROUP]| {
        let (mut sum_xq, mut sum_qq) = (0.0f32, 0.0f32);
        for (value, code) in values.iter().zip(codes) {
            let (weight, code) = (value * value, *code as f32);
            sum_xq += weight * value * code;
            sum_qq += weight * code * code;
        }
        (sum_xq, sum_qq)
    };
    let mut codes = codes_by(-32.0 / largest);
    let (sum_xq, sum_qq) = sums(&codes);
    let mut scale = if sum_qq == 0.0 { 0.0 } else { sum_xq / sum_qq };
    let mut best = scale * sum_xq;
    for step in (-9..=9).filter(|step| *step != 0) {
        let tried = codes_by(-(32.0 + 0.1 * step as f32) / largest);
        let (sum_xq, sum_qq) = sums(&tried);
        if sum_qq > 0.0 && sum_xq * sum_xq > best * sum_qq {
            codes = tried;
            scale = sum_xq / sum_qq;
            best = scale * sum_xq;
        }
    }
    (scale, codes.map(|code| (code + 32) as u8))
}

pub(super) fn quantize_q6_k(values: &[f32], block: &mut [u8]) -> bool {
    let groups: Vec<_> = values.chunks(Q6_GROUP).map(search_symmetric).collect();
    let scales: Vec<f32> = groups.iter().map(|(scale, _)| *scale).collect();
    let largest = signed_largest(&scales);
    block.fill(0);
    if largest.abs() < NOTHING {
        return true;
    }
    let inverse = -128.0 / largest;
    let (codes_bytes, tail) = block.split_at_mut(192);
    let (scale_bytes, head) = tail.split_at_mut(16);
    let scale = put_f16(1.0 / inverse, head);
    let mut codes = [0u8; BLOCK];
    for (group, ((group_scale, group_codes), byte)) in groups.iter().zip(scale_bytes).enumerate() {
        let places = group * Q6_GROUP..(group + 1) * Q6_GROUP;
        codes[places.clone()].copy_from_slice(group_codes);
        let small = nearest(inverse * group_scale, -128, 127) as i8;
        *byte = small as u8;
        let scale = scale * f32::from(small);
        if scale != 0.0 {
            for (code, value) in codes[places.clone()].iter_mut().zip(&values[places]) {
                *code = (nearest(value / scale, -32, 31) + 32) as u8;
            }
        }
    }
    let (low, high) = codes_bytes.split_at_mut(128);
    for (half, codes) in codes.chunks(128).enumerate() {
        let (low, high) = (&mut low[64 * half..][..64], &mut high[32 * half..][..32]);
        for (at, high) in high.iter_mut().enumerate() {
            let of = |quarter: usize| codes[at + 32 * quarter];
            low[at] = of(0) & 0x0f | of(2) << 4;
            low[at + 32] = of(1) & 0x0f | of(3) << 4;
            *high = of(0) >> 4 | of(1) >> 4 << 2 | of(2) >> 4 << 4 | of(3) >> 4 << 6;
        }
    }
    scale.is_finite()
}

pub(super) fn dequantize_q6_k(block: &[u8], values: &mut [f32]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let scale = get_f16(&block[208..]);
    for (element, value) in values.iter_mut().enumerate() {
        let (half, at) = (element / 128, element % 32);
        let quarter = element % 128 / 32;
        let byte = low[64 * half + 32 * (quarter % 2) + at];
        let code =
            byte >> (4 * (quarter / 2)) & 0x0f | (high[32 * half + at] >> (2 * quarter) & 3) << 4;
        let small = f32::from(scales[element / Q6_GROUP] as i8);
        *value = scale * small * (f32::from(code) - 32.0);
    }
}
