//! A model as a GGUF file for llama.cpp.
//!
//! Linear layers and the word embedding table get the type that is asked for; normalizations, biases and the small tables are F32, as
//! llama.cpp wants them. Where the rows of a matrix are no whole blocks, it gets the next larger type whose blocks fit, as llama.cpp's own
//! quantizer does it.

mod refusals;
mod sizes;
mod tokenization;

use std::path::Path;

use fewbit_checkpoint::gguf::{GgufWriter, MetadataValue, PlannedTensor, RowOrder, TensorType};
use fewbit_checkpoint::output_file::OutputFile;
use fewbit_checkpoint::{Checkpoint, TensorView};
use fewbit_model::{EncoderSpec, Module, ModuleKind, Role};
use fewbit_numerics::dtype::DType;
use fewbit_numerics::ggml_blocks::BlockType;
use fewbit_numerics::half_precision::{f32_to_float_bytes, float_bytes_to_f32};

use crate::QuantizeError;
use crate::gguf_architecture::GgufArchitecture;
use crate::gguf_export::tokenization::Tokenization;
use crate::weight_codecs::quantize_ggml_blocks;

/// Elements that are read at a time: whole blocks of every type, 4 MiB of f32.
const SLICE_ELEMENTS: usize = 1 << 20;

/// The tensor of numbers by which llama.cpp divides frequencies of rotations.
pub(crate) const ROTATIONS: &str = "rope_freqs.weight";

/// A tensor of the source and what becomes of it.
struct Export<'a> {
    view: TensorView<'a>,
    planned: PlannedTensor,
    order: RowOrder,
}

/// A file that is decided and not begun.
pub(crate) struct PlannedGguf<'a> {
    checkpoint: &'a Checkpoint,
    metadata: Vec<(String, MetadataValue)>,
    exports: Vec<Export<'a>>,
    /// A tensor of F32 that is none of the source: what frequencies of rotations are divided by.
    divisors: Option<(PlannedTensor, Vec<f32>)>,
    /// Bytes of tensors.
    pub(crate) output_bytes: usize,
    /// What a user should know.
    pub(crate) notes: Vec<String>,
}

impl<'a> PlannedGguf<'a> {
    /// What becomes of the float model `checkpoint`, whose other files are in `files` and which is called `name`, with matrices of the type `kind`. Reads no
    /// weight.
    ///
    /// # Errors
    /// A model that llama.cpp does not run, or a tokenizer that it does not have; a tensor that is missing or has another shape than config.json says.
    pub(crate) fn new(
        files: &Path,
        name: &str,
        checkpoint: &'a Checkpoint,
        kind: TensorType,
    ) -> Result<Self, QuantizeError> {
        let spec = EncoderSpec::from_checkpoint(checkpoint)?;
        let architecture = refusals::architecture(&spec, checkpoint)?;
        let tokenization = Tokenization::read(architecture, files, &spec)?;
        let exports = exports(architecture, &spec, checkpoint, kind)?;
        let pooling = tokenization.pooling();
        let mut metadata = sizes::entries(architecture, name, &spec, pooling, kind);
        metadata.extend(tokenization.entries());
        let divisors = sizes::frequency_divisors(&spec).map(|divisors| {
            let planned = PlannedTensor {
                name: ROTATIONS.to_owned(),
                shape: vec![divisors.len()],
                kind: TensorType::F32,
            };
            (planned, divisors)
        });
        let mut output_bytes = 0;
        let planned = exports.iter().map(|export| &export.planned);
        for planned in planned.chain(divisors.as_ref().map(|(planned, _)| planned)) {
            output_bytes += planned.byte_len()?;
        }
        Ok(Self {
            checkpoint,
            metadata,
            output_bytes,
            notes: notes(architecture, &exports, kind, &spec, &tokenization),
            exports,
            divisors,
        })
    }

    fn planned(&self) -> Vec<PlannedTensor> {
        let exports = self.exports.iter();
        let planned = exports.map(|export| export.planned.clone());
        let divisors = self.divisors.iter().map(|(planned, _)| planned.clone());
        planned.chain(divisors).collect()
    }

    /// Bytes of the whole file.
    ///
    /// # Errors
    /// A tensor that the format has no place for.
    pub(crate) fn file_bytes(&self) -> Result<u64, QuantizeError> {
        Ok(GgufWriter::planned_bytes(&self.metadata, &self.planned())?)
    }

    /// Checks that the file `out` can be written: another beside it comes and goes meanwhile.
    ///
    /// # Errors
    /// Those of [`OutputFile::create`].
    pub(crate) fn check_output(&self, out: &Path, force: bool) -> Result<(), QuantizeError> {
        OutputFile::create(out, force)?;
        Ok(())
    }

    /// Writes the file `out`. How many values became zero that were not.
    ///
    /// # Errors
    /// A tensor that is not finite; values beyond fp16; those of writing. Nothing is left behind.
    pub(crate) fn write(
        &self,
        out: &Path,
        force: bool,
        progress: &mut dyn FnMut(usize, usize, &str),
    ) -> Result<usize, QuantizeError> {
        let mut writer = GgufWriter::create(out, force, &self.metadata, self.planned())?;
        let exports = self.exports.iter();
        let total = exports.map(|export| export.view.info.byte_len).sum();
        let (mut underflowed, mut done) = (0, 0);
        for export in &self.exports {
            let Export { view, planned, .. } = export;
            let elements = view.element_count();
            let (mut values, mut bytes) = (Vec::new(), Vec::new());
            let slice = export.slice_elements();
            for start in (0..elements).step_by(slice) {
                values.resize(slice.min(elements - start), 0.0);
                export.read(start, &mut values)?;
                underflowed += encode(export, planned.kind, start, &values, &mut bytes)?;
                writer.append(&bytes)?;
                done += values.len() * view.info.dtype.bytes();
                progress(done, total, &view.info.name);
            }
            self.checkpoint.release(&view.info.name);
        }
        if let Some((_, divisors)) = &self.divisors {
            let bytes: Vec<u8> = divisors
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            writer.append(&bytes)?;
        }
        writer.finish()?;
        Ok(underflowed)
    }
}

impl Export<'_> {
    /// Columns of a matrix; of a vector, whose elements are rows, 1.
    fn columns(&self) -> usize {
        match self.view.info.shape[..] {
            [_, columns] => columns,
            _ => 1,
        }
    }

    /// Elements that are read at a time: whole rows where these get another order.
    fn slice_elements(&self) -> usize {
        match self.order {
            RowOrder::Same => SLICE_ELEMENTS,
            RowOrder::InterleavedHeads { .. } => {
                let columns = self.columns().max(1);
                (SLICE_ELEMENTS / columns).max(1) * columns
            }
        }
    }

    /// The elements of the file from `start` on.
    fn read(&self, start: usize, values: &mut [f32]) -> Result<(), QuantizeError> {
        if self.order == RowOrder::Same {
            return Ok(self.view.read_finite_range(start, values)?);
        }
        let columns = self.columns();
        for (row, values) in (start / columns..).zip(values.chunks_mut(columns)) {
            let row = self.order.of_stored(row);
            self.view.read_finite_range(row * columns, values)?;
        }
        Ok(())
    }

    /// Where in the source the element of the file at `index` is.
    fn source_element(&self, index: usize) -> usize {
        let columns = self.columns().max(1);
        self.order.of_stored(index / columns) * columns + index % columns
    }
}

/// The tensors that the file has, in its order.
fn exports<'a>(
    architecture: GgufArchitecture,
    spec: &EncoderSpec,
    checkpoint: &'a Checkpoint,
    kind: TensorType,
) -> Result<Vec<Export<'a>>, QuantizeError> {
    let catalogue = spec.catalogue();
    let mut exports = Vec::new();
    for module in catalogue.modules() {
        let Some(name) = architecture.module_name(module.role, module.layer) else {
            continue;
        };
        for part in ["weight", "bias"]
            .into_iter()
            .take(1 + usize::from(module.bias))
        {
            let view = tensor(checkpoint, module, part)?;
            let is_vector = module.kind() == ModuleKind::Norm || part == "bias";
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
            let order = architecture.row_order(module.role, spec);
            exports.push(Export {
                view,
                planned,
                order,
            });
        }
    }
    if let Some(view) = head(architecture, spec, checkpoint)? {
        let planned = PlannedTensor {
            name: "output.weight".to_owned(),
            shape: view.info.shape.clone(),
            kind: fitting(kind, spec.hidden_size),
        };
        let order = RowOrder::Same;
        exports.push(Export {
            view,
            planned,
            order,
        });
    }
    Ok(exports)
}

/// A tensor of a module, which has the shape that config.json says.
fn tensor<'a>(
    checkpoint: &'a Checkpoint,
    module: &Module,
    part: &str,
) -> Result<TensorView<'a>, QuantizeError> {
    let is_norm = module.kind() == ModuleKind::Norm;
    let older = match (is_norm, part) {
        (true, "weight") => Some("gamma"),
        (true, "bias") => Some("beta"),
        _ => None,
    };
    let path = |part: &str| format!("{}.{part}", module.name);
    let view = match older.and_then(|part| checkpoint.get(&path(part))) {
        Some(view) => view,
        None => checkpoint.require(&path(part))?,
    };
    match is_norm || part == "bias" {
        true => view.expect_shape(&[module.shape[usize::from(is_norm)]])?,
        false => view.expect_shape(&module.shape)?,
    }
    Ok(view)
}

/// The matrix that predicts words, where that is not the table of word embeddings.
fn head<'a>(
    architecture: GgufArchitecture,
    spec: &EncoderSpec,
    checkpoint: &'a Checkpoint,
) -> Result<Option<TensorView<'a>>, QuantizeError> {
    let is_tied = checkpoint.config()["tie_word_embeddings"] == true;
    let view = checkpoint.get("lm_head.weight");
    let Some(view) = view.filter(|_| architecture.is_causal() && !is_tied) else {
        return Ok(None);
    };
    view.expect_shape(&[spec.vocab_size, spec.hidden_size])?;
    Ok(Some(view))
}

/// `kind`, or the next larger type whose blocks are parts of rows of `columns`.
fn fitting(kind: TensorType, columns: usize) -> TensorType {
    let fits = |kind: TensorType| columns.is_multiple_of(kind.block_elements());
    match kind {
        kind if fits(kind) => kind,
        TensorType::Blocks(BlockType::Q4_K) => {
            fitting(TensorType::Blocks(BlockType::Q5_0), columns)
        }
        TensorType::Blocks(BlockType::Q5_K) => {
            fitting(TensorType::Blocks(BlockType::Q5_1), columns)
        }
        TensorType::Blocks(BlockType::Q6_K) => {
            fitting(TensorType::Blocks(BlockType::Q8_0), columns)
        }
        _ => TensorType::F16,
    }
}

/// The bytes of `values`, the elements from `start` on; also how many became zero that were not.
fn encode(
    export: &Export<'_>,
    kind: TensorType,
    start: usize,
    values: &[f32],
    bytes: &mut Vec<u8>,
) -> Result<usize, QuantizeError> {
    bytes.resize(values.len() / kind.block_elements() * kind.block_bytes(), 0);
    let view = &export.view;
    let overflow = |offset: usize, dtype, hint| QuantizeError::Overflow {
        file: view.info.file.clone(),
        tensor: view.info.name.clone(),
        dtype,
        index: view.index_of(export.source_element(start + offset)),
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
    architecture: GgufArchitecture,
    exports: &[Export<'_>],
    kind: TensorType,
    spec: &EncoderSpec,
    tokenization: &Tokenization,
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
    notes.push(
        match architecture {
            GgufArchitecture::Bert => "pooler and heads have no place in the file; llama.cpp computes GELU by a tanh and 16-bit tables, and takes every token for one of the first text",
            GgufArchitecture::NomicBert => "heads have no place in the file; llama.cpp takes every token for one of the first text",
            _ => "heads other than the one that predicts words have no place in the file",
        }
        .to_owned(),
    );
    let tokens = sizes::max_tokens(spec);
    if tokens < spec.positions.max_tokens() {
        notes.push(format!(
            "the file is for texts of at most {tokens} tokens, which the sliding window holds whole: llama.cpp has no windows in this architecture"
        ));
    }
    if tokenization.max_tokens() < tokens {
        notes.push(format!(
            "texts are cut at {} tokens here, which the file does not say: llama.cpp takes up to {tokens}",
            tokenization.max_tokens()
        ));
    }
    notes.extend(tokenization.note().map(str::to_owned));
    notes
}
