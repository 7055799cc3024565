//! Weights of single layers: quantized, and as floats again, by the kernels that convert checkpoints, on all threads.

use crate::error::FewbitError;
use crate::run::run;
use fewbit::kernels::{FloatBytes, Kernels};
use fewbit::numerics::double_quantization::{self, NESTED_BLOCK_SIZE};
use fewbit::numerics::dynamic_map::dynamic_map;
use fewbit::numerics::finite::first_non_finite;
use fewbit::numerics::four_bit::FourBitType;
use fewbit::numerics::rows::per_tensor_scale;
use fewbit::quantize::weight_codecs::{self, ErrorFigures};
use numpy::{
    PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods,
};
use pyo3::prelude::*;

/// Absmax values of 4-bit blocks as 8-bit codes, their nested absmax values and offset.
type Nested<'py> = (Bound<'py, PyArray1<u8>>, Bound<'py, PyArray1<f32>>, f32);

/// int8 codes (rows, columns) and scales (rows) of a weight (rows, columns): one scale for each row, or one for all.
#[pyfunction]
#[pyo3(signature = (weight, *, per_tensor, threads))]
#[expect(
    clippy::needless_pass_by_value,
    reason = "a borrow of an array is what Python gives"
)]
#[expect(clippy::type_complexity, reason = "two arrays")]
pub(crate) fn quantize_int8<'py>(
    py: Python<'py>,
    weight: PyReadonlyArray2<'py, f32>,
    per_tensor: bool,
    threads: usize,
) -> PyResult<(Bound<'py, PyArray2<i8>>, Bound<'py, PyArray1<f32>>)> {
    let &[rows, columns] = weight.shape() else {
        unreachable!("an array of two axes")
    };
    let values = weight.as_slice()?;
    let quantized = run(py, || {
        weight_codecs::set_threads(threads);
        let (kernels, source) = (kernels()?, FloatBytes::of_f32(values));
        let one_scale = match per_tensor {
            false => None,
            true => {
                let largest = weight_codecs::largest_magnitude(kernels, source);
                Some(per_tensor_scale(largest.ok_or_else(|| non_finite(values))?))
            }
        };
        let (shape, figures) = ([rows, columns], ErrorFigures::Skip);
        let (quantized, found) =
            weight_codecs::quantize_int8(kernels, source, shape, one_scale, figures);
        match found.finite {
            true => Ok(quantized),
            false => Err(non_finite(values)),
        }
    })?;
    let codes = PyArray1::from_vec(py, quantized.codes).reshape([rows, columns])?;
    Ok((codes, PyArray1::from_vec(py, quantized.scales)))
}

/// The floats (rows, columns) that int8 codes stand for.
#[pyfunction]
#[pyo3(signature = (codes, scales, *, threads))]
#[expect(
    clippy::needless_pass_by_value,
    reason = "a borrow of an array is what Python gives"
)]
pub(crate) fn dequantize_int8<'py>(
    py: Python<'py>,
    codes: PyReadonlyArray2<'py, i8>,
    scales: PyReadonlyArray1<'py, f32>,
    threads: usize,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let &[rows, columns] = codes.shape() else {
        unreachable!("an array of two axes")
    };
    let (codes, scales) = (codes.as_slice()?, scales.as_slice()?);
    let values = run(py, || {
        weight_codecs::set_threads(threads);
        expect_length("scales", rows, scales.len())?;
        let mut values = vec![0.0; codes.len()];
        weight_codecs::dequantize_int8(kernels()?, codes, scales, columns, &mut values);
        Ok::<_, String>(values)
    })?;
    PyArray1::from_vec(py, values).reshape([rows, columns])
}

/// 4-bit codes of a flattened weight, two a byte, and the absmax of each block.
#[pyfunction]
#[pyo3(signature = (weight, *, kind, block_size, threads))]
#[expect(
    clippy::needless_pass_by_value,
    reason = "a borrow of an array is what Python gives"
)]
#[expect(clippy::type_complexity, reason = "two arrays")]
pub(crate) fn quantize_four_bit<'py>(
    py: Python<'py>,
    weight: PyReadonlyArray1<'py, f32>,
    kind: &str,
    block_size: usize,
    threads: usize,
) -> PyResult<(Bound<'py, PyArray1<u8>>, Bound<'py, PyArray1<f32>>)> {
    let kind = four_bit_type(kind)?;
    expect_block_size(block_size)?;
    let values = weight.as_slice()?;
    let blocks = run(py, || {
        weight_codecs::set_threads(threads);
        let source = FloatBytes::of_f32(values);
        let blocks = weight_codecs::quantize_four_bit(kernels()?, source, block_size, kind);
        blocks.ok_or_else(|| non_finite(values))
    })?;
    let absmax = PyArray1::from_vec(py, blocks.absmax);
    Ok((PyArray1::from_vec(py, blocks.packed), absmax))
}

/// The floats (elements) that 4-bit codes stand for.
#[pyfunction]
#[pyo3(signature = (packed, absmax, *, kind, block_size, elements, threads))]
#[expect(
    clippy::needless_pass_by_value,
    reason = "a borrow of an array is what Python gives"
)]
pub(crate) fn dequantize_four_bit<'py>(
    py: Python<'py>,
    packed: PyReadonlyArray1<'py, u8>,
    absmax: PyReadonlyArray1<'py, f32>,
    kind: &str,
    block_size: usize,
    elements: usize,
    threads: usize,
) -> PyResult<Bound<'py, PyArray1<f32>>> {
    let kind = four_bit_type(kind)?;
    expect_block_size(block_size)?;
    let (packed, absmax) = (packed.as_slice()?, absmax.as_slice()?);
    let values = run(py, || {
        weight_codecs::set_threads(threads);
        expect_length("packed bytes", elements.div_ceil(2), packed.len())?;
        expect_length("absmax", elements.div_ceil(block_size), absmax.len())?;
        let mut values = vec![0.0; elements];
        let kernels = kernels()?;
        weight_codecs::dequantize_four_bit(kernels, packed, absmax, block_size, kind, &mut values);
        Ok::<_, String>(values)
    })?;
    Ok(PyArray1::from_vec(py, values))
}

/// Double quantization: the absmax values of blocks as 8-bit codes, their nested absmax values and offset.
#[pyfunction]
#[expect(
    clippy::needless_pass_by_value,
    reason = "a borrow of an array is what Python gives"
)]
pub(crate) fn quantize_absmax<'py>(
    py: Python<'py>,
    absmax: PyReadonlyArray1<'py, f32>,
) -> PyResult<Nested<'py>> {
    let absmax = absmax.as_slice()?;
    let nested = run(py, || {
        Ok::<_, String>(double_quantization::quantize(absmax))
    })?;
    let nested_absmax = PyArray1::from_vec(py, nested.nested_absmax);
    Ok((
        PyArray1::from_vec(py, nested.codes),
        nested_absmax,
        nested.offset,
    ))
}

/// The absmax values that [`quantize_absmax`] made codes of.
#[pyfunction]
#[expect(
    clippy::needless_pass_by_value,
    reason = "a borrow of an array is what Python gives"
)]
pub(crate) fn dequantize_absmax<'py>(
    py: Python<'py>,
    codes: PyReadonlyArray1<'py, u8>,
    nested_absmax: PyReadonlyArray1<'py, f32>,
    offset: f32,
) -> PyResult<Bound<'py, PyArray1<f32>>> {
    let (codes, nested_absmax) = (codes.as_slice()?, nested_absmax.as_slice()?);
    let absmax = run(py, || {
        let blocks = codes.len().div_ceil(NESTED_BLOCK_SIZE);
        expect_length("nested absmax", blocks, nested_absmax.len())?;
        let (map, size) = (dynamic_map(), NESTED_BLOCK_SIZE);
        Ok::<_, String>(double_quantization::dequantize(
            codes,
            map,
            nested_absmax,
            size,
            offset,
        ))
    })?;
    Ok(PyArray1::from_vec(py, absmax))
}

/// The code table of that name.
pub(crate) fn four_bit_type(name: &str) -> PyResult<FourBitType> {
    let kinds = [FourBitType::Nf4, FourBitType::Fp4];
    let found = kinds.into_iter().find(|kind| kind.name() == name);
    found.ok_or_else(|| FewbitError::new_err(format!("expected nf4 or fp4, found {name:?}")))
}

fn expect_block_size(block_size: usize) -> PyResult<()> {
    match block_size.is_power_of_two() && (32..=4096).contains(&block_size) {
        true => Ok(()),
        false => Err(FewbitError::new_err(format!(
            "block_size: expected a power of two from 32 to 4096, found {block_size}\n  hint: 64 is the usual one"
        ))),
    }
}

pub(crate) fn kernels() -> Result<&'static Kernels, String> {
    Kernels::from_environment().map_err(|error| error.to_string())
}

/// The error of values of which one is not finite.
pub(crate) fn non_finite(values: &[f32]) -> String {
    match first_non_finite(values) {
        Some((index, value)) => {
            format!("weight, element {index}: expected a finite number, found {value}")
        }
        None => unreachable!("the kernels and the reference say alike what is finite"),
    }
}

pub(crate) fn expect_length(what: &str, expected: usize, found: usize) -> Result<(), String> {
    match expected == found {
        true => Ok(()),
        false => Err(format!("{what}: expected {expected}, found {found}")),
    }
}
