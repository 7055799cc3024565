//! `--method`: its values, and clap's own parser of them with a hint for names that other tools have.

use clap::builder::{EnumValueParser, PossibleValue, TypedValueParser};
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Command, Error, ValueEnum};
use fewbit::compare::method_hint;
use std::ffi::OsStr;

/// Methods of `quantize`, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MethodArgument {
    /// int8 weights (one scale per output channel), activations quantized per token at run time
    Dynamic,
    /// int8 weights (one scale per output channel), activation scales chosen by calibration
    Static,
    /// int8 weights (one scale per output channel), activations of 12 bits, quantized per token at run time
    WeightOnly,
    /// Weights stored as IEEE half precision, computed in f32
    #[value(alias = "float16")]
    Fp16,
    /// Weights stored as bfloat16, computed in f32
    #[value(alias = "bfloat16")]
    Bf16,
    /// 4-bit NormalFloat codes in blocks (bitsandbytes)
    Nf4,
    /// 4-bit float codes in blocks (bitsandbytes)
    Fp4,
    /// The same as nf4
    Int4,
    /// Quantization-aware training on texts without labels (--data): what --weights and --activations say, trained to be like the float model
    Qat,
}

/// Reads a [`MethodArgument`]; the error for a name of another tool says what fewbit calls it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MethodParser;

impl TypedValueParser for MethodParser {
    type Value = MethodArgument;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<MethodArgument, Error> {
        EnumValueParser::new()
            .parse_ref(command, argument, value)
            .map_err(|mut error| {
                if let Some(hint) = value.to_str().and_then(method_hint) {
                    error.remove(ContextKind::SuggestedValue);
                    error.insert(
                        ContextKind::Suggested,
                        ContextValue::StyledStrs(vec![hint.into()]),
                    );
                }
                error
            })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(
            MethodArgument::value_variants()
                .iter()
                .filter_map(ValueEnum::to_possible_value),
        ))
    }
}
