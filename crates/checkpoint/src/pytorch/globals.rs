//! What a pickle may name: the functions and types that state dicts are made of, and nothing else.
use crate::{CheckpointError, CheckpointErrorKind};
use fewbit_numerics::dtype::DType;

/// A name that a pickle may refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    /// A tensor whose dtype is that of its storage.
    RebuildTensorV2,
    /// A tensor that says its dtype itself.
    RebuildTensorV3,
    RebuildParameter,
    RebuildParameterWithState,
    Size,
    /// A storage of elements; `UntypedStorage` counts bytes.
    Storage(DType),
    DType(DType),
}

impl Global {
    /// The name `module.name` of a pickle, or an error that says it.
    pub(super) fn find(module: &str, name: &str) -> Result<Self, CheckpointError> {
        let found = match (module, name) {
            ("collections", "OrderedDict") => Some(Global::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => Some(Global::RebuildTensorV2),
            ("torch._utils", "_rebuild_tensor_v3") => Some(Global::RebuildTensorV3),
            ("torch._utils", "_rebuild_parameter") => Some(Global::RebuildParameter),
            ("torch._utils", "_rebuild_parameter_with_state") => {
                Some(Global::RebuildParameterWithState)
            }
            ("torch", "Size") => Some(Global::Size),
            ("torch.storage", "UntypedStorage") => Some(Global::Storage(DType::U8)),
            ("torch", name) => storage(name)
                .map(Global::Storage)
                .or_else(|| dtype(name).map(Global::DType)),
            _ => None,
        };
        found.ok_or_else(|| refused(module, name))
    }
}

/// The error for a name that is not one of a state dict.
pub(super) fn refused(module: &str, name: &str) -> CheckpointError {
    CheckpointError::new(
        CheckpointErrorKind::UnsupportedPickle,
        format!("the pickle refers to `{module}.{name}`: expected only what a state dict of tensors needs"),
    )
    .hint(super::SAVE_AGAIN)
}

fn storage(name: &str) -> Option<DType> {
    Some(match name {
        "FloatStorage" => DType::F32,
        "DoubleStorage" => DType::F64,
        "HalfStorage" => DType::F16,
        "BFloat16Storage" => DType::BF16,
        "LongStorage" => DType::I64,
        "IntStorage" => DType::I32,
        "ShortStorage" => DType::I16,
        "CharStorage" => DType::I8,
        "ByteStorage" => DType::U8,
        "BoolStorage" => DType::Bool,
        _ => return None,
    })
}

fn dtype(name: &str) -> Option<DType> {
    Some(match name {
        "float32" => DType::F32,
        "float64" => DType::F64,
        "float16" => DType::F16,
        "bfloat16" => DType::BF16,
        "float8_e4m3fn" => DType::F8E4M3,
        "float8_e5m2" => DType::F8E5M2,
        "int64" => DType::I64,
        "int32" => DType::I32,
        "int16" => DType::I16,
        "int8" => DType::I8,
        "uint64" => DType::U64,
        "uint32" => DType::U32,
        "uint16" => DType::U16,
        "uint8" => DType::U8,
        "bool" => DType::Bool,
        _ => return None,
    })
}
