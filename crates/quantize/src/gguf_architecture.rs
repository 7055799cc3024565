//! Architectures of llama.cpp that fewbit writes and reads: what they call modules, and in which order they have rows.

use fewbit_checkpoint::gguf::RowOrder;
use fewbit_model::{EncoderSpec, Role};

/// An architecture of llama.cpp (`general.architecture`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GgufArchitecture {
    Bert,
    NomicBert,
    Llama,
    Qwen2,
    Qwen3,
}

impl GgufArchitecture {
    const ALL: [Self; 5] = [
        Self::Bert,
        Self::NomicBert,
        Self::Llama,
        Self::Qwen2,
        Self::Qwen3,
    ];

    /// Its name, with which the keys of its sizes begin, too.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bert => "bert",
            Self::NomicBert => "nomic-bert",
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    /// All names, for messages.
    pub(crate) fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// The architecture of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    /// The architecture that runs models of this `model_type`.
    pub(crate) fn of_model_type(model_type: &str) -> Option<Self> {
        match model_type {
            // Without a window a Mistral is a Llama.
            "mistral" => Some(Self::Llama),
            _ => Self::ALL
                .into_iter()
                .find(|known| known.model_type() == model_type),
        }
    }

    /// config.json's `model_type` of what is read of a file.
    pub(crate) fn model_type(self) -> &'static str {
        match self {
            Self::NomicBert => "nomic_bert",
            other => other.name(),
        }
    }

    /// Whether tokens attend to themselves and those before only.
    pub(crate) fn is_causal(self) -> bool {
        !matches!(self, Self::Bert | Self::NomicBert)
    }

    /// The name of a module in the file; none of those that it has no place for.
    pub(crate) fn module_name(self, role: Role, layer: Option<usize>) -> Option<String> {
        let is_gated = self != Self::Bert;
        let name = match role {
            Role::WordEmbeddings => "token_embd",
            Role::PositionEmbeddings if self == Self::Bert => "position_embd",
            Role::TokenTypeEmbeddings => "token_types",
            Role::EmbeddingsNorm => "token_embd_norm",
            Role::Query => "attn_q",
            Role::Key => "attn_k",
            Role::Value => "attn_v",
            Role::QueryNorm => "attn_q_norm",
            Role::KeyNorm => "attn_k_norm",
            Role::AttentionOutput => "attn_output",
            Role::AttentionNorm if self.is_causal() => "attn_norm",
            Role::AttentionNorm => "attn_output_norm",
            // ggml calls the one with the activation the gate.
            Role::Intermediate if is_gated => "ffn_gate",
            Role::Intermediate | Role::Gate => "ffn_up",
            Role::Output => "ffn_down",
            Role::FeedForwardNorm if self.is_causal() => "ffn_norm",
            Role::FeedForwardNorm => "layer_output_norm",
            Role::FinalNorm => "output_norm",
            _ => return None,
        };
        Some(match layer {
            Some(layer) => format!("blk.{layer}.{name}"),
            None => name.to_owned(),
        })
    }

    /// The order that the file has the rows of a module in.
    pub(crate) fn row_order(self, role: Role, spec: &EncoderSpec) -> RowOrder {
        match (self, role) {
            (Self::Llama, Role::Query | Role::Key) => RowOrder::InterleavedHeads {
                head_rows: spec.head_size,
            },
            _ => RowOrder::Same,
        }
    }

    /// The key of a size or setting of the architecture.
    pub(crate) fn key(self, key: &str) -> String {
        format!("{}.{key}", self.name())
    }
}
