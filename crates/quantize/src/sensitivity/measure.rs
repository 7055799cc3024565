//! What each choice of each group costs.

use std::collections::HashMap;
use std::path::Path;

use fewbit_checkpoint::{Checkpoint, CheckpointError, StoredWeight};
use fewbit_model::{Catalogue, EncodeOptions, Encoder, Module, WeightSource, open_checkpoint};
use fewbit_numerics::dtype::DType;

use super::frontier::Choice;
use super::goal::Progress;
use super::{Group, SensitivityOptions, WeightChoice, WeightSensitivity};
use crate::calibration::{CalibrationSamples, calibration_sites, embedding_loss};
use crate::plan::require_float_source;
use crate::unwritten_weights::{UnwrittenWeights, WeightsInMemory};
use crate::{
    EmbeddingStorage, FloatDType, GptqCalibration, IntegerInputs, IntegerRecipe, ModuleWeights,
    PlanRow, QuantizeError, QuantizePlan, WeightCodes,
};

impl WeightSensitivity {
    /// Measures the float model in `source` on `samples`, which are also what weights are rounded for where `options` ask for GPTQ.
    /// `progress(done, total, what)` counts passes over the samples.
    ///
    /// # Errors
    /// [`QuantizeError::Calibration`] for no text, for rows of token ids, for fewer than two choices, none of codes, or the method `static` without scales; those of
    /// [`QuantizePlan::new`] and [`Encoder::encode`].
    pub fn measure(
        source: impl AsRef<Path>,
        options: &SensitivityOptions,
        samples: &CalibrationSamples,
        progress: &mut Progress<'_>,
    ) -> Result<Self, QuantizeError> {
        let source = source.as_ref().to_owned();
        let texts = texts_of(samples)?;
        let encoder = Encoder::open(&source)?;
        let checkpoint_directory = encoder.checkpoint_directory().to_owned();
        let checkpoint = open_checkpoint(&checkpoint_directory)?;
        let catalogue = encoder.network().spec().catalogue();
        let Planned {
            base,
            plans,
            mut groups,
        } = Planned::new(&checkpoint, &catalogue, options)?;
        let of_choice = |choice: usize| {
            groups
                .iter()
                .map(|group| group.costs[choice].bytes)
                .sum::<u64>()
        };
        let sizes: Vec<u64> = (0..plans.len()).map(of_choice).collect();
        let largest = sizes
            .iter()
            .zip(0..)
            .max_by_key(|(bytes, number)| (*bytes, std::cmp::Reverse(*number)));
        let baseline = largest.map_or(0, |(_, number)| number);
        // The same beside every choice.
        let of_plans = plans.iter().zip(&sizes);
        let other_bytes = of_plans
            .filter_map(|(plan, bytes)| Some(plan.as_ref()?.output_bytes() as u64 - bytes))
            .next()
            .unwrap_or_default();

        let total = 1 + plans.len() + groups.len() * (plans.len() - 1);
        let calibration = GptqCalibration::new(samples.clone(), options.threads);
        let mut weights: Vec<WeightsInMemory> = Vec::with_capacity(plans.len());
        for (plan, codes) in plans.into_iter().zip(&options.choices) {
            let Some(plan) = plan else {
                weights.push(WeightsInMemory::new());
                continue;
            };
            let unwritten = UnwrittenWeights::of_plan(&checkpoint, plan)?;
            let mut tell = |what: &str| progress(0, total, &format!("{codes}: {what}"));
            tell("weights");
            weights.push(unwritten.in_memory(&encoder, &calibration, &mut tell)?);
        }
        if let Some(float) = options
            .choices
            .iter()
            .position(|c| *c == WeightChoice::Float)
        {
            weights[float] = tables_beside(&weights, &groups);
        }
        let encode = EncodeOptions {
            threads: options.threads,
            ..EncodeOptions::default()
        };
        progress(0, total, "the float model");
        let reference = encoder.encode(&texts, &encode)?;
        drop(encoder);
        let mut measured = Self {
            source,
            checkpoint_directory,
            base,
            choices: options.choices.clone(),
            weights,
            groups: Vec::new(),
            other_bytes,
            texts,
            encode,
            reference,
            baseline,
            uniform_losses: Vec::new(),
        };
        let mut done = 1;
        for (choice, codes) in options.choices.iter().enumerate() {
            progress(done, total, &format!("{codes} everywhere"));
            let chosen = HashMap::new();
            let loss = measured.loss_with(choice, chosen)?;
            measured.uniform_losses.push(loss);
            done += 1;
        }
        for group in &mut groups {
            for choice in (0..options.choices.len()).filter(|choice| *choice != baseline) {
                progress(done, total, &group.site);
                let modules = group.modules.iter();
                let chosen = modules
                    .map(|(_, module)| (module.as_str(), choice))
                    .collect();
                let loss = measured.loss_with(baseline, chosen)?;
                group.costs[choice].cost = loss - measured.baseline_loss();
                done += 1;
            }
        }
        progress(done, total, "");
        measured.groups = groups;
        Ok(measured)
    }

    /// The loss of a mixture.
    pub(super) fn loss_of(&self, choices: &[usize]) -> Result<f64, QuantizeError> {
        let groups = self.groups.iter().zip(choices);
        let modules = groups.flat_map(|(group, choice)| {
            let modules = group.modules.iter();
            modules.map(move |(_, module)| (module.as_str(), *choice))
        });
        self.loss_with(self.baseline, modules.collect())
    }

    /// The loss with the choices `chosen`, by paths in the checkpoint, and `otherwise` for the rest.
    fn loss_with(
        &self,
        otherwise: usize,
        chosen: HashMap<&str, usize>,
    ) -> Result<f64, QuantizeError> {
        let weights = MixedWeights {
            weights: &self.weights,
            otherwise,
            chosen,
        };
        let encoder = Encoder::open_with_weights(&self.source, &weights)?;
        let embeddings = encoder.encode(&self.texts, &self.encode)?;
        Ok(embedding_loss(&self.reference, &embeddings))
    }
}

/// What is quantized beside the layers of `groups`, whatever these have: the table of embeddings, of the first weights that there are.
fn tables_beside(weights: &[WeightsInMemory], groups: &[Group]) -> WeightsInMemory {
    let is_of_a_group = |name: &String| {
        let mut modules = groups.iter().flat_map(|group| &group.modules);
        modules.any(|(_, module)| module == name)
    };
    let of_codes = weights.iter().find(|weights| !weights.is_empty());
    let all = of_codes.into_iter().flatten();
    let tables = all.filter(|(name, _)| !is_of_a_group(name));
    tables
        .map(|(name, weight)| (name.clone(), weight.clone()))
        .collect()
}

/// The weights of a mixture.
struct MixedWeights<'a> {
    weights: &'a [WeightsInMemory],
    otherwise: usize,
    chosen: HashMap<&'a str, usize>,
}

impl WeightSource for MixedWeights<'_> {
    fn weight(&self, module: &Module) -> Result<Option<StoredWeight<'_>>, CheckpointError> {
        let chosen = self.chosen.get(module.name.as_str());
        let weights = &self.weights[*chosen.unwrap_or(&self.otherwise)];
        Ok(weights.get(&module.name).map(StoredWeight::borrowed))
    }
}

fn refused<T>(place: &str, expected: &str, found: String, hint: &str) -> Result<T, QuantizeError> {
    Err(QuantizeError::Calibration {
        place: place.to_owned(),
        expected: expected.to_owned(),
        found,
        hint: hint.to_owned(),
    })
}

fn check(options: &SensitivityOptions) -> Result<(), QuantizeError> {
    let choices = &options.choices;
    let twice = choices
        .iter()
        .enumerate()
        .find(|(number, codes)| choices[..*number].contains(codes));
    if let Some((_, codes)) = twice {
        return refused(
            "weights",
            "each choice once",
            format!("`{codes}` twice"),
            "leave one out",
        );
    }
    if choices.len() < 2 {
        return refused(
            "weights",
            "at least two choices",
            choices.len().to_string(),
            "int8 and int4 are the usual ones",
        );
    }
    if choices.iter().all(|choice| *choice == WeightChoice::Float) {
        return refused(
            "weights",
            "a choice of codes",
            "floats alone".to_owned(),
            "int8 and int4 are the usual ones",
        );
    }
    match &options.base.inputs {
        IntegerInputs::Static(inputs) if inputs.scales.is_empty() => refused(
            "method",
            "`dynamic`, `weight-only`, or `static` with scales of inputs",
            "`static` without any".to_owned(),
            "calibrate first: `fewbit::sensitivity::sensitivity` does",
        ),
        _ => Ok(()),
    }
}

fn texts_of(samples: &CalibrationSamples) -> Result<Vec<String>, QuantizeError> {
    let hint = "a few hundred texts like those that the model will see";
    match samples {
        CalibrationSamples::Texts(texts) if texts.is_empty() => {
            refused("sensitivity", "at least one text", "none".to_owned(), hint)
        }
        CalibrationSamples::Texts(texts) => Ok(texts.clone()),
        CalibrationSamples::Tokens(rows) => refused(
            "sensitivity",
            "texts, whose embeddings are compared",
            format!("{} rows of token ids", rows.len()),
            hint,
        ),
    }
}

/// `base` with the form of the table that goes with every choice: floats where that is the default beside one of them.
fn with_embeddings_of_all(
    base: IntegerRecipe,
    mut forms: impl Iterator<Item = EmbeddingStorage>,
) -> IntegerRecipe {
    let Some(first) = forms.next() else {
        return base;
    };
    let form = match forms.all(|form| form == first) {
        true => first,
        false => EmbeddingStorage::Keep,
    };
    base.with_embeddings(form)
}

/// What is known before anything is run.
pub(super) struct Planned {
    /// With the form of embeddings that goes with every choice.
    pub(super) base: IntegerRecipe,
    /// With each choice everywhere; none of floats.
    pub(super) plans: Vec<Option<QuantizePlan>>,
    /// With their bytes and no costs.
    pub(super) groups: Vec<Group>,
}

impl Planned {
    pub(super) fn new(
        checkpoint: &Checkpoint,
        catalogue: &Catalogue,
        options: &SensitivityOptions,
    ) -> Result<Self, QuantizeError> {
        check(options)?;
        require_float_source(checkpoint)?;
        let uniform = |base: &IntegerRecipe| -> Result<Vec<_>, QuantizeError> {
            let plan = |choice: &WeightChoice| {
                let codes = choice.codes()?;
                let recipe = base.clone().with_weights(codes).into();
                Some(QuantizePlan::new(checkpoint, &recipe))
            };
            let plans = options.choices.iter().map(plan);
            plans.map(Option::transpose).collect()
        };
        let base = IntegerRecipe {
            modules: ModuleWeights::new(),
            ..options.base.clone()
        };
        let plans = uniform(&base)?;
        let forms = plans.iter().flatten();
        let forms = forms.map(|plan| plan.recipe().embeddings());
        let base = with_embeddings_of_all(base, forms);
        let plans = uniform(&base)?;
        let groups = groups(catalogue, &plans, base.float_dtype);
        Ok(Self {
            base,
            plans,
            groups,
        })
    }

    /// The recipe of a mixture of `choices`: the codes that most layers have, and the others by name. One of floats alone skips every layer, which no plan does.
    pub(super) fn recipe_of(
        base: &IntegerRecipe,
        choices: &[WeightChoice],
        groups: &[Group],
        chosen: &[usize],
    ) -> IntegerRecipe {
        let mut counts = vec![0; choices.len()];
        for (group, choice) in groups.iter().zip(chosen) {
            counts[*choice] += group.modules.len();
        }
        let codes = choices.iter().zip(0..);
        let codes =
            codes.filter_map(|(choice, number): (_, usize)| Some((choice.codes()?, number)));
        let most = codes.max_by_key(|(_, number)| (counts[*number], std::cmp::Reverse(*number)));
        let most = most.map_or(WeightCodes::default(), |(codes, _)| codes);
        let mut recipe = base.clone().with_weights(most);
        for (group, choice) in groups.iter().zip(chosen) {
            let modules = group.modules.iter().map(|(module, _)| module.clone());
            recipe = match choices[*choice] {
                WeightChoice::Codes(codes) if codes == most => recipe,
                WeightChoice::Codes(codes) => {
                    recipe.with_modules(modules.map(|module| (module, codes)))
                }
                WeightChoice::Float => without(recipe, modules.collect()),
            };
        }
        recipe
    }
}

/// `recipe` with these layers in floats, whose inputs then have no scale.
fn without(mut recipe: IntegerRecipe, modules: Vec<String>) -> IntegerRecipe {
    if let IntegerInputs::Static(inputs) = &mut recipe.inputs {
        inputs.scales.retain(|module, _| !modules.contains(module));
    }
    recipe.with_skip(modules)
}

/// The groups of layers that are quantized, of plans of codes and of floats of `float_dtype`.
fn groups(
    catalogue: &Catalogue,
    plans: &[Option<QuantizePlan>],
    float_dtype: Option<FloatDType>,
) -> Vec<Group> {
    let rows_of = |plan: &QuantizePlan| -> HashMap<String, PlanRow> {
        let rows = plan.rows().iter().filter(|row| row.is_quantized());
        let named = rows.filter_map(|row| {
            let module = catalogue.without_prefix(row.module.as_deref()?);
            Some((module.to_owned(), row.clone()))
        });
        named.collect()
    };
    let rows: Vec<_> = plans
        .iter()
        .map(|plan| Some(rows_of(plan.as_ref()?)))
        .collect();
    let Some(of_codes) = rows.iter().flatten().next() else {
        return Vec::new();
    };
    // In their own dtype, in F32 for F64, if none is asked for.
    let float_bytes = |row: &PlanRow| match float_dtype {
        Some(dtype) => row.elements() * dtype.dtype().bytes(),
        None => row.source_bytes.min(row.elements() * DType::F32.bytes()),
    };
    let mut groups = Vec::new();
    for site in calibration_sites(catalogue) {
        let quantized = site.modules.into_iter().filter_map(|module| {
            let path = of_codes.get(&module)?.module.clone()?;
            Some((module, path))
        });
        let modules: Vec<_> = quantized.collect();
        if modules.is_empty() {
            continue;
        }
        let bytes = |rows: &Option<HashMap<String, PlanRow>>| -> u64 {
            let bytes = modules.iter().map(|(module, _)| match rows {
                Some(rows) => rows[module].output_bytes as u64,
                None => float_bytes(&of_codes[module]) as u64,
            });
            bytes.sum()
        };
        let costs = rows.iter().map(|rows| Choice {
            bytes: bytes(rows),
            cost: 0.0,
        });
        groups.push(Group {
            site: site.name,
            costs: costs.collect(),
            modules,
        });
    }
    groups
}

impl WeightSensitivity {
    /// The recipe of a mixture.
    pub(super) fn recipe_of(&self, chosen: &[usize]) -> IntegerRecipe {
        Planned::recipe_of(&self.base, &self.choices, &self.groups, chosen)
    }
}
