//! Which form [`EmbeddingStorage::Auto`] stands for, and heads that predict words and share the word embedding table.
//!
//! Where the table is to be int8, transformers leaves the shared matrix in codes and cannot multiply with it.

use fewbit_checkpoint::{Checkpoint, TensorInfo};
use fewbit_model::Catalogue;
use fewbit_model::heads::{shares_word_embeddings, ties_word_embeddings};

use crate::{EmbeddingStorage, QuantizeError, Recipe};

/// `recipe` with the form of embeddings that its default stands for with this model.
pub(crate) fn with_decided_embeddings(
    checkpoint: &Checkpoint,
    catalogue: &Catalogue,
    recipe: &Recipe,
) -> Recipe {
    if recipe.embeddings() != EmbeddingStorage::Auto {
        return recipe.clone();
    }
    let is_for_it = recipe
        .integer()
        .is_some_and(|options| !options.keeps_embeddings_by_default());
    let is_known = catalogue.is_of_an_encoder() && catalogue.word_embeddings().is_some();
    let int8 = recipe.clone().with_embeddings(EmbeddingStorage::Int8);
    if is_for_it
        && is_known
        && !is_head_of_a_decoder(checkpoint)
        && !needs_shared_embeddings(checkpoint, &int8)
    {
        return int8;
    }
    recipe.clone().with_embeddings(EmbeddingStorage::Keep)
}

/// Whether the model's class is a decoder's, whose head is the table: nothing in the file tells of it.
fn is_head_of_a_decoder(checkpoint: &Checkpoint) -> bool {
    let config = checkpoint.config();
    let classes = config["architectures"].as_array().into_iter().flatten();
    let mut names = classes.filter_map(|class| class.as_str());
    ties_word_embeddings(config) && names.any(|name| name.ends_with("ForCausalLM"))
}

/// Whether `recipe` asks for float embeddings although its method has no others by default with this model: it makes what the default makes.
pub fn is_another_name_of_the_default(
    checkpoint: &Checkpoint,
    catalogue: &Catalogue,
    recipe: &Recipe,
) -> bool {
    if recipe.integer().is_none() || recipe.embeddings() != EmbeddingStorage::Keep {
        return false;
    }
    let default = recipe.clone().with_embeddings(EmbeddingStorage::Auto);
    with_decided_embeddings(checkpoint, catalogue, &default).embeddings() == EmbeddingStorage::Keep
}

/// Whether the codes of word embeddings that `recipe` asks for are out, because a head of the checkpoint shares their table. Such a recipe is an error of
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
    if !(tied && recipe.embeddings().is_quantized()) {
        return None;
    }
    checkpoint
        .tensors()
        .find(|info| shares_word_embeddings(&info.name))
}
