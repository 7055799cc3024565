//! Sixteen lanes as two registers of eight.

use std::arch::x86_64::*;

use crate::simd::{LANES, Simd};

/// The token of AVX2, FMA and F16C: one exists only where [`Simd::assume_supported`] was promised them. That is what makes every
/// intrinsic below sound to execute; pointers come from references of the full length.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// Lanes 0..8 and 8..16.
type Pair<T> = (T, T);

impl Simd for Avx2 {
    type F32 = Pair<__m256>;
    type I32 = Pair<__m256i>;
    type Mask = Pair<__m256>;

    const TILE_PANELS: usize = 1;
    const PREFETCHES_FLOATS: bool = true;

    #[inline(always)]
    unsafe fn assume_supported() -> Self {
        Avx2(())
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F32 {
        // SAFETY: the token.
        unsafe {
            let half = _mm256_set1_ps(value);
            (half, half)
        }
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::F32 {
        // SAFETY: the token.
        unsafe {
            let from = from.as_ptr();
            (_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8)))
        }
    }

    #[inline(always)]
    fn store(self, value: Self::F32, to: &mut [f32; LANES]) {
        // SAFETY: the token.
        unsafe {
            let to = to.as_mut_ptr();
            _mm256_storeu_ps(to, value.0);
            _mm256_storeu_ps(to.add(8), value.1);
        }
    }

    #[inline(always)]
    fn load_partial(self, from: &[f32], fill: f32) -> Self::F32 {
        // SAFETY: the token.
        unsafe {
            let mask = self.first_lanes(from.len());
            // Lanes that the mask leaves out are not read; the pointers stay within one element of the slice or are not read at all.
            let low = _mm256_maskload_ps(from.as_ptr(), _mm256_castps_si256(mask.0));
            let high =
                _mm256_maskload_ps(from.as_ptr().wrapping_add(8), _mm256_castps_si256(mask.1));
            self.select(mask, (low, high), self.splat(fill))
        }
    }

    #[inline(always)]
    fn store_partial(self, value: Self::F32, to: &mut [f32]) {
        // SAFETY: the token.
        unsafe {
            let mask = self.first_lanes(to.len());
            // Lanes that the mask leaves out are not written.
            let to = to.as_mut_ptr();
            _mm256_maskstore_ps(to, _mm256_castps_si256(mask.0), value.0);
            _mm256_maskstore_ps(to.wrapping_add(8), _mm256_castps_si256(mask.1), value.1);
        }
    }

    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> Self::F32 {
        // SAFETY: the token.
        unsafe {
            let from = from.as_ptr().cast::<__m128i>();
            (
                _mm256_cvtph_ps(_mm_loadu_si128(from)),
                _mm256_cvtph_ps(_mm_loadu_si128(from.add(1))),
            )
        }
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u16; LANES]) -> Self::F32 {
        // SAFETY: the token.
        unsafe {
            let from = from.as_ptr().cast::<__m128i>();
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(from));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.add(1)));
            (
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            )
        }
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Self::F32 {
        // SAFETY: the token.
        unsafe {
            let from = from.as_ptr();
            let low = _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()));
            let high = _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.add(8).cast()));
            (_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        }
    }

    #[inline(always)]
    fn load_i32(self, from: &[i32; LANES]) -> Self::I32 {
        // SAFETY: the token.
        unsafe {
            let from = from.as_ptr().cast::<__m256i>();
            (_mm256_loadu_si256(from), _mm256_loadu_si256(from.add(1)))
        }
    }

    #[inline(always)]
    fn store_u8(self, value: Self::I32, to: &mut [u8; LANES]) {
        // SAFETY: the token.
        unsafe {
            // The packs work within 128-bit halves: the permutation restores the order of the groups of four.
            let words = _mm256_packus_epi32(value.0, value.1);
            let bytes = _mm256_packus_epi16(words, words);
            let order = _mm256_setr_epi32(0, 4, 1, 5, 0, 0, 0, 0);
            let bytes = _mm256_permutevar8x32_epi32(bytes, order);
            _mm_storeu_si128(to.as_mut_ptr().cast(), _mm256_castsi256_si128(bytes));
        }
    }

    #[inline(always)]
    fn store_u8_saturated(self, vectors: [Self::I32; 4], to: &mut [u8; 4 * LANES]) {
        // SAFETY: the token.
        unsafe {
            // The packs work within 128-bit halves: there they leave groups of four in the order of the registers.
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            for (pair, to) in vectors
                .as_chunks::<2>()
                .0
                .iter()
                .zip(to.as_chunks_mut::<32>().0)
            {
                let low = _mm256_packs_epi32(pair[0].0, pair[0].1);
                let high = _mm256_packs_epi32(pair[1].0, pair[1].1);
                let bytes = _mm256_packus_epi16(low, high);
                let bytes = _mm256_permutevar8x32_epi32(bytes, order);
                _mm256_storeu_si256(to.as_mut_ptr().cast(), bytes);
            }
        }
    }

    #[inline(always)]
    fn store_i8_saturated(self, vectors: [Self::I32; 4], to: &mut [i8; 4 * LANES]) {
        // SAFETY: the token.
        unsafe {
            // As in `store_u8_saturated`.
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            for (pair, to) in vectors
                .as_chunks::<2>()
                .0
                .iter()
                .zip(to.as_chunks_mut::<32>().0)
            {
                let low = _mm256_packs_epi32(pair[0].0, pair[0].1);
                let high = _mm256_packs_epi32(pair[1].0, pair[1].1);
                let bytes = _mm256_packs_epi16(low, high);
                let bytes = _mm256_permutevar8x32_epi32(bytes, order);
                _mm256_storeu_si256(to.as_mut_ptr().cast(), bytes);
            }
        }
    }

    #[inline(always)]
    fn store_nibbles(self, vectors: [Self::I32; 4], table: &[u8; LANES], to: &mut [u8; 2 * LANES]) {
        // SAFETY: the token.
        unsafe {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            let first = nibble_pairs(self, [vectors[0], vectors[1]], table);
            let second = nibble_pairs(self, [vectors[2], vectors[3]], table);
            // Two bytes of each register in each half: those of a register are in the low and in the high half.
            let bytes = _mm256_packus_epi16(first, second);
            let low = _mm256_castsi256_si128(bytes);
            let high = _mm256_extracti128_si256::<1>(bytes);
            let to = to.as_mut_ptr().cast::<__m128i>();
            _mm_storeu_si128(to, _mm_unpacklo_epi16(low, high));
            _mm_storeu_si128(to.add(1), _mm_unpackhi_epi16(low, high));
        }
    }

    #[inline(always)]
    fn store_low_bytes(self, value: Self::I32, to: &mut [u8; LANES]) {
        // SAFETY: the token.
        unsafe {
            let mask = _mm256_set1_epi32(255);
            let (low, high) = value;
            self.store_u8(
                (_mm256_and_si256(low, mask), _mm256_and_si256(high, mask)),
                to,
            );
        }
    }

    #[inline(always)]
    fn prefetch(self, line: *const u8) {
        // SAFETY: the token; a prefetch reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) };
    }

    #[inline(always)]
    fn store_i16(self, value: Self::I32, to: &mut [i16; LANES]) {
        // SAFETY: the token.
        unsafe {
            // The pack works within 128-bit halves: the permutation restores the order of the groups of four.
            let words = _mm256_packs_epi32(value.0, value.1);
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            _mm256_storeu_si256(to.as_mut_ptr().cast(), words);
        }
    }

    #[inline(always)]
    fn store_u16_planes(self, value: Self::I32, low: &mut [u8; LANES], high: &mut [u8; LANES]) {
        // SAFETY: the token.
        unsafe {
            self.store_low_bytes(value, low);
            let shifted = (
                _mm256_srli_epi32::<8>(value.0),
                _mm256_srli_epi32::<8>(value.1),
            );
            self.store_u8(shifted, high);
        }
    }

    #[inline(always)]
    fn store_i8_groups(self, vectors: [Self::I32; 4], to: &mut [i8; 4 * LANES]) {
        // SAFETY: the token.
        unsafe {
            let [a, b, c, d] = vectors;
            let to = to.as_mut_ptr().cast::<__m256i>();
            _mm256_storeu_si256(to, group_half(self, [a.0, b.0, c.0, d.0]));
            _mm256_storeu_si256(to.add(1), group_half(self, [a.1, b.1, c.1, d.1]));
        }
    }

    #[inline(always)]
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { (_mm256_add_ps(a.0, b.0), _mm256_add_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { (_mm256_sub_ps(a.0, b.0), _mm256_sub_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { (_mm256_mul_ps(a.0, b.0), _mm256_mul_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { (_mm256_div_ps(a.0, b.0), _mm256_div_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe {
            (
                _mm256_fmadd_ps(a.0, b.0, c.0),
                _mm256_fmadd_ps(a.1, b.1, c.1),
            )
        }
    }

    #[inline(always)]
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { (_mm256_min_ps(a.0, b.0), _mm256_min_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { (_mm256_max_ps(a.0, b.0), _mm256_max_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn abs(self, a: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            (_mm256_andnot_ps(sign, a.0), _mm256_andnot_ps(sign, a.1))
        }
    }

    #[inline(always)]
    fn max_magnitude(self, largest: Self::F32, a: Self::F32) -> Self::F32 {
        let a = self.abs(a);
        (
            max_bits(self, largest.0, a.0),
            max_bits(self, largest.1, a.1),
        )
    }

    #[inline(always)]
    fn round_ties_even(self, a: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe {
            const MODE: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
            (_mm256_round_ps::<MODE>(a.0), _mm256_round_ps::<MODE>(a.1))
        }
    }

    #[inline(always)]
    fn less(self, a: Self::F32, b: Self::F32) -> Self::Mask {
        // SAFETY: the token.
        unsafe {
            (
                _mm256_cmp_ps::<_CMP_LT_OQ>(a.0, b.0),
                _mm256_cmp_ps::<_CMP_LT_OQ>(a.1, b.1),
            )
        }
    }

    #[inline(always)]
    fn first_lanes(self, count: usize) -> Self::Mask {
        // SAFETY: the token.
        unsafe {
            let count = _mm256_set1_epi32(count as i32);
            let low = _mm256_cmpgt_epi32(count, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
            let high = _mm256_cmpgt_epi32(count, _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15));
            (_mm256_castsi256_ps(low), _mm256_castsi256_ps(high))
        }
    }

    #[inline(always)]
    fn select(self, mask: Self::Mask, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe {
            (
                _mm256_blendv_ps(b.0, a.0, mask.0),
                _mm256_blendv_ps(b.1, a.1, mask.1),
            )
        }
    }

    #[inline(always)]
    fn splat_i32(self, value: i32) -> Self::I32 {
        // SAFETY: the token.
        unsafe {
            let half = _mm256_set1_epi32(value);
            (half, half)
        }
    }

    #[inline(always)]
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        // SAFETY: the token.
        unsafe { (_mm256_add_epi32(a.0, b.0), _mm256_add_epi32(a.1, b.1)) }
    }

    #[inline(always)]
    fn increment_where(self, mask: Self::Mask, a: Self::I32) -> Self::I32 {
        // SAFETY: the token.
        unsafe {
            // Where a mask holds, its bits are -1.
            (
                _mm256_sub_epi32(a.0, _mm256_castps_si256(mask.0)),
                _mm256_sub_epi32(a.1, _mm256_castps_si256(mask.1)),
            )
        }
    }

    #[inline(always)]
    fn sub_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        // SAFETY: the token.
        unsafe { (_mm256_sub_epi32(a.0, b.0), _mm256_sub_epi32(a.1, b.1)) }
    }

    #[inline(always)]
    fn mul_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        // SAFETY: the token.
        unsafe { (_mm256_mullo_epi32(a.0, b.0), _mm256_mullo_epi32(a.1, b.1)) }
    }

    /// As two numbers of 16 bits: the part above the low seven bits, and these.
    #[inline(always)]
    fn long_factor(self, a: Self::I32) -> Self::I32 {
        (long_half(self, a.0), long_half(self, a.1))
    }

    /// For these parts: times 128, and times one.
    #[inline(always)]
    fn short_factor(self, a: i32) -> Self::I32 {
        self.splat_i32((a * 128) << 16 | (a & 0xffff))
    }

    #[inline(always)]
    fn sub_product(self, a: Self::I32, long: Self::I32, short: Self::I32) -> Self::I32 {
        // SAFETY: the token.
        unsafe {
            (
                _mm256_sub_epi32(a.0, _mm256_madd_epi16(long.0, short.0)),
                _mm256_sub_epi32(a.1, _mm256_madd_epi16(long.1, short.1)),
            )
        }
    }

    #[inline(always)]
    fn next_nibble(self, a: Self::I32) -> Self::I32 {
        // SAFETY: the token.
        unsafe { (_mm256_srli_epi32::<4>(a.0), _mm256_srli_epi32::<4>(a.1)) }
    }

    #[inline(always)]
    fn to_f32(self, a: Self::I32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { (_mm256_cvtepi32_ps(a.0), _mm256_cvtepi32_ps(a.1)) }
    }

    #[inline(always)]
    fn truncate(self, a: Self::F32) -> Self::I32 {
        // SAFETY: the token.
        unsafe { (_mm256_cvttps_epi32(a.0), _mm256_cvttps_epi32(a.1)) }
    }

    #[inline(always)]
    fn round_to_i32(self, a: Self::F32) -> Self::I32 {
        // SAFETY: the token. Rust code runs with the rounding mode at its default, to nearest even.
        unsafe { (_mm256_cvtps_epi32(a.0), _mm256_cvtps_epi32(a.1)) }
    }

    #[inline(always)]
    fn scale_by_power_of_two(self, a: Self::F32, n: Self::F32) -> Self::F32 {
        (scale_half(self, a.0, n.0), scale_half(self, a.1, n.1))
    }

    #[inline(always)]
    fn lookup(self, table: Self::F32, index: Self::I32) -> Self::F32 {
        (
            lookup_half(self, table, index.0),
            lookup_half(self, table, index.1),
        )
    }

    #[inline(always)]
    fn lookup_32(self, table: [Self::F32; 2], index: Self::I32) -> Self::F32 {
        (
            lookup_half_32(self, table, index.0),
            lookup_half_32(self, table, index.1),
        )
    }

    #[inline(always)]
    fn lookup_bits_32(self, table: [Self::F32; 2], index: Self::I32) -> Self::I32 {
        // SAFETY: the token.
        unsafe {
            let (low, high) = self.lookup_32(table, index);
            (_mm256_castps_si256(low), _mm256_castps_si256(high))
        }
    }

    #[inline(always)]
    fn lookup_nibbles(self, table: Self::F32, bytes: &[u8; LANES / 2]) -> Self::F32 {
        // SAFETY: the token.
        unsafe {
            // All bytes of a half in each lane, shifted to the nibble of the lane; the lookup reads four bits.
            let shifts = _mm256_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24);
            let halves = bytes.as_chunks::<4>().0;
            let low = _mm256_set1_epi32(i32::from_le_bytes(halves[0]));
            let high = _mm256_set1_epi32(i32::from_le_bytes(halves[1]));
            let low = _mm256_srlv_epi32(low, shifts);
            let high = _mm256_srlv_epi32(high, shifts);
            self.lookup(table, (low, high))
        }
    }

    #[inline(always)]
    fn reduce_sum(self, a: Self::F32) -> f32 {
        // SAFETY: the token.
        unsafe {
            let eight = _mm256_add_ps(a.0, a.1);
            let (low, high) = halves(self, eight);
            let four = _mm_add_ps(low, high);
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn reduce_min(self, a: Self::F32) -> f32 {
        // SAFETY: the token.
        unsafe {
            let eight = _mm256_min_ps(a.0, a.1);
            let (low, high) = halves(self, eight);
            let four = _mm_min_ps(low, high);
            let two = _mm_min_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_min_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn reduce_max(self, a: Self::F32) -> f32 {
        // SAFETY: the token.
        unsafe {
            let eight = _mm256_max_ps(a.0, a.1);
            let (low, high) = halves(self, eight);
            let four = _mm_max_ps(low, high);
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }
}

/// The high half of each lane is `a` without its low seven bits, divided by 128, the low half these bits.
#[inline(always)]
fn long_half(_: Avx2, a: __m256i) -> __m256i {
    // SAFETY: the token.
    unsafe {
        let high = _mm256_slli_epi32::<16>(_mm256_srai_epi32::<7>(a));
        _mm256_or_si256(high, _mm256_and_si256(a, _mm256_set1_epi32(127)))
    }
}

/// Lanes 0..4 and 4..8.
#[inline(always)]
fn halves(_: Avx2, a: __m256) -> Pair<__m128> {
    // SAFETY: the token.
    unsafe { (_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a)) }
}

/// Two factors, so that neither leaves the normal range; the first product is exact.
#[inline(always)]
fn scale_half(_: Avx2, a: __m256, n: __m256) -> __m256 {
    // SAFETY: the token.
    unsafe {
        let bias = _mm256_set1_epi32(127);
        let n = _mm256_cvttps_epi32(n);
        let half = _mm256_srai_epi32::<1>(n);
        let rest = _mm256_sub_epi32(n, half);
        let first = _mm256_slli_epi32::<23>(_mm256_add_epi32(half, bias));
        let second = _mm256_slli_epi32::<23>(_mm256_add_epi32(rest, bias));
        let product = _mm256_mul_ps(a, _mm256_castsi256_ps(first));
        _mm256_mul_ps(product, _mm256_castsi256_ps(second))
    }
}

/// The permutation reads the low three bits of each index; bit 3, moved to the sign, chooses the half of the table.
#[inline(always)]
fn lookup_half(_: Avx2, table: Pair<__m256>, index: __m256i) -> __m256 {
    // SAFETY: the token.
    unsafe {
        let low = _mm256_permutevar8x32_ps(table.0, index);
        let high = _mm256_permutevar8x32_ps(table.1, index);
        let choice = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index));
        _mm256_blendv_ps(low, high, choice)
    }
}

/// The permutations read the low three bits of each index; bits 3 and 4, moved to the sign, choose the quarter of the table.
#[inline(always)]
fn lookup_half_32(s: Avx2, table: [Pair<__m256>; 2], index: __m256i) -> __m256 {
    // SAFETY: the token.
    unsafe {
        let low = lookup_half(s, table[0], index);
        let high = lookup_half(s, table[1], index);
        let choice = _mm256_castsi256_ps(_mm256_slli_epi32::<27>(index));
        _mm256_blendv_ps(low, high, choice)
    }
}

/// The greater of two numbers without a sign by their bits, NaN last.
#[inline(always)]
fn max_bits(_: Avx2, a: __m256, b: __m256) -> __m256 {
    // SAFETY: the token.
    unsafe {
        let (a, b) = (_mm256_castps_si256(a), _mm256_castps_si256(b));
        _mm256_castsi256_ps(_mm256_max_epi32(a, b))
    }
}

/// The entries of `table` for 32 lanes of 0..=15, two in the low byte of 16 bits: in each half two such of each register in turn.
#[inline(always)]
fn nibble_pairs(_: Avx2, vectors: [Pair<__m256i>; 2], table: __m256i) -> __m256i {
    // SAFETY: the token.
    unsafe {
        let low = _mm256_packs_epi32(vectors[0].0, vectors[0].1);
        let high = _mm256_packs_epi32(vectors[1].0, vectors[1].1);
        let codes = _mm256_shuffle_epi8(table, _mm256_packus_epi16(low, high));
        // Sixteen times the first of each pair and the second.
        _mm256_maddubs_epi16(codes, _mm256_set1_epi16(0x0110))
    }
}

/// The low bytes of four vectors, those of one lane next to one another.
#[inline(always)]
fn group_half(_: Avx2, [a, b, c, d]: [__m256i; 4]) -> __m256i {
    // SAFETY: the token.
    unsafe {
        let byte = _mm256_set1_epi32(255);
        let low = _mm256_or_si256(
            _mm256_and_si256(a, byte),
            _mm256_slli_epi32::<8>(_mm256_and_si256(b, byte)),
        );
        let high = _mm256_or_si256(_mm256_and_si256(c, byte), _mm256_slli_epi32::<8>(d));
        _mm256_blend_epi16::<0b1010_1010>(low, _mm256_slli_epi32::<16>(high))
    }
}
