//! How quantized weights are written.
use crate::{CheckpointError, CheckpointErrorKind, StoredWeight, TensorPlan};
use std::fmt;

/// Some of the bytes of a planned tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorPart {
    /// Name of the tensor.
    pub name: String,
    /// Bytes of the tensor that come before these.
    pub offset: usize,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// A layout: the tensors that hold the weight of a module, and what is in them. It quantizes nothing; what it is given is stored as it is.
///
/// [`CheckpointWriter::write_weight`](crate::CheckpointWriter::write_weight) writes with it.
///
/// ```
/// use fewbit_checkpoint::compressed_tensors::CompressedScheme;
/// use fewbit_checkpoint::{Checkpoint, CheckpointWriter, WeightLayout};
/// use fewbit_numerics::rows::quantize_rows_int8;
///
/// let directory = tempfile::tempdir()?;
/// let out = directory.path().join("model");
/// let layout = CompressedScheme::DynamicInt8;
/// let mut writer = CheckpointWriter::create(&out, false)?;
/// writer.plan_tensors(layout.plan("pooler.dense", [2, 3]))?;
/// let codes = quantize_rows_int8(&[0.5, -1.0, 0.25, 2.0, 0.0, 1.0], 2, 3);
/// writer.write_weight(&layout, "pooler.dense", [2, 3], 0, &layout.stored_weight(codes))?;
/// writer.write_json("config.json", &serde_json::json!({}))?;
/// writer.finish()?;
/// assert!(Checkpoint::open(out)?.contains("pooler.dense.weight_scale"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait WeightLayout: fmt::Debug + Send + Sync {
    /// The tensors of `module`, whose weight has `shape` (out, in). Names, dtypes and shapes depend on nothing else, so that they are known
    /// before a weight is read.
    fn plan(&self, module: &str, shape: [usize; 2]) -> Vec<TensorPlan>;

    /// What `rows`, the rows from `first_row` on of a weight of `shape`, contribute to the planned tensors. The parts of all rows together make
    /// them up; what a weight has once comes with row 0.
    ///
    /// # Errors
    /// The rows are in a form that the layout has no place for.
    fn encode(
        &self,
        module: &str,
        shape: [usize; 2],
        first_row: usize,
        rows: &StoredWeight<'_>,
    ) -> Result<Vec<TensorPart>, CheckpointError>;
}

/// The error for a weight in another form than the layout holds.
pub(crate) fn no_place_for(
    rows: &StoredWeight<'_>,
    module: &str,
    expected: impl fmt::Display,
) -> CheckpointError {
    let found = match rows {
        StoredWeight::Float(_) | StoredWeight::FloatBytes { .. } => "floats".to_owned(),
        StoredWeight::Int8 { .. } => "int8 codes with 8-bit activations".to_owned(),
        StoredWeight::WeightOnly { bits, .. } => format!("weight-only codes of {bits} bits"),
        StoredWeight::FourBit {
            kind, block_size, ..
        } => format!("{} blocks of {block_size}", kind.name()),
    };
    CheckpointError::new(
        CheckpointErrorKind::UnsupportedQuantization,
        format!("weight to write: expected {expected}, found {found}"),
    )
    .at_tensor(format!("{module}.weight"))
    .hint("a layout stores what it is given: quantize the weight for it first")
}

/// The error for rows up to `end` of a weight that has fewer.
pub(crate) fn rows_beyond(module: &str, end: usize, shape: [usize; 2]) -> CheckpointError {
    CheckpointError::new(
        CheckpointErrorKind::WrongShape,
        format!("weight to write: expected rows of shape {shape:?}, found some up to row {end}"),
    )
    .at_tensor(format!("{module}.weight"))
}
