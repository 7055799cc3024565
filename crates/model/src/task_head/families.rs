//! The heads of each family, as the model classes of transformers 5.23 have them.
//!
//! A new family is a function here and its line in [`head`]; the first components of new paths belong into [`crate::heads`].

use super::builder::HeadBuilder;
use super::task::Task;
use super::{HeadRows, HeadSpec};
use crate::ModelError;
use crate::architectures;
use fewbit_kernels::Activation;

/// The head that the family's model class for the builder's task has.
pub(super) fn head(head: HeadBuilder<'_>) -> Result<HeadSpec, ModelError> {
    Ok(match head.spec.model_type.as_str() {
        "bert" => bert(head),
        "roberta" | "xlm-roberta" | "camembert" | "mpnet" => roberta(head),
        "distilbert" => distilbert(head),
        "electra" => electra(head),
        "modernbert" => return modernbert(head),
        other => {
            let message =
                format!("expected a family whose task heads fewbit runs, found \"{other}\"");
            let hint = "fewbit gives embeddings of this family, but no logits: `fewbit embed`";
            return Err(head.fields.error("model_type", message, hint));
        }
    })
}

/// What tokens are classified with in most families.
fn of_tokens(head: HeadBuilder<'_>) -> HeadSpec {
    match head.task {
        Task::QuestionAnswering => head.classifier("qa_outputs"),
        _ => head.classifier("classifier"),
    }
}

/// Pooler and classifier.
fn bert(head: HeadBuilder<'_>) -> HeadSpec {
    let (hidden, activation) = (head.spec.hidden_size, head.spec.activation);
    let epsilon = head.spec.layer_norm_epsilon;
    match head.task {
        Task::SequenceClassification => head
            .of(HeadRows::FirstToken)
            .linear_of_encoder("pooler.dense", hidden, Activation::Tanh)
            .classifier("classifier"),
        Task::MaskedLm => head
            .linear("cls.predictions.transform.dense", hidden, activation)
            .norm("cls.predictions.transform.LayerNorm", epsilon, true)
            .decoder(
                "cls.predictions.decoder",
                true,
                Some("cls.predictions.bias"),
            ),
        _ => of_tokens(head),
    }
}

/// Two layers of the head's own; MPNet has the same.
fn roberta(head: HeadBuilder<'_>) -> HeadSpec {
    let (hidden, epsilon) = (head.spec.hidden_size, head.spec.layer_norm_epsilon);
    match head.task {
        Task::SequenceClassification => head
            .of(HeadRows::FirstToken)
            .linear("classifier.dense", hidden, Activation::Tanh)
            .classifier("classifier.out_proj"),
        Task::MaskedLm => head
            .linear("lm_head.dense", hidden, Activation::Gelu)
            .norm("lm_head.layer_norm", epsilon, true)
            .decoder("lm_head.decoder", true, Some("lm_head.bias")),
        _ => of_tokens(head),
    }
}

fn distilbert(head: HeadBuilder<'_>) -> HeadSpec {
    let (hidden, activation) = (head.spec.hidden_size, head.spec.activation);
    match head.task {
        Task::SequenceClassification => head
            .of(HeadRows::FirstToken)
            .linear("pre_classifier", hidden, Activation::Relu)
            .classifier("classifier"),
        Task::MaskedLm => head
            .linear("vocab_transform", hidden, activation)
            .norm("vocab_layer_norm", 1e-12, true)
            .decoder("vocab_projector", true, None),
        _ => of_tokens(head),
    }
}

/// The generator, which predicts words, works in the width of the embeddings; its function is GELU whatever `hidden_act` says.
fn electra(head: HeadBuilder<'_>) -> HeadSpec {
    let (hidden, embedding) = (head.spec.hidden_size, head.spec.embedding_size);
    let epsilon = head.spec.layer_norm_epsilon;
    match head.task {
        Task::SequenceClassification => head
            .of(HeadRows::FirstToken)
            .linear("classifier.dense", hidden, Activation::Gelu)
            .classifier("classifier.out_proj"),
        Task::MaskedLm => head
            .linear("generator_predictions.dense", embedding, Activation::Gelu)
            .norm("generator_predictions.LayerNorm", epsilon, true)
            .decoder("generator_lm_head", true, None),
        _ => of_tokens(head),
    }
}

/// Every task has the same layer and norm before its last layer.
fn modernbert(head: HeadBuilder<'_>) -> Result<HeadSpec, ModelError> {
    let fields = head.fields;
    let activation = architectures::activation(&fields, "classifier_activation")?;
    let rows = match (head.task, fields.string("classifier_pooling", "cls")?) {
        (Task::SequenceClassification, "cls") => HeadRows::FirstToken,
        (Task::SequenceClassification, "mean") => HeadRows::Mean,
        (Task::SequenceClassification, other) => {
            let expected = "expected \"cls\" or \"mean\"";
            return Err(fields.invalid("classifier_pooling", expected, &other.into()));
        }
        _ => HeadRows::EveryToken,
    };
    let (hidden, epsilon) = (head.spec.hidden_size, head.spec.layer_norm_epsilon);
    let (bias, norm_bias) = (
        fields.flag("classifier_bias", false)?,
        head.spec.biases.norm,
    );
    let task = head.task;
    let head = head
        .of(rows)
        .linear_with("head.dense", hidden, bias, activation)
        .norm("head.norm", epsilon, norm_bias);
    Ok(match task {
        Task::MaskedLm => head.decoder("decoder", fields.flag("decoder_bias", true)?, None),
        _ => head.classifier("classifier"),
    })
}
