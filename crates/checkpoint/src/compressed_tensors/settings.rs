//! Parsing a compressed-tensors `quantization_config`.
use crate::CheckpointError;
use crate::module_pattern::{ModulePattern, class_of};
use crate::quantization_error::{malformed, unsupported};
use crate::small_floats::SmallFloatType;
use fewbit_numerics::activation::ActivationScheme;
use fewbit_numerics::affine::CodeRange;
use serde_json::Value;
use std::fmt;

/// What `quantization_config` says of a compressed-tensors checkpoint: groups of modules, each with a scheme, and the modules
/// that stay float.
#[derive(Debug, Clone, PartialEq)]
pub struct CompressedTensorsConfig {
    groups: Vec<ConfigGroup>,
    ignore: Vec<ModulePattern>,
}

/// One entry of `config_groups`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ConfigGroup {
    pub(super) name: String,
    targets: Vec<ModulePattern>,
    pub(super) format: Format,
    pub(super) bits: usize,
    pub(super) granularity: Granularity,
    /// Whether the weights have no zero points.
    pub(super) symmetric: bool,
    /// None: float inputs.
    pub(super) activations: Option<ActivationSettings>,
}

/// Which tensors a weight is stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    IntQuantized,
    PackQuantized,
    Floats {
        name: &'static str,
        kind: SmallFloatType,
    },
}

impl Format {
    pub(super) fn name(self) -> &'static str {
        match self {
            Format::IntQuantized => "int-quantized",
            Format::PackQuantized => "pack-quantized",
            Format::Floats { name, .. } => name,
        }
    }

    /// Whether several codes are a word or a byte, in a tensor of a name of its own.
    pub(super) fn is_packed(self) -> bool {
        match self {
            Format::IntQuantized => false,
            Format::PackQuantized => true,
            Format::Floats { kind, .. } => kind != SmallFloatType::Fp8,
        }
    }

    fn of_floats(name: &str) -> Option<Self> {
        let (name, kind) = match name {
            "float-quantized" => ("float-quantized", SmallFloatType::Fp8),
            "naive-quantized" => ("naive-quantized", SmallFloatType::Fp8),
            "nvfp4-pack-quantized" => ("nvfp4-pack-quantized", SmallFloatType::Nvfp4),
            "mxfp4-pack-quantized" => ("mxfp4-pack-quantized", SmallFloatType::Mxfp4),
            _ => return None,
        };
        Some(Format::Floats { name, kind })
    }
}

/// Which elements of a weight share a scale: all, a row, or neighbours in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Granularity {
    Tensor,
    Channel,
    /// Columns of a row.
    Group(usize),
}

/// How inputs are quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ActivationSettings {
    PerToken(ActivationScheme),
    /// By PyTorch's rule.
    DynamicPerTensor {
        reduce_range: bool,
    },
    StaticPerTensor {
        symmetric: bool,
        codes: CodeRange,
    },
}

impl fmt::Display for CompressedTensorsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut formats: Vec<&str> = Vec::new();
        for group in &self.groups {
            let format = group.format.name();
            if !formats.contains(&format) {
                formats.push(format);
            }
        }
        write!(f, "compressed-tensors {}", formats.join(" + "))
    }
}

impl CompressedTensorsConfig {
    /// Reads a `quantization_config` object.
    pub(crate) fn from_json(config: &Value) -> Result<Self, CheckpointError> {
        if let Some(status) = config.get("quantization_status").and_then(Value::as_str)
            && status != "compressed"
        {
            return Err(unsupported(format!(
                "compressed-tensors with quantization_status `{status}`, expected `compressed`"
            )));
        }
        if let Some(sparsity) = config
            .get("sparsity_config")
            .filter(|value| !is_empty(value))
        {
            let format = sparsity
                .get("format")
                .and_then(Value::as_str)
                .unwrap_or("unnamed");
            if format != "dense" {
                return Err(unsupported(format!(
                    "compressed-tensors sparsity format `{format}`"
                )));
            }
        }
        for field in ["kv_cache_scheme", "transform_config"] {
            if config.get(field).is_some_and(|value| !is_empty(value)) {
                return Err(unsupported(format!("compressed-tensors {field}")));
            }
        }
        let ignore = patterns(config.get("ignore"), "ignore")?;
        let groups = config
            .get("config_groups")
            .and_then(Value::as_object)
            .ok_or_else(|| {
                malformed("quantization_config.config_groups: expected an object, found none")
            })?;
        let common_format = config.get("format").and_then(Value::as_str);
        let groups = groups
            .iter()
            .map(|(name, group)| ConfigGroup::from_json(name, group, common_format))
            .collect::<Result<Vec<_>, _>>()?;
        if groups.is_empty() {
            return Err(malformed(
                "quantization_config.config_groups: expected at least one group, found none",
            ));
        }
        Ok(CompressedTensorsConfig { groups, ignore })
    }

    /// Whether `module` is on the ignore list.
    pub(super) fn ignores(&self, module: &str) -> bool {
        self.ignore
            .iter()
            .any(|pattern| pattern.fit(module, class_of(module)).is_some())
    }

    /// The group whose targets fit `module` most closely, whatever the ignore list says; the first of several.
    pub(super) fn group_of(&self, module: &str) -> Option<&ConfigGroup> {
        let class = class_of(module);
        let fits = self.groups.iter().filter_map(|group| {
            let fit = group
                .targets
                .iter()
                .filter_map(|pattern| pattern.fit(module, class))
                .min()?;
            Some((fit, group))
        });
        fits.min_by_key(|(fit, _)| *fit).map(|(_, group)| group)
    }
}

impl ConfigGroup {
    fn from_json(
        name: &str,
        group: &Value,
        common_format: Option<&str>,
    ) -> Result<Self, CheckpointError> {
        let place = format!("config_groups.{name}");
        let targets = patterns(group.get("targets"), &format!("{place}.targets"))?;
        let format = match group
            .get("format")
            .and_then(Value::as_str)
            .or(common_format)
        {
            Some("int-quantized") => Format::IntQuantized,
            Some("pack-quantized") => Format::PackQuantized,
            Some(other) => Format::of_floats(other).ok_or_else(|| {
                unsupported(format!("compressed-tensors format `{other}` ({place})"))
            })?,
            None => {
                return Err(malformed(format!(
                    "quantization_config.{place}.format: expected a format, found none"
                )));
            }
        };
        if group
            .get("output_activations")
            .is_some_and(|value| !is_empty(value))
        {
            return Err(unsupported(format!(
                "compressed-tensors output_activations ({place})"
            )));
        }
        let weights = group
            .get("weights")
            .filter(|value| !value.is_null())
            .ok_or_else(|| {
                malformed(format!(
                    "quantization_config.{place}.weights: expected an object, found none"
                ))
            })?;
        let what = format!("{place}.weights");
        let bits = Args(weights, &what).integer("num_bits")?;
        let weights = Args(weights, &what);
        if let Format::Floats { kind, .. } = format {
            let granularity = float_granularity(kind, bits, &weights)?;
            return Ok(ConfigGroup {
                name: name.to_owned(),
                targets,
                format,
                bits,
                granularity,
                symmetric: true,
                // Whatever is said of inputs, they stay floats.
                activations: None,
            });
        }
        weights.expect_int()?;
        let granularity = match weights.text("strategy") {
            Some("tensor") => Granularity::Tensor,
            Some("channel") => Granularity::Channel,
            Some("group") => Granularity::Group(weights.integer("group_size")?),
            // The strategy that compressed-tensors fills in.
            None => match weights.0.get("group_size").and_then(Value::as_i64) {
                Some(-1) => Granularity::Channel,
                Some(_) => Granularity::Group(weights.integer("group_size")?),
                None => Granularity::Tensor,
            },
            Some(other) => {
                return Err(unsupported(format!(
                    "compressed-tensors weight strategy `{other}` ({place})"
                )));
            }
        };
        let symmetric = weights.flag("symmetric", true)?;
        if weights
            .0
            .get("dynamic")
            .is_some_and(|dynamic| *dynamic != Value::Bool(false))
        {
            return Err(unsupported(format!(
                "compressed-tensors dynamic weights ({place})"
            )));
        }
        match weights.0.get("actorder") {
            // `weight` (`static`) leaves the columns where they are.
            None | Some(Value::Null | Value::Bool(false)) => {}
            Some(Value::String(order)) if order == "weight" || order == "static" => {}
            Some(other) => {
                return Err(unsupported(format!(
                    "compressed-tensors actorder {other} ({place})"
                )));
            }
        }
        let readable = match format {
            Format::IntQuantized | Format::PackQuantized => bits == 4 || bits == 8,
            Format::Floats { .. } => true,
        };
        if !readable {
            let strategy = weights.text("strategy").unwrap_or("unnamed");
            return Err(unsupported(format!(
                "compressed-tensors {} with {bits} bits, strategy `{strategy}` ({place})",
                format.name()
            )));
        }
        let activations = match group
            .get("input_activations")
            .filter(|value| !value.is_null())
        {
            None => None,
            Some(inputs) => Some(activation_settings(&Args(
                inputs,
                &format!("{place}.input_activations"),
            ))?),
        };
        if activations.is_some()
            && bits == 8
            && (!symmetric || matches!(granularity, Granularity::Group(_)))
        {
            return Err(unsupported(format!(
                "compressed-tensors weights of 8 bits with groups or zero points, and quantized activations ({place})"
            )));
        }
        Ok(ConfigGroup {
            name: name.to_owned(),
            targets,
            format,
            bits,
            granularity,
            symmetric,
            activations,
        })
    }
}

/// Which weights of small floats share a scale; an error for those that are of another kind than `kind`.
fn float_granularity(
    kind: SmallFloatType,
    bits: usize,
    weights: &Args<'_>,
) -> Result<Granularity, CheckpointError> {
    let place = weights.1;
    let (number, strategy) = (weights.text("type"), weights.text("strategy"));
    let size = weights.0.get("group_size").and_then(Value::as_u64);
    let is_symmetric = weights.flag("symmetric", true)?;
    let is_dynamic = weights.flag("dynamic", false)?;
    let found = match (kind, bits, strategy) {
        (SmallFloatType::Fp8, 8, Some("channel")) => Some(Granularity::Channel),
        (SmallFloatType::Fp8, 8, Some("tensor") | None) => Some(Granularity::Tensor),
        (SmallFloatType::Nvfp4, 4, Some("tensor_group")) if size == Some(16) => {
            Some(Granularity::Group(16))
        }
        (SmallFloatType::Mxfp4, 4, Some("group")) if size == Some(32) => {
            Some(Granularity::Group(32))
        }
        _ => None,
    };
    match found {
        Some(granularity) if number == Some("float") && is_symmetric && !is_dynamic => {
            Ok(granularity)
        }
        _ => Err(unsupported(format!(
            "compressed-tensors {kind} weights of {bits} bits, type `{}`, strategy `{}`, group_size {}, symmetric {is_symmetric}, dynamic {is_dynamic} ({place})",
            number.unwrap_or("unnamed"),
            strategy.unwrap_or("unnamed"),
            size.map_or("none".to_owned(), |size| size.to_string()),
        ))),
    }
}

fn activation_settings(inputs: &Args<'_>) -> Result<ActivationSettings, CheckpointError> {
    inputs.expect_int()?;
    let bits = inputs.integer("num_bits")?;
    let symmetric = inputs.flag("symmetric", true)?;
    let dynamic = inputs.flag("dynamic", false)?;
    match (bits, inputs.text("strategy"), dynamic) {
        (8, Some("token"), true) => {
            let scheme = if symmetric {
                ActivationScheme::Symmetric
            } else {
                ActivationScheme::Affine
            };
            Ok(ActivationSettings::PerToken(scheme))
        }
        (8, Some("tensor") | None, false) => Ok(ActivationSettings::StaticPerTensor {
            symmetric,
            codes: CodeRange::INT8,
        }),
        (7, Some("tensor") | None, false) => Ok(ActivationSettings::StaticPerTensor {
            symmetric,
            codes: CodeRange::INT8.reduced(),
        }),
        (8, Some("tensor"), true) if !symmetric && inputs.reduce_range()?.is_some() => {
            let reduce_range = inputs.reduce_range()? == Some(true);
            Ok(ActivationSettings::DynamicPerTensor { reduce_range })
        }
        (bits, strategy, dynamic) => Err(unsupported(format!(
            "compressed-tensors input activations with {bits} bits, strategy `{}`, dynamic {dynamic} ({})",
            strategy.unwrap_or("unnamed"),
            inputs.1
        ))),
    }
}

/// Quantization arguments and where they stand in the config.
struct Args<'a>(&'a Value, &'a str);

impl Args<'_> {
    fn text(&self, field: &str) -> Option<&str> {
        self.0.get(field).and_then(Value::as_str)
    }

    fn expect_int(&self) -> Result<(), CheckpointError> {
        match self.text("type") {
            None | Some("int") => Ok(()),
            Some(other) => Err(unsupported(format!(
                "compressed-tensors number type `{other}` ({})",
                self.1
            ))),
        }
    }

    fn integer(&self, field: &str) -> Result<usize, CheckpointError> {
        let value = self.0.get(field).unwrap_or(&Value::Null);
        let integer = value
            .as_u64()
            .and_then(|value| usize::try_from(value).ok())
            .filter(|&value| value > 0);
        integer.ok_or_else(|| {
            malformed(format!(
                "quantization_config.{}.{field}: expected a positive integer, found {value}",
                self.1
            ))
        })
    }

    /// A keyword of PyTorch's observers; where it is given, dynamic parameters are PyTorch's.
    fn reduce_range(&self) -> Result<Option<bool>, CheckpointError> {
        match self
            .0
            .get("observer_kwargs")
            .and_then(|keywords| keywords.get("reduce_range"))
        {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(malformed(format!(
                "quantization_config.{}.observer_kwargs.reduce_range: expected true or false, found {other}",
                self.1
            ))),
        }
    }

    fn flag(&self, field: &str, default: bool) -> Result<bool, CheckpointError> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(Value::String(text)) => Err(unsupported(format!(
                "compressed-tensors {field} `{text}` ({})",
                self.1
            ))),
            Some(other) => Err(malformed(format!(
                "quantization_config.{}.{field}: expected true or false, found {other}",
                self.1
            ))),
        }
    }
}

fn patterns(value: Option<&Value>, place: &str) -> Result<Vec<ModulePattern>, CheckpointError> {
    let items = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(other) => {
            return Err(malformed(format!(
                "quantization_config.{place}: expected a list of names, found {other}"
            )));
        }
    };
    let text = |item: &Value| {
        let error = || {
            malformed(format!(
                "quantization_config.{place}: expected a name, found {item}"
            ))
        };
        item.as_str().map(str::to_owned).ok_or_else(error)
    };
    items
        .iter()
        .map(|item| ModulePattern::parse(&text(item)?))
        .collect()
}

/// Null, `{}` and `[]` ask for nothing.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}
