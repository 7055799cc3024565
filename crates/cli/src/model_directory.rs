//! The directory of the model that a command was given.

use crate::failure::UsageError;
use crate::streams;
use anyhow::Result;
use fewbit::checkpoint::hub::{self, HubSettings};
use std::path::PathBuf;

/// The directory of a model, downloaded first where it is a Hub id.
pub(crate) fn resolve(model: &str) -> Result<PathBuf> {
    if model.trim().is_empty() {
        return Err(UsageError(
            "MODEL is empty\n  hint: name a model directory or a Hub id".to_owned(),
        )
        .into());
    }
    let mut settings = HubSettings::from_environment();
    settings.progress &= !streams::is_quiet();
    let directory = hub::resolve_with(model, &settings)?;
    tracing::info!(model, directory = %directory.display(), "model found");
    Ok(directory)
}

/// Warns of layers that the files hold and config.json does not ask for: they are not run.
pub(crate) fn warn_of_unused_layers(layers: usize, stored: usize) {
    if stored > layers {
        streams::warn(&format!(
            "the files hold {stored} layers, config.json asks for {layers}: the others are not used"
        ));
    }
}
