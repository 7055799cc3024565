//! Models that llama.cpp's architectures do not compute.

use fewbit_checkpoint::Checkpoint;
use fewbit_kernels::{Activation, NormKind};
use fewbit_model::EncoderSpec;
use fewbit_model::spec::{Biases, RotaryRule};

use crate::QuantizeError;
use crate::gguf_architecture::GgufArchitecture;

/// The architecture that computes the model which `spec` describes.
///
/// # Errors
/// There is none.
pub(super) fn architecture(
    spec: &EncoderSpec,
    checkpoint: &Checkpoint,
) -> Result<GgufArchitecture, QuantizeError> {
    let refused = |found: String| QuantizeError::NoGguf {
        file: checkpoint.config_file(),
        found,
    };
    let architecture = GgufArchitecture::of_model_type(&spec.model_type)
        .ok_or_else(|| refused(format!("`model_type` {}", spec.model_type)))?;
    match otherwise(architecture, spec) {
        None => Ok(architecture),
        Some(found) => Err(refused(format!("a {} with {found}", spec.model_type))),
    }
}

/// What of the model is otherwise than llama.cpp computes it.
fn otherwise(architecture: GgufArchitecture, spec: &EncoderSpec) -> Option<String> {
    let is_causal = architecture.is_causal();
    let activations: &[Activation] = match architecture {
        // The one that llama.cpp computes, and the one that its files are said to have.
        GgufArchitecture::Bert => &[Activation::Gelu, Activation::GeluTanh],
        _ => &[Activation::Silu],
    };
    if !activations.contains(&spec.activation) {
        return Some(format!("the activation {:?}", spec.activation));
    }
    let norm = if is_causal {
        NormKind::RootMeanSquare
    } else {
        NormKind::Layer
    };
    let biases = &spec.biases;
    let expected = match architecture {
        GgufArchitecture::Bert => Biases::ALL,
        GgufArchitecture::NomicBert => Biases {
            norm: true,
            ..Biases::NONE
        },
        GgufArchitecture::Llama => Biases {
            norm: false,
            ..*biases
        },
        GgufArchitecture::Qwen2 => Biases {
            query_key_value: true,
            ..Biases::NONE
        },
        GgufArchitecture::Qwen3 => Biases::NONE,
    };
    let rotation = spec.rotary.as_ref();
    let is_of_llama_cpp = |rule: RotaryRule| match rule {
        RotaryRule::Plain { .. } => true,
        // The architecture alone reads the tensor that says them.
        RotaryRule::Llama3(_) => architecture == GgufArchitecture::Llama,
        RotaryRule::Yarn { .. } => is_causal,
        RotaryRule::Scaled => false,
    };
    let what = match () {
        () if spec.has_embeddings_projection() => "a projection of embeddings",
        () if spec.causal && !is_causal => "causal attention",
        () if !spec.causal && is_causal => "attention to all tokens",
        () if spec.norm.kind != norm || spec.norm.weight_offset != 0.0 => "another normalization",
        () if *biases != expected => "other biases",
        // A causal one changes nothing of texts that it holds whole, and the file is said to be for these.
        () if spec.local_attention.is_some() && !is_causal => "a sliding window",
        () if rotation.is_some_and(|rotary| !is_of_llama_cpp(rotary.global.rule)) => {
            "rotations that are scaled otherwise than llama.cpp does it there"
        }
        () => return None,
    };
    Some(what.to_owned())
}
