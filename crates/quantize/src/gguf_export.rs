//! A BERT as a GGUF file for llama.cpp.
//!
//! Linear layers and the word embedding table get the type that is asked for; normalizations, biases and the small tables are F32, as
//! llama.cpp wants them. Where the rows of a matrix are no whole blocks, it gets the next larger type whose blocks fit, as llama.cpp's own
//! quantizer does it.

mod bert;

use std::path::Path;

use fewbit_checkpoint::gguf::{GgufWriter, PlannedTensor, TensorType};
use fewbit_checkpoint::{Checkpoint, TensorView};
use fewbit_model::{EncoderSpec, ModuleKind, Role, WordPiecePipeline};
use fewbit_numerics::dtype::DType;
use fewbit_numerics::ggml_blocks::BlockType;
use fewbit_numerics::half_precision::{f32_to_float_bytes, float_bytes_to_f32};

use crate::QuantizeError;
use crate::gguf_architecture::GgufArchitecture;
use crate::weight_codecs::quantize_ggml_blocks;

/// Elements that are read at a time: whole blocks of every type, 4 MiB of f32.
const SLICE_ELEMENTS: usize = 1 << 20;

/// What was written.
pub(crate) struct GgufOutcome {
    pub(crate) output_bytes: usize,
    pub(crate) file_bytes: u64,
    pub(crate) underflowed: usize,
    pub(crate) notes: Vec<String>,
}

/// A tensor of the source and what becomes of it.
struct Export<'a> {
    view: TensorView<'a>,
    planned: PlannedTensor,
}

/// Writes the float model `checkpoint`, which was opened in `source`, as the GGUF file `out`.
///
/// # Errors
/// A model that is no BERT as llama.cpp runs it; a tensor that is missing or not finite; values beyond fp16; those of writing. Nothing is left behind.
pub(crate) fn write(
    source: &Path,
    checkpoint: &Checkpoint,
    kind: TensorType,
    out: &Path,
    force: bool,
    progress: &mut dyn FnMut(usize, usize, &str),
) -> Result<GgufOutcome, QuantizeError> {
    let spec = EncoderSpec::from_checkpoint(checkpoint)?;
    bert::refuse_others(&spec, checkpoint)?;
    let pipeline = WordPiecePipeline::read(source, &spec)?;
    let exports = exports(&spec, checkpoint, kind)?;
    let metadata = bert::metadata(source, &spec, &pipeline, kind);
    let planned: Vec<_> = exports
        .iter()
        .map(|export| export.planned.clone())
        .collect();
    let mut outcome = GgufOutcome {
        output_bytes: 0,
        file_bytes: 0,
        underflowed: 0,
        notes: notes(&exports, kind, &spec, &pipeline),
    };
    for tensor in &planned {
        outcome.output_bytes += tensor.byte_len()?;
    }
    let mut writer = GgufWriter::create(out, force, &metadata, planned)?;
    outcome.file_bytes = writer.file_bytes();
    let total = exports.iter().map(|export| export.view.info.byte_len).sum();
    let mut done = 0;
    for Export { view, planned } in &exports {
        let elements = view.element_count();
        let (mut values, mut bytes) = (Vec::new(), Vec::new());
        for start in (0..elements).step_by(SLICE_ELEMENTS) {
            values.resize(SLICE_ELEMENTS.min(elements - start), 0.0);
            view.read_finite_range(start, &mut values)?;
            outcome.underflowed += encode(view, planned.kind, start, &values, &mut bytes)?;
            writer.append(&bytes)?;
            done += values.len() * view.info.dtype.bytes();
            progress(done, total, &view.info.name);
        }
        checkpoint.release(&view.info.name);
    }
    writer.finish()?;
    Ok(outcome)
}

/// The tensors that the file has, in its order.
fn exports<'a>(
    spec: &EncoderSpec,
    checkpoint: &'a Checkpoint,
    kind: TensorType,
) -> Result<Vec<Export<'a>>, QuantizeError> {
    let catalogue = spec.catalogue();
    let mut exports = Vec::new();
    for module in catalogue.modules() {
        let Some(name) = GgufArchitecture::Bert.module_name(module.role, module.layer) else {
            continue;
        };
        let is_norm = module.kind() == ModuleKind::Norm;
        let older = |part: &str| match (is_norm, part) {
            (true, "weight") => Some("gamma"),
            (true, "bias") => Some("beta"),
            _ => None,
        };
        let parts = ["weight", "bias"];
        for part in parts.into_iter().take(1 + usize::from(module.bias)) {
            let path = |part: &str| format!("{}.{part}", module.name);
            let older = older(part).and_then(|part| checkpoint.get(&path(part)));
            let view = match older {
                Some(view) => view,
                None => checkpoint.require(&path(part))?,
            };
            let is_vector = is_norm || part == "bias";
            match is_vector {
                true => view.expect_shape(&[module.shape[usize::from(is_norm)]])?,
                false => view.expect_shape(&module.shape)?,
            }
            let gets_codes = !is_vector
                && (module.kind() == ModuleKind::Linear || module.role == Role::WordEmbeddings);
            let kind = match gets_codes {
                true => fitting(kind, module.shape[1]),
                false => TensorType::F32,
            };
            let planned = PlannedTensor {
                name: format!("{name}.{part}"),
                shape: view.info.shape.clone(),
                kind,
            };
            exports.push(Export { view, planned });
        }
    }
    Ok(exports)
}

/// `kind`, or the next larger type whose blocks are parts of rows of `columns`.
fn fitting(kind: TensorType, columns: usize) -> TensorType {
    let fits = |kind: TensorType| columns.is_multiple_of(kind.block_elements());
    match kind {
        kind if fits(kind) => kind,
        TensorType::Blocks(BlockType::Q4_K) => {
            fitting(TensorType::Blocks(BlockType::Q5_0), columns)
        }
        TensorType::Blocks(BlockType::Q6_K) => {
            fitting(TensorType::Blocks(BlockType::Q8_0), columns)
        }
        _ => TensorType::F16,
    }
}

/// The bytes of `values`, the elements from `start` on; also how many became zero that were not.
fn encode(
    view: &TensorView<'_>,
    kind: TensorType,
    start: usize,
    values: &[f32],
    bytes: &mut Vec<u8>,
) -> Result<usize, QuantizeError> {
    bytes.resize(values.len() / kind.block_elements() * kind.block_bytes(), 0);
    let overflow = |offset: usize, dtype, hint| QuantizeError::Overflow {
        file: view.info.file.clone(),
        tensor: view.info.name.clone(),
        dtype,
        index: view.index_of(start + offset),
        value: values[offset],
        hint,
    };
    let dtype = match kind {
        TensorType::F32 => DType::F32,
        TensorType::F16 => DType::F16,
        TensorType::Bf16 => DType::BF16,
        TensorType::Blocks(kind) => {
            let beyond = quantize_ggml_blocks(kind, values, bytes);
            let Some(block) = beyond else {
                return Ok(0);
            };
            let first = block * kind.elements();
            let largest = (first..first + kind.elements())
                .max_by(|a, b| values[*a].abs().total_cmp(&values[*b].abs()));
            let hint = "the scale of its block is beyond fp16, in which the format has it: use bf16 or f32";
            return Err(overflow(largest.unwrap_or(first), kind.name(), hint));
        }
    };
    let losses = f32_to_float_bytes(dtype, values, bytes);
    if losses.overflowed > 0 {
        let mut back = vec![0.0; values.len()];
        float_bytes_to_f32(dtype, bytes, &mut back);
        let offset = back.iter().position(|value| value.is_infinite());
        let hint = "the largest fp16 value is 65504: use bf16, whose range is that of f32";
        return Err(overflow(offset.unwrap_or(0), "f16", hint));
    }
    Ok(losses.underflowed)
}

/// What the file is, where that is not what was asked for or differs from the model here.
fn notes(
    exports: &[Export<'_>],
    kind: TensorType,
    spec: &EncoderSpec,
    pipeline: &WordPiecePipeline,
) -> Vec<String> {
    let mut notes = Vec::new();
    let mut others: Vec<(TensorType, usize)> = Vec::new();
    for Export { planned, .. } in exports {
        match others.iter_mut().find(|(other, _)| *other == planned.kind) {
            _ if [TensorType::F32, kind].contains(&planned.kind) => {}
            Some((_, number)) => *number += 1,
            None => others.push((planned.kind, 1)),
        }
    }
    for (other, number) in others {
        notes.push(format!(
            "{number} matrices are stored as {other}: their rows are no whole blocks of {} elements",
            kind.block_elements()
        ));
    }
    notes.push("pooler and heads have no place in the file; llama.cpp computes GELU by a tanh and 16-bit tables, and takes every token for one of the first text".to_owned());
    let positions = spec.positions.max_tokens();
    if pipeline.max_tokens < positions {
        notes.push(format!(
            "texts are cut at {} tokens here, which the file does not say: llama.cpp takes up to {positions}",
            pipeline.max_tokens
        ));
    }
    if !pipeline.lowercase || !pipeline.strip_accents {
        notes.push("letters keep their case or accents: llama.cpp before `tokenizer.ggml.normalizer` lowercases all texts and strips accents".to_owned());
    }
    notes
}
