//! Reading compressed-tensors weights.
use super::read_floats::{read_floats, shape_of_packed};
use super::settings::{
    ActivationSettings, CompressedTensorsConfig, ConfigGroup, Format, Granularity,
};
use crate::float_weight::{inconsistent, read_float};
use crate::grouped_columns::words_of;
use crate::quantization_error::unsupported;
use crate::stored_weight::Int8Activations;
use crate::{Checkpoint, CheckpointError, CheckpointErrorKind, StoredWeight, TensorView};
use fewbit_numerics::affine::CodeRange;
use fewbit_numerics::dtype::DType;
use fewbit_numerics::int_packing::{packed_words, unpack_columns, unpack_rows};
use std::borrow::Cow;

/// Reads the weight of `module`. The tensors that exist say whether it is quantized; the config's groups must agree.
pub(crate) fn read<'a>(
    checkpoint: &'a Checkpoint,
    config: &CompressedTensorsConfig,
    module: &str,
    shape: [usize; 2],
) -> Result<StoredWeight<'a>, CheckpointError> {
    let group = config.group_of(module).filter(|_| !config.ignores(module));
    // What is packed has no `weight`.
    let stored = [
        ("weight_packed", Format::PackQuantized),
        ("weight_scale", Format::IntQuantized),
    ]
    .into_iter()
    .find(|(part, _)| checkpoint.contains(&format!("{module}.{part}")));
    match (stored, group) {
        (None, None) => read_float(checkpoint, module, shape),
        (None, Some(group)) => {
            let name = format!("{module}.weight");
            // A tensor that is not there at all is missing rather than contradictory.
            let view = checkpoint.require(&name)?;
            let expected = format!(
                "the {} tensors of group `{}`",
                group.format.name(),
                group.name
            );
            Err(inconsistent(checkpoint, &name, &expected, view.info.dtype.name())
                .in_file(&view.info.file)
                .hint("a module that stays float must be on the `ignore` list of quantization_config"))
        }
        (Some((part, format)), None) => Err(inconsistent(
            checkpoint,
            &format!("{module}.{part}"),
            "a float weight, as no group covers the module",
            format.name(),
        )),
        (Some((part, format)), Some(group)) if format.is_packed() != group.format.is_packed() => {
            Err(inconsistent(
                checkpoint,
                &format!("{module}.{part}"),
                group.format.name(),
                format.name(),
            ))
        }
        (Some(_), Some(group)) => {
            if let Some(order) = checkpoint.get(&format!("{module}.weight_g_idx")) {
                return Err(unsupported(
                    "compressed-tensors columns in activation order (weight_g_idx)",
                )
                .in_file(&order.info.file)
                .at_tensor(&order.info.name));
            }
            match group.format {
                Format::IntQuantized => read_int_quantized(checkpoint, group, module, shape),
                Format::PackQuantized => read_pack_quantized(checkpoint, group, module, shape),
                Format::Floats { kind, .. } => read_floats(checkpoint, group, kind, module, shape),
            }
        }
    }
}

fn read_int_quantized<'a>(
    checkpoint: &'a Checkpoint,
    group: &ConfigGroup,
    module: &str,
    shape: [usize; 2],
) -> Result<StoredWeight<'a>, CheckpointError> {
    let weight = checkpoint.require(&format!("{module}.weight"))?;
    weight.expect_dtype(&[DType::I8])?;
    weight.expect_shape(&shape)?;
    let codes = weight.codes()?;
    if group.bits == 4
        && let Some(index) = codes.iter().position(|code| !(-8..=7).contains(code))
    {
        let found = format!("{} at {:?}", codes[index], weight.index_of(index));
        let message = format!("codes: expected int4 codes in -8..=7, found {found}");
        return Err(weight.error(CheckpointErrorKind::Malformed, message));
    }
    let zero_points = match checkpoint.get(&format!("{module}.weight_zero_point")) {
        Some(view) if !group.symmetric => {
            view.expect_dtype(&[DType::I8])?;
            view.expect_shape(&group.shape_of_scales(&view, shape)?)?;
            Some(view.codes()?.into_owned())
        }
        _ => None,
    };
    read_rest(checkpoint, group, module, shape, codes, zero_points)
}

fn read_pack_quantized<'a>(
    checkpoint: &'a Checkpoint,
    group: &ConfigGroup,
    module: &str,
    shape: [usize; 2],
) -> Result<StoredWeight<'a>, CheckpointError> {
    let [rows, columns] = shape;
    let stored_shape = checkpoint.require(&format!("{module}.weight_shape"))?;
    stored_shape.expect_shape(&[2])?;
    let found = stored_shape.integers()?;
    if found != shape.map(|size| i64::try_from(size).unwrap_or(i64::MAX)) {
        return Err(stored_shape.error(
            CheckpointErrorKind::WrongShape,
            format!("content: expected {shape:?}, found {found:?}"),
        ));
    }
    let packed = checkpoint.require(&format!("{module}.weight_packed"))?;
    packed.expect_dtype(&[DType::I32])?;
    packed.expect_shape(&[rows, packed_words(columns, group.bits)])?;
    let words = words_of(&packed)?;
    let codes = Cow::Owned(unpack_rows(&words, rows, columns, group.bits));
    let zero_points = match checkpoint.get(&format!("{module}.weight_zero_point")) {
        Some(view) if !group.symmetric => Some(read_packed_zero_points(&view, group, shape)?),
        _ => None,
    };
    read_rest(checkpoint, group, module, shape, codes, zero_points)
}

/// The weight with these codes and zero points, and with the scales and activations that the file has of it.
fn read_rest<'a>(
    checkpoint: &Checkpoint,
    group: &ConfigGroup,
    module: &str,
    shape: [usize; 2],
    codes: Cow<'a, [i8]>,
    zero_points: Option<Vec<i8>>,
) -> Result<StoredWeight<'a>, CheckpointError> {
    let activations = match group.activations {
        None => None,
        Some(ActivationSettings::PerToken(scheme)) => Some(Int8Activations::Dynamic(scheme)),
        Some(ActivationSettings::DynamicPerTensor { reduce_range }) => {
            Some(Int8Activations::DynamicPerTensor { reduce_range })
        }
        Some(ActivationSettings::StaticPerTensor { symmetric, codes }) => {
            Some(read_static(checkpoint, module, symmetric, codes)?)
        }
    };
    match (&zero_points, group.symmetric) {
        (_, true) => expect_no_zero_points(checkpoint, module)?,
        (None, false) => {
            return Err(checkpoint.missing(&format!("{module}.weight_zero_point")));
        }
        (Some(_), false) => {}
    }
    let scales = read_scales(checkpoint, group, module, shape)?;
    let group_size = match group.granularity {
        Granularity::Group(size) => size,
        Granularity::Channel | Granularity::Tensor => shape[1],
    };
    Ok(match activations {
        Some(activations) if group.bits == 8 && zero_points.is_none() => StoredWeight::Int8 {
            codes,
            scales,
            activations,
        },
        _ => StoredWeight::Groups {
            codes,
            scales,
            zero_points,
            group_size,
            bits: group.bits,
            activations,
        },
    })
}
/// Zero points, which are packed down the rows: those of 32 / bits rows are a word.
fn read_packed_zero_points(
    view: &TensorView<'_>,
    group: &ConfigGroup,
    shape: [usize; 2],
) -> Result<Vec<i8>, CheckpointError> {
    let [rows, groups] = group.shape_of_scales(view, shape)?;
    view.expect_dtype(&[DType::I32])?;
    view.expect_shape(&[packed_words(rows, group.bits), groups])?;
    Ok(unpack_columns(&words_of(view)?, rows, groups, group.bits))
}

impl ConfigGroup {
    /// (rows, groups of a row). `view` is the tensor that has them, or that goes with it.
    fn shape_of_scales(
        &self,
        view: &TensorView<'_>,
        [rows, columns]: [usize; 2],
    ) -> Result<[usize; 2], CheckpointError> {
        match self.granularity {
            Granularity::Group(size) if columns % size == 0 => Ok([rows, columns / size]),
            Granularity::Group(size) => Err(view.error(
                CheckpointErrorKind::WrongShape,
                format!("group_size: expected a divisor of the {columns} columns of the weight, found {size}"),
            )),
            Granularity::Channel | Granularity::Tensor => Ok([rows, 1]),
        }
    }
}

/// The scales as one for each row and group of columns.
pub(super) fn read_scales(
    checkpoint: &Checkpoint,
    group: &ConfigGroup,
    module: &str,
    shape: [usize; 2],
) -> Result<Vec<f32>, CheckpointError> {
    let rows = shape[0];
    let view = checkpoint.require(&format!("{module}.weight_scale"))?;
    let one_dimensional = view.info.shape.len() < 2;
    match group.granularity {
        Granularity::Tensor => {
            expect_scalar(&view)?;
            let scale = view.finite_f32()?[0];
            Ok(vec![scale; rows])
        }
        Granularity::Channel => {
            // Older writers left out the dimension of 1.
            let expected: &[usize] = if one_dimensional { &[rows] } else { &[rows, 1] };
            view.expect_shape(expected)?;
            view.finite_f32()
        }
        Granularity::Group(_) => {
            view.expect_shape(&group.shape_of_scales(&view, shape)?)?;
            view.finite_f32()
        }
    }
}

fn read_static(
    checkpoint: &Checkpoint,
    module: &str,
    symmetric: bool,
    codes: CodeRange,
) -> Result<Int8Activations, CheckpointError> {
    let view = checkpoint.require(&format!("{module}.input_scale"))?;
    expect_scalar(&view)?;
    let scale = view.finite_f32()?[0];
    // Of a denormal scale the reciprocal, by which inputs are multiplied, can be infinite.
    if scale < f32::MIN_POSITIVE {
        return Err(view
            .error(
                CheckpointErrorKind::Malformed,
                format!("scale: expected a positive number, found {scale}"),
            )
            .hint("the layer was calibrated on no data, or on zeros only: calibrate it again"));
    }
    let name = format!("{module}.input_zero_point");
    let zero_point = match checkpoint.get(&name) {
        None if symmetric => 0,
        None => {
            return Err(checkpoint.missing(&name));
        }
        Some(view) => {
            expect_scalar(&view)?;
            let found = view.integers()?[0];
            let allowed = if symmetric {
                0..=0
            } else {
                codes.min..=codes.max
            };
            let zero_point = i32::try_from(found).ok();
            zero_point
                .filter(|zero_point| allowed.contains(zero_point))
                .ok_or_else(|| {
                    let expected = if symmetric {
                        "0, as the config says symmetric".to_owned()
                    } else {
                        format!("a number in {}..={}", codes.min, codes.max)
                    };
                    view.error(
                        CheckpointErrorKind::Malformed,
                        format!("zero point: expected {expected}, found {found}"),
                    )
                })?
        }
    };
    Ok(Int8Activations::Static {
        scale,
        zero_point,
        codes,
    })
}

/// Symmetric weights have no zero points; older writers stored zeros.
fn expect_no_zero_points(checkpoint: &Checkpoint, module: &str) -> Result<(), CheckpointError> {
    let Some(view) = checkpoint.get(&format!("{module}.weight_zero_point")) else {
        return Ok(());
    };
    if view.stored_bytes()?.iter().all(|&byte| byte == 0) {
        return Ok(());
    }
    Err(
        unsupported("compressed-tensors weight zero points other than 0")
            .in_file(&view.info.file)
            .at_tensor(&view.info.name),
    )
}

/// One element, whatever the number of dimensions.
pub(super) fn expect_scalar(view: &TensorView<'_>) -> Result<(), CheckpointError> {
    if view.element_count() == 1 {
        Ok(())
    } else {
        view.expect_shape(&[1])
    }
}

/// The shape of a packed weight, which `weight_shape` gives, or of E2M1 codes the tensor itself.
pub(crate) fn packed_shape(
    checkpoint: &Checkpoint,
    module: &str,
) -> Result<Vec<usize>, CheckpointError> {
    let name = format!("{module}.weight_shape");
    if !checkpoint.contains(&name)
        && let Some(packed) = checkpoint.get(&format!("{module}.weight_packed"))
        && let Some(shape) = shape_of_packed(&packed)
    {
        return Ok(shape);
    }
    let shape = checkpoint.require(&name)?;
    let dimensions = shape.integers()?.into_iter();
    Ok(dimensions
        .map(|size| usize::try_from(size).unwrap_or(usize::MAX))
        .collect())
}
