//! Codes and scales that were chosen elsewhere, by training: a conversion writes them as they are.

use std::collections::BTreeMap;

use fewbit_checkpoint::StoredWeight;
use fewbit_numerics::finite::first_non_finite;
use fewbit_numerics::int4_groups::Int4Groups;
use fewbit_numerics::rows::Int8Rows;

use crate::plan_row::EMBEDDING_SCHEME;
use crate::{PlanRow, QuantizeError, QuantizePlan, TensorAction};

/// The codes of one weight.
#[derive(Debug, Clone, PartialEq)]
pub enum GivenCodes {
    /// One scale for each row.
    Int8(Int8Rows),
    /// One scale, and perhaps a zero point, for each group of columns.
    Int4(Int4Groups),
}

impl GivenCodes {
    /// The weight that the row's layout takes; none if its action makes codes of another form.
    pub(crate) fn stored_weight(&self, action: &TensorAction) -> Option<StoredWeight<'static>> {
        match (self, action) {
            (Self::Int8(rows), TensorAction::Int8Linear(scheme)) => {
                Some(scheme.stored_weight(rows.clone()))
            }
            (Self::Int8(rows), TensorAction::Int8Embedding) => {
                Some(EMBEDDING_SCHEME.stored_weight(rows.clone()))
            }
            (Self::Int4(groups), TensorAction::Int4Linear { layout, .. })
                if layout.group_size_of(groups.columns) == groups.group_size
                    && layout.is_asymmetric() == groups.zero_points.is_some() =>
            {
                Some(layout.stored_weight(groups.clone()))
            }
            _ => None,
        }
    }

    /// (out, in)
    fn shape(&self) -> [usize; 2] {
        match self {
            Self::Int8(rows) => [rows.rows, rows.columns],
            Self::Int4(groups) => [groups.rows, groups.columns],
        }
    }

    fn scales(&self) -> &[f32] {
        match self {
            Self::Int8(rows) => &rows.scales,
            Self::Int4(groups) => &groups.scales,
        }
    }
}

/// Errors unless every module of `codes` is one that `plan` makes such codes of.
pub(crate) fn check(
    plan: &QuantizePlan,
    codes: &BTreeMap<String, GivenCodes>,
) -> Result<(), QuantizeError> {
    for (module, given) in codes {
        let is_of = |row: &&PlanRow| row.module.as_deref() == Some(module);
        let row = plan.rows().iter().find(is_of).ok_or_else(|| {
            error(
                format!("modules of this model, found `{module}`"),
                "none of that name".to_owned(),
            )
        })?;
        let stored = given.stored_weight(&row.action).ok_or_else(|| {
            error(
                format!("{module}: codes for a tensor to {}", row.action),
                match given {
                    GivenCodes::Int8(_) => "int8 codes of rows".to_owned(),
                    GivenCodes::Int4(groups) => {
                        format!("int4 codes of groups of {}", groups.group_size)
                    }
                },
            )
        })?;
        if given.shape()[..] != row.shape[..] {
            let expected = format!("{module}: codes of the shape {:?}", row.shape);
            return Err(error(expected, format!("{:?}", given.shape())));
        }
        stored.expect_shape(given.shape())?;
        let scales = given.scales();
        if let Some((index, scale)) = first_non_finite(scales) {
            let expected = format!("{module}: finite scales");
            return Err(error(expected, format!("{scale} as scale {index}")));
        }
        if let Some(index) = scales.iter().position(|scale| !scale.is_normal()) {
            let expected = format!("{module}: scales that are normal numbers");
            return Err(error(
                expected,
                format!("{} as scale {index}", scales[index]),
            ));
        }
    }
    Ok(())
}

fn error(expected: String, found: String) -> QuantizeError {
    QuantizeError::Recipe {
        origin: "codes".to_owned(),
        field: "weights",
        expected,
        found,
        hint: "codes are those of the model that the recipe is for".to_owned(),
    }
}
