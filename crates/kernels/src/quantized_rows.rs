//! Activations quantized token by token.

use fewbit_numerics::activation::{ActivationScheme, TWELVE_BIT_CODES};
use fewbit_numerics::affine::{AffineParameters, CodeRange};

use crate::output_columns::OutputColumns;
use crate::panel_layout::INT4_PAIR;
use crate::panels::assert_shape;

/// Planes of codes of more than 8 bits: a row of high bytes and a row of low bytes.
pub(crate) const PLANES: usize = 2;

/// Where the scale and the zero point of a row of activations come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RowScale {
    /// The row's own range, at run time (dynamic quantization).
    PerToken(ActivationScheme),
    /// The row's own range, at run time, in affine codes of twelve bits
    /// ([`TWELVE_BIT_CODES`]).
    PerTokenTwelveBit,
    /// One for all rows, known beforehand (static quantization); the zero point is in 0..=255.
    Static(AffineParameters),
}

/// Codes of 8 or 12 bits (rows, columns) with a scale and a zero point, a code itself, for each row: element (r, c) stands for
/// `(code - zero_point[r]) * scale[r]`. A reusable buffer that [`Kernels::quantize_rows`](crate::Kernels::quantize_rows) fills.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QuantizedRows {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Bytes of a code: where there are two, a row of high bytes and one of low bytes stand for each row.
    pub(crate) planes: usize,
    /// (rows, planes, stride): each row is padded with zeros to whole groups of the int8 weights, and pairs of them.
    pub(crate) codes: Vec<u8>,
    pub(crate) stride: usize,
    pub(crate) scales: Vec<f32>,
    pub(crate) zero_points: Vec<i32>,
}

impl RowScale {
    /// Bytes of a code.
    pub(crate) fn planes(self) -> usize {
        match self {
            RowScale::PerToken(_) | RowScale::Static(_) => 1,
            RowScale::PerTokenTwelveBit => PLANES,
        }
    }
}

impl QuantizedRows {
    /// An empty buffer.
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
        let parameters = (scales, zero_points);
        let mut quantized = Self::of_shape(codes.len(), columns, parameters, CodeRange::UINT8, 1);
        for row in 0..quantized.rows {
            quantized
                .row_mut(row)
                .copy_from_slice(&codes[row * columns..][..columns]);
        }
        quantized
    }

    /// [`QuantizedRows::from_parts`] with codes of twelve bits.
    ///
    /// # Panics
    ///
    /// If the lengths do not agree, or a code or zero point is not in 0..=4095.
    pub fn from_twelve_bit_parts(
        codes: &[u16],
        scales: Vec<f32>,
        zero_points: Vec<i32>,
        columns: usize,
    ) -> Self {
        let CodeRange { min, max } = TWELVE_BIT_CODES;
        assert!(
            codes.iter().all(|&code| (min..=max).contains(&code.into())),
            "codes are in {min}..={max}"
        );
        let parameters = (scales, zero_points);
        let mut quantized =
            Self::of_shape(codes.len(), columns, parameters, TWELVE_BIT_CODES, PLANES);
        for row in 0..quantized.rows {
            let (high, low) = quantized.planes_mut(row);
            let codes = &codes[row * columns..][..columns];
            for ((high, low), code) in high.iter_mut().zip(low).zip(codes) {
                [*low, *high] = code.to_le_bytes();
            }
        }
        quantized
    }

    /// Room for `length` codes of `planes` bytes, with scales and zero points, which are in the range `codes`.
    fn of_shape(
        length: usize,
        columns: usize,
        (scales, zero_points): (Vec<f32>, Vec<i32>),
        codes: CodeRange,
        planes: usize,
    ) -> Self {
        let rows = scales.len();
        assert_shape("codes", length, rows, columns);
        assert_eq!(zero_points.len(), rows, "zero points: one for each row");
        let CodeRange { min, max } = codes;
        assert!(
            zero_points.iter().all(|zero| (min..=max).contains(zero)),
            "zero points are in {min}..={max}"
        );
        let mut quantized = Self::new();
        quantized.resize(rows, columns, planes);
        Self {
            scales,
            zero_points,
            ..quantized
        }
    }

    /// Makes room for (rows, columns) codes of `planes` bytes; what the buffer held is forgotten.
    pub(crate) fn resize(&mut self, rows: usize, columns: usize, planes: usize) {
        let stride = columns.next_multiple_of(INT4_PAIR);
        let elements = rows
            .checked_mul(stride)
            .and_then(|elements| elements.checked_mul(planes))
            .expect("codes fit in the address space");
        if stride != columns {
            // What was a code may now be padding.
            self.codes.clear();
        }
        self.planes = planes;
        self.rows = rows;
        self.columns = columns;
        self.stride = stride;
        self.codes.resize(elements, 0);
        self.scales.resize(rows, 0.0);
        self.zero_points.resize(rows, 0);
    }

    /// Makes room for codes of 8 bits (rows, columns) that all have one scale and zero point, and says where they go.
    pub fn with_parameters(
        &mut self,
        rows: usize,
        columns: usize,
        parameters: AffineParameters,
    ) -> OutputColumns<'_, u8> {
        self.resize(rows, columns, 1);
        self.scales.fill(parameters.scale);
        self.zero_points.fill(parameters.zero_point);
        OutputColumns::padded(&mut self.codes, columns, self.stride)
    }

    /// Clamps codes of 8 bits to a range within 0..=255: what quantizing to that range would have given.
    ///
    /// # Panics
    ///
    /// If the codes have twelve bits.
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

    /// Codes of one row (columns) of 8 bits.
    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [u8] {
        assert_eq!(self.planes, 1, "codes of 8 bits");
        &mut self.codes[row * self.stride..][..self.columns]
    }

    /// High and low bytes of the codes of one row (columns) of more than 8 bits.
    pub(crate) fn planes_mut(&mut self, row: usize) -> (&mut [u8], &mut [u8]) {
        assert_eq!(self.planes, PLANES, "codes of more than 8 bits");
        let planes = &mut self.codes[PLANES * row * self.stride..][..PLANES * self.stride];
        let (high, low) = planes.split_at_mut(self.stride);
        (&mut high[..self.columns], &mut low[..self.columns])
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
    pub fn row(&self, row: usize) -> Vec<u16> {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        let planes = &self.codes[row * self.planes * self.stride..][..self.planes * self.stride];
        (0..self.columns)
            .map(|column| {
                let bytes = planes.iter().skip(column).step_by(self.stride.max(1));
                bytes.fold(0, |code, &byte| code << 8 | u16::from(byte))
            })
            .collect()
    }

    /// (rows)
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// (rows), each a code.
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
