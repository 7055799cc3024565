//! A model directory with codes that training chose.

use crate::error::{exception, to_json};
use crate::run::run;
use fewbit::numerics::int4_groups::Int4Groups;
use fewbit::numerics::rows::Int8Rows;
use fewbit::quantize::{GivenCodes, OutputOptions, PlannedConversion, Recipe, weight_codecs};
use numpy::{PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Codes (rows, columns), scales (rows, groups), zero points (rows, groups) of asymmetric groups, and their bits: 4, or 8 with one group a row.
#[derive(FromPyObject)]
pub(crate) struct Codes<'py>(
    PyReadonlyArray2<'py, i8>,
    PyReadonlyArray2<'py, f32>,
    Option<PyReadonlyArray2<'py, i8>>,
    u32,
);

impl Codes<'_> {
    fn given(&self) -> PyResult<GivenCodes> {
        let Self(codes, scales, zero_points, bits) = self;
        let &[rows, columns] = codes.shape() else {
            unreachable!("an array of two axes")
        };
        let group_size = columns / scales.shape()[1].max(1);
        let codes = codes.as_slice()?.to_vec();
        let scales = scales.as_slice()?.to_vec();
        Ok(match bits {
            8 => GivenCodes::Int8(Int8Rows {
                rows,
                columns,
                codes,
                scales,
            }),
            _ => GivenCodes::Int4(Int4Groups {
                rows,
                columns,
                group_size,
                codes,
                scales,
                zero_points: match zero_points {
                    Some(points) => Some(points.as_slice()?.to_vec()),
                    None => None,
                },
            }),
        })
    }
}

/// Writes what `recipe`, in JSON, makes of a directory, with these codes for the modules of these names. The answer is the report as JSON.
#[pyfunction]
#[pyo3(signature = (directory, out, recipe, codes, *, threads))]
pub(crate) fn convert_with_codes(
    py: Python<'_>,
    directory: PathBuf,
    out: PathBuf,
    recipe: &str,
    codes: Vec<(String, Codes<'_>)>,
    threads: usize,
) -> PyResult<String> {
    let mut given = BTreeMap::new();
    for (module, codes) in &codes {
        given.insert(module.clone(), codes.given()?);
    }
    let recipe = Recipe::from_json(recipe).map_err(exception)?;
    run(py, || {
        weight_codecs::set_threads(threads);
        let conversion = PlannedConversion::new(&directory, &recipe)?.with_codes(given)?;
        let options = OutputOptions::default();
        let report = conversion.write(None, &out, &options, &mut |_, _, _| {})?;
        Ok::<_, fewbit::QuantizeError>(to_json(&report))
    })
}
