//! Reading bitsandbytes weights.
use super::quant_state::QuantState;
use crate::float_weight::read_float;
use crate::quantization_error::unsupported;
use crate::{Checkpoint, CheckpointError, CheckpointErrorKind, StoredWeight, TensorView};
use fewbit_numerics::double_quantization::{self, DoubleQuantized, NESTED_BLOCK_SIZE};
use fewbit_numerics::dtype::DType;
use fewbit_numerics::dynamic_map::dynamic_map;
use fewbit_numerics::finite::first_non_finite;
use fewbit_numerics::four_bit::FourBitType;
use fewbit_numerics::rows::llm_int8_scale;
use std::borrow::Cow;

/// Reads the weight of `module`: 4-bit if it has a quant_state, 8-bit if it has an SCB, else float. (Which layers transformers
/// leaves alone is not in the file: float tensors are always consistent.)
pub(crate) fn read<'a>(
    checkpoint: &'a Checkpoint,
    module: &str,
    shape: [usize; 2],
) -> Result<StoredWeight<'a>, CheckpointError> {
    if let Some((kind, state)) = quant_state_tensor(checkpoint, module) {
        return read_four_bit(checkpoint, module, shape, kind, &state);
    }
    if let Some(row_absmax) = checkpoint.get(&format!("{module}.SCB")) {
        return read_eight_bit(checkpoint, module, shape, &row_absmax);
    }
    if checkpoint.contains(&format!("{module}.weight.absmax")) {
        let name = format!("{module}.weight.quant_state.bitsandbytes__nf4");
        return Err(checkpoint.missing(&name));
    }
    read_float(checkpoint, module, shape)
}

/// The shape of the weight of `module` that its quant_state gives; none if it is not 4-bit.
pub(crate) fn four_bit_shape(
    checkpoint: &Checkpoint,
    module: &str,
) -> Result<Option<Vec<usize>>, CheckpointError> {
    Ok(four_bit_state(checkpoint, module)?.map(|state| state.shape))
}

/// The dtype that the weight of `module` dequantizes to; none if it is not 4-bit.
pub(crate) fn four_bit_dtype(
    checkpoint: &Checkpoint,
    module: &str,
) -> Result<Option<DType>, CheckpointError> {
    let state = four_bit_state(checkpoint, module)?;
    Ok(state.map(|state| state.dtype().unwrap_or(DType::F32)))
}

fn four_bit_state(
    checkpoint: &Checkpoint,
    module: &str,
) -> Result<Option<QuantState>, CheckpointError> {
    let Some((_, view)) = quant_state_tensor(checkpoint, module) else {
        return Ok(None);
    };
    let state = QuantState::parse(view.stored_bytes()?)
        .map_err(|message| view.error(CheckpointErrorKind::Malformed, message))?;
    Ok(Some(state))
}

/// The shape of an [`EightBitTable`](super::EightBitTable), whose codes `weight` are flat; none of any other weight.
pub(crate) fn eight_bit_shape(
    checkpoint: &Checkpoint,
    module: &str,
    weight: &TensorView<'_>,
) -> Option<Vec<usize>> {
    let row_absmax = checkpoint.get(&format!("{module}.SCB"))?;
    match (&weight.info.shape[..], &row_absmax.info.shape[..]) {
        (&[elements, 1], &[rows]) if rows != elements && rows > 0 && elements % rows == 0 => {
            Some(vec![rows, elements / rows])
        }
        _ => None,
    }
}

/// The quant_state of a 4-bit module, and the type that its name gives.
fn quant_state_tensor<'a>(
    checkpoint: &'a Checkpoint,
    module: &str,
) -> Option<(FourBitType, TensorView<'a>)> {
    [FourBitType::Nf4, FourBitType::Fp4]
        .into_iter()
        .find_map(|kind| {
            let name = format!("{module}.weight.quant_state.bitsandbytes__{}", kind.name());
            Some((kind, checkpoint.get(&name)?))
        })
}

fn read_four_bit<'a>(
    checkpoint: &'a Checkpoint,
    module: &str,
    shape: [usize; 2],
    kind: FourBitType,
    state_view: &TensorView<'_>,
) -> Result<StoredWeight<'a>, CheckpointError> {
    let require = |part: &str| checkpoint.require(&format!("{module}.weight{part}"));
    state_view.expect_dtype(&[DType::U8])?;
    let malformed_state =
        |message: String| state_view.error(CheckpointErrorKind::Malformed, message);
    let state = QuantState::parse(state_view.stored_bytes()?).map_err(malformed_state)?;
    if state.kind != kind {
        return Err(malformed_state(format!(
            "quant_type: expected {}, as in the tensor's name, found {}",
            kind.name(),
            state.kind.name()
        )));
    }
    if state.shape != shape {
        return Err(state_view.error(
            CheckpointErrorKind::WrongShape,
            format!("shape: expected {shape:?}, found {:?}", state.shape),
        ));
    }
    let packed = require("")?;
    let packed_bytes = packed.stored_bytes()?;
    // quant_storage may be any dtype: the bytes are the same.
    let elements = shape[0].checked_mul(shape[1]).ok_or_else(|| {
        malformed_state(format!("shape {shape:?}: the number of elements overflows"))
    })?;
    if packed_bytes.len() != elements.div_ceil(2) {
        return Err(packed.error(
            CheckpointErrorKind::WrongShape,
            format!(
                "4-bit data of shape {shape:?}: expected {} bytes, found {}",
                elements.div_ceil(2),
                packed_bytes.len()
            ),
        ));
    }
    let quant_map = require(".quant_map")?;
    quant_map.expect_shape(&[16])?;
    // FP4's code 8 is stored as +0 or -0, which compare equal.
    if quant_map.to_f32()? != *kind.table() {
        return Err(quant_map.error(
            CheckpointErrorKind::UnsupportedQuantization,
            format!("expected the code table of {}, found another", kind.name()),
        ));
    }
    let blocks = elements.div_ceil(state.block_size);
    let absmax_view = require(".absmax")?;
    absmax_view.expect_shape(&[blocks])?;
    let (absmax, nested) = match state.nested {
        None => (absmax_view.finite_f32()?, None),
        Some(nested) => {
            absmax_view.expect_dtype(&[DType::U8])?;
            let nested_absmax = require(".nested_absmax")?;
            nested_absmax.expect_shape(&[blocks.div_ceil(nested.block_size)])?;
            let nested_map = require(".nested_quant_map")?;
            nested_map.expect_shape(&[256])?;
            let map = nested_map.finite_f32()?;
            let map: &[f32; 256] = map[..].try_into().map_err(|_| {
                nested_map.error(CheckpointErrorKind::WrongShape, "shape: expected [256]")
            })?;
            let codes = absmax_view.stored_bytes()?;
            let nested_absmax = nested_absmax.finite_f32()?;
            let absmax = double_quantization::dequantize(
                codes,
                map,
                &nested_absmax,
                nested.block_size,
                nested.offset,
            );
            // Finite factors can have an infinite product.
            if let Some((index, value)) = first_non_finite(&absmax) {
                let message = format!(
                    "element {index}, dequantized: expected a finite number, found {value}"
                );
                return Err(absmax_view.error(CheckpointErrorKind::NonFinite, message));
            }
            let is_usual = map == dynamic_map() && nested.block_size == NESTED_BLOCK_SIZE;
            let nested = is_usual.then(|| DoubleQuantized {
                codes: codes.to_vec(),
                nested_absmax,
                offset: nested.offset,
            });
            (absmax, nested)
        }
    };
    let dtype = state.dtype().unwrap_or(DType::F32);
    Ok(StoredWeight::FourBit {
        packed: Cow::Borrowed(packed_bytes),
        absmax,
        nested,
        block_size: state.block_size,
        kind,
        dtype,
    })
}

/// LLM.int8: int8 codes with `SCB`, the absmax of each row; `code * SCB / 127`. Those of an [`EightBitTable`](super::EightBitTable) are flat.
fn read_eight_bit<'a>(
    checkpoint: &'a Checkpoint,
    module: &str,
    shape: [usize; 2],
    row_absmax: &TensorView<'_>,
) -> Result<StoredWeight<'a>, CheckpointError> {
    let weight = checkpoint.require(&format!("{module}.weight"))?;
    weight.expect_dtype(&[DType::I8])?;
    let is_flat = weight.info.shape == [shape[0].saturating_mul(shape[1]), 1];
    if !is_flat {
        weight.expect_shape(&shape)?;
    }
    row_absmax.expect_shape(&[shape[0]])?;
    if let Some(format) = checkpoint.get(&format!("{module}.weight_format")) {
        format.expect_dtype(&[DType::U8])?;
        let bytes = format.stored_bytes()?;
        if bytes != [0] {
            return Err(unsupported(format!(
                "bitsandbytes weight_format: expected 0 (row-major), found {bytes:?}"
            ))
            .in_file(&format.info.file)
            .at_tensor(&format.info.name));
        }
    }
    let scales = row_absmax
        .finite_f32()?
        .into_iter()
        .map(llm_int8_scale)
        .collect();
    Ok(StoredWeight::weight_only_int8(
        weight.codes()?,
        scales,
        shape[1],
    ))
}
