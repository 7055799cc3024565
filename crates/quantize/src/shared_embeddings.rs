//! Heads that predict words and share the word embedding table.
//!
//! Where the table is to be int8, transformers leaves the shared matrix in codes and cannot multiply with it.

use fewbit_checkpoint::{Checkpoint, TensorInfo};
use fewbit_model::heads::{shares_word_embeddings, ties_word_embeddings};

use crate::{QuantizeError, Recipe};

/// Whether int8 word embeddings of `recipe` are out, because a head of the checkpoint shares their table. Such a recipe is an error of
/// [`QuantizePlan::new`](crate::QuantizePlan::new).
pub fn needs_shared_embeddings(checkpoint: &Checkpoint, recipe: &Recipe) -> bool {
    head_in_the_way(checkpoint, recipe).is_some()
}

/// The error where that is so.
pub(crate) fn refuse_shared_embeddings(
    checkpoint: &Checkpoint,
    recipe: &Recipe,
) -> Result<(), QuantizeError> {
    match head_in_the_way(checkpoint, recipe) {
        Some(head) => Err(QuantizeError::TiedEmbeddings {
            file: head.file.clone(),
            tensor: head.name.clone(),
        }),
        None => Ok(()),
    }
}

/// A tensor of the head.
fn head_in_the_way<'a>(checkpoint: &'a Checkpoint, recipe: &Recipe) -> Option<&'a TensorInfo> {
    let tied = ties_word_embeddings(checkpoint.config());
    if !(tied && recipe.quantize_embeddings()) {
        return None;
    }
    checkpoint
        .tensors()
        .find(|info| shares_word_embeddings(&info.name))
}
