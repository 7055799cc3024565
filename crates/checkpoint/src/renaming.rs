//! Tensors under other names than those of their files, fused ones as their parts.
use crate::shards::Shards;
use crate::weights_file::WeightsFile;
use crate::{CheckpointError, CheckpointErrorKind, MappedTensor, TensorInfo};
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;

/// A tensor of a file that [`Checkpoint::open_renamed`](crate::Checkpoint::open_renamed) shows under another name, or as parts under
/// several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RenamedTensor {
    /// Its name in the file.
    pub stored: String,
    /// The names of the equal parts of its rows, in their order; one name is that of the whole.
    pub names: Vec<String>,
}

impl fmt::Display for RenamedTensor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}` of the files is ", self.stored)?;
        for (index, name) in self.names.iter().enumerate() {
            let between = match index {
                0 => "",
                _ if index + 1 == self.names.len() => " and ",
                _ => ", ",
            };
            write!(formatter, "{between}`{name}`")?;
        }
        Ok(())
    }
}

impl RenamedTensor {
    /// Of several, the first with the most parts, which as an example says most.
    pub fn example(renamed: &[Self]) -> Option<&Self> {
        renamed
            .iter()
            .min_by_key(|tensor| Reverse(tensor.names.len()))
    }
}

impl Shards {
    /// The same tensors in the same order, under these names.
    pub(crate) fn renamed(self, renamed: &[RenamedTensor]) -> Result<Self, CheckpointError> {
        let names: HashMap<&str, &[String]> = renamed
            .iter()
            .map(|tensor| (tensor.stored.as_str(), tensor.names.as_slice()))
            .collect();
        let Shards { files, places } = self;
        let mut renamed = Shards {
            files: Vec::with_capacity(files.len()),
            places: HashMap::with_capacity(places.len()),
        };
        for (number, file) in files.iter().enumerate() {
            let (mut tensors, mut data) = (Vec::new(), Vec::new());
            for (at, stored) in file.tensors().iter().enumerate() {
                // What the index says is in another shard.
                if places.get(&stored.name) != Some(&(number, at)) {
                    continue;
                }
                let as_it_is = std::slice::from_ref(&stored.name);
                let names = names.get(stored.name.as_str()).copied();
                let mapped = file.mapped(at);
                for (info, part) in parts(stored, &mapped, names.unwrap_or(as_it_is))? {
                    let place = (number, tensors.len());
                    if renamed.places.insert(info.name.clone(), place).is_some() {
                        return Err(shared_name(stored, &info.name));
                    }
                    tensors.push(info);
                    data.push(part);
                }
            }
            renamed.files.push(WeightsFile::new(tensors, data));
        }
        Ok(renamed)
    }
}

/// The equal parts of the rows of a tensor, under these names.
fn parts(
    stored: &TensorInfo,
    data: &MappedTensor,
    names: &[String],
) -> Result<Vec<(TensorInfo, MappedTensor)>, CheckpointError> {
    let mut shape = stored.shape.clone();
    if names.len() > 1 {
        match shape.first_mut() {
            Some(rows) if rows.is_multiple_of(names.len()) => *rows /= names.len(),
            _ => return Err(uneven(stored, names)),
        }
    }
    let bytes = stored.byte_len / names.len().max(1);
    let part = |(index, name): (usize, &String)| {
        let info = TensorInfo {
            name: name.clone(),
            shape: shape.clone(),
            byte_len: bytes,
            ..stored.clone()
        };
        (info, data.part(index * bytes..(index + 1) * bytes))
    };
    Ok(names.iter().enumerate().map(part).collect())
}

fn uneven(stored: &TensorInfo, names: &[String]) -> CheckpointError {
    CheckpointError::new(
        CheckpointErrorKind::WrongShape,
        format!(
            "shape: expected rows that are {} equal parts ({}), found {:?}",
            names.len(),
            names.join(", "),
            stored.shape
        ),
    )
    .in_file(&stored.file)
    .at_tensor(&stored.name)
    .hint("config.json and the weights may belong to different models")
}

fn shared_name(stored: &TensorInfo, name: &str) -> CheckpointError {
    CheckpointError::new(
        CheckpointErrorKind::Malformed,
        format!("expected to be the only tensor that is read as `{name}`, found another"),
    )
    .in_file(&stored.file)
    .at_tensor(&stored.name)
    .hint("the file has tensors of one module under two names: keep those of one")
}
