//! Sixteen lanes as one register.

use std::arch::x86_64::*;

use crate::simd::{LANES, Simd};

/// The token of AVX-512 F, BW, DQ, VL and VNNI: one exists only where [`Simd::assume_supported`] was promised them. That is what makes every
/// intrinsic below sound to execute; pointers come from references of the full length.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

/// A mask of the first `count` lanes.
#[inline(always)]
fn first(count: usize) -> __mmask16 {
    if count >= LANES {
        __mmask16::MAX
    } else {
        (1 << count) - 1
    }
}

impl Simd for Avx512 {
    type F32 = __m512;
    type I32 = __m512i;
    type Mask = __mmask16;

    const TILE_PANELS: usize = 4;

    #[inline(always)]
    unsafe fn assume_supported() -> Self {
        Avx512(())
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::F32 {
        // SAFETY: the token.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, value: Self::F32, to: &mut [f32; LANES]) {
        // SAFETY: the token.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), value) }
    }

    #[inline(always)]
    fn load_partial(self, from: &[f32], fill: f32) -> Self::F32 {
        // SAFETY: the token; lanes that the mask leaves out are not read.
        unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(fill), first(from.len()), from.as_ptr()) }
    }

    #[inline(always)]
    fn store_partial(self, value: Self::F32, to: &mut [f32]) {
        // SAFETY: the token; lanes that the mask leaves out are not written.
        unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), first(to.len()), value) }
    }

    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> Self::F32 {
        // SAFETY: the token.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u16; LANES]) -> Self::F32 {
        // SAFETY: the token.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Self::F32 {
        // SAFETY: the token.
        unsafe {
            let codes = _mm_loadu_si128(from.as_ptr().cast());
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes))
        }
    }

    #[inline(always)]
    fn load_i32(self, from: &[i32; LANES]) -> Self::I32 {
        // SAFETY: the token.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store_u8(self, value: Self::I32, to: &mut [u8; LANES]) {
        // SAFETY: the token.
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(value)) }
    }

    #[inline(always)]
    fn store_u8_saturated(self, vectors: [Self::I32; 4], to: &mut [u8; 4 * LANES]) {
        // SAFETY: the token.
        unsafe {
            // The packs work within 128-bit parts: there they leave groups of four in the order of the vectors.
            let low = _mm512_packs_epi32(vectors[0], vectors[1]);
            let high = _mm512_packs_epi32(vectors[2], vectors[3]);
            let bytes = _mm512_packus_epi16(low, high);
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            let bytes = _mm512_permutexvar_epi32(order, bytes);
            _mm512_storeu_si512(to.as_mut_ptr().cast(), bytes);
        }
    }

    #[inline(always)]
    fn store_i8_saturated(self, vectors: [Self::I32; 4], to: &mut [i8; 4 * LANES]) {
        // SAFETY: the token.
        unsafe {
            // As in `store_u8_saturated`.
            let low = _mm512_packs_epi32(vectors[0], vectors[1]);
            let high = _mm512_packs_epi32(vectors[2], vectors[3]);
            let bytes = _mm512_packs_epi16(low, high);
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            let bytes = _mm512_permutexvar_epi32(order, bytes);
            _mm512_storeu_si512(to.as_mut_ptr().cast(), bytes);
        }
    }

    #[inline(always)]
    fn prefetch(self, line: *const u8) {
        // SAFETY: the token; a prefetch reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) };
    }

    #[inline(always)]
    fn store_nibbles(self, vectors: [Self::I32; 4], table: &[u8; LANES], to: &mut [u8; 2 * LANES]) {
        // SAFETY: the token.
        unsafe {
            let low = _mm512_packs_epi32(vectors[0], vectors[1]);
            let high = _mm512_packs_epi32(vectors[2], vectors[3]);
            let lanes = _mm512_packus_epi16(low, high);
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
            let codes = _mm512_shuffle_epi8(table, lanes);
            // Sixteen times the first of each pair and the second; then the groups of two in the order of the vectors.
            let pairs = _mm512_maddubs_epi16(codes, _mm512_set1_epi16(0x0110));
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            let pairs = _mm512_permutexvar_epi32(order, pairs);
            _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtepi16_epi8(pairs));
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
            // In each 128-bit part the low bytes, then the high bytes; then the parts together.
            let order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, -1, -1, -1, -1, -1, -1, -1, -1);
            let bytes = _mm512_shuffle_epi8(value, _mm512_broadcast_i32x4(order));
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 0, 0, 0, 0, 0, 0, 0, 0);
            let bytes = _mm512_castsi512_si256(_mm512_permutexvar_epi32(order, bytes));
            _mm_storeu_si128(low.as_mut_ptr().cast(), _mm256_castsi256_si128(bytes));
            let bytes = _mm256_extracti128_si256::<1>(bytes);
            _mm_storeu_si128(high.as_mut_ptr().cast(), bytes);
        }
    }

    #[inline(always)]
    fn store_i8_groups(self, vectors: [Self::I32; 4], to: &mut [i8; 4 * LANES]) {
        // SAFETY: the token.
        unsafe {
            let [a, b, c, d] = vectors;
            // Bytes 0 and 2 of the first pair, 1 and 3 of the second, each from its low bytes; the masks take one byte of two.
            let low = _mm512_mask_blend_epi8(0x2222_2222_2222_2222, a, _mm512_slli_epi32::<8>(b));
            let high = _mm512_mask_blend_epi8(
                0x8888_8888_8888_8888,
                _mm512_slli_epi32::<16>(c),
                _mm512_slli_epi32::<24>(d),
            );
            let all = _mm512_mask_blend_epi16(0xaaaa_aaaa, low, high);
            _mm512_storeu_si512(to.as_mut_ptr().cast(), all);
        }
    }

    #[inline(always)]
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn abs(self, a: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { _mm512_andnot_ps(_mm512_set1_ps(-0.0), a) }
    }

    #[inline(always)]
    fn max_magnitude(self, largest: Self::F32, a: Self::F32) -> Self::F32 {
        // SAFETY: the token. Numbers without a sign are in the order of their bits, NaN last.
        unsafe {
            let (largest, a) = (_mm512_castps_si512(largest), self.abs(a));
            _mm512_castsi512_ps(_mm512_max_epi32(largest, _mm512_castps_si512(a)))
        }
    }

    #[inline(always)]
    fn round_ties_even(self, a: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn less(self, a: Self::F32, b: Self::F32) -> Self::Mask {
        // SAFETY: the token.
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b) }
    }

    #[inline(always)]
    fn first_lanes(self, count: usize) -> Self::Mask {
        first(count)
    }

    #[inline(always)]
    fn select(self, mask: Self::Mask, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { _mm512_mask_blend_ps(mask, b, a) }
    }

    #[inline(always)]
    fn splat_i32(self, value: i32) -> Self::I32 {
        // SAFETY: the token.
        unsafe { _mm512_set1_epi32(value) }
    }

    #[inline(always)]
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        // SAFETY: the token.
        unsafe { _mm512_add_epi32(a, b) }
    }

    #[inline(always)]
    fn increment_where(self, mask: Self::Mask, a: Self::I32) -> Self::I32 {
        // SAFETY: the token.
        unsafe { _mm512_mask_add_epi32(a, mask, a, _mm512_set1_epi32(1)) }
    }

    #[inline(always)]
    fn sub_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        // SAFETY: the token.
        unsafe { _mm512_sub_epi32(a, b) }
    }

    #[inline(always)]
    fn mul_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        // SAFETY: the token.
        unsafe { _mm512_mullo_epi32(a, b) }
    }

    #[inline(always)]
    fn long_factor(self, a: Self::I32) -> Self::I32 {
        // a = 128 * high + low, both of them i16.
        // SAFETY: the token.
        unsafe {
            let low = _mm512_and_si512(a, _mm512_set1_epi32(127));
            let high = _mm512_slli_epi32::<16>(_mm512_srai_epi32::<7>(a));
            _mm512_or_si512(high, low)
        }
    }

    #[inline(always)]
    fn short_factor(self, a: i32) -> Self::I32 {
        // Negated: the product is added.
        self.splat_i32((-128 * a) << 16 | (-a & 0xffff))
    }

    #[inline(always)]
    fn sub_product(self, a: Self::I32, long: Self::I32, short: Self::I32) -> Self::I32 {
        // SAFETY: the token.
        unsafe { _mm512_dpwssd_epi32(a, long, short) }
    }

    #[inline(always)]
    fn next_nibble(self, a: Self::I32) -> Self::I32 {
        // SAFETY: the token.
        unsafe { _mm512_srli_epi32::<4>(a) }
    }

    #[inline(always)]
    fn to_f32(self, a: Self::I32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { _mm512_cvtepi32_ps(a) }
    }

    #[inline(always)]
    fn truncate(self, a: Self::F32) -> Self::I32 {
        // SAFETY: the token.
        unsafe { _mm512_cvttps_epi32(a) }
    }

    #[inline(always)]
    fn round_to_i32(self, a: Self::F32) -> Self::I32 {
        // SAFETY: the token. Rust code runs with the rounding mode at its default, to nearest even.
        unsafe { _mm512_cvtps_epi32(a) }
    }

    #[inline(always)]
    fn scale_by_power_of_two(self, a: Self::F32, n: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { _mm512_scalef_ps(a, n) }
    }

    #[inline(always)]
    fn fraction(self, a: Self::F32) -> Self::F32 {
        // SAFETY: the token.
        unsafe { _mm512_reduce_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn lookup(self, table: Self::F32, index: Self::I32) -> Self::F32 {
        // SAFETY: the token. The permutation reads the low four bits of each index.
        unsafe { _mm512_permutexvar_ps(index, table) }
    }

    #[inline(always)]
    fn lookup_32(self, table: [Self::F32; 2], index: Self::I32) -> Self::F32 {
        // SAFETY: the token. The permutation reads the low five bits of each index.
        unsafe { _mm512_permutex2var_ps(table[0], index, table[1]) }
    }

    #[inline(always)]
    fn lookup_bits_32(self, table: [Self::F32; 2], index: Self::I32) -> Self::I32 {
        // SAFETY: the token.
        unsafe { _mm512_castps_si512(self.lookup_32(table, index)) }
    }

    #[inline(always)]
    fn lookup_nibbles(self, table: Self::F32, bytes: &[u8; LANES / 2]) -> Self::F32 {
        // SAFETY: the token.
        unsafe {
            // A pair of lanes for each byte: the byte without its low nibble, and the byte, of which the lookup reads the low nibble.
            let bytes = _mm512_cvtepu8_epi64(_mm_loadl_epi64(bytes.as_ptr().cast()));
            let first = _mm512_srli_epi64::<4>(bytes);
            let index = _mm512_or_si512(first, _mm512_slli_epi64::<32>(bytes));
            self.lookup(table, index)
        }
    }

    #[inline(always)]
    fn transpose(self, rows: [Self::F32; LANES]) -> [Self::F32; LANES] {
        // SAFETY: the token.
        unsafe {
            // fours[4 g + e] holds in its 128-bit part p the column 4 p + e of the rows 4 g..4 g + 4.
            let mut fours = rows;
            for (four, rows) in fours
                .as_chunks_mut::<4>()
                .0
                .iter_mut()
                .zip(rows.as_chunks::<4>().0)
            {
                let double = |a, b| (_mm512_castps_pd(a), _mm512_castps_pd(b));
                let (low, high) = double(
                    _mm512_unpacklo_ps(rows[0], rows[1]),
                    _mm512_unpacklo_ps(rows[2], rows[3]),
                );
                four[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
                four[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
                let (low, high) = double(
                    _mm512_unpackhi_ps(rows[0], rows[1]),
                    _mm512_unpackhi_ps(rows[2], rows[3]),
                );
                four[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
                four[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
            }
            // A transposition of parts for each e. The immediates take the even or the odd parts of both operands.
            const EVEN: i32 = 0b10_00_10_00;
            const ODD: i32 = 0b11_01_11_01;
            let mut columns = rows;
            for e in 0..4 {
                let (a, b, c, d) = (fours[e], fours[4 + e], fours[8 + e], fours[12 + e]);
                let (even, odd) = (
                    _mm512_shuffle_f32x4::<EVEN>(a, b),
                    _mm512_shuffle_f32x4::<ODD>(a, b),
                );
                let (even_high, odd_high) = (
                    _mm512_shuffle_f32x4::<EVEN>(c, d),
                    _mm512_shuffle_f32x4::<ODD>(c, d),
                );
                columns[e] = _mm512_shuffle_f32x4::<EVEN>(even, even_high);
                columns[4 + e] = _mm512_shuffle_f32x4::<EVEN>(odd, odd_high);
                columns[8 + e] = _mm512_shuffle_f32x4::<ODD>(even, even_high);
                columns[12 + e] = _mm512_shuffle_f32x4::<ODD>(odd, odd_high);
            }
            columns
        }
    }

    #[inline(always)]
    fn reduce_sum(self, a: Self::F32) -> f32 {
        // SAFETY: the token.
        unsafe {
            let (low, high) = halves(self, a);
            let (low, high) = quarters(self, _mm256_add_ps(low, high));
            let four = _mm_add_ps(low, high);
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn reduce_min(self, a: Self::F32) -> f32 {
        // SAFETY: the token.
        unsafe {
            let (low, high) = halves(self, a);
            let (low, high) = quarters(self, _mm256_min_ps(low, high));
            let four = _mm_min_ps(low, high);
            let two = _mm_min_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_min_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn reduce_max(self, a: Self::F32) -> f32 {
        // SAFETY: the token.
        unsafe {
            let (low, high) = halves(self, a);
            let (low, high) = quarters(self, _mm256_max_ps(low, high));
            let four = _mm_max_ps(low, high);
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }
}

/// Lanes 0..8 and 8..16.
#[inline(always)]
fn halves(_: Avx512, a: __m512) -> (__m256, __m256) {
    // SAFETY: the token.
    unsafe { (_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a)) }
}

/// Lanes 0..4 and 4..8.
#[inline(always)]
fn quarters(_: Avx512, a: __m256) -> (__m128, __m128) {
    // SAFETY: the token.
    unsafe { (_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a)) }
}
