//! Every operation of every instruction set's vectors against portable code, bit for bit.

use std::array::from_fn;

use crate::arch::scalar::Scalar;
use crate::simd::{LANES, Simd};

/// Numbers where instructions differ from one another: zeros, subnormals, ties, the ends of the range, infinities and NaN.
const NUMBERS: [f32; 29] = [
    0.0,
    -0.0,
    f32::from_bits(1),
    -f32::from_bits(1),
    f32::from_bits(0x007f_ffff),
    f32::MIN_POSITIVE,
    -f32::MIN_POSITIVE,
    1e-30,
    0.25,
    0.5,
    -0.5,
    0.75,
    1.0,
    -1.0,
    1.5,
    2.5,
    -2.5,
    std::f32::consts::PI,
    -126.7,
    255.5,
    8_388_607.5,
    -8_388_608.0,
    16_777_217.0,
    1e19,
    -3e37,
    f32::MAX,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
];

/// i32 numbers around the ends of the range and of what f32 holds exactly.
const INTEGERS: [i32; 17] = [
    0,
    1,
    -1,
    2,
    7,
    -128,
    255,
    65_535,
    16_777_215,
    16_777_217,
    -16_777_219,
    33_554_434,
    33_554_435,
    i32::MAX,
    i32::MAX - 63,
    i32::MIN,
    i32::MIN + 1,
];

/// Sixteen of `values`, `step` apart, from the one at `start` on, in a circle.
fn cycle<T: Copy>(values: &[T], start: usize, step: usize) -> [T; LANES] {
    from_fn(|lane| values[(start + lane * step) % values.len()])
}

/// One operation's result from the instruction set under test and from portable code.
struct Agreement<S> {
    isa: &'static str,
    s: S,
}

impl<S: Simd> Agreement<S> {
    /// Bit equality of lanes; all NaN are one.
    #[track_caller]
    fn floats(&self, what: &str, found: S::F32, expected: [f32; LANES]) {
        let mut lanes = [0.0; LANES];
        self.s.store(found, &mut lanes);
        for (lane, (found, expected)) in lanes.into_iter().zip(expected).enumerate() {
            self.float(&format!("{what}, lane {lane}"), found, expected);
        }
    }

    #[track_caller]
    fn float(&self, what: &str, found: f32, expected: f32) {
        assert!(
            found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()),
            "{}: {what}: expected {expected:e}, found {found:e}",
            self.isa
        );
    }

    /// Equality of lanes: their wrapping differences are zero.
    #[track_caller]
    fn integers(&self, what: &str, found: S::I32, expected: [i32; LANES]) {
        let difference = self.s.sub_i32(found, self.s.load_i32(&expected));
        self.floats(what, self.s.to_f32(difference), [0.0; LANES]);
    }

    fn memory(&self) {
        let s = self.s;
        let numbers = cycle(&NUMBERS, 3, 1);
        self.floats("splat", s.splat(1.5), [1.5; LANES]);
        for count in 0..=LANES {
            let what = format!("{count} lanes");
            let from = &numbers[..count];
            let expected = Scalar.load_partial(from, 7.0);
            self.floats(&what, s.load_partial(from, 7.0), expected);
            self.floats(&what, s.load_up_to(from, 7.0), expected);
            let mut stored = [[9.0; LANES]; 2];
            s.store_partial(s.load(&numbers), &mut stored[0][..count]);
            s.store_up_to(s.load(&numbers), &mut stored[1][..count]);
            let expected = from_fn(|lane| if lane < count { numbers[lane] } else { 9.0 });
            for stored in stored {
                self.floats(&what, s.load(&stored), expected);
            }
            let (ones, zeros) = (s.splat(1.0), s.splat(0.0));
            let first = s.select(s.first_lanes(count), ones, zeros);
            self.floats(&what, first, from_fn(|lane| f32::from(lane < count)));
        }
    }

    /// Every code of every storage type.
    fn widening(&self) {
        let s = self.s;
        for start in (0..=u16::MAX).step_by(LANES) {
            let bits: [u16; LANES] = from_fn(|lane| start + lane as u16);
            self.floats("load_f16", s.load_f16(&bits), Scalar.load_f16(&bits));
            self.floats("load_bf16", s.load_bf16(&bits), Scalar.load_bf16(&bits));
        }
        for start in (0..=u8::MAX).step_by(LANES) {
            let bytes: [u8; LANES] = from_fn(|lane| start + lane as u8);
            let signed = bytes.map(|byte| byte as i8);
            self.floats("load_i8", s.load_i8(&signed), signed.map(f32::from));
            let integers = bytes.map(i32::from);
            let mut stored = [0; LANES];
            s.store_u8(s.load_i32(&integers), &mut stored);
            assert_eq!(stored, bytes, "{}: store_u8", self.isa);
            let words = integers.map(|byte| (byte ^ 0x85).wrapping_mul(0x0101_0101));
            let expected = words.map(|word| (word.cast_unsigned() >> 4).cast_signed());
            self.integers("next_nibble", s.next_nibble(s.load_i32(&words)), expected);
        }
    }

    /// All pairs of numbers, each pair in several lanes.
    fn arithmetic(&self) {
        let s = self.s;
        for start in 0..NUMBERS.len() {
            let x = cycle(&NUMBERS, start, 1);
            let a = s.load(&x);
            self.floats("abs", s.abs(a), Scalar.abs(x));
            let rounded = Scalar.round_ties_even(x);
            self.floats("round_ties_even", s.round_ties_even(a), rounded);
            for other in 0..NUMBERS.len() {
                let y = cycle(&NUMBERS, start + other, 2);
                let b = s.load(&y);
                self.floats("add", s.add(a, b), Scalar.add(x, y));
                self.floats("sub", s.sub(a, b), Scalar.sub(x, y));
                self.floats("mul", s.mul(a, b), Scalar.mul(x, y));
                self.floats("div", s.div(a, b), Scalar.div(x, y));
                self.floats("min", s.min(a, b), Scalar.min(x, y));
                self.floats("max", s.max(a, b), Scalar.max(x, y));
                let smaller = s.select(s.less(a, b), a, b);
                let expected = Scalar.select(Scalar.less(x, y), x, y);
                self.floats("less", smaller, expected);
                let z = cycle(&NUMBERS, start * 5 + other * 7, 3);
                let sum = s.fma(a, b, s.load(&z));
                self.floats("fma", sum, Scalar.fma(x, y, z));
                let table = cycle(&NUMBERS, other, 1);
                let index: [i32; LANES] = cycle(&INTEGERS, start, 1);
                let found = s.lookup(s.load(&table), s.load_i32(&index));
                self.floats("lookup", found, Scalar.lookup(table, index));
                let (largest, magnitudes) = (s.abs(a), Scalar.abs(x));
                let found = s.max_magnitude(largest, b);
                let expected = Scalar.max_magnitude(magnitudes, y);
                self.floats("max_magnitude", found, expected);
                let raised = s.increment_where(s.less(a, b), s.load_i32(&index));
                let expected = Scalar.increment_where(Scalar.less(x, y), index);
                self.integers("increment_where", raised, expected);
            }
        }
    }

    fn integer_arithmetic(&self) {
        let s = self.s;
        for start in 0..INTEGERS.len() {
            let x = cycle(&INTEGERS, start, 1);
            let a = s.load_i32(&x);
            self.integers("splat_i32", s.splat_i32(x[0]), [x[0]; LANES]);
            self.floats("to_f32", s.to_f32(a), Scalar.to_f32(x));
            for other in 0..INTEGERS.len() {
                let y = cycle(&INTEGERS, start + other, 2);
                let b = s.load_i32(&y);
                self.integers("add_i32", s.add_i32(a, b), Scalar.add_i32(x, y));
                self.integers("sub_i32", s.sub_i32(a, b), Scalar.sub_i32(x, y));
                self.integers("mul_i32", s.mul_i32(a, b), Scalar.mul_i32(x, y));
            }
        }
        let numbers = [
            0.0,
            -0.0,
            0.9,
            -0.9,
            1.5,
            -1.5,
            255.99,
            -8_388_608.5,
            2.147_483_5e9,
        ];
        for start in 0..numbers.len() {
            let x = cycle(&numbers, start, 1);
            self.integers("truncate", s.truncate(s.load(&x)), Scalar.truncate(x));
            let rounded = x.map(|x| x.round_ties_even() as i32);
            self.integers("round_to_i32", s.round_to_i32(s.load(&x)), rounded);
        }
    }

    /// Tables of 32 entries, and indices of four bits.
    fn lookups(&self) {
        let s = self.s;
        let numbers: [[f32; LANES]; 2] = [cycle(&NUMBERS, 0, 1), cycle(&NUMBERS, 7, 3)];
        // Small integers as the bits of floats, which are subnormal.
        let integers =
            [0, 1].map(|half| from_fn(|lane| f32::from_bits((half * LANES + lane) as u32)));
        for start in -64..64 {
            let index: [i32; LANES] = from_fn(|lane| start + 5 * lane as i32);
            for table in [numbers, integers] {
                let loaded = table.map(|half| s.load(&half));
                let found = s.lookup_32(loaded, s.load_i32(&index));
                let expected = from_fn(|lane| table.as_flattened()[(index[lane] & 31) as usize]);
                self.floats("lookup_32", found, expected);
                let found = s.lookup_bits_32(loaded, s.load_i32(&index));
                let expected = expected.map(|entry: f32| entry.to_bits().cast_signed());
                self.integers("lookup_bits_32", found, expected);
            }
        }
        for start in 0..=u8::MAX {
            let bytes: [u8; LANES / 2] = from_fn(|byte| start.wrapping_add((37 * byte) as u8));
            let found = s.lookup_nibbles(s.load(&numbers[0]), &bytes);
            let expected = from_fn(|lane| {
                let byte = bytes[lane / 2];
                numbers[0][usize::from(if lane % 2 == 0 { byte >> 4 } else { byte & 15 })]
            });
            self.floats("lookup_nibbles", found, expected);
        }
    }

    /// Lanes of 0..=15, two a byte.
    fn nibbles(&self) {
        let s = self.s;
        let ascending: [u8; LANES] = from_fn(|code| code as u8);
        for table in [ascending, ascending.map(|code| (code * 7 + 3) % 16)] {
            for start in 0..LANES {
                for step in [1, 3, 5] {
                    let lane = |index: usize| (start + step * index + index / LANES) % LANES;
                    let lanes: [[i32; LANES]; 4] =
                        from_fn(|vector| from_fn(|i| lane(vector * LANES + i) as i32));
                    let mut found = [0; 2 * LANES];
                    s.store_nibbles(lanes.map(|lanes| s.load_i32(&lanes)), &table, &mut found);
                    let expected: [u8; 2 * LANES] =
                        from_fn(|byte| table[lane(2 * byte)] << 4 | table[lane(2 * byte + 1)]);
                    assert_eq!(found, expected, "{}: store_nibbles", self.isa);
                }
            }
        }
    }

    /// Lanes stored as bytes.
    fn narrowing(&self) {
        let s = self.s;
        for start in 0..INTEGERS.len() {
            let x: [[i32; LANES]; 4] = from_fn(|vector| cycle(&INTEGERS, start + vector, 1));
            let vectors = x.map(|x| s.load_i32(&x));
            let (mut found, mut expected) = ([0; 4 * LANES], [0; 4 * LANES]);
            s.store_u8_saturated(vectors, &mut found);
            Scalar.store_u8_saturated(x, &mut expected);
            assert_eq!(found, expected, "{}: store_u8_saturated", self.isa);
            let mut found = [0; 4 * LANES];
            s.store_i8_saturated(vectors, &mut found);
            let expected: [i8; 4 * LANES] =
                from_fn(|byte| x[byte / LANES][byte % LANES].clamp(-128, 127) as i8);
            assert_eq!(found, expected, "{}: store_i8_saturated", self.isa);
        }
        for start in 0..=u8::MAX {
            let code = |lane: usize| i32::from((start as i8).wrapping_add(lane as i8));
            let x: [[i32; LANES]; 4] = from_fn(|vector| from_fn(|lane| code(4 * lane + vector)));
            let mut found = [0; 4 * LANES];
            s.store_i8_groups(x.map(|x| s.load_i32(&x)), &mut found);
            assert_eq!(
                found,
                from_fn(|byte| code(byte) as i8),
                "{}: store_i8_groups",
                self.isa
            );
            let mut found = [0; LANES];
            s.store_low_bytes(s.load_i32(&x[0]), &mut found);
            assert_eq!(
                found,
                x[0].map(|lane| lane as u8),
                "{}: store_low_bytes",
                self.isa
            );
        }
        for start in (0..=i32::from(u16::MAX)).step_by(LANES) {
            let x: [i32; LANES] = from_fn(|lane| start + lane as i32);
            let (mut low, mut high) = ([0; LANES], [0; LANES]);
            s.store_u16_planes(s.load_i32(&x), &mut low, &mut high);
            let joined = from_fn(|lane| i32::from(low[lane]) + 256 * i32::from(high[lane]));
            assert_eq!(joined, x, "{}: store_u16_planes", self.isa);
            let mut found = [0; LANES];
            let signed = x.map(|lane| lane - (1 << 15));
            s.store_i16(s.load_i32(&signed), &mut found);
            assert_eq!(found.map(i32::from), signed, "{}: store_i16", self.isa);
            let numbers = x.map(|lane| f32::from_bits((lane as u32).wrapping_mul(0x0001_0003)));
            let mut bytes = [0; 4 * LANES];
            s.store_bits(s.load(&numbers), &mut bytes);
            let expected: [i8; 4 * LANES] =
                from_fn(|byte| numbers[byte / 4].to_bits().to_ne_bytes()[byte % 4] as i8);
            assert_eq!(bytes, expected, "{}: store_bits", self.isa);
        }
    }

    /// All short factors with long ones of every magnitude.
    fn products(&self) {
        let s = self.s;
        let long: [i32; LANES] = [
            0,
            1,
            -1,
            127,
            -127,
            128,
            -128,
            129,
            65_535,
            -65_537,
            1_000_003,
            -3_333_333,
            (1 << 22) - 1,
            (1 << 22) - 128,
            -(1 << 22),
            1 - (1 << 22),
        ];
        for short in -255..=255 {
            for first in [0, 77, -1_000_000] {
                let (a, factor) = (s.splat_i32(first), s.long_factor(s.load_i32(&long)));
                let found = s.sub_product(a, factor, s.short_factor(short));
                self.integers("sub_product", found, long.map(|long| first - long * short));
            }
        }
    }

    /// Every power, for numbers whose last place is lost where the product is subnormal.
    fn powers(&self) {
        let s = self.s;
        let numbers = [
            0.5,
            0.500_000_06,
            0.7,
            1.0,
            1.000_000_1,
            1.5,
            1.999_999_9,
            2.0,
        ];
        for n in -250..=250 {
            let mut x: [f32; LANES] = cycle(&numbers, 0, 1);
            x[8] = f32::NAN;
            let n = [n as f32; LANES];
            let found = s.scale_by_power_of_two(s.load(&x), s.load(&n));
            self.floats(
                "scale_by_power_of_two",
                found,
                Scalar.scale_by_power_of_two(x, n),
            );
            // In f64 the product is exact, and the conversion rounds once.
            let exact = from_fn(|lane| (f64::from(x[lane]) * f64::from(n[lane]).exp2()) as f32);
            self.floats("scale_by_power_of_two", found, exact);
        }
        for step in -4000..=400 {
            let x = [step as f32 / 40.0; LANES];
            // Either zero becomes the positive one.
            let fraction = s.add(s.fraction(s.load(&x)), s.splat(0.0));
            self.floats("fraction", fraction, Scalar.fraction(x));
        }
        let nothing = [f32::NAN; LANES];
        let found = s.scale_by_power_of_two(s.load(&nothing), s.load(&nothing));
        self.floats("scale_by_power_of_two", found, nothing);
    }

    fn transpose(&self) {
        let element = |row: usize, column: usize| (row * LANES + column) as f32;
        let rows = from_fn(|row| self.s.load(&from_fn(|column| element(row, column))));
        for (column, found) in self.s.transpose(rows).into_iter().enumerate() {
            let expected = from_fn(|row| element(row, column));
            self.floats(&format!("transpose, vector {column}"), found, expected);
        }
    }

    fn reductions(&self) {
        let s = self.s;
        for step in 1..NUMBERS.len() {
            for start in 0..NUMBERS.len() {
                let x = cycle(&NUMBERS, start, step);
                let a = s.load(&x);
                self.float("reduce_sum", s.reduce_sum(a), Scalar.reduce_sum(x));
                self.float("reduce_min", s.reduce_min(a), Scalar.reduce_min(x));
                self.float("reduce_max", s.reduce_max(a), Scalar.reduce_max(x));
            }
            // Without infinities and NaN, which hide the order of the additions.
            let finite = &NUMBERS[6..22];
            for rotation in 0..LANES {
                let x = cycle(finite, rotation, step);
                self.float("reduce_sum", s.reduce_sum(s.load(&x)), Scalar.reduce_sum(x));
            }
        }
    }
}

/// Checks the vectors of an instruction set, if this CPU has it. The census of the routines' tests says which ones ran.
#[allow(dead_code, reason = "an architecture may have none")]
fn check<S: Simd>(isa: crate::Isa) {
    if isa.is_supported() {
        let agreement = Agreement {
            isa: isa.name(),
            // SAFETY: the CPU has it.
            s: unsafe { S::assume_supported() },
        };
        agreement.memory();
        agreement.widening();
        agreement.arithmetic();
        agreement.integer_arithmetic();
        agreement.narrowing();
        agreement.lookups();
        agreement.nibbles();
        agreement.products();
        agreement.powers();
        agreement.transpose();
        agreement.reductions();
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn avx2_agrees_with_portable_code() {
    check::<crate::arch::avx2::Avx2>(crate::Isa::Avx2);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn avx512_agrees_with_portable_code() {
    check::<crate::arch::avx512_vnni::Avx512>(crate::Isa::Avx512Vnni);
}

#[test]
#[cfg(target_arch = "aarch64")]
fn neon_agrees_with_portable_code() {
    check::<crate::arch::neon::Neon>(crate::Isa::Neon);
}
