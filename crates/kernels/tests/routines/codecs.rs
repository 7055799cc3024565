//! Weights to codes and back, bit for bit against `fewbit-numerics`.

use fewbit_kernels::{FloatBytes, Isa, Kernels};
use fewbit_numerics::absmax::absmax;
use fewbit_numerics::error_statistics::{ErrorStatistics, ErrorSums};
use fewbit_numerics::four_bit::{
    FourBitBlocks, FourBitType, MINIMUM_ABSMAX, dequantize_range, quantize_blocks,
};
use fewbit_numerics::rows::{
    dequantize_groups, per_tensor_scale, quantize_int8_with_scale, quantize_rows_int8,
};
use half::{bf16, f16};

use crate::codec_sources::{Element, Misaligned, non_finite, sources};
use crate::support::{Failures, Numbers};

const KINDS: [FourBitType; 2] = [FourBitType::Nf4, FourBitType::Fp4];
const BLOCK_SIZES: [usize; 8] = [2, 6, 32, 64, 66, 128, 1030, 4096];
const GROUP_SIZES: [usize; 8] = [1, 3, 16, 63, 64, 65, 384, 1000];
const LENGTHS: [usize; 19] = [
    0, 1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 66, 127, 128, 1003, 4096, 9001,
];

fn four_bit(
    kernels: &Kernels,
    source: FloatBytes<'_>,
    block_size: usize,
    kind: FourBitType,
) -> (FourBitBlocks, bool) {
    let elements = source.len();
    let mut blocks = FourBitBlocks {
        packed: vec![0xcc; elements.div_ceil(2)],
        absmax: vec![f32::NAN; elements.div_ceil(block_size)],
    };
    let FourBitBlocks { packed, absmax } = &mut blocks;
    let finite = kernels.quantize_four_bit(source, block_size, kind, packed, absmax);
    (blocks, finite)
}

fn check_four_bit<E: Element>(
    kernels: &Kernels,
    bytes: &[u8],
    block_size: usize,
    kind: FourBitType,
    failures: &mut Failures,
) {
    let expected = quantize_blocks(&E::widened(bytes), block_size, kind);
    let (found, finite) = four_bit(kernels, E::floats(bytes), block_size, kind);
    let what = || format!("{kind:?}, blocks of {block_size}, {} bytes", bytes.len());
    failures.check(finite, || format!("{}: finite", what()));
    failures.same_bits(what(), &found.absmax, &expected.absmax);
    let different = found
        .packed
        .iter()
        .zip(&expected.packed)
        .position(|(a, b)| a != b);
    failures.check(different.is_none(), || {
        let byte = different.unwrap_or(0);
        let (found, expected) = (found.packed[byte], expected.packed[byte]);
        format!(
            "{}: byte {byte}: expected {expected:02x}, found {found:02x}",
            what()
        )
    });
}

/// Values at which a code, a bucket or a formula changes, with their neighbours, in blocks of 64 whose largest magnitude is 1.
fn edges() -> Vec<f32> {
    let mut edges = vec![
        0.0,
        -0.0,
        1.0,
        -1.0,
        MINIMUM_ABSMAX,
        f32::MIN_POSITIVE,
        1e-45,
    ];
    for kind in KINDS {
        edges.extend(kind.thresholds());
        edges.extend(kind.table());
    }
    // Buckets of the vector code are 1 / 15.9999 wide; other widths near it do no harm.
    for width in [1.0 / 15.9999, 1.0 / 16.0] {
        edges.extend((-16..=16).map(|bucket| bucket as f32 * width));
    }
    let near: Vec<f32> = edges
        .into_iter()
        .filter(|edge| edge.abs() <= 1.0)
        .flat_map(|edge| {
            let (up, down) = (edge.next_up(), edge.next_down());
            [edge, up, down, up.next_up(), down.next_down()]
        })
        .filter(|value| value.abs() <= 1.0)
        .collect();
    near.chunks(63)
        .flat_map(|chunk| {
            let mut block = vec![1.0; 64];
            block[..chunk.len()].copy_from_slice(chunk);
            block
        })
        .collect()
}

pub(crate) fn quantize_four_bit<E: Element>(kernels: &Kernels, failures: &mut Failures) {
    let mut numbers = Numbers::new(60);
    for kind in KINDS {
        for length in LENGTHS {
            for block_size in BLOCK_SIZES {
                for bytes in sources::<E>(&mut numbers, length) {
                    check_four_bit::<E>(kernels, &bytes, block_size, kind, failures);
                }
            }
            let bytes = E::bytes_of(&numbers.floats(length, 1.0));
            let shifted = Misaligned::new(&bytes);
            check_four_bit::<E>(kernels, shifted.bytes(), 64, kind, failures);
        }
        // Whole blocks, then a last one of one element less.
        let edges = edges();
        for scale in [1.0, 2.0, 0.125] {
            let scaled: Vec<f32> = edges.iter().map(|x| x * scale).collect();
            let bytes = E::bytes_of(&scaled);
            check_four_bit::<E>(kernels, &bytes, 64, kind, failures);
            for block in E::widened(&bytes).chunks(64) {
                let bytes = E::bytes_of(&block[..63]);
                check_four_bit::<E>(kernels, &bytes, 64, kind, failures);
            }
        }
        all_patterns::<E>(kernels, kind, failures);
    }
    non_finite::<E>("four bit", failures, |source| {
        four_bit(kernels, source, 64, FourBitType::Nf4).1
    });
}

/// All finite patterns of 16 bits, as the type itself and as the f32 that they widen to.
fn all_patterns<E: Element>(kernels: &Kernels, kind: FourBitType, failures: &mut Failures) {
    let patterns: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_ne_bytes).collect();
    for widened in [f16::widened(&patterns), bf16::widened(&patterns)] {
        let mut finite = widened;
        finite.retain(|x| x.is_finite());
        let bytes = E::bytes_of(&finite);
        if E::widened(&bytes).iter().all(|x| x.is_finite()) {
            check_four_bit::<E>(kernels, &bytes, 64, kind, failures);
            check_four_bit::<E>(kernels, &bytes, 4096, kind, failures);
        }
    }
}

pub(crate) fn dequantize_four_bit(kernels: &Kernels, failures: &mut Failures) {
    let mut numbers = Numbers::new(61);
    for kind in KINDS {
        for length in LENGTHS {
            for block_size in BLOCK_SIZES {
                let packed = numbers.bytes(length.div_ceil(2));
                let mut absmax = numbers.rough(length.div_ceil(block_size));
                // What double quantization may restore.
                if let Some(first) = absmax.first_mut() {
                    *first = -1e-9;
                }
                let mut expected = vec![0.0; length];
                dequantize_range(&packed, &absmax, block_size, kind, 0, &mut expected);
                let mut found = vec![f32::NAN; length];
                kernels.dequantize_four_bit(&packed, &absmax, block_size, kind, &mut found);
                let what = format!("{kind:?}, {length} elements, blocks of {block_size}");
                failures.same_bits(what, &found, &expected);
            }
        }
    }
}

fn int8(kernels: &Kernels, source: FloatBytes<'_>, group_size: usize) -> (Vec<i8>, Vec<f32>, bool) {
    let mut codes = vec![99; source.len()];
    let mut scales = vec![f32::NAN; source.len().div_ceil(group_size)];
    let finite = kernels.quantize_int8(source, group_size, &mut codes, &mut scales);
    (codes, scales, finite)
}

fn check_int8<E: Element>(
    kernels: &Kernels,
    bytes: &[u8],
    group_size: usize,
    failures: &mut Failures,
) {
    let (codes, scales, finite) = int8(kernels, E::floats(bytes), group_size);
    failures.check(finite, || format!("groups of {group_size}: finite"));
    let values = E::widened(bytes);
    let groups = values.chunks(group_size).zip(codes.chunks(group_size));
    for ((values, codes), scale) in groups.zip(&scales) {
        let expected = quantize_rows_int8(values, 1, values.len());
        failures.same_bits("scale", &[*scale], &expected.scales);
        failures.check(codes == expected.codes, || {
            format!("groups of {group_size}: codes of {values:?}: {codes:?}")
        });
    }
}

pub(crate) fn quantize_int8<E: Element>(kernels: &Kernels, failures: &mut Failures) {
    let mut numbers = Numbers::new(62);
    for length in LENGTHS {
        for group_size in GROUP_SIZES {
            for bytes in sources::<E>(&mut numbers, length) {
                check_int8::<E>(kernels, &bytes, group_size, failures);
                check_with_scale::<E>(kernels, &bytes, failures);
            }
        }
        let bytes = E::bytes_of(&numbers.floats(length, 1.0));
        check_int8::<E>(kernels, Misaligned::new(&bytes).bytes(), 100, failures);
    }
    // Ties: odd multiples of half the scale, of every code, with neighbours.
    let ties: Vec<f32> = (-255..=255)
        .map(|half| half as f32 / 2.0)
        .flat_map(|tie: f32| [tie, tie.next_up(), tie.next_down(), 127.5])
        .filter(|tie| tie.abs() <= 127.5)
        .collect();
    for scale in [1.0, 0.3, f32::MIN_POSITIVE, 1e-3] {
        let values: Vec<f32> = ties.iter().map(|tie| tie * scale).collect();
        let bytes = E::bytes_of(&values);
        if E::widened(&bytes).iter().all(|x| x.is_finite()) {
            check_int8::<E>(kernels, &bytes, values.len(), failures);
        }
    }
    let patterns: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_ne_bytes).collect();
    for mut values in [f16::widened(&patterns), bf16::widened(&patterns)] {
        values.retain(|x| x.is_finite());
        let bytes = E::bytes_of(&values);
        if E::widened(&bytes).iter().all(|x| x.is_finite()) {
            check_int8::<E>(kernels, &bytes, 128, failures);
        }
    }
    non_finite::<E>("int8", failures, |source| int8(kernels, source, 48).2);
    non_finite::<E>("int8 with a scale", failures, |source| {
        let mut codes = vec![0; source.len()];
        kernels.quantize_int8_with_scale(source, 1.0, &mut codes)
    });
}

fn check_with_scale<E: Element>(kernels: &Kernels, bytes: &[u8], failures: &mut Failures) {
    let values = E::widened(bytes);
    // With the scale of a narrower range, numbers far outside come to the ends.
    for scale in [per_tensor_scale(absmax(&values)), 1e-3] {
        let expected = quantize_int8_with_scale(&values, 1, values.len(), scale);
        let mut codes = vec![99; values.len()];
        let finite = kernels.quantize_int8_with_scale(E::floats(bytes), scale, &mut codes);
        failures.check(finite && codes == expected.codes, || {
            format!("scale {scale:e}: codes of {values:?}: {codes:?}")
        });
    }
}

pub(crate) fn dequantize_int8(kernels: &Kernels, failures: &mut Failures) {
    let mut numbers = Numbers::new(63);
    for length in LENGTHS {
        for group_size in GROUP_SIZES {
            let codes = numbers.signed_bytes(length);
            let scales = numbers.rough(length.div_ceil(group_size));
            let expected: Vec<f32> = dequantize_groups(&codes, &scales, None, group_size).collect();
            let mut found = vec![f32::NAN; length];
            kernels.dequantize_int8(&codes, &scales, group_size, &mut found);
            failures.same_bits(format!("{length}, {group_size}"), &found, &expected);
        }
    }
}

pub(crate) fn group_absmax<E: Element>(kernels: &Kernels, failures: &mut Failures) {
    let mut numbers = Numbers::new(64);
    for length in LENGTHS {
        for group_size in GROUP_SIZES {
            for bytes in sources::<E>(&mut numbers, length) {
                let bytes = Misaligned::new(&bytes);
                let values = E::widened(bytes.bytes());
                let expected: Vec<f32> = values.chunks(group_size).map(absmax).collect();
                let mut found = vec![f32::NAN; expected.len()];
                let floats = E::floats(bytes.bytes());
                let finite = kernels.group_absmax(floats, group_size, &mut found);
                failures.check(finite, || format!("{length}, {group_size}: finite"));
                failures.same_bits(format!("{length}, {group_size}"), &found, &expected);
            }
        }
    }
    non_finite::<E>("absmax", failures, |source| {
        let mut found = vec![0.0; source.len().div_ceil(7)];
        kernels.group_absmax(source, 7, &mut found)
    });
}

pub(crate) fn error_sums<E: Element>(kernels: &Kernels, failures: &mut Failures) {
    let mut numbers = Numbers::new(65);
    for length in LENGTHS {
        for bytes in sources::<E>(&mut numbers, length) {
            let bytes = Misaligned::new(&bytes);
            let values = E::widened(bytes.bytes());
            let approximation: Vec<f32> = values.iter().map(|x| x * 0.9).collect();
            let found = kernels.error_sums(E::floats(bytes.bytes()), &approximation);
            let mut expected = ErrorSums::default();
            expected.add(&values, &approximation);
            failures.check(same(found.statistics(), expected.statistics()), || {
                format!("{length}: expected {expected:?}, found {found:?}")
            });
        }
    }
}

fn same(a: ErrorStatistics, b: ErrorStatistics) -> bool {
    let bits = |error: ErrorStatistics| {
        [
            error.sqnr_db,
            error.cosine,
            error.mean_absolute,
            error.max_absolute,
            error.rmse,
        ]
        .map(f64::to_bits)
    };
    bits(a) == bits(b)
}

fn scalar() -> &'static Kernels {
    Kernels::for_isa(Isa::Scalar).unwrap()
}

#[test]
#[should_panic(expected = "the block size 3 is even and positive")]
fn odd_blocks_are_refused() {
    let source = FloatBytes::of_f32(&[0.0; 6]);
    let _finite =
        scalar().quantize_four_bit(source, 3, FourBitType::Nf4, &mut [0; 3], &mut [0.0; 2]);
}

#[test]
#[should_panic(expected = "packed bytes and absmax of 6 elements in blocks of 4")]
fn blocks_without_an_absmax_are_refused() {
    let source = FloatBytes::of_f32(&[0.0; 6]);
    let _finite =
        scalar().quantize_four_bit(source, 4, FourBitType::Nf4, &mut [0; 3], &mut [0.0; 1]);
}

#[test]
#[should_panic(expected = "one for each group of 4 of 6 elements")]
fn groups_without_a_scale_are_refused() {
    let source = FloatBytes::of_f32(&[0.0; 6]);
    let _finite = scalar().quantize_int8(source, 4, &mut [0; 6], &mut [0.0; 1]);
}

#[test]
#[should_panic(expected = "2 bytes for each number, found 3 bytes")]
fn half_an_element_is_refused() {
    FloatBytes::bf16(&[0; 3]);
}

/// Every f32 in -1..=1 in blocks whose largest magnitude is 1, on every set.
#[test]
#[ignore = "2 130 706 434 numbers for each kind and set take minutes in a release build"]
fn all_floats_from_minus_one_to_one() {
    const PART: usize = 63 << 14;
    let last = 1.0f32.to_bits() as usize;
    for kernels in Kernels::available().filter(|kernels| kernels.isa().keeps_same_bits()) {
        for kind in KINDS {
            let mut failures = Failures::default();
            failures.context = format!("{} {kind:?}", kernels.isa());
            for start in (0..=last).step_by(PART) {
                for sign in [0, 1 << 31] {
                    let numbers = start..(start + PART).min(last + 1);
                    let values: Vec<f32> = numbers
                        .map(|bits| f32::from_bits(bits as u32 | sign))
                        .collect();
                    let blocks: Vec<f32> = values
                        .chunks(63)
                        .flat_map(|chunk| {
                            let mut block = [1.0; 64];
                            block[..chunk.len()].copy_from_slice(chunk);
                            block
                        })
                        .collect();
                    let (found, finite) = four_bit(kernels, FloatBytes::of_f32(&blocks), 64, kind);
                    let expected = quantize_blocks(&blocks, 64, kind);
                    failures.check(finite && found == expected, || {
                        format!("a number from {:e} on", values[0])
                    });
                }
            }
            failures.finish();
        }
    }
}
