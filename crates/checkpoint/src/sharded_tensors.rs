//! The files of tensors of an output: written in the background, in any order, each synced when it is whole.
use crate::background_writes::BackgroundWrites;
use crate::kept_shards::KeptShards;
use crate::shard_plan::ShardPlan;
use crate::tensor_file::TensorFile;
use crate::unfinished::CriticalSection;
use crate::{CheckpointError, CheckpointErrorKind};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The files of a plan.
pub(crate) struct ShardedTensors {
    // Stopped before the files that it writes to are forgotten.
    writes: BackgroundWrites,
    files: Vec<Shard>,
    /// Name of a tensor to the number of its file.
    places: HashMap<String, usize>,
    /// Where whole shards go, if they are kept.
    kept: Option<Arc<Mutex<KeptShards>>>,
}

struct Shard {
    file: TensorFile,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// There are bytes to come.
    Open,
    /// Handed over as whole.
    Finished,
    /// Whole before this run began.
    Kept,
}

impl ShardedTensors {
    /// The files of `plan` in `directory`, which errors call `shown`. None is made yet.
    pub(crate) fn new(plan: ShardPlan, directory: &Path, shown: &Path) -> Self {
        let files = plan.files.into_iter().map(|(name, layout)| Shard {
            file: TensorFile::new(directory, &name, shown.join(&name), layout),
            state: State::Open,
        });
        ShardedTensors {
            writes: BackgroundWrites::default(),
            files: files.collect(),
            places: plan.places,
            kept: None,
        }
    }

    /// Number of files.
    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    /// The file that holds a tensor, by its number.
    pub(crate) fn place(&self, tensor: &str) -> Option<usize> {
        self.places.get(tensor).copied()
    }

    /// Bytes of all files.
    pub(crate) fn total_bytes(&self) -> u64 {
        let bytes = self
            .files
            .iter()
            .map(|shard| shard.file.layout().total_bytes());
        bytes.fold(0, u64::saturating_add)
    }

    /// Keeps whole shards in `kept`. The records of those that are there already, by the number of their file.
    pub(crate) fn keep_in(&mut self, kept: KeptShards) -> Vec<Option<Value>> {
        let records = self.files.iter_mut().map(|shard| {
            let record = kept.record(shard.file.name(), shard.file.layout())?;
            shard.state = State::Kept;
            Some(record)
        });
        let records = records.collect();
        self.kept = Some(Arc::new(Mutex::new(kept)));
        records
    }

    /// Where whole shards are kept, if there is one.
    pub(crate) fn kept_directory(&self) -> Option<PathBuf> {
        let kept = self.kept.as_ref()?.lock();
        let kept = kept.unwrap_or_else(PoisonError::into_inner);
        kept.directory().map(Path::to_owned)
    }

    /// Forgets the shards that are kept: they go with `scratch`. Nothing can be written after it.
    pub(crate) fn discard_kept(&mut self, section: &mut CriticalSection<'_>, scratch: &Path) {
        if let Some(kept) = self.kept.take() {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.move_into(section, scratch);
        }
    }

    /// Leaves out the writes that wait.
    pub(crate) fn stop(&mut self) {
        self.writes = BackgroundWrites::default();
    }

    /// Writes a tensor, or with `offset` a part of one.
    pub(crate) fn write(
        &mut self,
        name: &str,
        offset: Option<usize>,
        bytes: Cow<'_, [u8]>,
    ) -> Result<(), CheckpointError> {
        // The first file has the error for a tensor that is not planned.
        let number = self.place(name).unwrap_or(0);
        let Shard { file, state } = &mut self.files[number];
        if *state != State::Open {
            return Err(CheckpointError::new(
                CheckpointErrorKind::Malformed,
                "written after its shard was finished",
            )
            .in_file(file.path())
            .at_tensor(name));
        }
        match offset {
            None => file.write(&mut self.writes, name, bytes),
            Some(offset) => file.write_part(&mut self.writes, name, offset, bytes),
        }
    }

    /// Says that all of a file is written: it is synced while others are written, and kept with `record` where shards are kept.
    ///
    /// # Errors
    /// A tensor of it is not whole; what an earlier write met with.
    pub(crate) fn finish_shard(
        &mut self,
        number: usize,
        record: Value,
        staging: (&Path, &Path),
    ) -> Result<(), CheckpointError> {
        let Shard { file, state } = &mut self.files[number];
        *state = State::Finished;
        let Some(kept) = self.kept.clone() else {
            return file.finish(&mut self.writes, || Ok(()));
        };
        let name = file.name().to_owned();
        let (model, scratch) = (staging.0.to_owned(), staging.1.to_owned());
        file.finish(&mut self.writes, move || {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.keep(&model.join(&name), &name, &record, &scratch)
        })
    }

    /// Finishes all files and waits until the disk has them; those that were kept get a name in `model`.
    ///
    /// # Errors
    /// A tensor is not whole; what a write met with.
    pub(crate) fn finish(&mut self, model: &Path) -> Result<(), CheckpointError> {
        let kept = self.kept.clone();
        for Shard { file, state } in &mut self.files {
            if *state == State::Open {
                *state = State::Finished;
                file.finish(&mut self.writes, || Ok(()))?;
            }
        }
        self.writes.finish()?;
        let Some(kept) = kept else {
            return Ok(());
        };
        let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        for Shard { file, .. } in &self.files {
            if !model.join(file.name()).exists() {
                kept.put_in_place(file.name(), model)?;
            }
        }
        Ok(())
    }

    /// The index of shards, where there is more than one.
    pub(crate) fn index(&self) -> Option<Value> {
        if self.files.len() == 1 {
            return None;
        }
        let bytes = self
            .files
            .iter()
            .map(|shard| shard.file.layout().tensor_bytes());
        let names = self.files.iter().flat_map(|Shard { file, .. }| {
            let names = file.layout().names();
            names.map(|tensor| (tensor.to_owned(), Value::from(file.name())))
        });
        let mut names: Vec<(String, Value)> = names.collect();
        names.sort_by(|a, b| a.0.cmp(&b.0));
        let weight_map: Map<String, Value> = names.into_iter().collect();
        Some(json!({
            "metadata": {"total_size": bytes.sum::<u64>()},
            "weight_map": weight_map,
        }))
    }
}
