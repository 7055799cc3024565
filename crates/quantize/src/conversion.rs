//! From the bytes of one source tensor to the bytes of the tensors that replace it.
//!
//! A tensor is read in slices of a bounded number of elements, each checked for NaN and infinity, converted, written and forgotten. What
//! is quantized goes from the bytes of the file through the kernels, on several threads; what stays float is widened to f32. Only the 4-bit methods keep something until the end of a
//! tensor: its packed codes and absmax values, less than a quarter of the source in f32 with all that
//! is derived from them. What is rounded for its inputs has a whole weight, as each of its columns
//! changes others.

pub(crate) mod calibrated;
mod float;
mod float_slices;
mod four_bit;
pub(crate) mod int4;
pub(crate) mod int8;
pub(crate) mod read_ahead;
mod slices;
mod small_floats;

use std::path::PathBuf;

use fewbit_checkpoint::bitsandbytes::{EightBitLayer, EightBitTable};
use fewbit_checkpoint::compressed_tensors::CompressedScheme;
use fewbit_checkpoint::{
    CheckpointError, CheckpointWriter, StoredWeight, TensorView, WeightLayout,
};
use fewbit_kernels::Kernels;
use fewbit_numerics::error_statistics::ErrorStatistics;
use fewbit_numerics::finite::first_non_finite;

use self::read_ahead::ReadAhead;
use crate::finished_shards::ShardRecord;
use crate::plan_row::EMBEDDING_SCHEME;
use crate::{PlanRow, QuantizeError, TensorAction};

/// Where converted bytes go, and who is told.
pub(crate) struct Output<'a> {
    writer: &'a mut CheckpointWriter,
    kernels: &'static Kernels,
    progress: &'a mut dyn FnMut(usize, usize, &str),
    read_ahead: ReadAhead<'a>,
    done_bytes: usize,
    total_bytes: usize,
}

impl<'a> Output<'a> {
    /// `total_bytes` of source tensors will be converted, by `kernels`; those of `read_ahead` in this order.
    pub(crate) fn new(
        writer: &'a mut CheckpointWriter,
        kernels: &'static Kernels,
        progress: &'a mut dyn FnMut(usize, usize, &str),
        read_ahead: ReadAhead<'a>,
        total_bytes: usize,
    ) -> Self {
        Self {
            writer,
            kernels,
            progress,
            read_ahead,
            done_bytes: 0,
            total_bytes,
        }
    }

    /// Says what is done where no byte is dealt with yet.
    pub(crate) fn announce(&mut self, what: &str) {
        (self.progress)(self.done_bytes, self.total_bytes, what);
    }

    /// Says that the shard of this number is written, and what was found of it.
    pub(crate) fn finish_shard(
        &mut self,
        shard: usize,
        record: ShardRecord,
    ) -> Result<(), CheckpointError> {
        self.writer.finish_shard(shard, record.into_json())
    }

    /// Where files that are whole are kept.
    pub(crate) fn kept_shards(&self) -> Option<PathBuf> {
        self.writer.kept_shards()
    }

    /// Says that a tensor was dealt with by the run that this one goes on from.
    pub(crate) fn pass_over(&mut self, row: &PlanRow) {
        self.done_bytes += row.source_bytes;
        (self.progress)(self.done_bytes, self.total_bytes, &row.tensor);
    }

    fn advance(&mut self, source_bytes: usize, tensor: &str) {
        self.read_ahead.advance(source_bytes);
        self.done_bytes += source_bytes;
        (self.progress)(self.done_bytes, self.total_bytes, tensor);
    }

    /// Writes rows of the weight that is `view` in the source, those from `first_row` on.
    fn write_rows(
        &mut self,
        view: &TensorView<'_>,
        layout: &dyn WeightLayout,
        first_row: usize,
        rows: &StoredWeight<'_>,
    ) -> Result<(), CheckpointError> {
        let shape = matrix_shape(view)?;
        self.write_rows_of(view, shape, layout, first_row, rows)
    }

    /// [`write_rows`](Self::write_rows) of a weight that has another shape, (out, in), than the source.
    fn write_rows_of(
        &mut self,
        view: &TensorView<'_>,
        shape: [usize; 2],
        layout: &dyn WeightLayout,
        first_row: usize,
        rows: &StoredWeight<'_>,
    ) -> Result<(), CheckpointError> {
        self.writer
            .write_weight(layout, module_name(view), shape, first_row, rows)
    }
}

/// What the conversion of one tensor lost.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Error of the stored values; `None` for tensors that are kept as they are.
    pub(crate) error: Option<ErrorStatistics>,
    /// Values other than zero that became zero in a float conversion.
    pub(crate) underflowed: usize,
    /// Where the first NaN or infinity is, in a tensor that the encoder does not use.
    pub(crate) non_finite: Option<String>,
}

impl Outcome {
    /// Takes down the first of `values`, which begin at element `start`, that is not finite.
    fn note_non_finite(&mut self, view: &TensorView<'_>, start: usize, values: &[f32]) {
        if self.non_finite.is_none()
            && let Some((offset, value)) = first_non_finite(values)
        {
            let index = view.index_of(start + offset);
            self.non_finite = Some(format!("{value} at {index:?}"));
        }
    }
}

/// Converts one tensor as its row says and writes the result. Weights that are rounded for their inputs are not for it, but for
/// [`calibrated`].
///
/// # Errors
/// NaN, infinity, or a value out of range of the new dtype; errors of writing.
pub(crate) fn convert_tensor(
    view: &TensorView<'_>,
    row: &PlanRow,
    output: &mut Output<'_>,
) -> Result<Outcome, QuantizeError> {
    match &row.action {
        TensorAction::Keep => float::keep(view, row, output),
        TensorAction::ConvertFloat(dtype) => float::convert(view, row, *dtype, output),
        TensorAction::Int8Linear(scheme) | TensorAction::Int8LinearGptq { scheme, .. } => {
            int8::quantize(view, *scheme, scheme, output)
        }
        TensorAction::Int4Linear { layout, scales, .. } => {
            int4::quantize(view, *layout, scales.of_groups(), output)
        }
        TensorAction::FloatLinear(scheme) => small_floats::quantize(view, *scheme, output),
        TensorAction::EightBitLinear { .. } => int8::quantize(
            view,
            CompressedScheme::WeightOnlyInt8,
            &EightBitLayer,
            output,
        ),
        TensorAction::Int8Embedding => {
            int8::quantize(view, EMBEDDING_SCHEME, &EMBEDDING_SCHEME, output)
        }
        TensorAction::EightBitEmbedding => int8::quantize(
            view,
            CompressedScheme::WeightOnlyInt8,
            &EightBitTable,
            output,
        ),
        TensorAction::FourBitBlocks {
            layout,
            scales,
            transposed,
            ..
        } => four_bit::quantize(view, layout, *scales, *transposed, output),
    }
}

/// The module that a weight belongs to.
fn module_name<'a>(view: &TensorView<'a>) -> &'a str {
    let name = &view.info.name;
    name.strip_suffix(".weight").unwrap_or(name)
}

/// (out, in) of a weight whose shape the plan has checked.
fn matrix_shape(view: &TensorView<'_>) -> Result<[usize; 2], CheckpointError> {
    match view.info.shape[..] {
        [rows, columns] => Ok([rows, columns]),
        // Produces the error, as no shape has both one and two dimensions.
        _ => view.expect_shape(&[0, 0]).map(|()| [0, 0]),
    }
}
