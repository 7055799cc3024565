//! What quantization-aware training computes with: weights and inputs as floats that codes stand for, and their gradients.
//!
//! Arrays are flat: the Python half hands over the memory of tensors, in which results are written, too.

use crate::error::FewbitError;
use crate::run::run;
use crate::weights::{expect_length, kernels, non_finite};
use fewbit::numerics::activation::TWELVE_BIT_CODES;
use fewbit::numerics::affine::{AffineParameters, CodeRange};
use fewbit::numerics::int4_groups::{GroupScales, GroupStorage, Int4Settings};
use fewbit::quantize::fake_quantize::{self, Groups};
use fewbit::quantize::weight_codecs;
use numpy::{PyArray1, PyReadonlyArray1, PyReadwriteArray1};
use pyo3::prelude::*;

type Floats<'py> = PyReadonlyArray1<'py, f32>;
type Into<'py> = PyReadwriteArray1<'py, f32>;

/// The codes of so many bits: signed ones of weights, unsigned ones of inputs.
fn codes_of(bits: u32, signed: bool) -> PyResult<CodeRange> {
    match (bits, signed) {
        (4, true) => Ok(CodeRange::INT4),
        (8, true) => Ok(CodeRange::INT8),
        (8, false) => Ok(CodeRange::UINT8),
        (12, false) => Ok(TWELVE_BIT_CODES),
        _ => Err(FewbitError::new_err(format!(
            "bits: expected 4 or 8 of weights, 8 or 12 of inputs, found {bits}"
        ))),
    }
}

fn finite(all_are: bool, values: &[f32]) -> Result<(), String> {
    match all_are {
        true => Ok(()),
        false => Err(non_finite(values)),
    }
}

/// int8 rows of `columns`, absmax / 127.5: values into `out`, scales into `scales`.
#[pyfunction]
#[pyo3(signature = (weight, columns, out, scales, *, threads))]
#[expect(
    clippy::needless_pass_by_value,
    reason = "a borrow of an array is what Python gives"
)]
pub(crate) fn fake_quantize_int8_rows(
    py: Python<'_>,
    weight: Floats<'_>,
    columns: usize,
    mut out: Into<'_>,
    mut scales: Into<'_>,
    threads: usize,
) -> PyResult<()> {
    let (weight, out, scales) = (
        weight.as_slice()?,
        out.as_slice_mut()?,
        scales.as_slice_mut()?,
    );
    run(py, || {
        weight_codecs::set_threads(threads);
        expect_length("out", weight.len(), out.len())?;
        expect_length(
            "scales",
            weight.len().div_ceil(columns.max(1)),
            scales.len(),
        )?;
        let all = fake_quantize::int8_rows(kernels()?, weight, columns, out, scales);
        finite(all, weight)
    })
}

/// Scales and zero points of int4 groups of a flat weight of whole groups, with the least squared error where `mse`.
#[pyfunction]
#[pyo3(signature = (weight, group_size, *, asymmetric, mse, threads))]
#[expect(
    clippy::needless_pass_by_value,
    reason = "a borrow of an array is what Python gives"
)]
#[expect(clippy::type_complexity, reason = "two arrays")]
pub(crate) fn int4_parameters<'py>(
    py: Python<'py>,
    weight: Floats<'py>,
    group_size: usize,
    asymmetric: bool,
    mse: bool,
    threads: usize,
) -> PyResult<(Bound<'py, PyArray1<f32>>, Bound<'py, PyArray1<i8>>)> {
    let weight = weight.as_slice()?;
    let (scales, points) = run(py, || {
        weight_codecs::set_threads(threads);
        if group_size == 0 || !weight.len().is_multiple_of(group_size) {
            return Err(format!(
                "group_size: expected a divisor of the {} elements, found {group_size}",
                weight.len()
            ));
        }
        let groups = weight.len() / group_size;
        let (mut scales, mut points) = (vec![0.0; groups], vec![0; groups]);
        let settings = Int4Settings {
            group_size,
            asymmetric,
            scales: match mse {
                true => GroupScales::LeastSquaredError,
                false => GroupScales::Range,
            },
            storage: GroupStorage::default(),
        };
        let all =
            fake_quantize::choose_int4(kernels()?, weight, settings, &mut scales, &mut points);
        finite(all, weight).map(|()| (scales, points))
    })?;
    Ok((
        PyArray1::from_vec(py, scales),
        PyArray1::from_vec(py, points),
    ))
}

/// Groups of codes of so many bits with scales and zero points that arrays hold.
fn groups_of<'a>(
    group_size: usize,
    bits: u32,
    scales: &'a Floats<'_>,
    zero_points: Option<&'a PyReadonlyArray1<'_, i8>>,
) -> PyResult<Groups<'a>> {
    Ok(Groups {
        group_size,
        range: codes_of(bits, true)?,
        scales: scales.as_slice()?,
        zero_points: zero_points.map(|points| points.as_slice()).transpose()?,
    })
}

/// Errors unless the lengths are those of groups of `elements`.
fn expect_groups(elements: usize, groups: &Groups<'_>) -> Result<(), String> {
    if groups.group_size == 0 {
        return Err("group_size: expected at least 1, found 0".to_owned());
    }
    let number = elements.div_ceil(groups.group_size);
    expect_length("scales", number, groups.scales.len())?;
    expect_length(
        "zero points",
        number,
        groups.zero_points.map_or(number, <[i8]>::len),
    )
}

/// The values of codes of `bits` (4 or 8) with given scales and zero points of groups, into `out`.
#[pyfunction]
#[pyo3(signature = (weight, group_size, scales, zero_points, out, *, bits, threads))]
#[expect(
    clippy::needless_pass_by_value,
    reason = "a borrow of an array is what Python gives"
)]
#[expect(clippy::too_many_arguments, reason = "arrays and what they hold")]
pub(crate) fn fake_quantize_groups(
    py: Python<'_>,
    weight: Floats<'_>,
    group_size: usize,
    scales: Floats<'_>,
    zero_points: Option<PyReadonlyArray1<'_, i8>>,
    mut out: Into<'_>,
    bits: u32,
    threads: usize,
) -> PyResult<()> {
    let (weight, out) = (weight.as_slice()?, out.as_slice_mut()?);
    let groups = groups_of(group_size, bits, &scales, zero_points.as_ref())?;
    run(py, || {
        weight_codecs::set_threads(threads);
        expect_groups(weight.len(), &groups)?;
        expect_length("out", weight.len(), out.len())?;
        finite(fake_quantize::with_groups(weight, groups, out), weight)
    })
}

/// The codes whose values [`fake_quantize_groups`] gives.
#[pyfunction]
#[pyo3(signature = (weight, group_size, scales, zero_points, *, bits))]
#[expect(
    clippy::needless_pass_by_value,
    reason = "a borrow of an array is what Python gives"
)]
pub(crate) fn group_codes<'py>(
    py: Python<'py>,
    weight: Floats<'py>,
    group_size: usize,
    scales: Floats<'py>,
    zero_points: Option<PyReadonlyArray1<'py, i8>>,
    bits: u32,
) -> PyResult<Bound<'py, PyArray1<i8>>> {
    let weight = weight.as_slice()?;
    let groups = groups_of(group_size, bits, &scales, zero_points.as_ref())?;
    let codes = run(py, || {
        expect_groups(weight.len(), &groups)?;
        finite(
            fewbit::numerics::finite::first_non_finite(weight).is_none(),
            weight,
        )?;
        let mut codes = vec![0; weight.len()];
        fake_quantize::codes_with_groups(weight, groups, &mut codes);
        Ok::<_, String>(codes)
    })?;
    Ok(PyArray1::from_vec(py, codes))
}

/// The gradients of a weight, into `out`, and of its scales, into `of_scales`, of values whose gradient is `gradient`.
#[pyfunction]
#[pyo3(signature = (weight, gradient, group_size, scales, zero_points, out, of_scales, *, bits, threads))]
#[expect(
    clippy::needless_pass_by_value,
    reason = "a borrow of an array is what Python gives"
)]
#[expect(clippy::too_many_arguments, reason = "arrays and what they hold")]
pub(crate) fn fake_quantize_gradients(
    py: Python<'_>,
    weight: Floats<'_>,
    gradient: Floats<'_>,
    group_size: usize,
    scales: Floats<'_>,
    zero_points: Option<PyReadonlyArray1<'_, i8>>,
    mut out: Into<'_>,
    mut of_scales: Into<'_>,
    bits: u32,
    threads: usize,
) -> PyResult<()> {
    let (weight, gradient) = (weight.as_slice()?, gradient.as_slice()?);
    let (out, of_scales) = (out.as_slice_mut()?, of_scales.as_slice_mut()?);
    let groups = groups_of(group_size, bits, &scales, zero_points.as_ref())?;
    run(py, || {
        weight_codecs::set_threads(threads);
        expect_groups(weight.len(), &groups)?;
        expect_length("gradient", weight.len(), gradient.len())?;
        expect_length("out", weight.len(), out.len())?;
        expect_length("of_scales", groups.scales.len(), of_scales.len())?;
        fake_quantize::gradients(weight, gradient, groups, out, of_scales);
        Ok::<_, String>(())
    })
}

/// Rows of `columns` as values of their affine codes of 8 or 12 bits, each over its own range, into `out`.
#[pyfunction]
#[pyo3(signature = (x, columns, out, *, bits, threads))]
#[expect(
    clippy::needless_pass_by_value,
    reason = "a borrow of an array is what Python gives"
)]
pub(crate) fn fake_quantize_rows(
    py: Python<'_>,
    x: Floats<'_>,
    columns: usize,
    mut out: Into<'_>,
    bits: u32,
    threads: usize,
) -> PyResult<()> {
    let (x, out) = (x.as_slice()?, out.as_slice_mut()?);
    let range = codes_of(bits, false)?;
    run(py, || {
        weight_codecs::set_threads(threads);
        expect_length("out", x.len(), out.len())?;
        finite(fake_quantize::rows(x, columns, range, out), x)
    })
}

/// Values of signed 8-bit codes with one scale and zero point, into `out`, and whether the gradient passes, into `passes`.
#[pyfunction]
#[pyo3(signature = (x, scale, zero_point, out, passes, *, threads))]
#[expect(
    clippy::needless_pass_by_value,
    reason = "a borrow of an array is what Python gives"
)]
pub(crate) fn fake_quantize_static(
    py: Python<'_>,
    x: Floats<'_>,
    scale: f32,
    zero_point: i32,
    mut out: Into<'_>,
    mut passes: PyReadwriteArray1<'_, u8>,
    threads: usize,
) -> PyResult<()> {
    let (x, out, passes) = (x.as_slice()?, out.as_slice_mut()?, passes.as_slice_mut()?);
    let parameters = AffineParameters { scale, zero_point };
    run(py, || {
        weight_codecs::set_threads(threads);
        expect_length("out", x.len(), out.len())?;
        expect_length("passes", x.len(), passes.len())?;
        if !(-128..=127).contains(&zero_point) {
            return Err(format!(
                "zero_point: expected -128 to 127, found {zero_point}"
            ));
        }
        let all = fake_quantize::with_one_scale(x, parameters, CodeRange::INT8, out, passes);
        finite(all, x)
    })
}
