//! Source and output of a conversion must be apart: replacing the output would else delete the source, and the next conversion would
//! carry the output over as a part of the model.

use std::path::{Path, PathBuf};

use crate::QuantizeError;

/// Checks that neither directory is, or lies in, the other.
///
/// # Errors
/// One does.
pub(crate) fn refuse_overlap(source: &Path, out: &Path) -> Result<(), QuantizeError> {
    let (Some(real_source), Some(real_out)) = (real_path(source), real_path(out)) else {
        return Ok(());
    };
    let relation = if real_out == real_source {
        "is the source"
    } else if real_out.starts_with(&real_source) {
        "lies in it"
    } else if real_source.starts_with(&real_out) {
        "contains it"
    } else {
        return Ok(());
    };
    Err(QuantizeError::OutputOverlapsSource {
        output: out.to_owned(),
        source_directory: source.to_owned(),
        relation,
    })
}

/// The path without symbolic links; the part of it that does not exist yet is appended as it is.
fn real_path(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    absolute.ancestors().find_map(|ancestor| {
        let real = ancestor.canonicalize().ok()?;
        let rest = absolute.strip_prefix(ancestor).ok()?;
        Some(real.join(rest))
    })
}
