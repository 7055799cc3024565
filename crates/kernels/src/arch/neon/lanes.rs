//! Sixteen lanes as four registers of four.

use std::arch::aarch64::*;
use std::arch::asm;

use crate::simd::{LANES, Simd};

/// The token of NEON: one exists only where [`Simd::assume_supported`] was promised it. That is what makes every intrinsic below sound to
/// execute; pointers come from references of the full length.
#[derive(Clone, Copy)]
pub(crate) struct Neon(());

/// Lanes 0..4, 4..8, 8..12 and 12..16.
type Quarters<T> = [T; 4];

/// The value for each of the four quarters. Not a closure, which might stay a function of its own.
macro_rules! quarters {
    ($quarter:ident => $value:expr) => {
        [
            quarters!($quarter = 0, $value),
            quarters!($quarter = 1, $value),
            quarters!($quarter = 2, $value),
            quarters!($quarter = 3, $value),
        ]
    };
    ($quarter:ident = $index:literal, $value:expr) => {{
        let $quarter = $index;
        $value
    }};
}

impl Simd for Neon {
    type F32 = Quarters<float32x4_t>;
    type I32 = Quarters<int32x4_t>;
    type Mask = Quarters<uint32x4_t>;

    const TILE_PANELS: usize = 1;

    #[inline(always)]
    unsafe fn assume_supported() -> Self {
        Neon(())
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { [vdupq_n_f32(value); 4] }
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::F32 {
        // SAFETY: the token.
        unsafe {
            let quarters = from.as_chunks::<4>().0;
            quarters!(quarter => vld1q_f32(quarters[quarter].as_ptr()))
        }
    }

    #[inline(always)]
    fn store(self, value: Self::F32, to: &mut [f32; LANES]) {
        // SAFETY: the token.
        unsafe {
            let quarters = to.as_chunks_mut::<4>().0;
            quarters!(quarter => vst1q_f32(quarters[quarter].as_mut_ptr(), value[quarter]));
        }
    }

    #[inline(always)]
    fn load_partial(self, from: &[f32], fill: f32) -> Self::F32 {
        let mut lanes = [fill; LANES];
        lanes[..from.len()].copy_from_slice(from);
        self.load(&lanes)
    }

    #[inline(always)]
    fn store_partial(self, value: Self::F32, to: &mut [f32]) {
        let mut lanes = [0.0; LANES];
        self.store(value, &mut lanes);
        to.copy_from_slice(&lanes[..to.len()]);
    }

    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> Self::F32 {
        let [first, second] = halves_u16(self, from);
        let [a, b] = widen_f16(self, first);
        let [c, d] = widen_f16(self, second);
        [a, b, c, d]
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u16; LANES]) -> Self::F32 {
        // SAFETY: the token.
        unsafe {
            let [first, second] = halves_u16(self, from);
            let bits = [
                vshll_n_u16::<16>(vget_low_u16(first)),
                vshll_high_n_u16::<16>(first),
                vshll_n_u16::<16>(vget_low_u16(second)),
                vshll_high_n_u16::<16>(second),
            ];
            quarters!(quarter => vreinterpretq_f32_u32(bits[quarter]))
        }
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Self::F32 {
        // SAFETY: the token.
        unsafe {
            let bytes = vld1q_s8(from.as_ptr());
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            self.to_f32([
                vmovl_s16(vget_low_s16(low)),
                vmovl_high_s16(low),
                vmovl_s16(vget_low_s16(high)),
                vmovl_high_s16(high),
            ])
        }
    }

    #[inline(always)]
    fn load_i32(self, from: &[i32; LANES]) -> Self::I32 {
        // SAFETY: the token.
        unsafe {
            let quarters = from.as_chunks::<4>().0;
            quarters!(quarter => vld1q_s32(quarters[quarter].as_ptr()))
        }
    }

    #[inline(always)]
    fn store_u8(self, value: Self::I32, to: &mut [u8; LANES]) {
        // SAFETY: the token.
        unsafe {
            let [a, b, c, d] = quarters!(quarter => vreinterpretq_u32_s32(value[quarter]));
            let low = vmovn_high_u32(vmovn_u32(a), b);
            let high = vmovn_high_u32(vmovn_u32(c), d);
            let bytes = vmovn_high_u16(vmovn_u16(low), high);
            vst1q_u8(to.as_mut_ptr(), bytes);
        }
    }

    #[inline(always)]
    fn store_u8_saturated(self, vectors: [Self::I32; 4], to: &mut [u8; 4 * LANES]) {
        // SAFETY: the token.
        unsafe {
            for (vector, to) in vectors.into_iter().zip(to.as_chunks_mut::<LANES>().0) {
                let low = vqmovn_high_s32(vqmovn_s32(vector[0]), vector[1]);
                let high = vqmovn_high_s32(vqmovn_s32(vector[2]), vector[3]);
                vst1q_u8(to.as_mut_ptr(), vqmovun_high_s16(vqmovun_s16(low), high));
            }
        }
    }

    #[inline(always)]
    fn store_i8_saturated(self, vectors: [Self::I32; 4], to: &mut [i8; 4 * LANES]) {
        // SAFETY: the token.
        unsafe {
            for (vector, to) in vectors.into_iter().zip(to.as_chunks_mut::<LANES>().0) {
                let low = vqmovn_high_s32(vqmovn_s32(vector[0]), vector[1]);
                let high = vqmovn_high_s32(vqmovn_s32(vector[2]), vector[3]);
                vst1q_s8(to.as_mut_ptr(), vqmovn_high_s16(vqmovn_s16(low), high));
            }
        }
    }

    #[inline(always)]
    fn store_nibbles(self, vectors: [Self::I32; 4], table: &[u8; LANES], to: &mut [u8; 2 * LANES]) {
        // SAFETY: the token.
        unsafe {
            let table = vld1q_u8(table.as_ptr());
            for (vector, to) in vectors
                .into_iter()
                .zip(to.as_chunks_mut::<{ LANES / 2 }>().0)
            {
                let mut lanes = [0; LANES];
                self.store_u8(vector, &mut lanes);
                let codes = vqtbl1q_u8(table, vld1q_u8(lanes.as_ptr()));
                // The first of a pair is the low byte of 16 bits: it moves up by four, the second comes below it.
                let pairs = vreinterpretq_u16_u8(codes);
                let both = vsliq_n_u16::<4>(vshrq_n_u16::<8>(pairs), pairs);
                vst1_u8(to.as_mut_ptr(), vmovn_u16(both));
            }
        }
    }

    #[inline(always)]
    fn store_low_bytes(self, value: Self::I32, to: &mut [u8; LANES]) {
        self.store_u8(value, to);
    }

    #[inline(always)]
    fn store_u16_planes(self, value: Self::I32, low: &mut [u8; LANES], high: &mut [u8; LANES]) {
        // SAFETY: the token.
        unsafe {
            let [a, b, c, d] = quarters!(quarter => vreinterpretq_u32_s32(value[quarter]));
            let first = vmovn_high_u32(vmovn_u32(a), b);
            let second = vmovn_high_u32(vmovn_u32(c), d);
            vst1q_u8(low.as_mut_ptr(), vmovn_high_u16(vmovn_u16(first), second));
            let bytes = vshrn_high_n_u16::<8>(vshrn_n_u16::<8>(first), second);
            vst1q_u8(high.as_mut_ptr(), bytes);
        }
    }

    #[inline(always)]
    fn store_i8_groups(self, vectors: [Self::I32; 4], to: &mut [i8; 4 * LANES]) {
        // SAFETY: the token.
        unsafe {
            let bytes = quarters!(vector => {
                let [a, b, c, d] = vectors[vector];
                let low = vmovn_high_s32(vmovn_s32(a), b);
                let high = vmovn_high_s32(vmovn_s32(c), d);
                vmovn_high_s16(vmovn_s16(low), high)
            });
            let [a, b, c, d] = bytes;
            vst4q_s8(to.as_mut_ptr(), int8x16x4_t(a, b, c, d));
        }
    }

    #[inline(always)]
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { quarters!(quarter => vaddq_f32(a[quarter], b[quarter])) }
    }

    #[inline(always)]
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { quarters!(quarter => vsubq_f32(a[quarter], b[quarter])) }
    }

    #[inline(always)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { quarters!(quarter => vmulq_f32(a[quarter], b[quarter])) }
    }

    #[inline(always)]
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { quarters!(quarter => vdivq_f32(a[quarter], b[quarter])) }
    }

    #[inline(always)]
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { quarters!(quarter => vfmaq_f32(c[quarter], a[quarter], b[quarter])) }
    }

    #[inline(always)]
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        quarters!(quarter => least(self, a[quarter], b[quarter]))
    }

    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        quarters!(quarter => greatest(self, a[quarter], b[quarter]))
    }

    #[inline(always)]
    fn abs(self, a: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { quarters!(quarter => vabsq_f32(a[quarter])) }
    }

    #[inline(always)]
    fn max_magnitude(self, largest: Self::F32, a: Self::F32) -> Self::F32 {
        // SAFETY: the token. Numbers without a sign are in the order of their bits, NaN last.
        unsafe {
            quarters!(quarter => {
                let a = vreinterpretq_u32_f32(vabsq_f32(a[quarter]));
                vreinterpretq_f32_u32(vmaxq_u32(vreinterpretq_u32_f32(largest[quarter]), a))
            })
        }
    }

    #[inline(always)]
    fn round_ties_even(self, a: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { quarters!(quarter => vrndnq_f32(a[quarter])) }
    }

    #[inline(always)]
    fn less(self, a: Self::F32, b: Self::F32) -> Self::Mask {
        // SAFETY: the token.
        unsafe { quarters!(quarter => vcltq_f32(a[quarter], b[quarter])) }
    }

    #[inline(always)]
    fn first_lanes(self, count: usize) -> Self::Mask {
        // SAFETY: the token.
        unsafe {
            const INDICES: [i32; LANES] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
            let count = vdupq_n_s32(count as i32);
            let indices = self.load_i32(&INDICES);
            quarters!(quarter => vcltq_s32(indices[quarter], count))
        }
    }

    #[inline(always)]
    fn select(self, mask: Self::Mask, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { quarters!(quarter => vbslq_f32(mask[quarter], a[quarter], b[quarter])) }
    }

    #[inline(always)]
    fn splat_i32(self, value: i32) -> Self::I32 {
        // SAFETY: the token.
        unsafe { [vdupq_n_s32(value); 4] }
    }

    #[inline(always)]
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        // SAFETY: the token.
        unsafe { quarters!(quarter => vaddq_s32(a[quarter], b[quarter])) }
    }

    #[inline(always)]
    fn increment_where(self, mask: Self::Mask, a: Self::I32) -> Self::I32 {
        // SAFETY: the token. Where a mask holds, its bits are -1.
        unsafe { quarters!(quarter => vsubq_s32(a[quarter], vreinterpretq_s32_u32(mask[quarter]))) }
    }

    #[inline(always)]
    fn sub_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        // SAFETY: the token.
        unsafe { quarters!(quarter => vsubq_s32(a[quarter], b[quarter])) }
    }

    #[inline(always)]
    fn mul_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        // SAFETY: the token.
        unsafe { quarters!(quarter => vmulq_s32(a[quarter], b[quarter])) }
    }

    #[inline(always)]
    fn next_nibble(self, a: Self::I32) -> Self::I32 {
        // SAFETY: the token.
        unsafe {
            quarters!(quarter => {
                let bits = vreinterpretq_u32_s32(a[quarter]);
                vreinterpretq_s32_u32(vshrq_n_u32::<4>(bits))
            })
        }
    }

    #[inline(always)]
    fn to_f32(self, a: Self::I32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { quarters!(quarter => vcvtq_f32_s32(a[quarter])) }
    }

    #[inline(always)]
    fn truncate(self, a: Self::F32) -> Self::I32 {
        // SAFETY: the token.
        unsafe { quarters!(quarter => vcvtq_s32_f32(a[quarter])) }
    }

    #[inline(always)]
    fn scale_by_power_of_two(self, a: Self::F32, n: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe {
            // Two factors, so that neither leaves the normal range; the first product is exact.
            let bias = vdupq_n_s32(127);
            quarters!(quarter => {
                let n = vcvtq_s32_f32(n[quarter]);
                let half = vshrq_n_s32::<1>(n);
                let rest = vsubq_s32(n, half);
                let first = vshlq_n_s32::<23>(vaddq_s32(half, bias));
                let second = vshlq_n_s32::<23>(vaddq_s32(rest, bias));
                let product = vmulq_f32(a[quarter], vreinterpretq_f32_s32(first));
                vmulq_f32(product, vreinterpretq_f32_s32(second))
            })
        }
    }

    #[inline(always)]
    fn lookup(self, table: Self::F32, index: Self::I32) -> Self::F32 {
        // SAFETY: the token.
        unsafe {
            let [a, b, c, d] = quarters!(quarter => vreinterpretq_u8_f32(table[quarter]));
            let table = uint8x16x4_t(a, b, c, d);
            quarters!(quarter => {
                // The places of the four bytes of entry i are 4 i to 4 i + 3.
                let entry = vandq_s32(index[quarter], vdupq_n_s32(15));
                let bytes = vmlaq_s32(vdupq_n_s32(0x0302_0100), entry, vdupq_n_s32(0x0404_0404));
                vreinterpretq_f32_u8(vqtbl4q_u8(table, vreinterpretq_u8_s32(bytes)))
            })
        }
    }

    #[inline(always)]
    fn lookup_32(self, table: [Self::F32; 2], index: Self::I32) -> Self::F32 {
        // SAFETY: the token.
        unsafe {
            let [a, b, c, d] = quarters!(quarter => vreinterpretq_u8_f32(table[0][quarter]));
            let low = uint8x16x4_t(a, b, c, d);
            let [a, b, c, d] = quarters!(quarter => vreinterpretq_u8_f32(table[1][quarter]));
            let high = uint8x16x4_t(a, b, c, d);
            quarters!(quarter => {
                // The places of the four bytes of entry i are 4 i to 4 i + 3; outside of its table a place gives zero or the byte that
                // was there.
                let entry = vandq_s32(index[quarter], vdupq_n_s32(31));
                let bytes = vmlaq_s32(vdupq_n_s32(0x0302_0100), entry, vdupq_n_s32(0x0404_0404));
                let bytes = vreinterpretq_u8_s32(bytes);
                let found = vqtbl4q_u8(low, bytes);
                vreinterpretq_f32_u8(vqtbx4q_u8(found, high, vsubq_u8(bytes, vdupq_n_u8(64))))
            })
        }
    }

    #[inline(always)]
    fn lookup_bits_32(self, table: [Self::F32; 2], index: Self::I32) -> Self::I32 {
        // SAFETY: the token.
        unsafe {
            let found = self.lookup_32(table, index);
            quarters!(quarter => vreinterpretq_s32_f32(found[quarter]))
        }
    }

    #[inline(always)]
    fn lookup_nibbles(self, table: Self::F32, bytes: &[u8; LANES / 2]) -> Self::F32 {
        // SAFETY: the token.
        unsafe {
            let bytes = vld1_u8(bytes.as_ptr());
            let (first, second) = (vshr_n_u8::<4>(bytes), vand_u8(bytes, vdup_n_u8(15)));
            let low = vmovl_u8(vzip1_u8(first, second));
            let high = vmovl_u8(vzip2_u8(first, second));
            let index = [
                vmovl_u16(vget_low_u16(low)),
                vmovl_high_u16(low),
                vmovl_u16(vget_low_u16(high)),
                vmovl_high_u16(high),
            ];
            self.lookup(
                table,
                quarters!(quarter => vreinterpretq_s32_u32(index[quarter])),
            )
        }
    }

    #[inline(always)]
    fn reduce_sum(self, a: Self::F32) -> f32 {
        // SAFETY: the token.
        unsafe {
            let eight = (vaddq_f32(a[0], a[2]), vaddq_f32(a[1], a[3]));
            let four = vaddq_f32(eight.0, eight.1);
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        }
    }

    #[inline(always)]
    fn reduce_min(self, a: Self::F32) -> f32 {
        // SAFETY: the token.
        unsafe {
            let eight = (least(self, a[0], a[2]), least(self, a[1], a[3]));
            let four = least(self, eight.0, eight.1);
            let (low, high) = (vget_low_f32(four), vget_high_f32(four));
            let two = vbsl_f32(vclt_f32(low, high), low, high);
            let (first, second) = (vget_lane_f32::<0>(two), vget_lane_f32::<1>(two));
            if first < second { first } else { second }
        }
    }

    #[inline(always)]
    fn reduce_max(self, a: Self::F32) -> f32 {
        // SAFETY: the token.
        unsafe {
            let eight = (greatest(self, a[0], a[2]), greatest(self, a[1], a[3]));
            let four = greatest(self, eight.0, eight.1);
            let (low, high) = (vget_low_f32(four), vget_high_f32(four));
            let two = vbsl_f32(vcgt_f32(low, high), low, high);
            let (first, second) = (vget_lane_f32::<0>(two), vget_lane_f32::<1>(two));
            if first > second { first } else { second }
        }
    }
}

/// As [`Simd::min`], whose rule no instruction has: `fmin` gives NaN where either is NaN, and -0 of two zeros.
#[inline(always)]
fn least(_: Neon, a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // SAFETY: the token.
    unsafe { vbslq_f32(vcltq_f32(a, b), a, b) }
}

/// As [`Simd::max`].
#[inline(always)]
fn greatest(_: Neon, a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // SAFETY: the token.
    unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
}

/// Numbers 0..8 and 8..16.
#[inline(always)]
fn halves_u16(_: Neon, from: &[u16; LANES]) -> [uint16x8_t; 2] {
    // SAFETY: the token.
    unsafe {
        let halves = from.as_chunks::<8>().0;
        [vld1q_u16(halves[0].as_ptr()), vld1q_u16(halves[1].as_ptr())]
    }
}

/// Eight binary16 numbers. The conversion is part of NEON itself, but its intrinsics take a type that Rust 1.89 has not.
#[inline(always)]
fn widen_f16(_: Neon, bits: uint16x8_t) -> [float32x4_t; 2] {
    let (low, high): (float32x4_t, float32x4_t);
    // SAFETY: the token; register to register.
    unsafe {
        asm!(
            "fcvtl {low:v}.4s, {bits:v}.4h",
            "fcvtl2 {high:v}.4s, {bits:v}.8h",
            bits = in(vreg) bits,
            low = out(vreg) low,
            high = lateout(vreg) high,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    [low, high]
}
