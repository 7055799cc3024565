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
        "roberta" | "xlm-roberta" | "camembert" | "mpnet" | "jina_embeddings_v3" => roberta(head),
        "albert" => albert(head),
        "deberta" | "deberta-v2" => return deberta(head),
        "distilbert" => distilbert(head),
        "electra" => electra(head),
        "modernbert" => return modernbert(head),
        "eurobert" => return eurobert(head),
        "gte" | "new" => return gte(head),
        "nomic_bert" => nomic_bert(head),
        "gemma3_text" | "llama" | "mistral" | "qwen2" | "qwen3" => return decoder(head),
        other => {
            let message =
                format!("expected a family whose task heads are known, found \"{other}\"");
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

/// A pooler of the encoder, and a layer.
fn after_pooler(head: HeadBuilder<'_>, pooler: &str) -> HeadSpec {
    let hidden = head.spec.hidden_size;
    head.of(HeadRows::FirstToken)
        .linear_of_encoder(pooler, hidden, Activation::Tanh)
        .classifier("classifier")
}

/// A linear layer of `columns`, LayerNorm of the same name's kin, and the decoder: `paths` are theirs, and that of the bias that it shares.
fn of_words(
    head: HeadBuilder<'_>,
    columns: usize,
    activation: Activation,
    [dense, norm, decoder]: [&str; 3],
    shared_bias: Option<&str>,
) -> HeadSpec {
    let epsilon = head.spec.norm.epsilon;
    head.linear(dense, columns, activation)
        .norm(norm, epsilon, true)
        .decoder(decoder, true, shared_bias)
}

/// BERT's prediction of words, also of DeBERTa.
const BERT_WORDS: [&str; 3] = [
    "cls.predictions.transform.dense",
    "cls.predictions.transform.LayerNorm",
    "cls.predictions.decoder",
];

fn bert(head: HeadBuilder<'_>) -> HeadSpec {
    let (hidden, activation) = (head.spec.hidden_size, head.spec.activation);
    match head.task {
        Task::SequenceClassification => after_pooler(head, "pooler.dense"),
        Task::MaskedLm => of_words(
            head,
            hidden,
            activation,
            BERT_WORDS,
            Some("cls.predictions.bias"),
        ),
        _ => of_tokens(head),
    }
}

/// The prediction of words works in the width of the embeddings.
fn albert(head: HeadBuilder<'_>) -> HeadSpec {
    let (embedding, activation) = (head.spec.embedding_size, head.spec.activation);
    let words = [
        "predictions.dense",
        "predictions.LayerNorm",
        "predictions.decoder",
    ];
    match head.task {
        Task::SequenceClassification => after_pooler(head, "pooler"),
        Task::MaskedLm => of_words(head, embedding, activation, words, Some("predictions.bias")),
        _ => of_tokens(head),
    }
}

/// A pooler of the head's own, with a function of its own.
fn deberta(head: HeadBuilder<'_>) -> Result<HeadSpec, ModelError> {
    let fields = head.fields;
    let (hidden, embedding) = (head.spec.hidden_size, head.spec.embedding_size);
    let activation = head.spec.activation;
    Ok(match head.task {
        Task::SequenceClassification => {
            let function = architectures::activation(&fields, "pooler_hidden_act")?;
            head.of(HeadRows::FirstToken)
                .linear("pooler.dense", hidden, function)
                .classifier("classifier")
        }
        Task::MaskedLm => {
            if !fields.flag("legacy", true)? {
                let hint = "the head of this form has other tensors";
                return Err(fields.unsupported("legacy", "true", &false.into(), hint));
            }
            of_words(
                head,
                embedding,
                activation,
                BERT_WORDS,
                Some("cls.predictions.bias"),
            )
        }
        _ => of_tokens(head),
    })
}

fn nomic_bert(head: HeadBuilder<'_>) -> HeadSpec {
    let (hidden, activation) = (head.spec.hidden_size, head.spec.activation);
    let [dense, _, decoder] = BERT_WORDS;
    let words = [dense, "cls.predictions.transform.layer_norm", decoder];
    match head.task {
        Task::SequenceClassification => after_pooler(head, "pooler.dense"),
        Task::MaskedLm => of_words(
            head,
            hidden,
            activation,
            words,
            Some("cls.predictions.bias"),
        ),
        _ => of_tokens(head),
    }
}

fn gte(head: HeadBuilder<'_>) -> Result<HeadSpec, ModelError> {
    let hidden = head.spec.hidden_size;
    Ok(match head.task {
        Task::SequenceClassification => after_pooler(head, "pooler.dense"),
        Task::MaskedLm if head.spec.model_type == "gte" => {
            let words = ["lm_head.dense", "lm_head.norm", "lm_head.decoder"];
            of_words(head, hidden, Activation::Gelu, words, None)
        }
        Task::TokenClassification => of_tokens(head),
        _ => return Err(no_such_head(&head)),
    })
}

/// The error of a task for which no class of the family is known.
fn no_such_head(head: &HeadBuilder<'_>) -> ModelError {
    let message = format!(
        "expected a task head that is known of the family \"{}\", found one for {}",
        head.spec.model_type,
        head.task.name()
    );
    let hint = "`fewbit embed` gives embeddings of this model";
    head.fields.error("architectures", message, hint)
}

/// Two layers of the head's own; MPNet has the same.
fn roberta(head: HeadBuilder<'_>) -> HeadSpec {
    let hidden = head.spec.hidden_size;
    let words = ["lm_head.dense", "lm_head.layer_norm", "lm_head.decoder"];
    match head.task {
        Task::SequenceClassification => head
            .of(HeadRows::FirstToken)
            .linear("classifier.dense", hidden, Activation::Tanh)
            .classifier("classifier.out_proj"),
        Task::MaskedLm => of_words(head, hidden, Activation::Gelu, words, Some("lm_head.bias")),
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
    let words = [
        "generator_predictions.dense",
        "generator_predictions.LayerNorm",
        "generator_lm_head",
    ];
    match head.task {
        Task::SequenceClassification => head
            .of(HeadRows::FirstToken)
            .linear("classifier.dense", hidden, Activation::Gelu)
            .classifier("classifier.out_proj"),
        Task::MaskedLm => of_words(head, embedding, Activation::Gelu, words, None),
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
    let (hidden, epsilon) = (head.spec.hidden_size, head.spec.norm.epsilon);
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

/// Pooling before the head, or after it.
fn eurobert(head: HeadBuilder<'_>) -> Result<HeadSpec, ModelError> {
    let fields = head.fields;
    let hidden = head.spec.hidden_size;
    let rows = match fields.string("classifier_pooling", "late")? {
        "bos" => HeadRows::FirstToken,
        "mean" => HeadRows::Mean,
        "late" => HeadRows::EveryTokenThenMean,
        other => {
            let expected = "expected \"bos\", \"mean\" or \"late\"";
            return Err(fields.invalid("classifier_pooling", expected, &other.into()));
        }
    };
    Ok(match head.task {
        Task::SequenceClassification => head
            .of(rows)
            .linear("dense", hidden, Activation::Gelu)
            .classifier("classifier"),
        Task::TokenClassification => of_tokens(head),
        Task::MaskedLm => head.decoder("lm_head", fields.flag("mlp_bias", false)?, None),
        Task::QuestionAnswering => return Err(no_such_head(&head)),
    })
}

/// A decoder's text is what its last token has seen.
fn decoder(head: HeadBuilder<'_>) -> Result<HeadSpec, ModelError> {
    let fields = head.fields;
    match head.task {
        Task::SequenceClassification => {
            // transformers' default is none but for Gemma.
            let default = (head.spec.model_type == "gemma3_text").then_some(0);
            let padding_id = match fields.get("pad_token_id") {
                None => default,
                // -1 is the id of no token.
                Some(found) if found.is_null() || found.as_i64() == Some(-1) => None,
                Some(_) => Some(fields.size("pad_token_id", 0, 0, u32::MAX as usize)? as u32),
            };
            Ok(head
                .of(HeadRows::LastToken { padding_id })
                .classifier_with("score", false))
        }
        Task::TokenClassification => {
            let bias = fields.flag("token_classification_bias", true)?;
            Ok(head.classifier_with("score", bias))
        }
        _ => Err(no_such_head(&head)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architectures::MODEL_TYPES;
    use crate::config_fields::ConfigFields;
    use crate::heads::{heads_that_loaders_skip, is_head, shares_word_embeddings};
    use crate::spec::EncoderSpec;
    use crate::task_head::HeadStep;
    use crate::{ModuleKind, Role};
    use serde_json::json;
    use std::path::Path;

    const TASKS: [Task; 4] = [
        Task::SequenceClassification,
        Task::TokenClassification,
        Task::QuestionAnswering,
        Task::MaskedLm,
    ];

    /// What names of heads are for (parts of a model, other loaders, shared tables) holds for every head that is run.
    #[test]
    fn the_list_of_head_names_knows_every_module_of_a_head() {
        let config = json!({"model_type": "bert", "num_hidden_layers": 1});
        let file = Path::new("config.json");
        let skipped: Vec<&str> = heads_that_loaders_skip(true).collect();
        let mut heads = 0;
        for &family in MODEL_TYPES {
            for task in TASKS {
                let mut spec = EncoderSpec::from_config(&config, file).unwrap();
                spec.model_type = family.to_owned();
                let fields = ConfigFields::new(file, &config);
                let Ok(spec) = head(HeadBuilder::new(fields, &spec, task, 2)) else {
                    continue;
                };
                heads += 1;
                for step in &spec.steps {
                    let (module, is_decoder) = match step {
                        HeadStep::Linear { module, .. } | HeadStep::Norm { module, .. } => {
                            (module, false)
                        }
                        HeadStep::Decoder { module, .. } => (module, true),
                    };
                    let name = module.name.as_str();
                    let first = name.split('.').next().unwrap_or_default();
                    if first == "pooler" {
                        continue;
                    }
                    assert!(is_head(first, true), "{family}: {name}");
                    if module.kind() == ModuleKind::Linear {
                        // EuroBERT's `dense` would be the name of layers of most encoders.
                        assert!(
                            skipped.contains(&first) || first == "dense",
                            "{family}: {name}"
                        );
                    }
                    if is_decoder {
                        let tensor = format!("{name}.bias");
                        assert!(shares_word_embeddings(&tensor), "{family}: {tensor}");
                        assert_eq!(module.role, Role::HeadLinear);
                    }
                }
            }
        }
        // All four tasks but of decoders, which have two, and where a family has no such class.
        assert_eq!(heads, 13 * 4 + 5 * 2 + 3 + 3 + 2);
    }
}
