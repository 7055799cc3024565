//! What each choice of each group costs.

use std::collections::HashMap;
use std::path::Path;

use fewbit_checkpoint::{Checkpoint, CheckpointError, StoredWeight};
use fewbit_model::{Catalogue, EncodeOptions, Encoder, Module, WeightSource, open_checkpoint};

use super::frontier::Choice;
use super::goal::Progress;
use super::{Group, SensitivityOptions, WeightSensitivity};
use crate::calibration::{CalibrationSamples, calibration_sites, embedding_loss};
use crate::plan::require_float_source;
use crate::unwritten_weights::{UnwrittenWeights, WeightsInMemory};
use crate::{
    EmbeddingStorage, GptqCalibration, IntegerInputs, IntegerRecipe, ModuleWeights, PlanRow,
    QuantizeError, QuantizePlan, WeightCodes,
};

impl WeightSensitivity {
    /// Measures the float model in `source` on `samples`, which are also what weights are rounded for where `options` ask for GPTQ.
    /// `progress(done, total, what)` counts passes over the samples.
    ///
    /// # Errors
    /// [`QuantizeError::Calibration`] for no text, for rows of token ids, for fewer than two choices or the method `static`; those of
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
        let other_bytes = plans[baseline].output_bytes() as u64 - sizes[baseline];

        let total = 1 + plans.len() + groups.len() * (plans.len() - 1);
        let calibration = GptqCalibration::new(samples.clone(), options.threads);
        let mut weights: Vec<WeightsInMemory> = Vec::with_capacity(plans.len());
        for (plan, codes) in plans.into_iter().zip(&options.choices) {
            let unwritten = UnwrittenWeights::of_plan(&checkpoint, plan)?;
            let mut tell = |what: &str| progress(0, total, &format!("{codes}: {what}"));
            tell("weights");
            weights.push(unwritten.in_memory(&encoder, &calibration, &mut tell)?);
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
    match options.base.inputs {
        IntegerInputs::Static(_) => refused(
            "method",
            "`dynamic` or `weight-only`",
            "`static`".to_owned(),
            "calibrate the recipe afterwards, for the weights that were chosen",
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
    /// With each choice everywhere.
    pub(super) plans: Vec<QuantizePlan>,
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
        let uniform = |base: &IntegerRecipe| -> Result<Vec<QuantizePlan>, QuantizeError> {
            let choices = options.choices.iter();
            let recipes = choices.map(|codes| base.clone().with_weights(*codes));
            recipes
                .map(|recipe| QuantizePlan::new(checkpoint, &recipe.into()))
                .collect()
        };
        let base = IntegerRecipe {
            modules: ModuleWeights::new(),
            ..options.base.clone()
        };
        let plans = uniform(&base)?;
        let forms = plans.iter().map(|plan| plan.recipe().embeddings());
        let base = with_embeddings_of_all(base, forms);
        let plans = uniform(&base)?;
        let groups = groups(catalogue, &plans);
        Ok(Self {
            base,
            plans,
            groups,
        })
    }

    /// The recipe of a mixture of `choices`: what most layers have, and the others by name.
    pub(super) fn recipe_of(
        base: &IntegerRecipe,
        choices: &[WeightCodes],
        groups: &[Group],
        chosen: &[usize],
    ) -> IntegerRecipe {
        let mut counts = vec![0; choices.len()];
        for (group, choice) in groups.iter().zip(chosen) {
            counts[*choice] += group.modules.len();
        }
        let counted = counts.iter().zip(0..);
        let most = counted.max_by_key(|(count, number)| (*count, std::cmp::Reverse(*number)));
        let most: usize = most.map_or(0, |(_, number)| number);
        let others = groups
            .iter()
            .zip(chosen)
            .filter(|(_, choice)| **choice != most);
        let others = others.flat_map(|(group, choice)| {
            let modules = group.modules.iter();
            modules.map(|(module, _)| (module.clone(), choices[*choice]))
        });
        base.clone()
            .with_weights(choices[most])
            .with_modules(others)
    }
}

/// The groups of layers that are quantized.
fn groups(catalogue: &Catalogue, plans: &[QuantizePlan]) -> Vec<Group> {
    let rows_of = |plan: &QuantizePlan| -> HashMap<String, PlanRow> {
        let rows = plan.rows().iter().filter(|row| row.is_quantized());
        let named = rows.filter_map(|row| {
            let module = catalogue.without_prefix(row.module.as_deref()?);
            Some((module.to_owned(), row.clone()))
        });
        named.collect()
    };
    let rows: Vec<_> = plans.iter().map(rows_of).collect();
    let mut groups = Vec::new();
    for site in calibration_sites(catalogue) {
        let quantized = site.modules.into_iter().filter_map(|module| {
            let path = rows[0].get(&module)?.module.clone()?;
            Some((module, path))
        });
        let modules: Vec<_> = quantized.collect();
        if modules.is_empty() {
            continue;
        }
        let bytes = |rows: &HashMap<String, PlanRow>| -> u64 {
            let bytes = modules
                .iter()
                .map(|(module, _)| rows[module].output_bytes as u64);
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
