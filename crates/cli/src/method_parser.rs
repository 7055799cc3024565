//! Reading `--method`: clap's own parser, with a hint for names that other tools have.

use crate::arguments::MethodArgument;
use clap::builder::{EnumValueParser, PossibleValue, TypedValueParser};
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Command, Error, ValueEnum};
use fewbit::compare::method_hint;
use std::ffi::OsStr;

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
