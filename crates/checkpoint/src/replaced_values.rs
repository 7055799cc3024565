//! A checkpoint whose float tensors have other values than its files: those of a training that goes on in memory.
use crate::computed_tensor::{ComputedTensor, Elements, OverlaidTensor};
use crate::{Checkpoint, CheckpointError, CheckpointErrorKind, TensorInfo};
use fewbit_numerics::dtype::DType;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Checkpoint {
    /// The same float checkpoint with `values` in the place of those of its tensors of these names, row-major and as F32 whatever they were.
    ///
    /// # Errors
    /// There is no such tensor, or it has another number of elements; the checkpoint is quantized.
    ///
    /// ```no_run
    /// use fewbit_checkpoint::Checkpoint;
    /// use std::collections::BTreeMap;
    ///
    /// let values = BTreeMap::from([("pooler.dense.bias".to_owned(), vec![0.0; 384].into())]);
    /// let changed = Checkpoint::open("models/minilm")?.with_values(values)?;
    /// assert_eq!(changed.require("pooler.dense.bias")?.to_f32()?, [0.0; 384]);
    /// # Ok::<(), fewbit_checkpoint::CheckpointError>(())
    /// ```
    pub fn with_values(
        mut self,
        values: BTreeMap<String, Arc<[f32]>>,
    ) -> Result<Self, CheckpointError> {
        if self.quantization().is_quantized() {
            return Err(CheckpointError::new(
                CheckpointErrorKind::WrongDType,
                "expected a float checkpoint, found a quantized one",
            )
            .in_file(self.config_file()));
        }
        for (name, values) in values {
            let info = self.require(&name)?.info.clone();
            let elements: usize = info.shape.iter().product();
            if elements != values.len() {
                return Err(CheckpointError::new(
                    CheckpointErrorKind::WrongShape,
                    format!(
                        "expected {elements} values for the shape {:?}, found {}",
                        info.shape,
                        values.len()
                    ),
                )
                .in_file(info.file)
                .at_tensor(name));
            }
            let info = TensorInfo {
                dtype: DType::F32,
                byte_len: size_of_val(&*values),
                ..info
            };
            let elements = Elements::Computed(Box::new(GivenValues(values)));
            self.overlay(OverlaidTensor { info, elements });
        }
        Ok(self)
    }
}

/// Values in memory.
#[derive(Debug)]
struct GivenValues(Arc<[f32]>);

impl ComputedTensor for GivenValues {
    fn read_range(&self, start: usize, out: &mut [f32]) -> Result<(), CheckpointError> {
        out.copy_from_slice(&self.0[start..start + out.len()]);
        Ok(())
    }

    fn release(&self) {}

    fn what(&self) -> &'static str {
        "a trained tensor"
    }

    fn hint_of_non_finite(&self) -> &'static str {
        "training diverged: train with a lower learning rate"
    }
}
