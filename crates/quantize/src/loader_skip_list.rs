//! The linear layers that other loaders must not convert.
//!
//! A loader that reads a 4-bit checkpoint turns every linear layer of the model class it builds into
//! a 4-bit one, except those that the configuration lists. The list therefore has to name what the
//! *model class* may hold, not what the checkpoint holds: a checkpoint of the bare encoder is also
//! loaded as a sequence classifier whose head does not exist yet, and many have no pooler tensors at
//! all although the class builds one.

use std::collections::HashSet;

use fewbit_model::heads::heads_that_loaders_skip;
use fewbit_model::{Catalogue, ModuleKind, experts_of};

use crate::{KeepReason, Selection};

/// Poolers, as they are named beside or inside an encoder. Loaders match an entry as a path from the start up to a dot or as the end of a
/// path, so `pooler.dense` covers `bert.pooler.dense`. `pooler` is there for loaders that look for an entry anywhere in a path.
const POOLERS: [&str; 2] = ["pooler", "pooler.dense"];

/// Module paths, without the model prefix, that stay float.
pub(crate) struct LoaderSkipList {
    of_this_checkpoint: Vec<String>,
    of_an_encoder: bool,
}

impl LoaderSkipList {
    /// Collects the modules of `selection` that stay float, embedding tables apart: poolers, heads and
    /// what the recipe skips. Convolutions need no entry, as loaders look at linear layers alone.
    pub(crate) fn new(catalogue: &Catalogue, selection: &Selection) -> Self {
        let is_table = |name: &str| {
            let module = catalogue.named(name);
            module.is_some_and(|module| module.kind() == ModuleKind::Table)
        };
        // One name for all experts of a layer, as they are one module to loaders.
        let name = |module| experts_of(module).unwrap_or(module);
        let mut of_this_checkpoint: Vec<String> = selection
            .kept
            .iter()
            .filter(|kept| !is_table(&kept.module) && kept.reason != KeepReason::Convolution)
            .map(|kept| name(catalogue.without_prefix(&kept.module)).to_owned())
            .collect();
        let mut seen = HashSet::new();
        of_this_checkpoint.retain(|name| seen.insert(name.clone()));
        Self {
            of_this_checkpoint,
            of_an_encoder: catalogue.is_of_an_encoder(),
        }
    }

    /// The float modules of this checkpoint.
    pub(crate) fn of_this_checkpoint(&self) -> Vec<String> {
        self.of_this_checkpoint.clone()
    }

    /// The float modules of this checkpoint, and the poolers and heads of every model class.
    pub(crate) fn of_every_class(&self) -> Vec<String> {
        let heads = heads_that_loaders_skip(self.of_an_encoder);
        let mut list: Vec<String> = POOLERS
            .into_iter()
            .chain(heads)
            .map(str::to_owned)
            .collect();
        for module in &self.of_this_checkpoint {
            if !list.iter().any(|entry| covers(entry, module)) {
                list.push(module.clone());
            }
        }
        list
    }
}

/// Whether a loader takes `entry` to mean `module`.
fn covers(entry: &str, module: &str) -> bool {
    module == entry
        || module
            .strip_prefix(entry)
            .is_some_and(|rest| rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn an_entry_covers_itself_and_what_is_inside_it() {
        assert!(covers("classifier", "classifier"));
        assert!(covers("classifier", "classifier.out_proj"));
        assert!(!covers("classifier", "classifier2"));
        assert!(!covers("cls", "classifier"));
        assert!(!covers("layer.1", "layer.11"));
    }
}
