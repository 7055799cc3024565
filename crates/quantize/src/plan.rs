//! What will be done to every tensor, before anything is done.

use fewbit_checkpoint::bitsandbytes::EightBitLayer;
use fewbit_checkpoint::compressed_tensors::CompressedScheme;
use fewbit_checkpoint::{
    Checkpoint, CheckpointWriter, GroupLayout, RenamedTensor, TensorPlan, compressed_tensors,
};
use fewbit_model::{Catalogue, EncoderSpec, ModuleKind};
use fewbit_numerics::dtype::DType;
use serde::Serialize;
use serde_json::Value;

use crate::default_embeddings::{refuse_shared_embeddings, with_decided_embeddings};
use crate::loader_skip_list::LoaderSkipList;
use crate::plan_row::RowPlanner;
pub use crate::plan_row::{PlanRow, TensorAction};
use crate::selection::looks_at_weights;
use crate::{
    IntegerInputs, IntegerRecipe, KeptModule, Method, QuantizeError, Recipe, SelectedModule,
    Selection, WeightCodes,
};

/// Bytes of one part of the model before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartBytes {
    /// "embeddings", "attention", "feed-forward", "normalization", "pooler", "head", "other".
    pub part: &'static str,
    /// Bytes of tensor data in the source.
    pub source_bytes: usize,
    /// Bytes of tensor data written.
    pub output_bytes: usize,
}

/// One row for each source tensor, in file order, with the exact bytes that will be written.
///
/// Serialized, it is what a dry run shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QuantizePlan {
    recipe: Recipe,
    source_bytes: usize,
    output_bytes: usize,
    file_bytes: u64,
    compression_ratio: f64,
    bits_per_weight: Option<f64>,
    parts: Vec<PartBytes>,
    kept: Vec<KeptModule>,
    notes: Vec<String>,
    rows: Vec<PlanRow>,
    #[serde(skip)]
    quantization_config: Option<Value>,
}

impl QuantizePlan {
    /// Plans `recipe` for `checkpoint`. Reads no weight.
    ///
    /// # Errors
    /// An invalid recipe, a source that is quantized already or is no encoder that fewbit knows, a
    /// weight that is missing or of the wrong shape or dtype, a skip glob that matches nothing, int8 word embeddings that a head
    /// shares.
    pub fn new(checkpoint: &Checkpoint, recipe: &Recipe) -> Result<Self, QuantizeError> {
        recipe.validate()?;
        require_float_source(checkpoint)?;
        let catalogue = catalogue_for(checkpoint, recipe)?;
        Self::for_catalogue(checkpoint, &catalogue, recipe)
    }

    /// [`new`](Self::new) of a valid recipe and a float source, with the list of modules already made.
    pub(crate) fn for_catalogue(
        checkpoint: &Checkpoint,
        catalogue: &Catalogue,
        recipe: &Recipe,
    ) -> Result<Self, QuantizeError> {
        let asked_for = recipe;
        let recipe = &with_loadable_layout(catalogue, recipe);
        let has_another_layout = recipe != asked_for;
        refuse_shared_embeddings(checkpoint, recipe)?;
        let selection = Selection::new(checkpoint, catalogue, recipe)?;
        refuse_unknown_inputs(recipe, catalogue, &selection)?;
        let recipe = &with_decided_embeddings(checkpoint, catalogue, recipe);
        let planner = RowPlanner::new(catalogue, recipe, &selection);
        let rows = checkpoint
            .tensors()
            .map(|info| planner.row(info))
            .collect::<Result<Vec<_>, _>>()?;
        // Also of the methods that quantize none of them: what is written must be a model.
        let needed = catalogue
            .linear_modules()
            .chain(catalogue.word_embeddings());
        for module in needed.filter(|_| catalogue.is_of_an_encoder()) {
            module.stored_weight(checkpoint)?;
        }
        let quantization_config = quantization_config(recipe, catalogue, &selection, &rows);
        let mut notes = notes(checkpoint, catalogue, recipe, &rows);
        if has_another_layout {
            notes.push("int4 codes are stored a byte each (`int-quantized`): transformers looks at the weight of each layer of this model while it makes it, and does not load packed ones".to_owned());
        }
        Self::from_rows(
            recipe.clone(),
            rows,
            selection.kept,
            notes,
            quantization_config,
        )
    }

    fn from_rows(
        recipe: Recipe,
        rows: Vec<PlanRow>,
        kept: Vec<KeptModule>,
        notes: Vec<String>,
        quantization_config: Option<Value>,
    ) -> Result<Self, QuantizeError> {
        let file_bytes = CheckpointWriter::file_bytes(output_groups(&rows), u64::MAX)?;
        let file_bytes = file_bytes.into_iter().sum();
        let source_bytes = rows.iter().map(|row| row.source_bytes).sum();
        let output_bytes = rows.iter().map(|row| row.output_bytes).sum();
        let mut parts: Vec<PartBytes> = Vec::new();
        for row in &rows {
            match parts.iter_mut().find(|part| part.part == row.part) {
                Some(part) => {
                    part.source_bytes += row.source_bytes;
                    part.output_bytes += row.output_bytes;
                }
                None => parts.push(PartBytes {
                    part: row.part,
                    source_bytes: row.source_bytes,
                    output_bytes: row.output_bytes,
                }),
            }
        }
        let quantizes = rows.iter().any(PlanRow::is_quantized);
        let changed = |row: &&PlanRow| match quantizes {
            true => row.module.is_some() && row.is_quantized(),
            false => row.module.is_some() && row.action != TensorAction::Keep,
        };
        let weights: usize = rows.iter().filter(changed).map(PlanRow::elements).sum();
        let weight_bytes: usize = rows
            .iter()
            .filter(changed)
            .map(|row| row.output_bytes)
            .sum();
        Ok(Self {
            recipe,
            source_bytes,
            output_bytes,
            file_bytes,
            compression_ratio: source_bytes as f64 / output_bytes as f64,
            bits_per_weight: (weights > 0).then(|| 8.0 * weight_bytes as f64 / weights as f64),
            parts,
            kept,
            notes,
            rows,
            quantization_config,
        })
    }

    /// The recipe, with the form of embeddings that its default stands for with this model.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// One row for each source tensor, in file order.
    pub fn rows(&self) -> &[PlanRow] {
        &self.rows
    }

    /// Modules with a matrix that stays float although others like it are quantized, and why.
    pub fn kept(&self) -> &[KeptModule] {
        &self.kept
    }

    /// What a user should know about how the result can be used, one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Bytes by part of the model, in the order of first appearance; they add up to the totals.
    pub fn parts(&self) -> &[PartBytes] {
        &self.parts
    }

    /// Bytes of tensor data in the source.
    pub fn source_bytes(&self) -> usize {
        self.source_bytes
    }

    /// Bytes of tensor data that the method will write.
    pub fn output_bytes(&self) -> usize {
        self.output_bytes
    }

    /// The tensors that are written, those of one row together.
    pub(crate) fn output_groups(&self) -> Vec<Vec<TensorPlan>> {
        output_groups(&self.rows)
    }

    /// Bytes of the whole file of weights, header included, if it is one.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// `source_bytes / output_bytes`
    pub fn compression_ratio(&self) -> f64 {
        self.compression_ratio
    }

    /// `8 * bytes / weights` over the weights of the modules that the recipe quantizes, or converts where it does no more: bytes of codes,
    /// scales and quantization state that are written for them, number of their elements. `None`
    /// where it changes none.
    pub fn bits_per_weight(&self) -> Option<f64> {
        self.bits_per_weight
    }

    /// The `quantization_config` for config.json; `None` for the float methods.
    pub fn quantization_config(&self) -> Option<&Value> {
        self.quantization_config.as_ref()
    }
}

fn output_groups(rows: &[PlanRow]) -> Vec<Vec<TensorPlan>> {
    rows.iter().map(|row| row.outputs.clone()).collect()
}

/// `recipe` with the layout of int4 codes that transformers loads of this model.
fn with_loadable_layout(catalogue: &Catalogue, recipe: &Recipe) -> Recipe {
    match recipe {
        Recipe::Integer(options) if looks_at_weights(catalogue) => {
            options.clone().without_packed_int4().into()
        }
        _ => recipe.clone(),
    }
}

pub(crate) fn require_float_source(checkpoint: &Checkpoint) -> Result<(), QuantizeError> {
    let quantization = checkpoint.quantization();
    if !quantization.is_quantized() {
        return Ok(checkpoint.expect_no_codes_without_config()?);
    }
    Err(QuantizeError::AlreadyQuantized {
        file: checkpoint.config_file(),
        method: quantization.to_string(),
    })
}

/// Every static scale must be that of a layer that is quantized.
fn refuse_unknown_inputs(
    recipe: &Recipe,
    catalogue: &Catalogue,
    selection: &Selection,
) -> Result<(), QuantizeError> {
    let known = |module: &str| {
        selection.quantized.iter().any(|selected| {
            selected.module.kind() == ModuleKind::Linear
                && catalogue.without_prefix(&selected.module.name) == module
        })
    };
    let scales = recipe.static_inputs().into_iter().flatten();
    match scales.map(|(module, _)| module).find(|module| !known(module)) {
        None => Ok(()),
        Some(module) => Err(QuantizeError::Recipe {
            origin: "recipe".to_owned(),
            field: "static_inputs",
            expected: "layers of this model that the recipe quantizes".to_owned(),
            found: format!("`{module}`"),
            hint: "the recipe was made for another model, or the layer is skipped: names are those that `fewbit quantize --dry-run` shows, without the model's prefix".to_owned(),
        }),
    }
}

/// The `quantization_config` for config.json; `None` for the float methods. Names go in without the
/// model prefix, because the class that loads the checkpoint may have another prefix or none.
fn quantization_config(
    recipe: &Recipe,
    catalogue: &Catalogue,
    selection: &Selection,
    rows: &[PlanRow],
) -> Option<Value> {
    let stays_float = LoaderSkipList::new(catalogue, selection);
    if let Some(options) = recipe.integer() {
        if options.weights == WeightCodes::LlmInt8 {
            return Some(EightBitLayer::config(&stays_float.of_every_class()));
        }
        let of_kind = |linear: bool| {
            let quantized = selection.quantized.iter();
            quantized
                .filter(move |selected| (selected.module.kind() == ModuleKind::Linear) == linear)
                .map(|selected| catalogue.without_prefix(&selected.module.name).to_owned())
                .collect::<Vec<String>>()
        };
        match options.weights.int4().map(|int4| int4.group_layout(None)) {
            Some(GroupLayout::Gptq(layout)) => return Some(layout.config(&of_kind(true))),
            Some(GroupLayout::Awq(layout)) => {
                return Some(layout.config(&stays_float.of_every_class()));
            }
            Some(GroupLayout::CompressedTensors(_)) | None => {}
        }
        let linear = linear_groups(options, catalogue, selection);
        let embeddings = of_kind(false);
        let linear: Vec<_> = linear
            .iter()
            .map(|(scheme, modules)| (*scheme, modules.as_slice()))
            .collect();
        if !catalogue.is_of_an_encoder() {
            // Loaders may rename the modules of such a model, so that lists of names would match nothing.
            let every = [compressed_tensors::EVERY_LINEAR.to_owned()];
            let (scheme, _) = linear.first()?;
            let ignored = stays_float.of_every_class();
            return Some(compressed_tensors::config(
                &[(*scheme, &every)],
                &[],
                &ignored,
            ));
        }
        return Some(compressed_tensors::config(
            &linear,
            &embeddings,
            &stays_float.of_this_checkpoint(),
        ));
    }
    rows.iter().find_map(|row| match &row.action {
        TensorAction::FourBitBlocks { layout, .. } => {
            Some(layout.config(&stays_float.of_every_class()))
        }
        _ => None,
    })
}

/// The linear layers by their schemes, each with its modules: first those with inputs of a stored scale, last those whose weights alone are quantized beside
/// others. Scale and zero point of inputs are those of the first module.
fn linear_groups(
    options: &IntegerRecipe,
    catalogue: &Catalogue,
    selection: &Selection,
) -> Vec<(CompressedScheme, Vec<String>)> {
    let is_static = |module: &str| match &options.inputs {
        IntegerInputs::Static(inputs) => inputs.scales.contains_key(module),
        IntegerInputs::Dynamic(_) | IntegerInputs::WeightOnly => false,
    };
    let mut groups: Vec<(u8, &SelectedModule, Vec<String>)> = Vec::new();
    for selected in &selection.quantized {
        if selected.module.kind() != ModuleKind::Linear {
            continue;
        }
        let module = catalogue.without_prefix(&selected.module.name).to_owned();
        let place = match selected.weight_only {
            true => 2,
            false => u8::from(!is_static(&module)),
        };
        let known = groups
            .iter_mut()
            .find(|(group, first, _)| *group == place && first.weights == selected.weights);
        match known {
            Some((_, _, modules)) => modules.push(module),
            None => groups.push((place, selected, vec![module])),
        }
    }
    groups.sort_by_key(|(place, _, _)| *place);
    groups
        .into_iter()
        .filter_map(|(_, first, modules)| Some((options.scheme(&modules[0], first)?, modules)))
        .collect()
}

/// Whether weights are all that the recipe looks at.
pub(crate) fn needs_no_code(recipe: &Recipe) -> bool {
    !recipe.needs_samples() && !matches!(recipe.method(), Method::Dynamic | Method::Static)
}

/// The modules of the model: those of an encoder, or what the tensors' names say where a method needs no more than weights.
///
/// # Errors
/// No encoder that fewbit knows, and a method that concerns activations.
fn catalogue_for(checkpoint: &Checkpoint, recipe: &Recipe) -> Result<Catalogue, QuantizeError> {
    let catalogue = Catalogue::of_checkpoint(checkpoint)?;
    if !needs_no_code(recipe) && !catalogue.is_of_an_encoder() {
        // Its error says what fewbit knows and what was found.
        return Ok(EncoderSpec::from_checkpoint(checkpoint)?.catalogue());
    }
    Ok(catalogue)
}

/// What a user should know about the source: that it is known by names alone or goes by others than its files, what was merged into it, and what is
/// narrowed; and about who reads the result.
fn notes(
    checkpoint: &Checkpoint,
    catalogue: &Catalogue,
    recipe: &Recipe,
    rows: &[PlanRow],
) -> Vec<String> {
    let by_name = (!catalogue.is_of_an_encoder()).then(|| {
        let model = match checkpoint.has_config() {
            true => format!(
                "`model_type` {}: fewbit does not run this model",
                catalogue.model_type
            ),
            false => "no config.json says what model this is, and loaders will want one".to_owned(),
        };
        format!("{model}; what is a linear layer was told from the names and shapes of its tensors")
    });
    let merged = checkpoint.adapter().map(|adapter| {
        let replaced = match adapter.replaced.len() {
            0 => String::new(),
            number => format!(", {number} tensors replaced"),
        };
        format!(
            "merged with the adapter of {}: {} weights updated{replaced}; the adapter's own files are not carried over",
            adapter.file.display(),
            adapter.updated.len()
        )
    });
    let wide = rows
        .iter()
        .filter(|row| row.dtype == DType::F64.name())
        .count();
    let narrowed = (wide > 0).then(|| {
        format!("{wide} F64 tensors are read as F32: what they hold beyond its digits is lost")
    });
    let renamed = RenamedTensor::example(checkpoint.renamed()).map(|example| {
        format!("tensors get the names of their modules in transformers: {example}")
    });
    let for_fewbit = (recipe.four_bit().is_some() && recipe.embeddings().is_quantized()).then(|| {
        format!(
            "word embeddings in {} beside 4-bit layers: fewbit reads them, and no other loader is known to; transformers with bitsandbytes refuses the directory, as it takes float embeddings alone (`keep`, `fp16`, `bf16`)",
            recipe.embeddings()
        )
    });
    let notes = [by_name, renamed, merged, narrowed, for_fewbit];
    notes.into_iter().flatten().collect()
}
