//! A tensor in a file.
use crate::computed_tensor::ComputedTensor;
use crate::{CheckpointError, CheckpointErrorKind, MappedTensor};
use fewbit_numerics::dtype::DType;
use fewbit_numerics::finite::{first_non_finite, first_non_finite_of_bytes};
use fewbit_numerics::half_precision::{f32_to_float_bytes, float_bytes_to_f32};
use std::borrow::Cow;
use std::ops::Range;
use std::path::PathBuf;
use zerocopy::FromBytes;

/// Name, type and shape of a stored tensor, and the file that holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    /// Name, for instance `encoder.layer.0.output.dense.weight`.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// The file that holds it.
    pub file: PathBuf,
    /// Length of its data in bytes.
    pub byte_len: usize,
}

impl TensorInfo {
    /// Number of elements.
    pub fn element_count(&self) -> usize {
        self.byte_len / self.dtype.bytes()
    }

    /// Whether the elements are floats that are read as f32: F32, F16, BF16, and F64, which is rounded.
    pub fn is_readable_float(&self) -> bool {
        READABLE_FLOATS.contains(&self.dtype)
    }
}

/// Floats that are read as f32.
const READABLE_FLOATS: [DType; 4] = [DType::F32, DType::F16, DType::BF16, DType::F64];

/// A tensor of a checkpoint: bytes straight from the mapped file (possibly misaligned), or a weight that is computed as it is read: put
/// together from base and adapter, or dequantized.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// What the tensor is.
    pub info: &'a TensorInfo,
    data: TensorData<'a>,
}

/// Where the elements come from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TensorData<'a> {
    /// Little-endian elements, row-major.
    Stored(&'a MappedTensor),
    /// Floats that lie in no file.
    Computed(&'a dyn ComputedTensor),
}

impl<'a> TensorView<'a> {
    pub(crate) fn new(info: &'a TensorInfo, data: TensorData<'a>) -> Self {
        Self { info, data }
    }

    /// Little-endian elements, row-major: those of the file, or made for this call where the tensor is computed.
    ///
    /// # Errors
    /// Of a computed tensor: those of reading its parts.
    pub fn bytes(&self) -> Result<Cow<'a, [u8]>, CheckpointError> {
        match self.data {
            TensorData::Stored(stored) => Ok(Cow::Borrowed(stored.bytes())),
            TensorData::Computed(_) => {
                let values = self.to_f32()?;
                let mut bytes = vec![0; self.info.byte_len];
                f32_to_float_bytes(self.info.dtype, &values, &mut bytes);
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// The bytes of the file, without a copy; `None` of a weight that is computed as it is read.
    pub fn file_bytes(&self) -> Option<&'a [u8]> {
        match self.data {
            TensorData::Stored(stored) => Some(stored.bytes()),
            TensorData::Computed(_) => None,
        }
    }

    /// Says that `elements` have been read: their pages need not stay in the memory of the process. Reading them again is right, only slower.
    /// This bounds the memory of a pass over a tensor. (Of a weight that is computed
    /// [`Checkpoint::release`](crate::Checkpoint::release) lets the parts go.)
    ///
    /// # Panics
    /// If they are not within the tensor.
    pub fn release(&self, elements: Range<usize>) {
        if let TensorData::Stored(stored) = self.data {
            let width = self.info.dtype.bytes();
            stored.release(elements.start * width..elements.end * width);
        }
    }

    /// [`TensorView::bytes`] of a tensor that is not computed, which is any that does not hold floats.
    pub(crate) fn stored_bytes(&self) -> Result<&'a [u8], CheckpointError> {
        match self.data {
            TensorData::Stored(stored) => Ok(stored.bytes()),
            TensorData::Computed(computed) => Err(self.error(
                CheckpointErrorKind::WrongDType,
                format!("expected stored bytes, found {}", computed.what()),
            )),
        }
    }

    /// Number of elements.
    pub fn element_count(&self) -> usize {
        self.info.element_count()
    }

    /// F32, F16, BF16 and F64 elements as f32; other dtypes are an error. F64 is rounded to the nearest f32.
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
    /// Errors if the dtype is not F32, F16, BF16 or F64 or the range leaves the tensor.
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
        let bytes = match self.data {
            TensorData::Stored(stored) => &stored.bytes()[range],
            TensorData::Computed(computed) => return computed.read_range(start, out),
        };
        float_bytes_to_f32(self.info.dtype, bytes, out);
        Ok(())
    }

    /// All of a small tensor (scales, absmax), whose values are used: NaN and infinity are errors.
    pub(crate) fn finite_f32(&self) -> Result<Vec<f32>, CheckpointError> {
        let values = self.to_f32()?;
        match first_non_finite(&values) {
            None => Ok(values),
            Some((index, value)) => Err(self
                .error(
                    CheckpointErrorKind::NonFinite,
                    format!("element {index}: expected a finite number, found {value}"),
                )
                .hint(
                    "the checkpoint is damaged, or was quantized from weights that were not finite",
                )),
        }
    }

    /// The values of a small tensor of signed integers.
    pub(crate) fn integers(&self) -> Result<Vec<i64>, CheckpointError> {
        self.expect_dtype(&[DType::I64, DType::I32, DType::I8])?;
        let width = self.info.dtype.bytes();
        let widen = |bytes: &[u8]| {
            let sign = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) {
                0xff
            } else {
                0
            };
            let mut wide = [sign; 8];
            wide[..width].copy_from_slice(bytes);
            i64::from_le_bytes(wide)
        };
        let elements = self.stored_bytes()?.chunks_exact(width);
        Ok(elements.map(widen).collect())
    }

    /// The bytes of an I8 tensor as codes.
    pub(crate) fn codes(&self) -> Result<Cow<'a, [i8]>, CheckpointError> {
        let bytes = self.stored_bytes()?;
        let codes = <[i8]>::ref_from_bytes(bytes).expect("a byte is a code");
        Ok(Cow::Borrowed(codes))
    }

    /// [`TensorView::read_f32_range`] of values that are used: NaN and infinity are errors that name their index.
    pub fn read_finite_range(&self, start: usize, out: &mut [f32]) -> Result<(), CheckpointError> {
        self.read_f32_range(start, out)?;
        self.refuse(start, first_non_finite(out))
    }

    /// Errors as [`TensorView::read_finite_range`] if there is a NaN or an infinity in `elements`, which are widened part by part.
    pub fn check_finite(&self, elements: Range<usize>) -> Result<(), CheckpointError> {
        /// 64 KiB of f32, which stay in the cache.
        const PART: usize = 1 << 14;
        if let (TensorData::Stored(stored), DType::F32) = (self.data, self.info.dtype)
            && let Some(bytes) = stored.bytes().get(elements.start * 4..elements.end * 4)
        {
            return self.refuse(elements.start, first_non_finite_of_bytes(bytes));
        }
        let mut buffer = vec![0.0; elements.len().min(PART)];
        for start in elements.clone().step_by(PART) {
            self.read_finite_range(start, &mut buffer[..PART.min(elements.end - start)])?;
        }
        Ok(())
    }

    /// The error for `found`, counted from element `start` on.
    fn refuse(&self, start: usize, found: Option<(usize, f32)>) -> Result<(), CheckpointError> {
        match found {
            None => Ok(()),
            Some((offset, value)) => Err(self
                .error(
                    CheckpointErrorKind::NonFinite,
                    format!(
                        "expected finite values, found {value} at {:?}",
                        self.index_of(start + offset)
                    ),
                )
                .hint(match (self.data, self.info.dtype) {
                    (TensorData::Computed(computed), _) => computed.hint_of_non_finite(),
                    (_, DType::F64) => "fewbit computes in f32, whose largest value is 3.4e38; or the checkpoint is damaged",
                    _ => "the checkpoint is damaged or its training diverged",
                })),
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

    pub(crate) fn expect_float(&self) -> Result<(), CheckpointError> {
        self.expect_dtype(&READABLE_FLOATS)
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
