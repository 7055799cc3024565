//! Floats to quantize, of every type.

use fewbit_kernels::FloatBytes;
use half::{bf16, f16};

use crate::support::{Failures, Numbers};

/// A type of source elements.
pub(crate) trait Element {
    fn bytes_of(values: &[f32]) -> Vec<u8>;
    fn floats(bytes: &[u8]) -> FloatBytes<'_>;
    fn widened(bytes: &[u8]) -> Vec<f32>;
}

impl Element for f32 {
    fn bytes_of(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|x| x.to_ne_bytes()).collect()
    }
    fn floats(bytes: &[u8]) -> FloatBytes<'_> {
        FloatBytes::f32(bytes)
    }
    fn widened(bytes: &[u8]) -> Vec<f32> {
        let chunks = bytes.as_chunks().0.iter();
        chunks.map(|&bytes| f32::from_ne_bytes(bytes)).collect()
    }
}

impl Element for f16 {
    fn bytes_of(values: &[f32]) -> Vec<u8> {
        let halves = values.iter().map(|&x| f16::from_f32(x));
        halves.flat_map(|x| x.to_bits().to_ne_bytes()).collect()
    }
    fn floats(bytes: &[u8]) -> FloatBytes<'_> {
        FloatBytes::f16(bytes)
    }
    fn widened(bytes: &[u8]) -> Vec<f32> {
        let chunks = bytes.as_chunks().0.iter();
        chunks
            .map(|&bytes| f16::from_bits(u16::from_ne_bytes(bytes)).to_f32())
            .collect()
    }
}

impl Element for bf16 {
    fn bytes_of(values: &[f32]) -> Vec<u8> {
        let halves = values.iter().map(|&x| bf16::from_f32(x));
        halves.flat_map(|x| x.to_bits().to_ne_bytes()).collect()
    }
    fn floats(bytes: &[u8]) -> FloatBytes<'_> {
        FloatBytes::bf16(bytes)
    }
    fn widened(bytes: &[u8]) -> Vec<f32> {
        let chunks = bytes.as_chunks().0.iter();
        chunks
            .map(|&bytes| bf16::from_bits(u16::from_ne_bytes(bytes)).to_f32())
            .collect()
    }
}

/// Bytes of elements that begin one byte after an aligned place.
pub(crate) struct Misaligned(Vec<u8>);

impl Misaligned {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Misaligned([&[0], bytes].concat())
    }
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0[1..]
    }
}

/// Finite numbers of every exponent, a few of neighbouring magnitude in a row so that blocks have more than one code.
fn every_exponent(numbers: &mut Numbers, count: usize) -> Vec<f32> {
    let mut exponent = 0;
    (0..count)
        .map(|index| {
            if index % 64 == 0 {
                exponent = numbers.below(255) as u32;
            }
            let lower = exponent.saturating_sub(numbers.below(4) as u32);
            let bits = numbers.next_u64() as u32 & 0x807f_ffff | lower << 23;
            f32::from_bits(bits)
        })
        .collect()
}

/// Sources of ordinary and extreme numbers, all of which are finite as elements.
pub(crate) fn sources<E: Element>(numbers: &mut Numbers, count: usize) -> Vec<Vec<u8>> {
    let mut sources = vec![
        numbers.floats(count, 3.0),
        numbers.floats(count, 1e-39),
        numbers.rough(count),
        every_exponent(numbers, count),
        vec![0.0; count],
        vec![-0.0; count],
    ];
    // What overflows to an infinity as an element becomes one that does not.
    for source in &mut sources {
        let widened = E::widened(&E::bytes_of(source));
        for (x, widened) in source.iter_mut().zip(widened) {
            if !widened.is_finite() {
                *x = 1.0;
            }
        }
    }
    sources.iter().map(|source| E::bytes_of(source)).collect()
}

/// A NaN or an infinity at each place is reported.
pub(crate) fn non_finite<E: Element>(
    what: &str,
    failures: &mut Failures,
    is_finite: impl Fn(FloatBytes<'_>) -> bool,
) {
    for length in [1, 15, 33, 64, 200] {
        let values: Vec<f32> = (0..length).map(|i| i as f32 / 8.0 - 3.0).collect();
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in 0..length {
                let mut values = values.clone();
                values[place] = bad;
                let bytes = E::bytes_of(&values);
                failures.check(!is_finite(E::floats(&bytes)), || {
                    format!("{what}: {bad} at {place} of {length} is reported")
                });
            }
        }
        let bytes = E::bytes_of(&values);
        failures.check(is_finite(E::floats(&bytes)), || format!("{what}: finite"));
    }
}
