//! A tensor in a file.
use crate::{CheckpointError, CheckpointErrorKind};
use fewbit_numerics::dtype::DType;
use fewbit_numerics::finite::first_non_finite;
use fewbit_numerics::half_precision::{bf16_bytes_to_f32, f16_bytes_to_f32, f32_bytes_to_f32};
use std::path::PathBuf;

/// Name, type and shape of a stored tensor, and the file that holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    /// Name, for instance `encoder.layer.0.output.dense.weight`.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// The safetensors file that holds it.
    pub file: PathBuf,
    /// Length of its data in bytes.
    pub byte_len: usize,
}

/// Bytes of a stored tensor, straight from the mapped file (possibly misaligned).
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// What the tensor is.
    pub info: &'a TensorInfo,
    /// Its little-endian elements, row-major.
    pub bytes: &'a [u8],
}

impl TensorView<'_> {
    /// Number of elements.
    pub fn element_count(&self) -> usize {
        self.bytes.len() / self.info.dtype.bytes()
    }

    /// Widens F32, F16 and BF16 to f32; other dtypes are an error.
    ///
    /// NaN and infinity are passed on as they are.
    pub fn to_f32(&self) -> Result<Vec<f32>, CheckpointError> {
        self.expect_float()?;
        let mut values = vec![0.0; self.element_count()];
        self.read_f32_range(0, &mut values)?;
        Ok(values)
    }

    /// Elements `start..start + out.len()` of the flattened tensor, widened.
    ///
    /// Errors if the dtype is not F32, F16 or BF16 or the range leaves the tensor.
    pub fn read_f32_range(&self, start: usize, out: &mut [f32]) -> Result<(), CheckpointError> {
        self.expect_float()?;
        let width = self.info.dtype.bytes();
        let range = start
            .checked_add(out.len())
            .filter(|&end| end <= self.element_count())
            .map(|end| start * width..end * width);
        let Some(range) = range else {
            return Err(self.error(
                CheckpointErrorKind::WrongShape,
                format!(
                    "elements {start}..{start}+{}: expected a range within 0..{}",
                    out.len(),
                    self.element_count()
                ),
            ));
        };
        let bytes = &self.bytes[range];
        match self.info.dtype {
            DType::F16 => f16_bytes_to_f32(bytes, out),
            DType::BF16 => bf16_bytes_to_f32(bytes, out),
            _ => f32_bytes_to_f32(bytes, out),
        }
        Ok(())
    }

    /// [`TensorView::read_f32_range`] of values that are used: NaN and infinity are errors that name their index.
    pub fn read_finite_range(&self, start: usize, out: &mut [f32]) -> Result<(), CheckpointError> {
        self.read_f32_range(start, out)?;
        match first_non_finite(out) {
            None => Ok(()),
            Some((offset, value)) => Err(self
                .error(
                    CheckpointErrorKind::NonFinite,
                    format!(
                        "expected finite values, found {value} at {:?}",
                        self.index_of(start + offset)
                    ),
                )
                .hint("the checkpoint is damaged or its training diverged")),
        }
    }

    /// Index of an element of the flattened tensor, one number a dimension.
    pub fn index_of(&self, element: usize) -> Vec<usize> {
        let mut rest = element;
        let mut index: Vec<usize> = self
            .info
            .shape
            .iter()
            .rev()
            .map(|&size| {
                let size = size.max(1);
                let position = rest % size;
                rest /= size;
                position
            })
            .collect();
        index.reverse();
        index
    }

    /// Errors unless the shape is `expected`.
    pub fn expect_shape(&self, expected: &[usize]) -> Result<(), CheckpointError> {
        if self.info.shape == expected {
            return Ok(());
        }
        Err(self.error(
            CheckpointErrorKind::WrongShape,
            format!("shape: expected {expected:?}, found {:?}", self.info.shape),
        ))
    }

    /// Errors unless the dtype is one of `expected`.
    pub fn expect_dtype(&self, expected: &[DType]) -> Result<(), CheckpointError> {
        if expected.contains(&self.info.dtype) {
            return Ok(());
        }
        let names: Vec<&str> = expected.iter().map(|dtype| dtype.name()).collect();
        Err(self.error(
            CheckpointErrorKind::WrongDType,
            format!(
                "dtype: expected {}, found {}",
                alternatives(&names),
                self.info.dtype.name()
            ),
        ))
    }

    /// An error of `kind` at this tensor.
    pub(crate) fn error(
        &self,
        kind: CheckpointErrorKind,
        message: impl Into<String>,
    ) -> CheckpointError {
        CheckpointError::new(kind, message)
            .in_file(&self.info.file)
            .at_tensor(&self.info.name)
    }

    fn expect_float(&self) -> Result<(), CheckpointError> {
        self.expect_dtype(&[DType::F32, DType::F16, DType::BF16])
    }
}

/// `a, b or c`.
fn alternatives(names: &[&str]) -> String {
    match names {
        [] => "nothing".to_owned(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}
