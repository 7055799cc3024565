//! Rows of an embedding table of int8 codes.

use crate::run::run;
use fewbit::numerics::rows::dequantize_groups;
use numpy::{PyReadonlyArray1, PyReadonlyArray2, PyReadwriteArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;

/// Writes the rows `ids` of a table of int8 codes (rows, columns), one scale for each row, to `out` (ids, columns).
#[pyfunction]
#[expect(
    clippy::needless_pass_by_value,
    reason = "a borrow of an array is what Python gives"
)]
pub(crate) fn embedding_rows(
    py: Python<'_>,
    codes: PyReadonlyArray2<'_, i8>,
    scales: PyReadonlyArray1<'_, f32>,
    ids: PyReadonlyArray1<'_, i64>,
    mut out: PyReadwriteArray2<'_, f32>,
) -> PyResult<()> {
    let &[rows, columns] = codes.shape() else {
        unreachable!("an array of two axes")
    };
    let (codes, scales) = (codes.as_slice()?, scales.as_slice()?);
    let (ids, out) = (ids.as_slice()?, out.as_slice_mut()?);
    run(py, || {
        if scales.len() != rows || out.len() != ids.len() * columns {
            return Err(format!(
                "embedding: expected {rows} scales and {} x {columns} numbers of output, found {} and {}",
                ids.len(),
                scales.len(),
                out.len()
            ));
        }
        for (index, &id) in ids.iter().enumerate() {
            let row = usize::try_from(id).ok().filter(|&row| row < rows);
            let row = row.ok_or_else(|| {
                format!("embedding, index {index}: expected a number from 0 to {}, found {id}\n  hint: the tokenizer must be the one of the model", rows.saturating_sub(1))
            })?;
            let codes = &codes[row * columns..][..columns];
            let values = dequantize_groups(codes, &scales[row..=row], None, columns);
            for (out, value) in out[index * columns..][..columns].iter_mut().zip(values) {
                *out = value;
            }
        }
        Ok(())
    })
}
