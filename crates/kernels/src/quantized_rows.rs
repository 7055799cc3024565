//! Activations quantized token by token.

/// u8 codes (rows, columns) with a scale and a zero point (0..=255) for each row: element (r, c) stands for
/// `(code - zero_point[r]) * scale[r]`. A reusable buffer that [`Kernels::quantize_rows`](crate::Kernels::quantize_rows) fills.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QuantizedRows {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) codes: Vec<u8>,
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
        codes: Vec<u8>,
        scales: Vec<f32>,
        zero_points: Vec<i32>,
        columns: usize,
    ) -> Self {
        let rows = scales.len();
        crate::panels::assert_shape("codes", codes.len(), rows, columns);
        assert_eq!(zero_points.len(), rows, "zero points: one for each row");
        assert!(
            zero_points.iter().all(|zero| (0..=255).contains(zero)),
            "zero points are in 0..=255"
        );
        Self {
            rows,
            columns,
            codes,
            scales,
            zero_points,
        }
    }

    /// Makes room for (rows, columns); what the buffer held is forgotten.
    pub(crate) fn resize(&mut self, rows: usize, columns: usize) {
        let elements = rows
            .checked_mul(columns)
            .expect("codes fit in the address space");
        self.rows = rows;
        self.columns = columns;
        self.codes.resize(elements, 0);
        self.scales.resize(rows, 0.0);
        self.zero_points.resize(rows, 0);
    }

    /// Number of rows (tokens).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns (features).
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// (rows, columns), row-major.
    pub fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// (rows)
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// (rows), each in 0..=255.
    pub fn zero_points(&self) -> &[i32] {
        &self.zero_points
    }
}
