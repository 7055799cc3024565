//! Puts a head together, step by step, keeping track of the width of its rows.

use super::task::Task;
use super::{HeadRows, HeadSpec, HeadStep};
use crate::config_fields::ConfigFields;
use crate::heads::ties_word_embeddings;
use crate::{EncoderSpec, Module, Role};
use fewbit_kernels::Activation;

/// A head in the making.
pub(super) struct HeadBuilder<'a> {
    pub(super) fields: ConfigFields<'a>,
    pub(super) spec: &'a EncoderSpec,
    pub(super) task: Task,
    /// Outputs of a classifier.
    pub(super) labels: usize,
    rows: HeadRows,
    /// Of a row, after the last step.
    columns: usize,
    steps: Vec<HeadStep>,
}

impl<'a> HeadBuilder<'a> {
    pub(super) fn new(
        fields: ConfigFields<'a>,
        spec: &'a EncoderSpec,
        task: Task,
        labels: usize,
    ) -> Self {
        Self {
            fields,
            spec,
            task,
            labels,
            rows: HeadRows::EveryToken,
            columns: spec.hidden_size,
            steps: Vec::new(),
        }
    }

    /// Reads these rows; without it, every token's.
    pub(super) fn of(self, rows: HeadRows) -> Self {
        Self { rows, ..self }
    }

    /// A linear layer with bias.
    pub(super) fn linear(self, path: &str, out: usize, activation: Activation) -> Self {
        self.linear_with(path, out, true, activation)
    }

    /// A linear layer.
    pub(super) fn linear_with(
        self,
        path: &str,
        out: usize,
        bias: bool,
        activation: Activation,
    ) -> Self {
        let name = format!("{}{path}", self.prefix());
        self.named_linear(name, out, bias, activation)
    }

    /// A linear layer of the encoder that hidden states do not need.
    pub(super) fn linear_of_encoder(self, path: &str, out: usize, activation: Activation) -> Self {
        let name = format!("{}{path}", self.spec.prefix);
        self.named_linear(name, out, true, activation)
    }

    fn named_linear(
        mut self,
        name: String,
        out: usize,
        bias: bool,
        activation: Activation,
    ) -> Self {
        let module = module(Role::HeadLinear, name, [out, self.columns], bias);
        self.steps.push(HeadStep::Linear { module, activation });
        self.columns = out;
        self
    }

    /// LayerNorm.
    pub(super) fn norm(mut self, path: &str, epsilon: f32, bias: bool) -> Self {
        let name = format!("{}{path}", self.prefix());
        let module = module(Role::HeadNorm, name, [1, self.columns], bias);
        self.steps.push(HeadStep::Norm { module, epsilon });
        self
    }

    /// Logits of all words; `shared_bias` is the tensor that is its bias, too.
    pub(super) fn decoder(mut self, path: &str, bias: bool, shared_bias: Option<&str>) -> HeadSpec {
        let prefix = self.prefix();
        let name = format!("{prefix}{path}");
        self.steps.push(HeadStep::Decoder {
            module: module(
                Role::HeadLinear,
                name,
                [self.spec.vocab_size, self.columns],
                bias,
            ),
            shared_bias: shared_bias.map(|path| format!("{prefix}{path}")),
            tied: ties_word_embeddings(self.fields.object()),
        });
        self.finish()
    }

    /// A linear layer whose outputs are the logits of labels.
    pub(super) fn classifier(self, path: &str) -> HeadSpec {
        self.classifier_with(path, true)
    }

    /// [`HeadBuilder::classifier`] with a bias or without.
    pub(super) fn classifier_with(self, path: &str, bias: bool) -> HeadSpec {
        let labels = self.labels;
        self.linear_with(path, labels, bias, Activation::Identity)
            .finish()
    }

    fn finish(self) -> HeadSpec {
        HeadSpec {
            task: self.task,
            rows: self.rows,
            steps: self.steps,
        }
    }

    /// What stands before the head's names in the checkpoint: what stands before the encoder's, without the encoder's own prefix.
    fn prefix(&self) -> &'a str {
        let spec = self.spec;
        let prefix = spec.prefix.as_str();
        prefix
            .strip_suffix(spec.names.base_prefix)
            .unwrap_or(prefix)
    }
}

fn module(role: Role, name: String, shape: [usize; 2], bias: bool) -> Module {
    Module {
        role,
        layer: None,
        sites: vec![name.clone()],
        name,
        shape,
        bias,
        input_site: None,
    }
}
