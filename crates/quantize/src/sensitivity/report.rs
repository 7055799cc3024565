//! What was measured, and what was chosen.

use std::path::PathBuf;

use serde::Serialize;

use super::frontier::Selected;
use super::{WeightChoice, WeightSensitivity};
use crate::{QuantizeError, Recipe};

/// A mixture, what it was chosen by, and what it came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SensitivityReport {
    /// The model.
    pub source: PathBuf,
    /// Texts whose embeddings were compared.
    pub texts: usize,
    /// The weights that layers could have, as they are typed: `int8`, `int4+group-128`, `float`.
    pub choices: Vec<String>,
    /// The choice that all other layers had while a group was measured.
    pub baseline: String,
    /// Layers that have the same weights, in execution order.
    pub groups: Vec<GroupSensitivity>,
    /// Each choice of codes, everywhere.
    pub uniform: Vec<UniformWeights>,
    /// Bytes of the file of weights of the mixture.
    pub file_bytes: u64,
    /// Mean cosine of the mixture's embeddings to the float model's, as the sum of the costs has it.
    pub predicted_cosine: f64,
    /// The same, measured, on the texts that the mixture was chosen by.
    pub measured_cosine: f64,
    /// The mixture.
    pub recipe: Recipe,
}

/// What the choices cost at layers that read the same rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupSensitivity {
    /// The site that shows these rows.
    pub site: String,
    /// The layers, by their paths without the model's prefix.
    pub modules: Vec<String>,
    /// Each choice, in the order of the report's.
    pub choices: Vec<ChoiceSensitivity>,
    /// The one that the mixture has.
    pub chosen: String,
}

/// What one choice costs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChoiceSensitivity {
    /// The weights, as they are typed.
    pub weights: String,
    /// Bytes of codes and scales of the group.
    pub bytes: u64,
    /// What it adds to 1 - mean cosine; 0 of the baseline's.
    pub loss: f64,
}

/// A model whose layers all have the same weights.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UniformWeights {
    /// The weights, as they are typed.
    pub weights: String,
    /// Bytes of the file of weights.
    pub file_bytes: u64,
    /// Mean cosine of its embeddings to the float model's.
    pub cosine: f64,
}

impl WeightSensitivity {
    pub(super) fn report(
        &self,
        selected: &Selected,
        loss: f64,
    ) -> Result<SensitivityReport, QuantizeError> {
        let names: Vec<String> = self.choices.iter().map(ToString::to_string).collect();
        let groups = self.groups.iter().zip(&selected.choices);
        let groups = groups.map(|(group, chosen)| GroupSensitivity {
            site: group.site.clone(),
            modules: group
                .modules
                .iter()
                .map(|(module, _)| module.clone())
                .collect(),
            choices: group
                .costs
                .iter()
                .zip(&names)
                .map(|(choice, name)| ChoiceSensitivity {
                    weights: name.clone(),
                    bytes: choice.bytes,
                    loss: choice.cost,
                })
                .collect(),
            chosen: names[*chosen].clone(),
        });
        let uniform = self.uniform_losses.iter().enumerate();
        let uniform = uniform.filter(|(choice, _)| self.choices[*choice] != WeightChoice::Float);
        let uniform = uniform.map(|(choice, loss)| {
            Ok(UniformWeights {
                weights: names[choice].clone(),
                file_bytes: self.file_bytes(&vec![choice; self.groups.len()])?,
                cosine: 1.0 - loss,
            })
        });
        Ok(SensitivityReport {
            source: self.source.clone(),
            texts: self.texts.len(),
            baseline: names[self.baseline].clone(),
            groups: groups.collect(),
            uniform: uniform.collect::<Result<_, QuantizeError>>()?,
            file_bytes: self.file_bytes(&selected.choices)?,
            predicted_cosine: 1.0 - (self.baseline_loss() + selected.cost),
            measured_cosine: 1.0 - loss,
            recipe: self.recipe_of(&selected.choices).into(),
            choices: names,
        })
    }
}
