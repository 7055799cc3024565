//! Weights to codes and back by the kernels, on all threads of the rayon pool that the caller is in; outside of one, on as many as
//! [`set_threads`] says.
//!
//! The bits are those of `fewbit-numerics`, whatever the instruction set and the number of threads. That holds for error statistics, too: they
//! are summed over parts of a weight that depend on nothing else, and put together in order.
//!
//! A weight is cut into parts at the bounds of its blocks or rows; each fits the second-level cache of a core, so that its error is found
//! before it has left there.

mod small_floats;

use fewbit_kernels::{FloatBytes, Kernels};
use fewbit_model::in_shared_pool;
use fewbit_numerics::affine::AffineParameters;
use fewbit_numerics::error_statistics::ErrorSums;
use fewbit_numerics::finite::first_non_finite;
use fewbit_numerics::four_bit::{FourBitBlocks, FourBitType};
use fewbit_numerics::four_bit_scales::encode_with_scale;
use fewbit_numerics::ggml_blocks::{BlockType, quantize_blocks};
use fewbit_numerics::int4_groups::{GroupScales, Int4Groups, Int4Settings, choose_groups};
use fewbit_numerics::rows::{Int8Rows, row_scale};
use rayon::iter::{IndexedParallelIterator, IntoParallelRefMutIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use small_floats::{SharedScale, quantize_small_floats};

/// The threads of callers that are in no pool; 0 stands for as many as this process has CPUs.
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Sets how many threads this process quantizes weights on, outside of rayon pools; 0 for as many as it has CPUs, which is the default. The number
/// changes no result.
pub fn set_threads(threads: usize) {
    THREADS.store(threads, Ordering::Relaxed);
}

/// Runs `work` in the pool that the caller is in, or in the shared one. Rayon's own would hang in a process that forks.
///
/// # Panics
/// If the system gives no threads.
pub(crate) fn in_pool<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if rayon::current_thread_index().is_some() {
        return work();
    }
    let threads = match THREADS.load(Ordering::Relaxed) {
        0 => std::thread::available_parallelism().map_or(1, NonZero::get),
        threads => threads,
    };
    let done = in_shared_pool(threads, work);
    done.unwrap_or_else(|error| panic!("{error}"))
}

/// Elements of a part, where blocks or rows allow.
const PART_ELEMENTS: usize = 1 << 15;

/// Elements of the parts of a weight whose blocks or rows have `granule` elements: a multiple of that.
pub(crate) fn part_elements(granule: usize) -> usize {
    (PART_ELEMENTS / granule).max(1) * granule
}

/// [`quantize_blocks`] on all threads: `values`, whole blocks, into `out`.
pub(crate) fn quantize_ggml_blocks(
    kind: BlockType,
    values: &[f32],
    out: &mut [u8],
) -> Option<usize> {
    let part = part_elements(kind.elements());
    let blocks = part / kind.elements();
    in_pool(|| {
        let parts = values.par_chunks(part);
        parts
            .zip(out.par_chunks_mut(blocks * kind.bytes()))
            .enumerate()
            .filter_map(|(index, (values, out))| {
                Some(index * blocks + quantize_blocks(kind, values, out)?)
            })
            .min()
    })
}

/// What was found on the way.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// Whether all elements are finite. Where they are not, all else means nothing.
    pub finite: bool,
    /// The error of what the codes stand for.
    pub error: ErrorSums,
}

impl Found {
    fn of_parts(parts: Vec<Found>) -> Self {
        let mut all = Found {
            finite: true,
            error: ErrorSums::default(),
        };
        for part in parts {
            all.finite &= part.finite;
            all.error.merge(&part.error);
        }
        all
    }
}

/// Whether the error of the codes is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorFigures {
    /// It is summed.
    Sum,
    /// It stays empty.
    Skip,
}

/// NF4 or FP4 blocks of a flattened weight, as [`quantize_blocks`](fewbit_numerics::four_bit::quantize_blocks) makes them: its codes into
/// `packed` (ceil(n / 2)), its absmax values into `absmax` (ceil(n / `block_size`)).
///
/// # Panics
///
/// If `block_size` is odd or 0, or a slice does not have its length.
pub fn quantize_four_bit_into(
    kernels: &Kernels,
    source: FloatBytes<'_>,
    block_size: usize,
    kind: FourBitType,
    (packed, absmax): (&mut [u8], &mut [f32]),
    figures: ErrorFigures,
) -> Found {
    let part = part_elements(block_size);
    let parts = packed
        .par_chunks_mut(part / 2)
        .zip(absmax.par_chunks_mut(part / block_size));
    let found = parts
        .enumerate()
        .map_init(Vec::new, |dequantized, (index, (packed, absmax))| {
            let source = part_of(source, index, part);
            let finite = kernels.quantize_four_bit(source, block_size, kind, packed, absmax);
            let mut error = ErrorSums::default();
            if figures == ErrorFigures::Sum {
                dequantized.resize(source.len(), 0.0);
                kernels.dequantize_four_bit(packed, absmax, block_size, kind, dequantized);
                error = kernels.error_sums(source, dequantized);
            }
            Found { finite, error }
        });
    Found::of_parts(in_pool(|| found.collect()))
}

/// What the squared error of an element counts where scales are chosen by it.
#[derive(Debug, Clone, Copy)]
pub enum Importance<'a> {
    /// All elements count alike.
    Equal,
    /// Those of a matrix, row-major and whole, by their columns: one number each, 0 to 1.
    OfColumns(&'a [f32]),
}

/// Gives whole blocks the scales with the least squared error, and the codes that go with them: [`Kernels::fit_four_bit_scales`]. `packed` and `absmax` hold what
/// [`quantize_four_bit_into`] made of `source`, which is finite; a short last block stays as it is.
///
/// # Panics
///
/// As [`quantize_four_bit_into`]; if no column has an importance.
pub fn fit_four_bit_scales(
    kernels: &Kernels,
    source: FloatBytes<'_>,
    block_size: usize,
    kind: FourBitType,
    importance: Importance<'_>,
    (packed, absmax): (&mut [u8], &mut [f32]),
) {
    let part = part_elements(block_size);
    let parts = packed
        .par_chunks_mut(part / 2)
        .zip(absmax.par_chunks_mut(part / block_size))
        .enumerate();
    in_pool(|| {
        parts.for_each_init(
            Default::default,
            |buffers: &mut [Vec<f32>; 3], (index, (packed, scales))| {
                let [values, of_values, fitted] = buffers;
                let source = part_of(source, index, part);
                let whole = source.len() / block_size * block_size;
                values.resize(source.len(), 0.0);
                source.widen_into(values);
                let values = &values[..whole];
                let importance = match importance {
                    Importance::Equal => None,
                    Importance::OfColumns(columns) => {
                        let first = index * part % columns.len();
                        let along_rows = columns.iter().cycle().skip(first);
                        of_values.clear();
                        of_values.extend(along_rows.take(whole));
                        Some(&of_values[..])
                    }
                };
                fitted.clear();
                fitted.extend_from_slice(&scales[..whole / block_size]);
                kernels.fit_four_bit_scales(values, importance, block_size, kind, fitted);
                let blocks = values
                    .chunks_exact(block_size)
                    .zip(packed.chunks_mut(block_size / 2));
                for (((block, packed), scale), &fitted) in blocks.zip(scales).zip(&*fitted) {
                    if fitted != *scale {
                        *scale = fitted;
                        encode_with_scale(block, fitted, kind, packed);
                    }
                }
            },
        );
    });
}

/// [`quantize_four_bit_into`] new memory. `None` if an element is not finite.
///
/// ```
/// use fewbit_kernels::{FloatBytes, Kernels};
/// use fewbit_numerics::four_bit::FourBitType;
/// use fewbit_quantize::weight_codecs::quantize_four_bit;
///
/// let kernels = Kernels::from_environment()?;
/// let source = FloatBytes::of_f32(&[2.0, -2.0, 0.0, 0.1]);
/// let blocks = quantize_four_bit(kernels, source, 4, FourBitType::Nf4).expect("all are finite");
/// assert_eq!((blocks.packed, blocks.absmax), (vec![0xf0, 0x78], vec![2.0]));
/// # Ok::<(), fewbit_kernels::IsaError>(())
/// ```
///
/// # Panics
///
/// If `block_size` is odd or 0.
pub fn quantize_four_bit(
    kernels: &Kernels,
    source: FloatBytes<'_>,
    block_size: usize,
    kind: FourBitType,
) -> Option<FourBitBlocks> {
    assert!(
        block_size > 0,
        "the block size {block_size} is even and positive"
    );
    let mut blocks = FourBitBlocks {
        packed: vec![0; source.len().div_ceil(2)],
        absmax: vec![0.0; source.len().div_ceil(block_size)],
    };
    let into = (&mut blocks.packed[..], &mut blocks.absmax[..]);
    let found = quantize_four_bit_into(kernels, source, block_size, kind, into, ErrorFigures::Skip);
    found.finite.then_some(blocks)
}

/// The floats that 4-bit codes stand for: [`dequantize_range`](fewbit_numerics::four_bit::dequantize_range) of all of them.
///
/// # Panics
///
/// If `block_size` is odd or 0, or a slice does not have its length.
pub fn dequantize_four_bit(
    kernels: &Kernels,
    packed: &[u8],
    absmax: &[f32],
    block_size: usize,
    kind: FourBitType,
    out: &mut [f32],
) {
    let part = part_elements(block_size);
    let parts = out
        .par_chunks_mut(part)
        .zip(packed.par_chunks(part / 2))
        .zip(absmax.par_chunks(part / block_size));
    in_pool(|| {
        parts.for_each(|((out, packed), absmax)| {
            kernels.dequantize_four_bit(packed, absmax, block_size, kind, out);
        });
    });
}

/// The error of 4-bit codes whose absmax values changed after they were made.
///
/// # Panics
///
/// If `block_size` is odd or 0, or a slice does not have its length.
pub fn four_bit_error(
    kernels: &Kernels,
    source: FloatBytes<'_>,
    packed: &[u8],
    absmax: &[f32],
    block_size: usize,
    kind: FourBitType,
) -> ErrorSums {
    let part = part_elements(block_size);
    let parts = packed
        .par_chunks(part / 2)
        .zip(absmax.par_chunks(part / block_size));
    let sums = parts
        .enumerate()
        .map_init(Vec::new, |dequantized, (index, (packed, absmax))| {
            let source = part_of(source, index, part);
            dequantized.resize(source.len(), 0.0);
            kernels.dequantize_four_bit(packed, absmax, block_size, kind, dequantized);
            kernels.error_sums(source, dequantized)
        });
    let sums: Vec<ErrorSums> = in_pool(|| sums.collect());
    let mut all = ErrorSums::default();
    for part in &sums {
        all.merge(part);
    }
    all
}

/// int8 codes and scales of a matrix, row-major, as [`quantize_rows_int8`](fewbit_numerics::rows::quantize_rows_int8) makes them; with
/// `one_scale`, as [`quantize_int8_with_scale`](fewbit_numerics::rows::quantize_int8_with_scale) does.
///
/// # Panics
///
/// If `source` does not have `rows * columns` elements.
pub fn quantize_int8(
    kernels: &Kernels,
    source: FloatBytes<'_>,
    [rows, columns]: [usize; 2],
    one_scale: Option<f32>,
    figures: ErrorFigures,
) -> (Int8Rows, Found) {
    assert_eq!(
        Some(source.len()),
        rows.checked_mul(columns),
        "a matrix of {rows} x {columns}"
    );
    let mut codes = vec![0; source.len()];
    // Rows without columns have the scale of zeros.
    let mut scales = vec![one_scale.unwrap_or(row_scale(0.0)); rows];
    let columns_of_group = columns.max(1);
    let part = part_elements(columns_of_group);
    let parts = codes
        .par_chunks_mut(part)
        .zip(scales.par_chunks_mut(part / columns_of_group));
    let found = parts
        .enumerate()
        .map_init(Vec::new, |dequantized, (index, (codes, scales))| {
            let source = part_of(source, index, part);
            let finite = match one_scale {
                None => kernels.quantize_int8(source, columns_of_group, codes, scales),
                Some(scale) => kernels.quantize_int8_with_scale(source, scale, codes),
            };
            let mut error = ErrorSums::default();
            if figures == ErrorFigures::Sum {
                dequantized.resize(source.len(), 0.0);
                kernels.dequantize_int8(codes, scales, columns_of_group, dequantized);
                error = kernels.error_sums(source, dequantized);
            }
            Found { finite, error }
        });
    let found = Found::of_parts(in_pool(|| found.collect()));
    let quantized = Int8Rows {
        rows,
        columns,
        codes,
        scales,
    };
    (quantized, found)
}

/// The parameters under which [`quantize_int4`] chooses codes: scales and zero points (n / group size) of whole groups of `values` (n, finite); with the importance
/// of each element, those with the least weighted error. On this thread.
///
/// # Panics
///
/// If a slice does not have its length, or zero points are there for symmetric groups, or missing for asymmetric ones.
pub(crate) fn choose_int4_parameters(
    kernels: &Kernels,
    values: &[f32],
    settings: Int4Settings,
    importance: Option<&[f32]>,
    (scales, mut zero_points): (&mut [f32], Option<&mut [i8]>),
) {
    assert_eq!(settings.asymmetric, zero_points.is_some());
    if settings.scales == GroupScales::Range && importance.is_none() {
        return choose_groups(values, settings, scales, zero_points);
    }
    let points = zero_points.as_deref_mut();
    kernels.fit_int4(values, importance, settings.group_size, scales, points);
    for (index, scale) in scales.iter_mut().enumerate() {
        let stored = settings.storage.stored(AffineParameters {
            scale: *scale,
            zero_point: zero_points
                .as_ref()
                .map_or(0, |points| points[index].into()),
        });
        *scale = stored.scale;
        if let Some(zero_points) = &mut zero_points {
            zero_points[index] = stored.zero_point as i8;
        }
    }
}

/// int4 codes, scales and zero points of a matrix, row-major, as [`int4_groups::quantize_int4`](fewbit_numerics::int4_groups::quantize_int4) makes them, and their error. `None` if an element is not
/// finite.
///
/// # Panics
///
/// If `source` does not have `rows * columns` elements, or groups do not divide the columns.
pub fn quantize_int4(
    kernels: &Kernels,
    source: FloatBytes<'_>,
    [rows, columns]: [usize; 2],
    settings: Int4Settings,
    figures: ErrorFigures,
) -> Option<(Int4Groups, ErrorSums)> {
    let group_size = settings.group_size;
    assert_eq!(
        Some(source.len()),
        rows.checked_mul(columns),
        "a matrix of {rows} x {columns}"
    );
    assert!(
        group_size > 0 && columns.is_multiple_of(group_size),
        "groups of {group_size} divide {columns} columns"
    );
    let number = source.len() / group_size;
    let mut groups = Int4Groups {
        rows,
        columns,
        group_size,
        codes: vec![0; source.len()],
        scales: vec![0.0; number],
        zero_points: settings.asymmetric.then(|| vec![0; number]),
    };
    let part = part_elements(group_size);
    let groups_of_a_part = part / group_size;
    // Symmetric groups have none, for any number of parts.
    let zero_points: Vec<Option<&mut [i8]>> = match &mut groups.zero_points {
        Some(points) => points.chunks_mut(groups_of_a_part).map(Some).collect(),
        None => (0..source.len().div_ceil(part)).map(|_| None).collect(),
    };
    let parts = groups
        .codes
        .par_chunks_mut(part)
        .zip(groups.scales.par_chunks_mut(groups_of_a_part))
        .zip(zero_points);
    let found = parts.enumerate().map_init(
        || (Vec::new(), Vec::new()),
        |(values, restored): &mut (Vec<f32>, Vec<f32>), (index, ((codes, scales), points))| {
            let source = part_of(source, index, part);
            values.resize(source.len(), 0.0);
            source.widen_into(values);
            let mut error = ErrorSums::default();
            let finite = first_non_finite(values).is_none();
            if finite {
                let mut points = points;
                let into = (&mut *scales, points.as_deref_mut());
                choose_int4_parameters(kernels, values, settings, None, into);
                let points = points.as_deref();
                kernels.encode_int4(values, group_size, scales, points, codes);
                if figures == ErrorFigures::Sum {
                    restored.resize(values.len(), 0.0);
                    kernels.dequantize_int4(codes, group_size, scales, points, restored);
                    error.add(values, restored);
                }
            }
            Found { finite, error }
        },
    );
    let found = Found::of_parts(in_pool(|| found.collect()));
    found.finite.then_some((groups, found.error))
}

/// The floats (rows, columns) that int8 codes stand for: [`dequantize_groups`](fewbit_numerics::rows::dequantize_groups).
///
/// # Panics
///
/// If there is not a scale for each row, or `out` has not as many elements as there are codes.
pub fn dequantize_int8(
    kernels: &Kernels,
    codes: &[i8],
    scales: &[f32],
    columns: usize,
    out: &mut [f32],
) {
    let columns = columns.max(1);
    let part = part_elements(columns);
    let parts = out
        .par_chunks_mut(part)
        .zip(codes.par_chunks(part))
        .zip(scales.par_chunks(part / columns));
    in_pool(|| {
        parts.for_each(|((out, codes), scales)| {
            kernels.dequantize_int8(codes, scales, columns, out);
        });
    });
}

/// The largest magnitude, as [`absmax`](fewbit_numerics::absmax::absmax) finds it. `None` if an element is not finite.
pub fn largest_magnitude(kernels: &Kernels, source: FloatBytes<'_>) -> Option<f32> {
    let mut parts = vec![0.0f32; source.len().div_ceil(PART_ELEMENTS)];
    let finite = parts.par_iter_mut().enumerate().map(|(index, largest)| {
        let source = part_of(source, index, PART_ELEMENTS);
        kernels.group_absmax(source, PART_ELEMENTS, std::slice::from_mut(largest))
    });
    let finite = in_pool(|| finite.reduce(|| true, |a, b| a & b));
    finite.then(|| parts.into_iter().fold(0.0, f32::max))
}

pub(crate) fn part_of(source: FloatBytes<'_>, index: usize, part: usize) -> FloatBytes<'_> {
    let start = index * part;
    source.range(start..source.len().min(start + part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fewbit_numerics::absmax::absmax;
    use fewbit_numerics::error_statistics::ErrorStatistics;
    use fewbit_numerics::four_bit::{dequantize_range, quantize_blocks};
    use fewbit_numerics::int4_groups::{self, GroupStorage};
    use fewbit_numerics::rows::{dequantize_groups, quantize_int8_with_scale, quantize_rows_int8};

    fn kernels() -> &'static Kernels {
        Kernels::from_environment().expect("a supported instruction set")
    }

    /// Three parts and a short one, or a little less.
    fn weights(elements: usize) -> Vec<f32> {
        (0..elements)
            .map(|i| ((i * 7919 % 2003) as f32 - 1001.0) * 0.37)
            .collect()
    }

    /// The result on one thread, after it was found to be that on three.
    fn on_any_threads<T: PartialEq + std::fmt::Debug + Send>(work: impl Fn() -> T + Sync) -> T {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("threads").install(&work)
        };
        let (one, three) = (run(1), run(3));
        assert_eq!(one, three, "the number of threads changes nothing");
        one
    }

    /// Sums in another order: each has a relative error of at most n roundings on either side, a cosine twice that, of its three sums.
    fn assert_close(found: ErrorStatistics, expected: ErrorStatistics, elements: usize) {
        let bound = 2.0 * elements as f64 * f64::EPSILON;
        for (found, expected) in [
            (found.cosine, expected.cosine),
            (found.mean_absolute, expected.mean_absolute),
            (found.rmse, expected.rmse),
        ] {
            assert!(
                (found - expected).abs() <= bound * expected,
                "{found} {expected}"
            );
        }
        // 10 / ln 10 times the relative error of a quotient of sums, to first order.
        let decibels = 10.0 / std::f64::consts::LN_10 * bound;
        let difference = found.sqnr_db - expected.sqnr_db;
        assert!(found.sqnr_db == expected.sqnr_db || difference.abs() <= decibels);
        assert_eq!(found.max_absolute, expected.max_absolute);
    }

    #[test]
    fn four_bit_weights_in_parts_are_those_of_the_whole() {
        for elements in [0, 1, 1000, 3 * PART_ELEMENTS + 77] {
            let weights = weights(elements);
            let source = FloatBytes::of_f32(&weights);
            for (kind, block_size) in [
                (FourBitType::Nf4, 64),
                (FourBitType::Fp4, 4096),
                (FourBitType::Nf4, 2 * PART_ELEMENTS),
                (FourBitType::Nf4, 66),
            ] {
                let expected = quantize_blocks(&weights, block_size, kind);
                let found = quantize_four_bit(kernels(), source, block_size, kind);
                assert_eq!(found.as_ref(), Some(&expected));
                let mut restored = vec![0.0; elements];
                let FourBitBlocks { packed, absmax } = &expected;
                dequantize_range(packed, absmax, block_size, kind, 0, &mut restored);
                let mut out = vec![f32::NAN; elements];
                dequantize_four_bit(kernels(), packed, absmax, block_size, kind, &mut out);
                assert_eq!(out, restored);
                let error = on_any_threads(|| {
                    let mut blocks = expected.clone();
                    let into = (&mut blocks.packed[..], &mut blocks.absmax[..]);
                    let figures = ErrorFigures::Sum;
                    quantize_four_bit_into(kernels(), source, block_size, kind, into, figures)
                        .error
                        .statistics()
                });
                let again = four_bit_error(kernels(), source, packed, absmax, block_size, kind);
                assert_eq!(again.statistics(), error);
                assert_close(
                    error,
                    ErrorStatistics::between(&weights, &restored),
                    elements,
                );
            }
        }
    }

    #[test]
    fn int8_weights_in_parts_are_those_of_the_whole() {
        for [rows, columns] in [[0, 5], [2, 0], [1, 7], [300, 384], [3, 2 * PART_ELEMENTS]] {
            let weights = weights(rows * columns);
            let source = FloatBytes::of_f32(&weights);
            for one_scale in [None, Some(3.0)] {
                let expected = match one_scale {
                    None => quantize_rows_int8(&weights, rows, columns),
                    Some(scale) => quantize_int8_with_scale(&weights, rows, columns, scale),
                };
                let (found, error) = on_any_threads(|| {
                    let shape = [rows, columns];
                    let (found, of) =
                        quantize_int8(kernels(), source, shape, one_scale, ErrorFigures::Sum);
                    assert!(of.finite);
                    (found, of.error.statistics())
                });
                assert_eq!(found, expected);
                let Int8Rows { codes, scales, .. } = &expected;
                let restored: Vec<f32> = dequantize_groups(codes, scales, None, columns).collect();
                let mut out = vec![f32::NAN; weights.len()];
                dequantize_int8(kernels(), codes, scales, columns, &mut out);
                assert_eq!(out, restored);
                let whole = ErrorStatistics::between(&weights, &restored);
                assert_close(error, whole, weights.len());
            }
            assert_eq!(largest_magnitude(kernels(), source), Some(absmax(&weights)));
        }
    }

    #[test]
    fn int4_weights_in_parts_are_those_of_the_whole() {
        let columns = 480;
        for rows in [0, 1, 3 * PART_ELEMENTS / columns + 7] {
            let weights = weights(rows * columns);
            for (group_size, asymmetric) in [(32, false), (32, true), (20, true), (480, false)] {
                let settings = Int4Settings {
                    group_size,
                    asymmetric,
                    scales: GroupScales::Range,
                    storage: GroupStorage::default(),
                };
                let expected = int4_groups::quantize_int4(&weights, rows, columns, settings);
                let (found, error) = on_any_threads(|| {
                    let source = FloatBytes::of_f32(&weights);
                    let shape = [rows, columns];
                    let found =
                        quantize_int4(kernels(), source, shape, settings, ErrorFigures::Sum);
                    let (found, error) = found.expect("finite weights");
                    (found, error.statistics())
                });
                assert_eq!(found, expected);
                let points = expected.zero_points.as_deref();
                let restored =
                    dequantize_groups(&expected.codes, &expected.scales, points, group_size);
                let restored: Vec<f32> = restored.collect();
                let whole = ErrorStatistics::between(&weights, &restored);
                assert_close(error, whole, weights.len());
            }
        }
    }

    #[test]
    fn numbers_that_are_not_finite_are_reported_from_every_part() {
        let mut weights = weights(2 * PART_ELEMENTS + 64);
        for place in [0, PART_ELEMENTS, 2 * PART_ELEMENTS + 63] {
            let before = std::mem::replace(&mut weights[place], f32::NAN);
            let source = FloatBytes::of_f32(&weights);
            assert_eq!(
                quantize_four_bit(kernels(), source, 64, FourBitType::Nf4),
                None
            );
            let shape = [weights.len() / 64, 64];
            let (_, found) = quantize_int8(kernels(), source, shape, None, ErrorFigures::Skip);
            assert!(!found.finite);
            assert_eq!(largest_magnitude(kernels(), source), None);
            weights[place] = before;
        }
    }
}
