//! The signed 8-bit dynamic map of bitsandbytes.

use std::sync::LazyLock;

static MAP: LazyLock<[f32; 256]> = LazyLock::new(|| {
    let mut map = [0.0; 256];
    let mut filled = 0;
    for exponent in 0..7u32 {
        let count = 1usize << exponent;
        let power = 10f64.powi(exponent as i32 - 6) as f32;
        for i in 0..count {
            let mean = (boundary(i, count) + boundary(i + 1, count)) / 2.0;
            map[filled] = power * mean;
            map[filled + 1] = -(power * mean);
            filled += 2;
        }
    }
    // 254 values so far; the remaining two are 0 (already there) and 1.
    map[255] = 1.0;
    map.sort_unstable_by(f32::total_cmp);
    map
});

/// Point `i` of `linspace(0.1, 1, count + 1)` as PyTorch computes it in float32: from the nearer end, by a fused
/// multiply-add. With two roundings 42 of the 256 values would be one unit in the last place off.
fn boundary(i: usize, count: usize) -> f32 {
    let (start, end) = (0.1f32, 1.0f32);
    let step = (end - start) / count as f32;
    if i < count.div_ceil(2) {
        step.mul_add(i as f32, start)
    } else {
        (-step).mul_add((count - i) as f32, end)
    }
}

/// The 256 values, ascending; index 127 is 0 and index 255 is 1.
///
/// For `e` in 0..7 the interval 0.1..1 is cut into `2^e` equal parts, whose middles times `10^(e-6)`, with both signs,
/// are the values; 0 and 1 are added. All in float32, in the order of operations of bitsandbytes' `create_dynamic_map`,
/// so the table has the same bits as the one that bitsandbytes stores in `nested_quant_map`.
pub fn dynamic_map() -> &'static [f32; 256] {
    &MAP
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascending_with_a_zero_and_a_one_and_otherwise_symmetric() {
        let map = dynamic_map();
        assert!(map.is_sorted_by(|a, b| a < b));
        assert_eq!((map[127].to_bits(), map[255]), (0, 1.0));
        assert_eq!((map[0], map[254]), (-0.992_968_74, 0.992_968_74));
        assert_eq!((map[126], map[128]), (-5.500_000_4e-7, 5.500_000_4e-7));
        for i in 0..127 {
            assert_eq!(map[i], -map[254 - i]);
        }
    }
}
