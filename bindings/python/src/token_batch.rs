//! Arrays of token ids, padded or not, as the batch that the executor runs.

use crate::error::FewbitError;
use fewbit::model::{EncoderSpec, RaggedBatch};
use numpy::ndarray::ArrayView2;
use numpy::{PyArray3, PyArrayMethods};
use pyo3::prelude::*;

/// Token ids (sequences, length) without those that the attention mask leaves out, and where the others stood.
pub(crate) struct TokenBatch {
    pub(crate) ragged: RaggedBatch,
    /// For each sequence the columns of its tokens.
    columns: Vec<Vec<usize>>,
    length: usize,
}

impl TokenBatch {
    /// Takes `input_ids` (sequences, length); `attention_mask` of the same shape is 0 where a token is left out, and without one none is.
    ///
    /// # Errors
    /// Shapes that differ, an id or a token type that is negative, a sequence all of whose tokens are left out.
    pub(crate) fn new(
        input_ids: ArrayView2<'_, i64>,
        attention_mask: Option<ArrayView2<'_, i64>>,
        token_type_ids: Option<ArrayView2<'_, i64>>,
    ) -> PyResult<Self> {
        let shape = input_ids.dim();
        for (name, array) in [
            ("attention_mask", attention_mask),
            ("token_type_ids", token_type_ids),
        ] {
            if let Some(array) = array
                && array.dim() != shape
            {
                return Err(FewbitError::new_err(format!(
                    "{name}: expected the shape of input_ids, {shape:?}, found {:?}\n  hint: both are (sequences, length)",
                    array.dim()
                )));
            }
        }
        let mut ragged = RaggedBatch::new();
        let mut columns = Vec::with_capacity(shape.0);
        let mut ids = Vec::with_capacity(shape.1);
        let mut types = Vec::with_capacity(shape.1);
        for row in 0..shape.0 {
            let is_kept =
                |&column: &usize| attention_mask.is_none_or(|mask| mask[(row, column)] != 0);
            let kept: Vec<usize> = (0..shape.1).filter(is_kept).collect();
            if kept.is_empty() {
                return Err(FewbitError::new_err(format!(
                    "attention_mask, sequence {row}: expected at least one token that is not left out, found none of {}\n  hint: leave empty texts out of the batch, or tokenize them with special tokens",
                    shape.1
                )));
            }
            ids.clear();
            types.clear();
            for &column in &kept {
                ids.push(not_negative(
                    "input_ids",
                    input_ids[(row, column)],
                    row,
                    column,
                )?);
                if let Some(token_types) = token_type_ids {
                    types.push(not_negative(
                        "token_type_ids",
                        token_types[(row, column)],
                        row,
                        column,
                    )?);
                }
            }
            ragged.push(&ids, &types);
            columns.push(kept);
        }
        Ok(Self {
            ragged,
            columns,
            length: shape.1,
        })
    }

    /// Gives tokens the positions that they have in transformers where the model looks positions up: those of `position_ids`, (sequences,
    /// length) or (1, length), or else those of their columns, which are not those that the executor counts where tokens before them were left
    /// out.
    ///
    /// # Errors
    /// Positions of another shape, or negative.
    pub(crate) fn place(
        &mut self,
        spec: &EncoderSpec,
        input_ids: ArrayView2<'_, i64>,
        position_ids: Option<ArrayView2<'_, i64>>,
    ) -> PyResult<()> {
        if let Some(positions) = position_ids {
            let (rows, length) = positions.dim();
            if length != self.length || (rows != 1 && rows != self.columns.len()) {
                return Err(FewbitError::new_err(format!(
                    "position_ids: expected the shape of input_ids, {:?}, found {:?}\n  hint: both are (sequences, length); a single row is for all sequences",
                    self.shape(),
                    positions.dim()
                )));
            }
            for (row, columns) in self.columns.iter().enumerate() {
                let row = if rows == 1 { 0 } else { row };
                for &column in columns {
                    let position =
                        not_negative("position_ids", positions[(row, column)], row, column)?;
                    self.ragged.position_ids.push(position);
                }
            }
            return Ok(());
        }
        let is_counted = |columns: &Vec<usize>| columns.last() == Some(&(columns.len() - 1));
        if !spec.looks_up_positions() || self.columns.iter().all(is_counted) {
            return Ok(());
        }
        for (row, columns) in self.columns.iter().enumerate() {
            let Some(padding_id) = spec.positions.padding_id else {
                let positions = columns.iter().map(|&column| column as u32);
                self.ragged.position_ids.extend(positions);
                continue;
            };
            // Counted among all ids of the row, whatever the mask says.
            let mut kept = columns.iter().peekable();
            let mut next = padding_id + 1;
            for (column, &id) in input_ids.row(row).iter().enumerate() {
                let position = match id == i64::from(padding_id) {
                    true => padding_id,
                    false => {
                        next += 1;
                        next - 1
                    }
                };
                if kept.next_if_eq(&&column).is_some() {
                    self.ragged.position_ids.push(position);
                }
            }
        }
        Ok(())
    }

    /// (sequences, length)
    fn shape(&self) -> (usize, usize) {
        (self.columns.len(), self.length)
    }

    /// `states` (tokens, size), each row where its token stands, as an array (sequences, length, size) that is 0 elsewhere.
    pub(crate) fn padded<'py>(
        &self,
        py: Python<'py>,
        states: &[f32],
        size: usize,
    ) -> Bound<'py, PyArray3<f32>> {
        let array = PyArray3::zeros(py, [self.columns.len(), self.length, size], false);
        let mut writable = array.readwrite();
        let mut padded = writable.as_array_mut();
        let mut rows = states.chunks_exact(size.max(1));
        for (sequence, columns) in self.columns.iter().enumerate() {
            for (&column, row) in columns.iter().zip(&mut rows) {
                let mut out = padded.slice_mut(numpy::ndarray::s![sequence, column, ..]);
                for (out, value) in out.iter_mut().zip(row) {
                    *out = *value;
                }
            }
        }
        drop(writable);
        array
    }
}

fn not_negative(name: &str, id: i64, row: usize, column: usize) -> PyResult<u32> {
    u32::try_from(id).map_err(|_| {
        FewbitError::new_err(format!(
            "{name}, sequence {row}, token {column}: expected a number from 0 to {}, found {id}\n  hint: -100 marks labels that are left out of a loss, not token ids; an attention_mask of 0 leaves a token out",
            u32::MAX
        ))
    })
}
