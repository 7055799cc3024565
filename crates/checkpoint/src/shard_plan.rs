//! Which tensors of an output lie in which file.
use crate::shards::SINGLE_FILE;
use crate::tensor_file::TensorLayout;
use crate::{CheckpointError, CheckpointErrorKind, TensorPlan};
use std::collections::HashMap;

/// The files of an output, laid out.
pub(crate) struct ShardPlan {
    /// Name and layout of each, in order.
    pub(crate) files: Vec<(String, TensorLayout)>,
    /// Name of a tensor to the number of its file.
    pub(crate) places: HashMap<String, usize>,
}

impl ShardPlan {
    /// Puts `groups` into as few files as take them in this order, none with more than `most_bytes` of tensors unless one group has more. A group
    /// lies in one file, and so does a tensor.
    ///
    /// # Errors
    /// Two tensors of one name, or sizes that overflow.
    pub(crate) fn new(
        groups: Vec<Vec<TensorPlan>>,
        most_bytes: u64,
    ) -> Result<Self, CheckpointError> {
        let shards = cut(groups, most_bytes);
        let total = shards.len();
        let mut plan = ShardPlan {
            files: Vec::with_capacity(total),
            places: HashMap::new(),
        };
        for (index, tensors) in shards.into_iter().enumerate() {
            let name = file_name(index, total);
            for tensor in &tensors {
                let other = plan.places.insert(tensor.name.clone(), index);
                if other.is_some_and(|other| other != index) {
                    return Err(CheckpointError::new(
                        CheckpointErrorKind::Malformed,
                        "planned twice",
                    )
                    .in_file(name)
                    .at_tensor(&tensor.name));
                }
            }
            let layout = TensorLayout::new(tensors).map_err(|error| error.in_file(&name))?;
            plan.files.push((name, layout));
        }
        Ok(plan)
    }

    /// Bytes of all files.
    pub(crate) fn total_bytes(&self) -> u64 {
        let bytes = self.files.iter().map(|(_, layout)| layout.total_bytes());
        bytes.fold(0, u64::saturating_add)
    }
}

/// At least one, which may be empty.
fn cut(groups: Vec<Vec<TensorPlan>>, most_bytes: u64) -> Vec<Vec<TensorPlan>> {
    let mut shards = vec![Vec::new()];
    let mut filled = 0u64;
    for group in groups {
        let bytes = group.iter().map(|tensor| tensor.byte_len() as u64);
        let bytes = bytes.fold(0, u64::saturating_add);
        let last = shards.last().expect("there is one from the start");
        if !last.is_empty() && filled.saturating_add(bytes) > most_bytes {
            shards.push(Vec::new());
            filled = 0;
        }
        filled = filled.saturating_add(bytes);
        let last = shards.last_mut().expect("there is one from the start");
        last.extend(group);
    }
    shards
}

/// The name of file number `index` of `total`, as transformers has them.
pub(crate) fn file_name(index: usize, total: usize) -> String {
    match total {
        1 => SINGLE_FILE.to_owned(),
        _ => format!("model-{:05}-of-{total:05}.safetensors", index + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fewbit_numerics::dtype::DType;

    fn group(sizes: &[usize]) -> Vec<TensorPlan> {
        let plan = |&size: &usize| TensorPlan::new(format!("t{size}"), DType::U8, [size]);
        sizes.iter().map(plan).collect()
    }

    #[test]
    fn groups_fill_files_in_order_and_are_never_cut() {
        let sizes = |groups: &[&[usize]], most| -> Vec<Vec<usize>> {
            let groups = groups.iter().map(|sizes| group(sizes)).collect();
            let lengths = |shard: Vec<TensorPlan>| shard.iter().map(|t| t.byte_len()).collect();
            cut(groups, most).into_iter().map(lengths).collect()
        };
        assert_eq!(sizes(&[], 10), [[0usize; 0]; 1]);
        assert_eq!(sizes(&[&[4, 2], &[3, 1]], 10), [[4, 2, 3, 1]]);
        assert_eq!(sizes(&[&[4, 2], &[3, 1]], 9), [[4, 2], [3, 1]]);
        // One that is too large has a file of its own, and what follows it does, too.
        assert_eq!(
            sizes(&[&[1], &[20, 5], &[2]], 10),
            [vec![1], vec![20, 5], vec![2]]
        );
        // Small ones do not go back to a file that has room.
        assert_eq!(
            sizes(&[&[6], &[7], &[2], &[1]], 9),
            [vec![6], vec![7, 2], vec![1]]
        );
        assert_eq!(sizes(&[&[1], &[0], &[2]], 0), [vec![1], vec![0], vec![2]]);
    }

    #[test]
    fn names_are_those_of_transformers() {
        assert_eq!(file_name(0, 1), "model.safetensors");
        assert_eq!(file_name(0, 2), "model-00001-of-00002.safetensors");
        assert_eq!(file_name(11, 123), "model-00012-of-00123.safetensors");
    }

    #[test]
    fn a_tensor_of_two_files_is_refused() {
        let groups = vec![group(&[8]), group(&[8])];
        let error = ShardPlan::new(groups.clone(), 8).map(|_| ()).unwrap_err();
        insta::assert_snapshot!(error, @"model-00002-of-00002.safetensors: tensor `t8`: planned twice");
        let error = ShardPlan::new(groups, 80).map(|_| ()).unwrap_err();
        insta::assert_snapshot!(error, @"model.safetensors: tensor `t8`: planned twice");
        let huge = vec![TensorPlan::new("w", DType::F64, [usize::MAX, 9])];
        let error = ShardPlan::new(vec![huge], 8).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("overflows"), "{error}");
    }
}
