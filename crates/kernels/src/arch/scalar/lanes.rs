//! Sixteen lanes as arrays.

use std::array::from_fn;

use half::{bf16, f16};

use crate::simd::{LANES, Simd};

/// The token of portable code: every CPU has it.
#[derive(Clone, Copy)]
pub(crate) struct Scalar;

impl Scalar {
    /// Folds the lanes in the one tree of all reductions.
    #[inline(always)]
    fn reduce(mut lanes: [f32; LANES], operation: impl Fn(f32, f32) -> f32) -> f32 {
        let mut half = LANES / 2;
        while half > 0 {
            for lane in 0..half {
                lanes[lane] = operation(lanes[lane], lanes[lane + half]);
            }
            half /= 2;
        }
        lanes[0]
    }
}

#[inline(always)]
fn least(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

#[inline(always)]
fn greatest(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

impl Simd for Scalar {
    type F32 = [f32; LANES];
    type I32 = [i32; LANES];
    type Mask = [bool; LANES];

    const TILE_PANELS: usize = 1;

    #[inline(always)]
    unsafe fn assume_supported() -> Self {
        Scalar
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F32 {
        [value; LANES]
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::F32 {
        *from
    }
    #[inline(always)]
    fn store(self, value: Self::F32, to: &mut [f32; LANES]) {
        *to = value;
    }
    #[inline(always)]
    fn load_partial(self, from: &[f32], fill: f32) -> Self::F32 {
        let mut lanes = [fill; LANES];
        lanes[..from.len()].copy_from_slice(from);
        lanes
    }
    #[inline(always)]
    fn store_partial(self, value: Self::F32, to: &mut [f32]) {
        to.copy_from_slice(&value[..to.len()]);
    }

    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> Self::F32 {
        from.map(|bits| f16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    fn load_bf16(self, from: &[u16; LANES]) -> Self::F32 {
        from.map(|bits| bf16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Self::F32 {
        from.map(f32::from)
    }
    #[inline(always)]
    fn load_i32(self, from: &[i32; LANES]) -> Self::I32 {
        *from
    }
    #[inline(always)]
    fn store_u8(self, value: Self::I32, to: &mut [u8; LANES]) {
        *to = value.map(|lane| lane as u8);
    }
    #[inline(always)]
    fn store_u8_saturated(self, vectors: [Self::I32; 4], to: &mut [u8; 4 * LANES]) {
        for (vector, to) in vectors.into_iter().zip(to.as_chunks_mut::<LANES>().0) {
            *to = vector.map(|lane| lane.clamp(0, 255) as u8);
        }
    }
    #[inline(always)]
    fn store_i8_saturated(self, vectors: [Self::I32; 4], to: &mut [i8; 4 * LANES]) {
        for (vector, to) in vectors.into_iter().zip(to.as_chunks_mut::<LANES>().0) {
            *to = vector.map(|lane| lane.clamp(-128, 127) as i8);
        }
    }
    #[inline(always)]
    fn store_nibbles(self, vectors: [Self::I32; 4], table: &[u8; LANES], to: &mut [u8; 2 * LANES]) {
        for (vector, to) in vectors
            .into_iter()
            .zip(to.as_chunks_mut::<{ LANES / 2 }>().0)
        {
            let codes = vector.map(|lane| table[(lane & 15) as usize]);
            *to = from_fn(|byte| codes[2 * byte] << 4 | codes[2 * byte + 1]);
        }
    }
    #[inline(always)]
    fn store_low_bytes(self, value: Self::I32, to: &mut [u8; LANES]) {
        *to = value.map(|lane| lane as u8);
    }
    #[inline(always)]
    fn store_u16_planes(self, value: Self::I32, low: &mut [u8; LANES], high: &mut [u8; LANES]) {
        *low = value.map(|lane| lane as u8);
        *high = value.map(|lane| (lane >> 8) as u8);
    }
    #[inline(always)]
    fn store_i8_groups(self, vectors: [Self::I32; 4], to: &mut [i8; 4 * LANES]) {
        for (lane, group) in to.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *group = vectors.map(|vector| vector[lane] as i8);
        }
    }

    #[inline(always)]
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        from_fn(|lane| a[lane] + b[lane])
    }
    #[inline(always)]
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        from_fn(|lane| a[lane] - b[lane])
    }
    #[inline(always)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        from_fn(|lane| a[lane] * b[lane])
    }
    #[inline(always)]
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        from_fn(|lane| a[lane] / b[lane])
    }
    #[inline(always)]
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        from_fn(|lane| a[lane].mul_add(b[lane], c[lane]))
    }
    #[inline(always)]
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        from_fn(|lane| least(a[lane], b[lane]))
    }
    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        from_fn(|lane| greatest(a[lane], b[lane]))
    }
    #[inline(always)]
    fn abs(self, a: Self::F32) -> Self::F32 {
        a.map(f32::abs)
    }
    #[inline(always)]
    fn max_magnitude(self, largest: Self::F32, a: Self::F32) -> Self::F32 {
        from_fn(|lane| f32::from_bits(largest[lane].to_bits().max(a[lane].abs().to_bits())))
    }
    #[inline(always)]
    fn round_ties_even(self, a: Self::F32) -> Self::F32 {
        a.map(f32::round_ties_even)
    }
    #[inline(always)]
    fn less(self, a: Self::F32, b: Self::F32) -> Self::Mask {
        from_fn(|lane| a[lane] < b[lane])
    }
    #[inline(always)]
    fn first_lanes(self, count: usize) -> Self::Mask {
        from_fn(|lane| lane < count)
    }
    #[inline(always)]
    fn select(self, mask: Self::Mask, a: Self::F32, b: Self::F32) -> Self::F32 {
        from_fn(|lane| if mask[lane] { a[lane] } else { b[lane] })
    }

    #[inline(always)]
    fn splat_i32(self, value: i32) -> Self::I32 {
        [value; LANES]
    }
    #[inline(always)]
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        from_fn(|lane| a[lane].wrapping_add(b[lane]))
    }
    #[inline(always)]
    fn increment_where(self, mask: Self::Mask, a: Self::I32) -> Self::I32 {
        from_fn(|lane| a[lane].wrapping_add(i32::from(mask[lane])))
    }
    #[inline(always)]
    fn sub_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        from_fn(|lane| a[lane].wrapping_sub(b[lane]))
    }
    #[inline(always)]
    fn mul_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        from_fn(|lane| a[lane].wrapping_mul(b[lane]))
    }
    #[inline(always)]
    fn next_nibble(self, a: Self::I32) -> Self::I32 {
        a.map(|lane| (lane.cast_unsigned() >> 4).cast_signed())
    }
    #[inline(always)]
    fn to_f32(self, a: Self::I32) -> Self::F32 {
        a.map(|lane| lane as f32)
    }
    #[inline(always)]
    fn truncate(self, a: Self::F32) -> Self::I32 {
        a.map(|lane| lane as i32)
    }
    #[inline(always)]
    fn scale_by_power_of_two(self, a: Self::F32, n: Self::F32) -> Self::F32 {
        // Two factors, so that neither leaves the normal range; the first product is exact.
        from_fn(|lane| {
            let n = n[lane] as i32;
            let half = n >> 1;
            let power = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
            a[lane] * power(half) * power(n - half)
        })
    }
    #[inline(always)]
    fn lookup(self, table: Self::F32, index: Self::I32) -> Self::F32 {
        from_fn(|lane| table[(index[lane] & 15) as usize])
    }
    #[inline(always)]
    fn lookup_32(self, table: [Self::F32; 2], index: Self::I32) -> Self::F32 {
        let table = table.as_flattened();
        from_fn(|lane| table[(index[lane] & 31) as usize])
    }
    #[inline(always)]
    fn lookup_bits_32(self, table: [Self::F32; 2], index: Self::I32) -> Self::I32 {
        self.lookup_32(table, index)
            .map(|lane| lane.to_bits().cast_signed())
    }
    #[inline(always)]
    fn lookup_nibbles(self, table: Self::F32, bytes: &[u8; LANES / 2]) -> Self::F32 {
        from_fn(|lane| table[usize::from(bytes[lane / 2] >> (4 * (1 - lane % 2)) & 15)])
    }

    #[inline(always)]
    fn reduce_sum(self, a: Self::F32) -> f32 {
        Self::reduce(a, |a, b| a + b)
    }
    #[inline(always)]
    fn reduce_min(self, a: Self::F32) -> f32 {
        Self::reduce(a, least)
    }
    #[inline(always)]
    fn reduce_max(self, a: Self::F32) -> f32 {
        Self::reduce(a, greatest)
    }
}
