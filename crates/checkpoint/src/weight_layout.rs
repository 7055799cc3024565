//! How quantized weights are written.
use crate::{CheckpointError, CheckpointErrorKind, StoredWeight, TensorPlan};
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// Some of the bytes of a planned tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorPart<'a> {
    /// Name of the tensor.
    pub name: String,
    /// Bytes of the tensor that come before these.
    pub offset: usize,
    /// The bytes.
    pub bytes: Cow<'a, [u8]>,
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
    fn encode<'a>(
        &self,
        module: &str,
        shape: [usize; 2],
        first_row: usize,
        rows: &'a StoredWeight<'_>,
    ) -> Result<Vec<TensorPart<'a>>, CheckpointError>;
}

/// The error for rows in another form than the layout holds.
pub(crate) fn no_place_for(
    rows: &StoredWeight<'_>,
    module: &str,
    expected: impl fmt::Display,
) -> CheckpointError {
    let found = match rows {
        StoredWeight::Float(_) | StoredWeight::FloatBytes { .. } => "floats".to_owned(),
        StoredWeight::SmallFloats(floats) => format!("{} codes", floats.kind()),
        StoredWeight::Int8 { activations, .. } => {
            format!("int8 codes with the activations {activations:?}")
        }
        StoredWeight::Groups {
            bits,
            group_size,
            zero_points,
            activations,
            ..
        } => {
            let points = if zero_points.is_some() {
                " with zero points"
            } else {
                ""
            };
            let activations = match activations {
                Some(activations) => format!("the activations {activations:?}"),
                None => "float activations".to_owned(),
            };
            format!("codes of {bits} bits in groups of {group_size}{points}, {activations}")
        }
        StoredWeight::FourBit {
            kind,
            block_size,
            nested,
            ..
        } => {
            let double = if nested.is_some() { "with" } else { "without" };
            let kind = kind.name();
            format!("{kind} blocks of {block_size} {double} double quantization")
        }
    };
    wrong_rows(
        CheckpointErrorKind::UnsupportedQuantization,
        module,
        &format!("expected {expected}, found {found}"),
    )
    .hint("a layout stores what it is given: quantize the weight for it first")
}

/// Checks that `rows` are `count` whole rows of the weight of `module`, whose shape is `shape`, and lie in it from `first_row` on.
pub(crate) fn expect_rows(
    module: &str,
    shape: [usize; 2],
    first_row: usize,
    rows: &StoredWeight<'_>,
    count: usize,
) -> Result<(), CheckpointError> {
    rows.expect_shape([count, shape[1]])
        .map_err(|error| error.at_tensor(format!("{module}.weight")))?;
    let end = first_row + count;
    match end > shape[0] {
        true => Err(other_rows(module, 0..shape[0], first_row, end)),
        false => Ok(()),
    }
}

/// The error for rows from `first` up to `end` where a layout holds those of `expected`.
pub(crate) fn other_rows(
    module: &str,
    expected: Range<usize>,
    first: usize,
    end: usize,
) -> CheckpointError {
    wrong_rows(
        CheckpointErrorKind::WrongShape,
        module,
        &format!("expected rows of {expected:?}, found {first}..{end}"),
    )
    .hint("the rows of a weight are written once, in parts or at once as its layout takes them")
}

fn wrong_rows(kind: CheckpointErrorKind, module: &str, message: &str) -> CheckpointError {
    CheckpointError::new(kind, format!("rows to write: {message}"))
        .at_tensor(format!("{module}.weight"))
}
