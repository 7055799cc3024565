//! Weights to floats of 8 or 4 bits.

use std::borrow::Cow;

use fewbit_checkpoint::StoredWeight;
use fewbit_checkpoint::small_floats::{SmallFloatScales, SmallFloatType, SmallFloats};
use fewbit_kernels::FloatBytes;
use fewbit_numerics::absmax::absmax;
use fewbit_numerics::error_statistics::ErrorSums;
use fewbit_numerics::finite::first_non_finite;
use fewbit_numerics::small_floats::{
    MXFP4_GROUP, NVFP4_GROUP, e4m3_to_f32, e8m0_to_f32, fp8_scale, mxfp4_scale, nvfp4_scale,
    quantize_e2m1, quantize_e4m3,
};
use rayon::iter::ParallelIterator;
use rayon::slice::ParallelSlice;

use super::{in_pool, part_elements, part_of};

/// What all rows of a weight have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SharedScale {
    /// Nothing: each row or group has its scale.
    None,
    /// The scale of FP8 codes.
    Fp8(f32),
    /// The global scale of NVFP4.
    Nvfp4(f32),
}

/// Small floats of whole rows of `columns`, and their error. `None` if an element is not finite.
///
/// # Panics
/// If `source` is no whole rows, groups do not divide them, or NVFP4 has no global scale.
pub fn quantize_small_floats(
    source: FloatBytes<'_>,
    columns: usize,
    kind: SmallFloatType,
    shared: SharedScale,
) -> Option<(SmallFloats<'static>, ErrorSums)> {
    let part = part_elements(columns.max(1));
    let count = source.len().div_ceil(part);
    let numbers: Vec<usize> = (0..count).collect();
    let parts = numbers.par_chunks(1).map(|index| {
        let source = part_of(source, index[0], part);
        let mut values = vec![0.0; source.len()];
        source.widen_into(&mut values);
        if first_non_finite(&values).is_some() {
            return None;
        }
        let weight = of_rows(&values, columns.max(1), kind, shared);
        let shape = [values.len() / columns.max(1), columns];
        let stored = StoredWeight::SmallFloats(weight);
        let restored = stored.dequantize(shape).expect("whole rows and groups");
        let mut error = ErrorSums::default();
        error.add(&values, &restored);
        match stored {
            StoredWeight::SmallFloats(weight) => Some((weight, error)),
            _ => None,
        }
    });
    let parts: Vec<Option<_>> = in_pool(|| parts.collect());
    let mut whole = (
        of_rows(&[], columns.max(1), kind, shared),
        ErrorSums::default(),
    );
    for part in parts {
        let (weight, error) = part?;
        append(&mut whole.0, weight);
        whole.1.merge(&error);
    }
    Some(whole)
}

/// Adds rows.
fn append(whole: &mut SmallFloats<'static>, more: SmallFloats<'static>) {
    whole.codes.to_mut().extend_from_slice(&more.codes);
    match (&mut whole.scales, more.scales) {
        (SmallFloatScales::Rows(whole), SmallFloatScales::Rows(more)) => whole.extend(more),
        (
            SmallFloatScales::Nvfp4 { codes: whole, .. },
            SmallFloatScales::Nvfp4 { codes: more, .. },
        )
        | (SmallFloatScales::Mxfp4(whole), SmallFloatScales::Mxfp4(more)) => {
            whole.to_mut().extend_from_slice(&more);
        }
        _ => unreachable!("parts of one weight are of one type"),
    }
}

fn of_rows(
    values: &[f32],
    columns: usize,
    kind: SmallFloatType,
    shared: SharedScale,
) -> SmallFloats<'static> {
    let e2m1 = |size: usize, scale_of: &dyn Fn(f32) -> (u8, f32)| {
        let mut packed = vec![0; values.len() / 2];
        let mut scales = Vec::with_capacity(values.len() / size);
        for (group, packed) in values
            .chunks_exact(size)
            .zip(packed.chunks_exact_mut(size / 2))
        {
            let (code, scale) = scale_of(absmax(group));
            quantize_e2m1(group, scale, packed);
            scales.push(code);
        }
        (Cow::Owned(packed), Cow::Owned(scales))
    };
    match (kind, shared) {
        (SmallFloatType::Fp8, shared) => {
            let mut codes = vec![0; values.len()];
            let rows = values
                .chunks_exact(columns)
                .zip(codes.chunks_exact_mut(columns));
            let scales = rows.map(|(values, codes)| {
                let scale = match shared {
                    SharedScale::Fp8(scale) => scale,
                    _ => fp8_scale(absmax(values)),
                };
                quantize_e4m3(values, scale, codes);
                scale
            });
            let scales = SmallFloatScales::Rows(scales.collect());
            SmallFloats {
                codes: Cow::Owned(codes),
                scales,
            }
        }
        (SmallFloatType::Nvfp4, SharedScale::Nvfp4(global_scale)) => {
            let (codes, scales) = e2m1(NVFP4_GROUP, &|largest| {
                let code = nvfp4_scale(largest, global_scale);
                (code, e4m3_to_f32(code) / global_scale)
            });
            SmallFloats {
                codes,
                scales: SmallFloatScales::Nvfp4 {
                    codes: scales,
                    global_scale,
                },
            }
        }
        (SmallFloatType::Nvfp4, _) => panic!("NVFP4 has a global scale"),
        (SmallFloatType::Mxfp4, _) => {
            let (codes, scales) = e2m1(MXFP4_GROUP, &|largest| {
                let code = mxfp4_scale(largest);
                (code, e8m0_to_f32(code))
            });
            SmallFloats {
                codes,
                scales: SmallFloatScales::Mxfp4(scales),
            }
        }
    }
}
