//! What an instruction set must offer: vectors of sixteen lanes.
//!
//! Every float algorithm of this crate is written once over [`Simd`]. Each operation below is exact or rounded once, as
//! IEEE 754 says, and reductions have one fixed tree: so all instruction sets give the same bits by construction. An
//! implementation is a zero-sized token; holding one proves that the CPU has the instruction set, which is why the methods are
//! safe to call. They must be inlined into a function with the right `#[target_feature]`s to be fast.
//!
//! The vectors have sixteen lanes everywhere: one AVX-512 register, two of AVX2, four of NEON.

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// Sixteen lanes of f32 or i32.
///
/// Where an operation says "unspecified", instruction sets may differ, and callers make sure that no result depends on it.
pub(crate) trait Simd: Copy {
    /// Sixteen f32.
    type F32: Copy;
    /// Sixteen i32.
    type I32: Copy;
    /// Sixteen conditions.
    type Mask: Copy;

    /// Panels of sixteen float outputs that a tile of six rows takes at once: as many as leave all its sums in registers, 1, 2 or 4.
    const TILE_PANELS: usize;

    /// Makes the token.
    ///
    /// # Safety
    ///
    /// The CPU has the instruction set.
    unsafe fn assume_supported() -> Self;

    /// All lanes equal.
    fn splat(self, value: f32) -> Self::F32;
    /// Sixteen numbers from memory.
    fn load(self, from: &[f32; LANES]) -> Self::F32;
    /// Sixteen numbers to memory.
    fn store(self, value: Self::F32, to: &mut [f32; LANES]);
    /// At most sixteen numbers; the other lanes are `fill`.
    fn load_partial(self, from: &[f32], fill: f32) -> Self::F32;
    /// The first `to.len()` lanes, at most sixteen.
    fn store_partial(self, value: Self::F32, to: &mut [f32]);

    /// [`Simd::load_partial`], a plain load where the slice is a whole vector.
    #[inline(always)]
    fn load_up_to(self, from: &[f32], fill: f32) -> Self::F32 {
        match from.try_into() {
            Ok(vector) => self.load(vector),
            Err(_) => self.load_partial(from, fill),
        }
    }
    /// [`Simd::store_partial`], a plain store where the slice is a whole vector.
    #[inline(always)]
    fn store_up_to(self, value: Self::F32, to: &mut [f32]) {
        match to.try_into() {
            Ok(vector) => self.store(value, vector),
            Err(_) => self.store_partial(value, to),
        }
    }

    /// IEEE binary16 numbers, widened exactly (a signaling NaN becomes quiet).
    fn load_f16(self, from: &[u16; LANES]) -> Self::F32;
    /// bfloat16 numbers, widened exactly.
    fn load_bf16(self, from: &[u16; LANES]) -> Self::F32;
    /// Signed bytes as f32.
    fn load_i8(self, from: &[i8; LANES]) -> Self::F32;
    /// i32 numbers from memory.
    fn load_i32(self, from: &[i32; LANES]) -> Self::I32;
    /// Stores lanes of 0..=255 as bytes.
    fn store_u8(self, value: Self::I32, to: &mut [u8; LANES]);
    /// Stores lanes as bytes, those below 0 as 0 and those above 255 as 255.
    fn store_u8_saturated(self, vectors: [Self::I32; 4], to: &mut [u8; 4 * LANES]);
    /// Stores lanes as signed bytes, those below -128 as -128 and those above 127 as 127.
    fn store_i8_saturated(self, vectors: [Self::I32; 4], to: &mut [i8; 4 * LANES]);
    /// Stores `table[lane]` of lanes of 0..=15 two a byte, the first of a pair in the high nibble. The table holds 0..=15.
    fn store_nibbles(self, vectors: [Self::I32; 4], table: &[u8; LANES], to: &mut [u8; 2 * LANES]);
    /// Stores the low byte of each lane.
    fn store_low_bytes(self, value: Self::I32, to: &mut [u8; LANES]);
    /// Whether float panels are prefetched: where they are not, the CPU's own prefetchers do better.
    const PREFETCHES_FLOATS: bool = false;

    /// Prefetches the cache line at `line`, which may be anywhere, into the second-level cache; does nothing on sets that cannot or gain nothing by it.
    #[inline(always)]
    fn prefetch(self, _line: *const u8) {}
    /// Stores the bits of the lanes.
    #[inline(always)]
    fn store_bits(self, value: Self::F32, to: &mut [i8; 4 * LANES]) {
        let mut lanes = [0.0; LANES];
        self.store(value, &mut lanes);
        for (lane, to) in lanes.into_iter().zip(to.as_chunks_mut::<4>().0) {
            *to = lane.to_bits().to_ne_bytes().map(|byte| byte as i8);
        }
    }
    /// Stores lanes of -32768..=32767.
    #[inline(always)]
    fn store_i16(self, value: Self::I32, to: &mut [i16; LANES]) {
        let (mut low, mut high) = ([0; LANES], [0; LANES]);
        let offset = i16::MIN;
        let raised = self.sub_i32(value, self.splat_i32(i32::from(offset)));
        self.store_u16_planes(raised, &mut low, &mut high);
        for ((to, low), high) in to.iter_mut().zip(low).zip(high) {
            *to = (u16::from_le_bytes([low, high]) as i16).wrapping_add(offset);
        }
    }
    /// Stores lanes of 0..=65535 as their low and their high bytes.
    fn store_u16_planes(self, value: Self::I32, low: &mut [u8; LANES], high: &mut [u8; LANES]);
    /// Byte `4 * lane + i` becomes that lane of vector i, all lanes being in -128..=127.
    fn store_i8_groups(self, vectors: [Self::I32; 4], to: &mut [i8; 4 * LANES]);

    /// a + b
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// a - b
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// a * b
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// a / b
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// a * b + c with one rounding.
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `if a < b { a } else { b }`: b where either is NaN, and b of two zeros.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `if a > b { a } else { b }`: b where either is NaN, and b of two zeros.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// |a|: the sign bit cleared, also of NaN.
    fn abs(self, a: Self::F32) -> Self::F32;
    /// The greater of `largest` and |a|, where `largest` has no sign. A NaN is greater than every number, so that one in `a` stays.
    fn max_magnitude(self, largest: Self::F32, a: Self::F32) -> Self::F32;
    /// To the nearest integer, ties to even.
    fn round_ties_even(self, a: Self::F32) -> Self::F32;
    /// a < b; false where either is NaN.
    fn less(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// The first `count` lanes.
    fn first_lanes(self, count: usize) -> Self::Mask;
    /// `a` where the mask holds, else `b`.
    fn select(self, mask: Self::Mask, a: Self::F32, b: Self::F32) -> Self::F32;

    /// All lanes equal.
    fn splat_i32(self, value: i32) -> Self::I32;
    /// a + b, wrapping.
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// a + 1 where the mask holds, wrapping.
    fn increment_where(self, mask: Self::Mask, a: Self::I32) -> Self::I32;
    /// a - b, wrapping.
    fn sub_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// a * b, wrapping.
    fn mul_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// A number in -2^22..2^22 as [`Simd::sub_product`] takes it.
    #[inline(always)]
    fn long_factor(self, a: Self::I32) -> Self::I32 {
        a
    }
    /// A number in -255..=255 as [`Simd::sub_product`] takes it, in all lanes.
    #[inline(always)]
    fn short_factor(self, a: i32) -> Self::I32 {
        self.splat_i32(a)
    }
    /// `a - long * short`, exact unless the result leaves i32.
    #[inline(always)]
    fn sub_product(self, a: Self::I32, long: Self::I32, short: Self::I32) -> Self::I32 {
        self.sub_i32(a, self.mul_i32(long, short))
    }
    /// The bits of each lane moved four places down: the next nibble becomes the lowest. Zeros come in.
    fn next_nibble(self, a: Self::I32) -> Self::I32;
    /// To f32, rounded to nearest even.
    fn to_f32(self, a: Self::I32) -> Self::F32;
    /// Toward zero. Unspecified outside of i32 and for NaN.
    fn truncate(self, a: Self::F32) -> Self::I32;
    /// To the nearest integer, ties to even. Unspecified outside of i32 and for NaN.
    #[inline(always)]
    fn round_to_i32(self, a: Self::F32) -> Self::I32 {
        self.truncate(self.round_ties_even(a))
    }
    /// `a * 2^n` rounded once (also where the result is subnormal or overflows), for `a` in 0.5..=2 and integral `n` in
    /// -250..=250. NaN for a NaN `a`, whatever `n`.
    fn scale_by_power_of_two(self, a: Self::F32, n: Self::F32) -> Self::F32;
    /// `a - round_ties_even(a)`, which is exact, for |a| below 2^22; the sign of a zero is unspecified.
    #[inline(always)]
    fn fraction(self, a: Self::F32) -> Self::F32 {
        self.sub(a, self.round_ties_even(a))
    }
    /// Lane i of the result is lane `index[i] % 16` of `table`.
    fn lookup(self, table: Self::F32, index: Self::I32) -> Self::F32;

    /// Lane i of the result is lane `index[i] % 32` of `table`.
    fn lookup_32(self, table: [Self::F32; 2], index: Self::I32) -> Self::F32;
    /// The bits of `table`, looked up as [`Simd::lookup_32`] does.
    fn lookup_bits_32(self, table: [Self::F32; 2], index: Self::I32) -> Self::I32;
    /// Lane 2i of the result is the lane of `table` that the high nibble of byte i says, lane 2i + 1 that of the low nibble.
    fn lookup_nibbles(self, table: Self::F32, bytes: &[u8; LANES / 2]) -> Self::F32;

    /// Lane j of vector i becomes lane i of vector j.
    #[inline(always)]
    fn transpose(self, rows: [Self::F32; LANES]) -> [Self::F32; LANES] {
        let mut elements = [[0.0; LANES]; LANES];
        for (elements, row) in elements.iter_mut().zip(rows) {
            self.store(row, elements);
        }
        let mut columns = rows;
        for (j, column) in columns.iter_mut().enumerate() {
            let mut lanes = [0.0; LANES];
            for (lane, elements) in lanes.iter_mut().zip(&elements) {
                *lane = elements[j];
            }
            *column = self.load(&lanes);
        }
        columns
    }

    /// Sum of all lanes: lane i + lane i + 8, then i + 4, i + 2, i + 1.
    fn reduce_sum(self, a: Self::F32) -> f32;
    /// Least lane, by [`Simd::min`] in the tree of [`Simd::reduce_sum`] with the lower lane first.
    fn reduce_min(self, a: Self::F32) -> f32;
    /// Greatest lane, by [`Simd::max`] in the tree of [`Simd::reduce_sum`] with the lower lane first.
    fn reduce_max(self, a: Self::F32) -> f32;
}
