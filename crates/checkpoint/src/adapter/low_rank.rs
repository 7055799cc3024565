//! A weight and its low-rank update, read together.
use crate::adapter::config::Scale;
use crate::adapter::names::UpdateParts;
use crate::computed_tensor::ComputedTensor;
use crate::shards::Shards;
use crate::tensor::TensorData;
use crate::{CheckpointError, CheckpointErrorKind, MappedTensor, TensorInfo, TensorView};
use fewbit_numerics::dtype::DType;

/// A tensor in a file, kept mapped.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    info: TensorInfo,
    data: MappedTensor,
}

impl Stored {
    pub(super) fn new(info: TensorInfo, data: MappedTensor) -> Self {
        Self { info, data }
    }

    /// The tensor `name` of the base, which is there.
    pub(super) fn of(shards: &Shards, name: &str) -> Self {
        let (file, at) = shards.places[name];
        let file = &shards.files[file];
        Self::new(file.view(at).info.clone(), file.mapped(at))
    }

    pub(super) fn info(&self) -> &TensorInfo {
        &self.info
    }

    fn view(&self) -> TensorView<'_> {
        TensorView::new(&self.info, TensorData::Stored(&self.data))
    }

    fn release(&self) {
        self.data.release(0..self.data.bytes().len());
    }
}

/// W + scale * L R with L (rows, rank) and R (rank, columns). Of a linear layer L is `lora_B` and R `lora_A`; of an embedding
/// table they are `lora_embedding_A` and `lora_embedding_B`, transposed. With magnitudes m (DoRA) row i of the sum is
/// multiplied by m_i / |row i|.
///
/// Sums are formed in f64 and rounded to f32 once, so that an element does not depend on the range that it is read with.
#[derive(Debug)]
pub(crate) struct LowRankUpdate {
    base: Stored,
    first: Stored,
    second: Stored,
    magnitude: Option<Stored>,
    scale: f64,
    rank: usize,
    of_table: bool,
}

impl ComputedTensor for LowRankUpdate {
    fn read_range(&self, start: usize, out: &mut [f32]) -> Result<(), CheckpointError> {
        self.sum_of_range(start, out)
    }

    fn release(&self) {
        let parts = [&self.base, &self.first, &self.second];
        parts
            .into_iter()
            .chain(self.magnitude.as_ref())
            .for_each(Stored::release);
    }

    fn what(&self) -> &'static str {
        "a weight that an adapter updates"
    }

    fn hint_of_non_finite(&self) -> &'static str {
        "base and adapter are merged: one of them is damaged, or they do not belong together"
    }
}

impl LowRankUpdate {
    /// Checks that the parts fit together.
    pub(super) fn new(
        base: Stored,
        parts: &UpdateParts,
        scale: Scale,
        uses_magnitude: bool,
    ) -> Result<Self, CheckpointError> {
        base.view().expect_float()?;
        let [rows, columns] = base.info.shape[..] else {
            return Err(base.view().error(
                CheckpointErrorKind::WrongShape,
                format!(
                    "shape: expected a matrix, which a low-rank update goes with, found {:?}",
                    base.info.shape
                ),
            ));
        };
        let part = |part: &Option<Stored>, what: &str| match part {
            Some(part) => Ok(part.clone()),
            None => Err(parts.error(
                CheckpointErrorKind::MissingTensor,
                format!("expected {what} of the update, found none"),
            )),
        };
        let (first, second) = if parts.of_table {
            (
                part(&parts.first, "lora_embedding_A")?,
                part(&parts.second, "lora_embedding_B")?,
            )
        } else {
            (
                part(&parts.first, "lora_A")?,
                part(&parts.second, "lora_B")?,
            )
        };
        let rank = scale.rank as usize;
        let (in_first, in_second) = if parts.of_table {
            (rows, columns)
        } else {
            (columns, rows)
        };
        let hint = "`r` and `rank_pattern` of adapter_config.json say the rank, the base model the other sizes: the files belong to different models";
        for (part, shape) in [(&first, [rank, in_first]), (&second, [in_second, rank])] {
            part.view().expect_float()?;
            part.view()
                .expect_shape(&shape)
                .map_err(|error| error.hint(hint))?;
        }
        let magnitude = match (&parts.magnitude, uses_magnitude) {
            (None, false) => None,
            (Some(_), true) if parts.of_table => {
                return Err(parts
                    .error(
                        CheckpointErrorKind::UnsupportedAdapter,
                        "`use_dora`: expected a linear layer, found an embedding table".to_owned(),
                    )
                    .hint(crate::adapter::MERGE_WITH_PEFT));
            }
            (Some(magnitude), true) => {
                magnitude.view().expect_float()?;
                magnitude.view().expect_shape(&[rows])?;
                Some(magnitude.clone())
            }
            (found, _) => {
                let found = if found.is_some() { "one" } else { "none" };
                return Err(parts.error(
                    CheckpointErrorKind::Malformed,
                    format!("lora_magnitude_vector: expected one exactly if `use_dora` of adapter_config.json is true, which is {uses_magnitude}, found {found}"),
                ));
            }
        };
        Ok(Self {
            base,
            first,
            second,
            magnitude,
            scale: scale.factor,
            rank,
            of_table: parts.of_table,
        })
    }

    /// What the sum is, under the name of the base's tensor.
    pub(super) fn info(&self, name: &str) -> TensorInfo {
        let base = &self.base.info;
        TensorInfo {
            name: name.to_owned(),
            dtype: DType::F32,
            shape: base.shape.clone(),
            file: base.file.clone(),
            byte_len: base.shape.iter().product::<usize>() * DType::F32.bytes(),
        }
    }

    /// Elements `start..start + out.len()` of the sum, a range within it.
    fn sum_of_range(&self, start: usize, out: &mut [f32]) -> Result<(), CheckpointError> {
        let columns = self.base.info.shape[1];
        if out.is_empty() || columns == 0 {
            return Ok(());
        }
        let rows = start / columns..(start + out.len()).div_ceil(columns);
        let left = self.left(rows.start, rows.len())?;
        let right = self.right(columns)?;
        let mut magnitudes = vec![0.0; rows.len()];
        if let Some(magnitude) = &self.magnitude {
            magnitude
                .view()
                .read_f32_range(rows.start, &mut magnitudes)?;
        }
        let mut base = vec![0.0f32; columns];
        let mut sum = vec![0.0f64; columns];
        for (at, row) in rows.enumerate() {
            self.base.view().read_f32_range(row * columns, &mut base)?;
            for (sum, &base) in sum.iter_mut().zip(&base) {
                *sum = f64::from(base);
            }
            for (&left, right) in left[at * self.rank..][..self.rank]
                .iter()
                .zip(right.chunks_exact(columns))
            {
                let left = self.scale * f64::from(left);
                for (sum, &right) in sum.iter_mut().zip(right) {
                    *sum += left * f64::from(right);
                }
            }
            if self.magnitude.is_some() {
                let length = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
                let factor = f64::from(magnitudes[at]) / length;
                sum.iter_mut().for_each(|value| *value *= factor);
            }
            // The part of the row that was asked for.
            let from = start.max(row * columns);
            let to = (start + out.len()).min((row + 1) * columns);
            for (out, &value) in out[from - start..to - start]
                .iter_mut()
                .zip(&sum[from - row * columns..to - row * columns])
            {
                *out = value as f32;
            }
        }
        Ok(())
    }

    /// `count` rows of L from row `first` on, (count, rank).
    fn left(&self, first: usize, count: usize) -> Result<Vec<f32>, CheckpointError> {
        let mut left = vec![0.0; count * self.rank];
        if !self.of_table {
            self.second
                .view()
                .read_f32_range(first * self.rank, &mut left)?;
            return Ok(left);
        }
        let rows = self.base.info.shape[0];
        let mut column = vec![0.0; count];
        for k in 0..self.rank {
            self.first
                .view()
                .read_f32_range(k * rows + first, &mut column)?;
            for (row, &value) in column.iter().enumerate() {
                left[row * self.rank + k] = value;
            }
        }
        Ok(left)
    }

    /// R, (rank, columns).
    fn right(&self, columns: usize) -> Result<Vec<f32>, CheckpointError> {
        if !self.of_table {
            return self.first.view().to_f32();
        }
        let stored = self.second.view().to_f32()?;
        let mut right = vec![0.0; stored.len()];
        for (column, values) in stored.chunks_exact(self.rank).enumerate() {
            for (k, &value) in values.iter().enumerate() {
                right[k * columns + column] = value;
            }
        }
        Ok(right)
    }
}
