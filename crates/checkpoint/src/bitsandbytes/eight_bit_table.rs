//! Embedding tables of 8 bits beside layers of 4 bits.
use crate::weight_layout::{TensorPart, expect_rows, no_place_for};
use crate::{CheckpointError, StoredWeight, TensorPlan, WeightLayout};
use fewbit_numerics::dtype::DType;
use fewbit_numerics::rows::llm_int8_absmax;
use zerocopy::IntoBytes;

/// An embedding table as LLM.int8 stores a layer: `X.weight` of int8 codes, `X.SCB` with the absmax of each row; a value is `code * SCB / 127`.
///
/// No library writes or reads such tables. transformers, which makes no other than float ones, takes codes of the table's own shape for values without
/// an error; so the codes are stored flat, in the shape \[elements, 1\] that packed 4-bit codes have, too, and it refuses the shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EightBitTable;

impl WeightLayout for EightBitTable {
    fn plan(&self, module: &str, shape: [usize; 2]) -> Vec<TensorPlan> {
        let [rows, columns] = shape;
        // A shape beyond the address space has no data; the writer refuses the plan.
        let elements = rows.saturating_mul(columns);
        vec![
            TensorPlan::new(format!("{module}.weight"), DType::I8, [elements, 1]),
            TensorPlan::new(format!("{module}.SCB"), DType::F32, [rows]),
        ]
    }

    fn encode<'a>(
        &self,
        module: &str,
        shape: [usize; 2],
        first_row: usize,
        rows: &'a StoredWeight<'_>,
    ) -> Result<Vec<TensorPart<'a>>, CheckpointError> {
        parts_of(module, shape, first_row, rows)
    }
}

/// The codes of rows, and the absmax of each.
pub(super) fn parts_of<'a>(
    module: &str,
    shape: [usize; 2],
    first_row: usize,
    rows: &'a StoredWeight<'_>,
) -> Result<Vec<TensorPart<'a>>, CheckpointError> {
    let columns = shape[1];
    let (codes, scales) = match rows {
        StoredWeight::Groups {
            codes,
            scales,
            group_size,
            bits: 8,
            ..
        } if *group_size == columns => (codes, scales),
        _ => {
            let expected = format!("weight-only codes of 8 bits in groups of {columns}");
            return Err(no_place_for(rows, module, expected));
        }
    };
    expect_rows(module, shape, first_row, rows, scales.len())?;
    let absmax: Vec<u8> = scales
        .iter()
        .flat_map(|scale| llm_int8_absmax(*scale).to_le_bytes())
        .collect();
    Ok(vec![
        TensorPart {
            name: format!("{module}.weight"),
            offset: first_row * columns,
            bytes: codes.as_bytes().into(),
        },
        TensorPart {
            name: format!("{module}.SCB"),
            offset: first_row * DType::F32.bytes(),
            bytes: absmax.into(),
        },
    ])
}
