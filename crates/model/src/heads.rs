//! Task heads: what the model classes of transformers have beside an encoder or a decoder.
//!
//! The one list of their names: for where it is said what a tensor is, where weights are chosen by their names, and where other loaders are told
//! what stays float. What the heads that fewbit runs compute is in [`crate::task_head`], whose paths begin with these names.

use serde_json::Value;

/// A head, or a module of one.
struct Head {
    /// First component of its path.
    name: &'static str,
    /// Models that have it under this name. The same word can mean something else in other models: T5's `decoder` is no head.
    of: Models,
    /// Models whose loaders are told that it stays float, whether a checkpoint has tensors of it or not.
    skipped_in: Option<Models>,
    /// What its tensors begin with where it predicts words with the matrix of the word embedding table.
    shares_word_embeddings: Option<&'static str>,
}

/// Which models.
#[derive(Clone, Copy, PartialEq)]
enum Models {
    /// Encoders that fewbit runs.
    Encoders,
    /// Models that are known by the names of their tensors.
    Others,
    Both,
}

impl Models {
    fn include(self, of_an_encoder: bool) -> bool {
        match self {
            Self::Encoders => of_an_encoder,
            Self::Others => !of_an_encoder,
            Self::Both => true,
        }
    }
}

impl Head {
    /// Of encoders alone; loaders of other models are told of it, too, as the name can be nothing else there.
    const fn of_encoders(name: &'static str) -> Self {
        Self {
            of: Models::Encoders,
            ..Self::of_all(name)
        }
    }

    const fn of_all(name: &'static str) -> Self {
        Self {
            name,
            of: Models::Both,
            skipped_in: Some(Models::Both),
            shares_word_embeddings: None,
        }
    }

    const fn of_others(name: &'static str) -> Self {
        Self {
            of: Models::Others,
            skipped_in: Some(Models::Others),
            ..Self::of_all(name)
        }
    }

    const fn sharing(self, start: &'static str) -> Self {
        Self {
            shares_word_embeddings: Some(start),
            ..self
        }
    }

    /// Loaders of other models, in which the name can be something else, are told of it only where a checkpoint has it.
    const fn skipped_in_encoders(self) -> Self {
        Self {
            skipped_in: Some(Models::Encoders),
            ..self
        }
    }

    /// Loaders are told of it only where a checkpoint has it.
    const fn not_skipped(self) -> Self {
        Self {
            skipped_in: None,
            ..self
        }
    }
}

const HEADS: [Head; 25] = [
    Head::of_all("classifier"),
    Head::of_all("pre_classifier"),
    Head::of_all("cls").sharing("cls.predictions."),
    Head::of_all("lm_head").sharing("lm_head."),
    Head::of_all("qa_outputs"),
    Head::of_encoders("discriminator_predictions"),
    Head::of_encoders("generator_predictions").sharing("generator_predictions."),
    Head::of_encoders("generator_lm_head").sharing("generator_lm_head."),
    Head::of_encoders("vocab_transform").sharing("vocab_transform."),
    Head::of_all("vocab_projector").sharing("vocab_projector."),
    Head::of_encoders("sequence_summary"),
    Head::of_all("score"),
    Head::of_others("embed_out"),
    Head::of_others("proj_out"),
    Head::of_encoders("decoder")
        .sharing("decoder.bias")
        .skipped_in_encoders(),
    Head::of_encoders("head").skipped_in_encoders(),
    Head::of_encoders("predictions")
        .sharing("predictions.")
        .skipped_in_encoders(),
    // Loaders take a name for the end of a path, too, and layers of most encoders are called so.
    Head::of_encoders("dense").not_skipped(),
    Head::of_encoders("sop_classifier").skipped_in_encoders(),
    Head::of_encoders("lm_predictions")
        .sharing("lm_predictions.")
        .skipped_in_encoders(),
    Head::of_encoders("mask_predictions").skipped_in_encoders(),
    Head::of_encoders("vocab_layer_norm").not_skipped(),
    Head::of_others("multi_modal_projector").not_skipped(),
    Head::of_others("text_projection").not_skipped(),
    Head::of_others("visual_projection").not_skipped(),
];

/// Whether a path that begins with `component` is in a head: of an encoder that fewbit runs, or of another model, whose heads may also lie deeper.
pub(crate) fn is_head(component: &str, of_an_encoder: bool) -> bool {
    HEADS
        .iter()
        .any(|head| head.name == component && head.of.include(of_an_encoder))
}

/// First components of the heads that loaders are told to leave float, whether a checkpoint has them or not: model classes make them.
///
/// ```
/// let heads: Vec<_> = fewbit_model::heads::heads_that_loaders_skip(true).collect();
/// assert!(heads.contains(&"classifier") && !heads.contains(&"proj_out"));
/// ```
pub fn heads_that_loaders_skip(of_an_encoder: bool) -> impl Iterator<Item = &'static str> {
    let is_skipped = move |head: &&Head| {
        head.skipped_in
            .is_some_and(|models| models.include(of_an_encoder))
    };
    HEADS.iter().filter(is_skipped).map(|head| head.name)
}

/// Whether a head that predicts words shares the word embedding table: config.json's `tie_word_embeddings`, whose default depends on the family.
///
/// ```
/// use serde_json::json;
/// assert!(fewbit_model::heads::ties_word_embeddings(&json!({"model_type": "bert"})));
/// assert!(!fewbit_model::heads::ties_word_embeddings(&json!({"model_type": "eurobert"})));
/// ```
pub fn ties_word_embeddings(config: &Value) -> bool {
    const UNTIED: [&str; 5] = ["eurobert", "llama", "mistral", "qwen2", "qwen3"];
    let said = config["tie_word_embeddings"].as_bool();
    said.unwrap_or_else(|| {
        let model_type = config["model_type"].as_str();
        model_type.is_none_or(|model_type| !UNTIED.contains(&model_type))
    })
}

/// Whether `tensor` is of a head that predicts words with the word embedding table, where [`ties_word_embeddings`].
pub fn shares_word_embeddings(tensor: &str) -> bool {
    HEADS.iter().any(|head| {
        head.shares_word_embeddings
            .is_some_and(|start| tensor.starts_with(start))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_can_be_a_head_in_some_models_only() {
        assert!(is_head("decoder", true) && !is_head("decoder", false));
        assert!(is_head("proj_out", false) && !is_head("proj_out", true));
        assert!(is_head("lm_head", true) && is_head("lm_head", false));
        assert!(!is_head("encoder", true));
    }

    #[test]
    fn heads_that_share_the_word_embeddings() {
        assert!(shares_word_embeddings("cls.predictions.bias"));
        assert!(!shares_word_embeddings("cls.seq_relationship.bias"));
        assert!(!shares_word_embeddings("classifier.weight"));
        assert!(
            shares_word_embeddings("decoder.bias") && !shares_word_embeddings("decoder.weight")
        );
    }
}
