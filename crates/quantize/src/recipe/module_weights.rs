//! Weights of single layers that are not as those of the others.

use std::collections::BTreeMap;

use fewbit_checkpoint::small_floats::SmallFloatType;
use serde::{Deserialize, Serialize};

use super::fields::{WeightsField, is_default, is_false};
use super::{BlockScales, CodeLayout, GroupSize, Int4Options, WeightCodes, error};
use crate::QuantizeError;

/// Codes of the weights of single linear layers, by their paths or by globs on these: a path goes before the globs.
///
/// ```
/// use fewbit_quantize::{Recipe, WeightCodes};
///
/// let recipe = Recipe::from_toml(
///     "version = 1\nmethod = \"weight-only\"\nweights = \"int4\"\n[modules.\"*.output.dense\"]\nweights = \"int8\"\n",
/// )?;
/// let modules = &recipe.integer().unwrap().modules;
/// assert_eq!(modules["*.output.dense"], WeightCodes::Int8);
/// # Ok::<(), fewbit_quantize::QuantizeError>(())
/// ```
pub type ModuleWeights = BTreeMap<String, WeightCodes>;

/// What a recipe file says of the weights of single layers. Nothing is taken over from the keys of the same names for all layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleFields {
    /// The bits of the codes.
    pub weights: WeightsField,
    /// [`Int4Options::group_size`]; its default where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_size: Option<GroupSize>,
    /// [`Int4Options::asymmetric`]
    #[serde(default, skip_serializing_if = "is_false")]
    pub asymmetric: bool,
    /// [`Int4Options::layout`]
    #[serde(default, skip_serializing_if = "is_default")]
    pub layout: CodeLayout,
    /// [`Int4Options::scales`]; its default where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scales: Option<BlockScales>,
}

impl From<WeightCodes> for ModuleFields {
    fn from(codes: WeightCodes) -> Self {
        let int8 = Self {
            weights: WeightsField::Int8,
            group_size: None,
            asymmetric: false,
            layout: CodeLayout::default(),
            scales: None,
        };
        match codes {
            WeightCodes::Int8 => int8,
            WeightCodes::Int8Groups { columns, layout } => Self {
                group_size: Some(GroupSize::Columns(columns)),
                layout,
                ..int8
            },
            WeightCodes::LlmInt8 => Self {
                layout: CodeLayout::Bitsandbytes,
                ..int8
            },
            WeightCodes::Floats { kind, .. } => Self {
                weights: match kind {
                    SmallFloatType::Fp8 => WeightsField::Fp8,
                    SmallFloatType::Nvfp4 => WeightsField::Nvfp4,
                    SmallFloatType::Mxfp4 => WeightsField::Mxfp4,
                },
                ..int8
            },
            WeightCodes::Int4(options) => Self {
                weights: WeightsField::Int4,
                group_size: Some(options.group_size),
                asymmetric: options.asymmetric,
                layout: options.layout,
                scales: Some(options.scales),
            },
        }
    }
}

impl From<ModuleFields> for WeightCodes {
    /// What the keys of int4 weights say beside others is of no account: recipes are refused for it.
    fn from(fields: ModuleFields) -> Self {
        match fields.weights {
            WeightsField::Int8 => match (fields.layout, fields.group_size) {
                (CodeLayout::Bitsandbytes, _) => Self::LlmInt8,
                (layout, Some(GroupSize::Columns(columns))) => Self::Int8Groups { columns, layout },
                (_, Some(GroupSize::Channel) | None) => Self::Int8,
            },
            WeightsField::Fp8 => Self::of_floats(SmallFloatType::Fp8),
            WeightsField::Nvfp4 => Self::of_floats(SmallFloatType::Nvfp4),
            WeightsField::Mxfp4 => Self::of_floats(SmallFloatType::Mxfp4),
            WeightsField::Int4 => Self::Int4(Int4Options {
                group_size: fields.group_size.unwrap_or_default(),
                asymmetric: fields.asymmetric,
                scales: fields.scales.unwrap_or(Int4Options::default().scales),
                layout: fields.layout,
            }),
        }
    }
}

impl ModuleFields {
    /// Errors for the first key that other weights than int4 do not have.
    pub(super) fn expect_keys_of_int4(&self) -> Result<(), QuantizeError> {
        if self.weights == WeightsField::Int4 {
            return Ok(());
        }
        let hint = "int4 weights have it: `weights = \"int4\"`, on the command line --weights int4";
        if let Some(group_size) = self.group_size {
            return error(
                "group_size",
                "none beside int8 weights or blocks",
                group_size.to_string(),
                hint,
            );
        }
        if self.asymmetric {
            return error(
                "asymmetric",
                "false beside int8 weights or blocks",
                "true",
                hint,
            );
        }
        if self.layout != CodeLayout::default() {
            return error(
                "layout",
                "none beside int8 weights or blocks",
                self.layout.to_string(),
                hint,
            );
        }
        Ok(())
    }

    /// The same, of an entry of [`ModuleWeights`], which has nothing that scales could be about but int4 weights.
    pub(super) fn expect_keys_of_a_module(&self) -> Result<(), QuantizeError> {
        self.expect_keys_of_int4()?;
        match self.scales {
            Some(scales) if self.weights != WeightsField::Int4 => error(
                "scales",
                "none beside the int8 weights of a module",
                scales.to_string(),
                "int4 weights choose the scales of their groups",
            ),
            _ => Ok(()),
        }
    }
}

/// A short name of a table that another table has not, all but certainly: six hexadecimal digits of its FNV-1a hash.
pub fn modules_name(modules: &ModuleWeights) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for (pattern, codes) in modules {
        let line = format!("{pattern}\n{codes}\n");
        for byte in line.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    format!("{:06x}", hash & 0xff_ffff)
}
