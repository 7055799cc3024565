//! What `--embeddings`, `--float-dtype`, `--scales` and the flags of int4 weights make of a recipe.

use crate::arguments::{
    EmbeddingsArgument, FloatDTypeArgument, LayoutArgument, QuantizeArguments, ScalesArgument,
    WeightScalesArgument, WeightsArgument,
};
use fewbit::quantize::WeightScales;
use fewbit::{BlockScales, CodeLayout, EmbeddingStorage, FloatDType, WeightsField};

/// The form of embeddings that a flag asks for; the old one, which sets the old key, apart.
pub(super) fn embeddings(arguments: &QuantizeArguments) -> Option<EmbeddingStorage> {
    if arguments.keep_embeddings {
        return Some(EmbeddingStorage::Keep);
    }
    arguments.embeddings.map(embedding_storage)
}

/// The form that was typed.
pub(in crate::commands) fn embedding_storage(argument: EmbeddingsArgument) -> EmbeddingStorage {
    match argument {
        EmbeddingsArgument::Keep => EmbeddingStorage::Keep,
        EmbeddingsArgument::Int8 => EmbeddingStorage::Int8,
        EmbeddingsArgument::Nf4 => EmbeddingStorage::Nf4,
        EmbeddingsArgument::Fp16 => EmbeddingStorage::Fp16,
        EmbeddingsArgument::Bf16 => EmbeddingStorage::Bf16,
    }
}

/// The form that any flag asks for.
pub(super) fn embeddings_beside_a_file(arguments: &QuantizeArguments) -> Option<EmbeddingStorage> {
    match arguments.quantize_embeddings {
        true => Some(EmbeddingStorage::Int8),
        false => embeddings(arguments),
    }
}

/// The flag that does.
pub(super) fn flag_of_embeddings(arguments: &QuantizeArguments) -> &'static str {
    match (arguments.keep_embeddings, arguments.quantize_embeddings) {
        (true, _) => "--keep-embeddings",
        (_, true) => "--quantize-embeddings",
        _ => "--embeddings",
    }
}

/// The dtype of what is not quantized that the flag asks for.
pub(super) fn float_dtype(arguments: &QuantizeArguments) -> Option<FloatDType> {
    arguments.float_dtype.map(dtype)
}

/// The dtype that was typed.
pub(in crate::commands) fn dtype(argument: FloatDTypeArgument) -> FloatDType {
    match argument {
        FloatDTypeArgument::F32 => FloatDType::F32,
        FloatDTypeArgument::Fp16 => FloatDType::Fp16,
        FloatDTypeArgument::Bf16 => FloatDType::Bf16,
    }
}

/// The choice of the scales of 4-bit blocks that the flag asks for.
pub(super) fn block_scales(arguments: &QuantizeArguments) -> Option<BlockScales> {
    Some(match arguments.scales? {
        ScalesArgument::Absmax => BlockScales::Absmax,
        ScalesArgument::Mse => BlockScales::Mse,
        ScalesArgument::ActivationWeighted => BlockScales::ActivationWeighted,
    })
}

/// The codes of weights that the flag asks for.
pub(super) fn weights(arguments: &QuantizeArguments) -> Option<WeightsField> {
    Some(match arguments.weights? {
        // A method of its own.
        WeightsArgument::Nf4 => return None,
        WeightsArgument::Int8 => WeightsField::Int8,
        WeightsArgument::Int4 => WeightsField::Int4,
        WeightsArgument::Fp8 => WeightsField::Fp8,
        WeightsArgument::Nvfp4 => WeightsField::Nvfp4,
        WeightsArgument::Mxfp4 => WeightsField::Mxfp4,
    })
}

/// Which weights share a scale, as the flag asks for.
pub(super) fn weight_scales(arguments: &QuantizeArguments) -> Option<WeightScales> {
    Some(match arguments.weight_scales? {
        WeightScalesArgument::PerChannel => WeightScales::PerChannel,
        WeightScalesArgument::PerTensor => WeightScales::PerTensor,
    })
}

/// The layout of int4 codes that the flag asks for.
pub(super) fn layout(arguments: &QuantizeArguments) -> Option<CodeLayout> {
    Some(match arguments.layout? {
        LayoutArgument::PackQuantized => CodeLayout::PackQuantized,
        LayoutArgument::IntQuantized => CodeLayout::IntQuantized,
        LayoutArgument::Gptq => CodeLayout::Gptq,
        LayoutArgument::GptqV2 => CodeLayout::GptqV2,
        LayoutArgument::Awq => CodeLayout::Awq,
        LayoutArgument::Bitsandbytes => CodeLayout::Bitsandbytes,
    })
}
