//! Reading compressed-tensors weights of small floats.
use super::read::{expect_scalar, read_scales};
use super::settings::ConfigGroup;
use crate::small_floats::{SmallFloatScales, SmallFloatType, SmallFloats};
use crate::{Checkpoint, CheckpointError, CheckpointErrorKind, StoredWeight, TensorView};
use fewbit_numerics::dtype::DType;
use std::borrow::Cow;

/// Reads the weight of `module`, which `group` says is of `kind`.
pub(super) fn read_floats<'a>(
    checkpoint: &'a Checkpoint,
    group: &ConfigGroup,
    kind: SmallFloatType,
    module: &str,
    shape: [usize; 2],
) -> Result<StoredWeight<'a>, CheckpointError> {
    let [rows, columns] = shape;
    let codes = match kind {
        SmallFloatType::Fp8 => {
            let weight = checkpoint.require(&format!("{module}.weight"))?;
            weight.expect_dtype(&[DType::F8E4M3])?;
            weight.expect_shape(&shape)?;
            numbers(&weight)?
        }
        SmallFloatType::Nvfp4 | SmallFloatType::Mxfp4 => {
            let packed = checkpoint.require(&format!("{module}.weight_packed"))?;
            packed.expect_dtype(&[DType::U8])?;
            let size = kind.group_size().unwrap_or(1);
            if !columns.is_multiple_of(size) {
                return Err(packed.error(
                    CheckpointErrorKind::WrongShape,
                    format!("columns: expected a multiple of {size}, which share a scale of {kind}, found {columns}"),
                ));
            }
            packed.expect_shape(&[rows, columns / 2])?;
            packed.stored_bytes()?
        }
    };
    let scales = match kind {
        SmallFloatType::Fp8 => {
            let view = checkpoint.require(&format!("{module}.weight_scale"))?;
            let scales = read_scales(checkpoint, group, module, shape)?;
            expect_no_zero(&view, scales.iter().map(|scale| *scale == 0.0))?;
            SmallFloatScales::Rows(scales)
        }
        SmallFloatType::Nvfp4 => {
            let view = checkpoint.require(&format!("{module}.weight_scale"))?;
            view.expect_dtype(&[DType::F8E4M3])?;
            view.expect_shape(&[rows, kind.row_scales(columns)])?;
            let codes = numbers(&view)?;
            expect_no_zero(&view, codes.iter().map(|code| code & 0x7f == 0))?;
            let global = checkpoint.require(&format!("{module}.weight_global_scale"))?;
            expect_scalar(&global)?;
            let global_scale = global.finite_f32()?[0];
            expect_no_zero(&global, [global_scale == 0.0].into_iter())?;
            SmallFloatScales::Nvfp4 {
                codes: Cow::Borrowed(codes),
                global_scale,
            }
        }
        SmallFloatType::Mxfp4 => {
            let view = checkpoint.require(&format!("{module}.weight_scale"))?;
            view.expect_dtype(&[DType::U8])?;
            view.expect_shape(&[rows, kind.row_scales(columns)])?;
            let codes = view.stored_bytes()?;
            expect_numbers(&view, codes, |code| code == 255)?;
            SmallFloatScales::Mxfp4(Cow::Borrowed(codes))
        }
    };
    let floats = SmallFloats {
        codes: Cow::Borrowed(codes),
        scales,
    };
    Ok(StoredWeight::SmallFloats(floats))
}

/// The bytes of an E4M3 tensor without NaN.
fn numbers<'a>(view: &TensorView<'a>) -> Result<&'a [u8], CheckpointError> {
    let codes = view.stored_bytes()?;
    expect_numbers(view, codes, |code| code & 0x7f == 0x7f)?;
    Ok(codes)
}

fn expect_numbers(
    view: &TensorView<'_>,
    codes: &[u8],
    is_nan: impl Fn(u8) -> bool,
) -> Result<(), CheckpointError> {
    match codes.iter().position(|code| is_nan(*code)) {
        None => Ok(()),
        Some(index) => {
            let place = view.index_of(index);
            let message = format!("element {place:?}: expected a finite number, found NaN");
            let hint =
                "the checkpoint is damaged, or was quantized from weights that were not finite";
            Err(view
                .error(CheckpointErrorKind::NonFinite, message)
                .hint(hint))
        }
    }
}

fn expect_no_zero(
    view: &TensorView<'_>,
    mut are_zero: impl Iterator<Item = bool>,
) -> Result<(), CheckpointError> {
    match are_zero.position(|is_zero| is_zero) {
        None => Ok(()),
        Some(index) => {
            let message = format!("scale {index}: expected a number other than 0, found 0");
            let hint = "the checkpoint is damaged, or was quantized without its scales";
            Err(view
                .error(CheckpointErrorKind::Malformed, message)
                .hint(hint))
        }
    }
}

/// The shape of packed E2M1 codes of which no tensor says it: two are a byte.
pub(super) fn shape_of_packed(view: &TensorView<'_>) -> Option<Vec<usize>> {
    match (view.info.dtype, &view.info.shape[..]) {
        (DType::U8, &[rows, bytes]) => Some(vec![rows, bytes.checked_mul(2)?]),
        _ => None,
    }
}
