//! What a run that goes on from the whole shards of another must know of it: that it would have written the same, and what it found.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::UNIX_EPOCH;
use std::{fs, io};

use fewbit_checkpoint::Checkpoint;
use fewbit_numerics::error_statistics::ErrorStatistics;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::calibration::fingerprint::hexadecimal;
use crate::conversion::Outcome;
use crate::{PlanRow, QuantizeError, QuantizePlan, ShardSize};

/// What the bytes of the shards depend on: the recipe, the tensors of the source and what becomes of each, the files that they lie in (name,
/// length and time of the last change), the size of shards, and the version of fewbit.
///
/// # Errors
/// A file of the source cannot be looked at.
pub(crate) fn run(
    checkpoint: &Checkpoint,
    plan: &QuantizePlan,
    max_shard_size: ShardSize,
) -> Result<Value, QuantizeError> {
    let mut files: BTreeSet<&Path> = checkpoint
        .tensors()
        .map(|info| info.file.as_path())
        .collect();
    if let Some(adapter) = checkpoint.adapter() {
        files.extend([&*adapter.file, &*adapter.weights]);
    }
    let files = files.into_iter().map(source_file);
    let files: Result<Vec<Value>, QuantizeError> = files.collect();
    let mut tensors = Sha256::new();
    for row in plan.rows() {
        tensors.update(format!("{row:?}\n"));
    }
    Ok(json!({
        "fewbit": env!("CARGO_PKG_VERSION"),
        "recipe": plan.recipe().to_toml(),
        "files": files?,
        "tensors": hexadecimal(&tensors.finalize()),
        "max_shard_size": max_shard_size.bytes(),
    }))
}

fn source_file(path: &Path) -> Result<Value, QuantizeError> {
    let failed = |source: io::Error| QuantizeError::Io {
        path: path.to_owned(),
        source,
    };
    let metadata = fs::metadata(path).map_err(failed)?;
    let modified = metadata.modified().map_err(failed)?;
    // Before 1970 the order does not matter, only whether it is the same.
    let modified = match modified.duration_since(UNIX_EPOCH) {
        Ok(since) => since,
        Err(error) => error.duration(),
    };
    Ok(json!({
        "name": path.file_name().map(|name| name.to_string_lossy()),
        "bytes": metadata.len(),
        "modified": format!("{}.{:09}", modified.as_secs(), modified.subsec_nanos()),
    }))
}

/// What was found of the tensors of a shard, to be kept beside it.
#[derive(Debug, Default)]
pub(crate) struct ShardRecord(Map<String, Value>);

impl ShardRecord {
    /// Takes down what was found of the tensor of `row`.
    pub(crate) fn add(&mut self, row: &PlanRow, outcome: &Outcome) {
        let Outcome {
            error,
            underflowed,
            non_finite,
        } = outcome;
        // Text, as JSON has no infinite numbers.
        let error = error.map(|error| figures(&error).map(|figure| figure.to_string()));
        self.0.insert(
            row.tensor.clone(),
            json!({"error": error, "underflowed": underflowed, "non_finite": non_finite}),
        );
    }

    pub(crate) fn into_json(self) -> Value {
        Value::Object(self.0)
    }
}

/// What a record says of the tensor of `row`; none if it says nothing that makes sense.
pub(crate) fn recorded(record: &Value, row: &PlanRow) -> Option<Outcome> {
    let found = record.get(&row.tensor)?;
    let error = match &found["error"] {
        Value::Null => None,
        figures => {
            let figures = figures.as_array()?.iter();
            let figures: Option<Vec<f64>> =
                figures.map(|text| text.as_str()?.parse().ok()).collect();
            let &[sqnr_db, cosine, mean_absolute, max_absolute, rmse] = &figures?[..] else {
                return None;
            };
            Some(ErrorStatistics {
                sqnr_db,
                cosine,
                mean_absolute,
                max_absolute,
                rmse,
            })
        }
    };
    Some(Outcome {
        error,
        underflowed: usize::try_from(found["underflowed"].as_u64()?).ok()?,
        non_finite: found["non_finite"].as_str().map(str::to_owned),
    })
}

fn figures(error: &ErrorStatistics) -> [f64; 5] {
    [
        error.sqnr_db,
        error.cosine,
        error.mean_absolute,
        error.max_absolute,
        error.rmse,
    ]
}
