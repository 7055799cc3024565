//! Activations quantized token by token.

use fewbit_numerics::activation::ActivationScheme;
use fewbit_numerics::affine::{AffineParameters, CodeRange};

use crate::int8_tile::INT8_GROUP;
use crate::panels::assert_shape;

/// Where the scale and the zero point of a row of activations come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RowScale {
    /// The row's own range, at run time (dynamic quantization).
    PerToken(ActivationScheme),
    /// One for all rows, known beforehand (static quantization); the zero point is in 0..=255.
    Static(AffineParameters),
}

/// u8 codes (rows, columns) with a scale and a zero point (0..=255) for each row: element (r, c) stands for
/// `(code - zero_point[r]) * scale[r]`. A reusable buffer that [`Kernels::quantize_rows`](crate::Kernels::quantize_rows) fills.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QuantizedRows {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// (rows, stride): each row is padded with zeros to whole groups of the int8 weights.
    pub(crate) codes: Vec<u8>,
    pub(crate) stride: usize,
    pub(crate) scales: Vec<f32>,
    pub(crate) zero_points: Vec<i32>,
}

impl QuantizedRows {
    /// No rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rows that were quantized elsewhere: `codes` (rows, columns), `scales` and `zero_points` (rows).
    ///
    /// # Panics
    ///
    /// If the lengths do not agree, or a zero point is not in 0..=255.
    pub fn from_parts(
        codes: &[u8],
        scales: Vec<f32>,
        zero_points: Vec<i32>,
        columns: usize,
    ) -> Self {
        let rows = scales.len();
        assert_shape("codes", codes.len(), rows, columns);
        assert_eq!(zero_points.len(), rows, "zero points: one for each row");
        assert!(
            zero_points.iter().all(|zero| (0..=255).contains(zero)),
            "zero points are in 0..=255"
        );
        let mut quantized = Self::new();
        quantized.resize(rows, columns);
        for row in 0..rows {
            quantized
                .row_mut(row)
                .copy_from_slice(&codes[row * columns..][..columns]);
        }
        Self {
            scales,
            zero_points,
            ..quantized
        }
    }

    /// Makes room for (rows, columns); what the buffer held is forgotten.
    pub(crate) fn resize(&mut self, rows: usize, columns: usize) {
        let stride = columns.next_multiple_of(INT8_GROUP);
        let elements = rows
            .checked_mul(stride)
            .expect("codes fit in the address space");
        if stride != columns {
            // What was a code may now be padding.
            self.codes.clear();
        }
        self.rows = rows;
        self.columns = columns;
        self.stride = stride;
        self.codes.resize(elements, 0);
        self.scales.resize(rows, 0.0);
        self.zero_points.resize(rows, 0);
    }

    /// Clamps the codes to a range within 0..=255: what quantizing to that range would have given.
    pub fn clamp_codes(&mut self, codes: CodeRange) {
        // As a code is in 0..=255, bounds beyond that are as good as its ends.
        let bound = |code: i32| code.clamp(0, 255) as u8;
        let (least, greatest) = (bound(codes.min), bound(codes.max));
        for row in 0..self.rows {
            for code in self.row_mut(row) {
                *code = (*code).clamp(least, greatest);
            }
        }
    }

    /// Codes of one row (columns).
    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [u8] {
        &mut self.codes[row * self.stride..][..self.columns]
    }

    /// Number of rows (tokens).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns (features).
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Codes of one row (columns).
    ///
    /// # Panics
    ///
    /// If there is no such row.
    pub fn row(&self, row: usize) -> &[u8] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        &self.codes[row * self.stride..][..self.columns]
    }

    /// (rows)
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// (rows), each in 0..=255.
    pub fn zero_points(&self) -> &[i32] {
        &self.zero_points
    }

    /// Bytes held in memory, padding included.
    pub fn memory_bytes(&self) -> usize {
        self.codes.capacity()
            + self.scales.capacity() * size_of::<f32>()
            + self.zero_points.capacity() * size_of::<i32>()
    }
}
