//! Counting values by bin.

/// The most bins that can be counted.
pub(super) const MAX_BINS: usize = 4096;

/// Tables that take turns, so that equal neighbours (zeros, mostly) do not wait for one another's addition.
const TABLES: usize = 4;

/// Values whose bins are found before they are counted: the first is vector code, the second is not.
const BLOCK: usize = 256;

/// Values that a table of u32 can count without overflow, whatever their bins.
const SLICE: usize = 1 << 31;

/// The whole part of a number from 0 up to 2^22.
///
/// It is `x as i32`, which has to mind numbers outside of an i32 and is not vector code everywhere. This is: adding 2^23 leaves no bits for a
/// fraction, so that the sum's last bits are x rounded to an integer, and one less is right where that rounded up.
#[inline(always)]
pub(super) fn whole_part(x: f32) -> i32 {
    const INTEGERS_ONLY: f32 = 8_388_608.0;
    let sum = x + INTEGERS_ONLY;
    let rounded = sum.to_bits() & 0x007f_ffff;
    rounded as i32 - i32::from(sum - INTEGERS_ONLY > x)
}

/// Adds the number of values of each bin to `counts`, which has at most [`MAX_BINS`]. `bin_of` is within its length.
pub(super) fn count_by_bin(values: &[f32], counts: &mut [u64], bin_of: impl Fn(f32) -> i32 + Copy) {
    assert!(counts.len() <= MAX_BINS, "no more bins than a table has");
    for slice in values.chunks(SLICE) {
        let mut tables = [[0u32; MAX_BINS]; TABLES];
        let (blocks, rest) = slice.as_chunks::<BLOCK>();
        for block in blocks {
            let mut bins = [0i32; BLOCK];
            for (bin, &x) in bins.iter_mut().zip(block) {
                *bin = bin_of(x);
            }
            let (groups, _) = bins.as_chunks::<TABLES>();
            for group in groups {
                for (table, &bin) in tables.iter_mut().zip(group) {
                    // The mask is a bounds check that the compiler understands.
                    table[bin as usize % MAX_BINS] += 1;
                }
            }
        }
        for &x in rest {
            tables[0][bin_of(x) as usize % MAX_BINS] += 1;
        }
        for (bin, count) in counts.iter_mut().enumerate() {
            let counted: u64 = tables.iter().map(|table| u64::from(table[bin])).sum();
            *count = count.saturating_add(counted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_parts_are_those_of_a_conversion() {
        for whole in 0..5000 {
            let x = whole as f32;
            for x in [
                x,
                x + 0.25,
                x + 0.5,
                x + 0.75,
                x.next_up(),
                (x + 1.0).next_down(),
            ] {
                assert_eq!(whole_part(x), x as i32, "{x}");
            }
        }
        for x in [0.0, -0.0, 1e-45, 1e-30, 4_194_304f32.next_down()] {
            assert_eq!(whole_part(x), x as i32, "{x}");
        }
    }

    #[test]
    fn every_value_is_counted_once_at_every_length() {
        for length in [0, 1, 3, 4, 255, 256, 257, 511, 512, 513, 1000] {
            let values: Vec<f32> = (0..length).map(|i| (i * 7 % 13) as f32).collect();
            let mut counts = [5u64; 13];
            count_by_bin(&values, &mut counts, |x| x as i32);
            for (bin, &count) in counts.iter().enumerate() {
                let expected = values.iter().filter(|&&x| x as usize == bin).count();
                assert_eq!(count, 5 + expected as u64, "bin {bin} of {length} values");
            }
        }
    }
}
