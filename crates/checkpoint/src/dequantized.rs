//! A quantized checkpoint as the float checkpoint that its codes stand for.
use crate::computed_tensor::{ComputedTensor, Elements, OverlaidTensor};
use crate::read_weight::parts_of_quantized_weights;
use crate::{
    Checkpoint, CheckpointError, CheckpointErrorKind, StoredWeight, TensorInfo, bitsandbytes,
};
use fewbit_numerics::dtype::DType;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

impl Checkpoint {
    /// The same model without quantization: every quantized weight `X` is a float tensor `X.weight`, which is dequantized as it is read
    /// ([`StoredWeight::dequantize`]); its scales and whatever else belongs to its codes, scales of inputs included, are not shown, and
    /// [`config`](Self::config) has no quantization_config. What was 4-bit has the dtype that its quant_state says, all other weights F32.
    /// A float checkpoint is returned as it is.
    ///
    /// Reads no weight. While one is read, its codes are in memory, until it is [released](Self::release).
    ///
    /// # Errors
    /// The shape of a packed weight is malformed or missing; there are codes and no quantization_config that speaks of them.
    ///
    /// ```no_run
    /// use fewbit_checkpoint::Checkpoint;
    ///
    /// let floats = Checkpoint::open("models/minilm-nf4")?.dequantized()?;
    /// let values = floats.require("encoder.layer.0.output.dense.weight")?.to_f32()?;
    /// # Ok::<(), fewbit_checkpoint::CheckpointError>(())
    /// ```
    pub fn dequantized(self) -> Result<Self, CheckpointError> {
        self.dequantized_with_transposed(&BTreeSet::new())
    }

    /// [`dequantized`](Self::dequantized), where the modules `transposed` keep floats as (in, out) and codes as (out, in): of GPT-2's `Conv1D` bitsandbytes makes
    /// linear layers.
    ///
    /// # Errors
    /// The same.
    pub fn dequantized_with_transposed(
        self,
        transposed: &BTreeSet<String>,
    ) -> Result<Self, CheckpointError> {
        if !self.quantization().is_quantized() {
            self.expect_no_codes_without_config()?;
            return Ok(self);
        }
        let source = Arc::new(self);
        let modules: BTreeSet<&str> = source
            .tensors()
            .filter_map(|info| parts_of_quantized_weights(&info.name))
            .collect();
        let mut overlaid = BTreeMap::new();
        let mut hidden = BTreeSet::new();
        for module in modules {
            let Some(mut weight) = DequantizedWeight::new(&source, module)? else {
                continue;
            };
            weight.transposed = transposed.contains(module);
            hidden.extend(source.weight_tensor_names(module));
            let info = weight.info()?;
            let elements = Elements::Computed(Box::new(weight));
            overlaid.insert(info.name.clone(), OverlaidTensor { info, elements });
        }
        // Those of the same name as before keep their place in the order of the file.
        hidden.retain(|name| !overlaid.contains_key(name));
        Ok(source.as_floats(&hidden, overlaid))
    }
}

/// A weight that is stored as codes, read as floats.
#[derive(Debug)]
struct DequantizedWeight {
    source: Arc<Checkpoint>,
    module: String,
    shape: [usize; 2],
    dtype: DType,
    /// Whether floats are (in, out).
    transposed: bool,
    /// What was read of the source, until it is released.
    stored: Mutex<Option<Arc<StoredWeight<'static>>>>,
}

impl DequantizedWeight {
    /// The weight of `module`; none if it has none that is quantized: parts that no layout needs lie beside a float weight.
    fn new(source: &Arc<Checkpoint>, module: &str) -> Result<Option<Self>, CheckpointError> {
        let Some(shape) = source.weight_shape(module)? else {
            return Ok(None);
        };
        let [rows, columns] = shape[..] else {
            return Err(CheckpointError::new(
                CheckpointErrorKind::WrongShape,
                format!("shape of the quantized weight: expected (out, in), found {shape:?}"),
            )
            .in_file(source.weights_file())
            .at_tensor(format!("{module}.weight")));
        };
        Ok(Some(Self {
            source: Arc::clone(source),
            module: module.to_owned(),
            shape: [rows, columns],
            dtype: bitsandbytes::four_bit_dtype(source, module)?.unwrap_or(DType::F32),
            transposed: false,
            stored: Mutex::new(None),
        }))
    }

    fn info(&self) -> Result<TensorInfo, CheckpointError> {
        let names = self.source.weight_tensor_names(&self.module);
        let file = names.first().and_then(|name| self.source.get(name));
        let file = file.map_or_else(|| self.source.weights_file(), |part| part.info.file.clone());
        let [rows, columns] = self.shape;
        let bytes = rows
            .checked_mul(columns)
            .and_then(|elements| elements.checked_mul(self.dtype.bytes()));
        let name = format!("{}.weight", self.module);
        let Some(byte_len) = bytes else {
            return Err(CheckpointError::new(
                CheckpointErrorKind::WrongShape,
                format!("shape {:?}: the number of elements overflows", self.shape),
            )
            .in_file(file)
            .at_tensor(name));
        };
        Ok(TensorInfo {
            name,
            dtype: self.dtype,
            shape: match self.transposed {
                false => vec![rows, columns],
                true => vec![columns, rows],
            },
            file,
            byte_len,
        })
    }

    fn stored(&self) -> Result<Arc<StoredWeight<'static>>, CheckpointError> {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stored) = &*stored {
            return Ok(Arc::clone(stored));
        }
        let read = self.source.stored_weight(&self.module, self.shape)?;
        let read = Arc::new(read.into_owned()?);
        Ok(Arc::clone(stored.insert(read)))
    }
}

impl DequantizedWeight {
    /// Elements of the transpose, from `start` on. Rows are dequantized a few at a time.
    fn read_transposed(&self, start: usize, out: &mut [f32]) -> Result<(), CheckpointError> {
        let [rows, columns] = self.shape;
        let stored = self.stored()?;
        let range = start..start + out.len();
        for first in (0..rows).step_by(ROWS_AT_A_TIME) {
            let some = first..rows.min(first + ROWS_AT_A_TIME);
            let values = dequantize_rows(&stored, some.clone(), columns)?;
            for (row, values) in some.zip(values.chunks_exact(columns)) {
                // The first element of this row that is not before the range.
                let column = range.start.saturating_sub(row).div_ceil(rows);
                let places = (column * rows + row..range.end).step_by(rows);
                for (place, value) in places.zip(&values[column.min(columns)..]) {
                    out[place - range.start] = *value;
                }
            }
        }
        Ok(())
    }
}

/// Rows that are dequantized together where columns are wanted.
const ROWS_AT_A_TIME: usize = 256;

impl ComputedTensor for DequantizedWeight {
    fn read_range(&self, start: usize, out: &mut [f32]) -> Result<(), CheckpointError> {
        let columns = self.shape[1];
        if out.is_empty() || columns == 0 {
            return Ok(());
        }
        if self.transposed {
            return self.read_transposed(start, out);
        }
        let rows = start / columns..(start + out.len()).div_ceil(columns);
        let values = dequantize_rows(&*self.stored()?, rows.clone(), columns)?;
        let first = start - rows.start * columns;
        out.copy_from_slice(&values[first..first + out.len()]);
        Ok(())
    }

    fn release(&self) {
        *self.stored.lock().unwrap_or_else(PoisonError::into_inner) = None;
        for name in self.source.weight_tensor_names(&self.module) {
            self.source.release(&name);
        }
    }

    fn what(&self) -> &'static str {
        "a dequantized weight"
    }

    fn hint_of_non_finite(&self) -> &'static str {
        "a product of a code and its scale is beyond f32: the checkpoint is damaged"
    }
}

fn dequantize_rows(
    stored: &StoredWeight<'_>,
    rows: Range<usize>,
    columns: usize,
) -> Result<Vec<f32>, CheckpointError> {
    let count = rows.len();
    stored.rows(rows, columns)?.dequantize([count, columns])
}
