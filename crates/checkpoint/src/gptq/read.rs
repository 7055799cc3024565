//! Reading GPTQ weights.
use super::{GptqConfig, GptqVersion};
use crate::float_weight::read_float;
use crate::grouped_columns::{ReadColumns, scales_of, words_of};
use crate::{Checkpoint, CheckpointError, CheckpointErrorKind, StoredWeight};
use fewbit_numerics::dtype::DType;
use fewbit_numerics::int_packing::{packed_words, transposed, unpack_rows};

/// Reads the weight of `module`; the tensors that exist say whether it is quantized.
pub(crate) fn read<'a>(
    checkpoint: &'a Checkpoint,
    config: &GptqConfig,
    module: &str,
    shape: [usize; 2],
) -> Result<StoredWeight<'a>, CheckpointError> {
    if !checkpoint.contains(&format!("{module}.qweight")) {
        return read_float(checkpoint, module, shape);
    }
    let [out, inside] = shape;
    let GptqConfig { bits, version } = *config;
    let qweight = checkpoint.require(&format!("{module}.qweight"))?;
    qweight.expect_dtype(&[DType::I32])?;
    let code_words = packed_words(inside, bits);
    qweight.expect_shape(&[code_words, out])?;
    let scales = checkpoint.require(&format!("{module}.scales"))?;
    let groups = match scales.info.shape[..] {
        [groups, _] if groups > 0 && groups <= inside.max(1) => groups,
        _ => 1,
    };
    scales.expect_shape(&[groups, out])?;
    let qzeros = checkpoint.require(&format!("{module}.qzeros"))?;
    qzeros.expect_dtype(&[DType::I32])?;
    qzeros.expect_shape(&[groups, packed_words(out, bits)])?;
    let group_of_column = match checkpoint.get(&format!("{module}.g_idx")) {
        None => {
            let size = inside.div_ceil(groups).max(1);
            (0..inside).map(|column| column / size).collect()
        }
        Some(view) => {
            view.expect_dtype(&[DType::I32, DType::I64])?;
            view.expect_shape(&[inside])?;
            let found = view.integers()?;
            let group = |(column, group): (usize, &i64)| {
                let known = usize::try_from(*group).ok().filter(|group| *group < groups);
                known.ok_or_else(|| {
                    view.error(
                        CheckpointErrorKind::Malformed,
                        format!(
                            "group of column {column}: expected one of 0..{groups}, found {group}"
                        ),
                    )
                    .hint("the checkpoint is damaged, or its scales belong to another weight")
                })
            };
            found
                .iter()
                .enumerate()
                .map(group)
                .collect::<Result<Vec<_>, _>>()?
        }
    };
    let words = transposed(&words_of(&qweight)?, code_words, out);
    let subtracted = version.subtracted(bits);
    let zero_words = words_of(&qzeros)?;
    let zero_words: Vec<i32> = zero_words
        .into_iter()
        .map(|word| word.cast_unsigned().wrapping_add(subtracted).cast_signed())
        .collect();
    debug_assert!(version == GptqVersion::Gptq || subtracted == 0);
    let zero_points = unpack_rows(&zero_words, groups, out, bits);
    ReadColumns {
        codes: unpack_rows(&words, out, inside, bits),
        zero_points: transposed(&zero_points, groups, out),
        scales: transposed(&scales_of(&scales)?, groups, out),
        groups,
        bits,
        group_of_column,
    }
    .into_weight(shape)
}

/// The shape of the weight of `module`, of whose codes `qweight` has the shape (words, out); none if there are none.
pub(crate) fn packed_shape(
    checkpoint: &Checkpoint,
    config: &GptqConfig,
    module: &str,
) -> Result<Option<Vec<usize>>, CheckpointError> {
    let Some(qweight) = checkpoint.get(&format!("{module}.qweight")) else {
        return Ok(None);
    };
    match qweight.info.shape[..] {
        [words, out] if let Some(inside) = words.checked_mul(32 / config.bits) => {
            Ok(Some(vec![out, inside]))
        }
        _ => Err(qweight.error(
            CheckpointErrorKind::WrongShape,
            format!(
                "shape: expected (words of inputs, outputs), found {:?}",
                qweight.info.shape
            ),
        )),
    }
}
