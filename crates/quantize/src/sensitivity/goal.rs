//! What a mixture is to reach, and the search for it.

use std::path::Path;

use fewbit_model::{EncoderSpec, open_checkpoint};

use super::frontier::{Choice, Frontier, Selected};
use super::measure::Planned;
use super::{SensitivityOptions, SensitivityReport, WeightChoice, WeightSensitivity};
use crate::{QuantizeError, QuantizePlan, Recipe};

/// Mixtures that are measured at most to reach a cosine.
const MOST_MEASURED: usize = 12;

/// A limit, under which the best is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SensitivityGoal {
    /// The least loss where the file of weights has at most so many bytes (of several files, those of all but for their headers).
    MaxBytes(u64),
    /// The fewest bytes where the mean cosine to the float model's embeddings, measured, is at least this.
    MinCosine(f64),
}

/// Told of `(done, total, what)`.
pub(super) type Progress<'a> = dyn FnMut(usize, usize, &str) + 'a;

impl SensitivityGoal {
    /// Errors before anything is measured, where the sizes of layers already say that [`WeightSensitivity::choose`] would refuse the goal for the model in `source`.
    ///
    /// # Errors
    /// [`QuantizeError::Calibration`] for fewer bytes than the smallest weights have, or a number that is no cosine; options or a model that cannot be measured.
    pub fn check(
        self,
        source: impl AsRef<Path>,
        options: &SensitivityOptions,
    ) -> Result<(), QuantizeError> {
        let checkpoint = open_checkpoint(source)?;
        let catalogue = EncoderSpec::from_checkpoint(&checkpoint)?.catalogue();
        let Planned { base, groups, .. } = Planned::new(&checkpoint, &catalogue, options)?;
        let most = match self {
            SensitivityGoal::MaxBytes(bytes) => bytes,
            SensitivityGoal::MinCosine(cosine) => return expect_cosine(cosine),
        };
        let smallest = groups.iter().map(|group| {
            let costs = group.costs.iter().zip(0..);
            costs
                .min_by_key(|(choice, _)| choice.bytes)
                .map_or(0, |(_, number)| number)
        });
        let smallest: Vec<usize> = smallest.collect();
        expect_codes(&options.choices, &smallest)?;
        let recipe = Planned::recipe_of(&base, &options.choices, &groups, &smallest);
        let least = QuantizePlan::new(&checkpoint, &recipe.into())?.file_bytes();
        match least > most {
            true => Err(too_few_bytes(least, most)),
            false => Ok(()),
        }
    }
}

fn too_few_bytes(least: u64, found: u64) -> QuantizeError {
    QuantizeError::Calibration {
        place: "max-bytes".to_owned(),
        expected: format!(
            "at least {least}, the bytes of the file with the smallest weights everywhere"
        ),
        found: found.to_string(),
        hint: "allow smaller weights, such as int4 in larger groups (int4+group-128), or other embeddings".to_owned(),
    }
}

/// Errors for a mixture of floats alone, which is no recipe of codes.
fn expect_codes(choices: &[WeightChoice], chosen: &[usize]) -> Result<(), QuantizeError> {
    if chosen
        .iter()
        .any(|choice| choices[*choice] != WeightChoice::Float)
    {
        return Ok(());
    }
    Err(QuantizeError::Calibration {
        place: "sensitivity".to_owned(),
        expected: "a limit under which a layer has codes".to_owned(),
        found: "one that floats everywhere keep best".to_owned(),
        hint: "lower --max-bytes or --min-cosine, or leave `float` out of the choices; `fp16` and `bf16` halve a model of floats".to_owned(),
    })
}

fn expect_cosine(found: f64) -> Result<(), QuantizeError> {
    if (-1.0..=1.0).contains(&found) {
        return Ok(());
    }
    Err(QuantizeError::Calibration {
        place: "min-cosine".to_owned(),
        expected: "a cosine, -1 to 1".to_owned(),
        found: found.to_string(),
        hint: "0.99 is close to the float model for most uses".to_owned(),
    })
}

impl WeightSensitivity {
    /// The mixture that is best under the limit, measured on the texts that it was chosen by, and its recipe.
    ///
    /// # Errors
    /// [`QuantizeError::Calibration`] for a limit that no mixture keeps, which says what can be reached; those of running the model.
    pub fn choose(
        &self,
        goal: SensitivityGoal,
        progress: &mut Progress<'_>,
    ) -> Result<SensitivityReport, QuantizeError> {
        let costs: Vec<Vec<Choice>> = self
            .groups
            .iter()
            .map(|group| group.costs.clone())
            .collect();
        let frontier = Frontier::new(&costs);
        let (selected, loss) = match goal {
            SensitivityGoal::MaxBytes(bytes) => {
                let selected = self.within_bytes(&frontier, bytes)?;
                progress(0, 1, "the mixture");
                let loss = self.loss_of(&selected.choices)?;
                progress(1, 1, "the mixture");
                (selected, loss)
            }
            SensitivityGoal::MinCosine(cosine) => self.above_cosine(&frontier, cosine, progress)?,
        };
        self.report(&selected, loss)
    }

    /// The least cost within the bytes of a file.
    fn within_bytes(&self, frontier: &Frontier, most: u64) -> Result<Selected, QuantizeError> {
        // Headers differ little from mixture to mixture; what one has too much is taken off the bytes of tensors.
        let mut limit = most;
        loop {
            let of_groups = limit.checked_sub(self.other_bytes);
            let Some(selected) = of_groups.and_then(|bytes| frontier.cheapest_within(bytes)) else {
                let least = self.file_bytes(&frontier.smallest().choices)?;
                return Err(too_few_bytes(least, most));
            };
            let file_bytes = self.file_bytes(&selected.choices)?;
            if file_bytes <= most {
                return Ok(selected);
            }
            limit = (self.other_bytes + selected.bytes).saturating_sub(file_bytes - most);
        }
    }

    /// The fewest bytes whose measured cosine is high enough, and their loss. Where the prediction is off, what it is off by is taken into the next choice.
    fn above_cosine(
        &self,
        frontier: &Frontier,
        least: f64,
        progress: &mut Progress<'_>,
    ) -> Result<(Selected, f64), QuantizeError> {
        expect_cosine(least)?;
        let most_loss = 1.0 - least;
        let mut best: Option<(Selected, f64)> = None;
        let mut highest: Option<f64> = None;
        let mut measured: Vec<Selected> = Vec::new();
        let mut limit = most_loss - self.baseline_loss();
        for number in 0..MOST_MEASURED {
            let selected = match frontier.smallest_within(limit) {
                Some(selected) => selected,
                None => frontier.cheapest(),
            };
            if measured.contains(&selected) {
                break;
            }
            progress(number, number + 1, "mixtures that are measured");
            let loss = self.loss_of(&selected.choices)?;
            highest = Some(highest.map_or(1.0 - loss, |highest| highest.max(1.0 - loss)));
            let is_smaller = best
                .as_ref()
                .is_none_or(|(best, _)| selected.bytes < best.bytes);
            if loss <= most_loss && is_smaller {
                best = Some((selected.clone(), loss));
            }
            let off = loss - (self.baseline_loss() + selected.cost);
            let corrected = most_loss - off - self.baseline_loss();
            // Of a mixture that is not good enough, the next is to be a better one.
            limit = match loss <= most_loss {
                true => corrected,
                false => corrected.min(selected.cost.next_down()),
            };
            measured.push(selected);
        }
        progress(measured.len(), measured.len(), "mixtures that are measured");
        if let Some(best) = best {
            return Ok(best);
        }
        let cheapest = frontier.cheapest();
        let loss = self.loss_of(&cheapest.choices)?;
        if loss <= most_loss {
            return Ok((cheapest, loss));
        }
        let reached = highest.map_or(1.0 - loss, |highest| highest.max(1.0 - loss));
        Err(QuantizeError::Calibration {
            place: "min-cosine".to_owned(),
            expected: format!("at most {reached:.6}, the highest cosine that the choices reach"),
            found: least.to_string(),
            hint: "allow larger weights (int8, int4 in smaller groups), leave layers in floats (skip), or use `weight-only`, which has more bits for inputs than `dynamic`".to_owned(),
        })
    }

    pub(super) fn baseline_loss(&self) -> f64 {
        self.uniform_losses[self.baseline]
    }

    /// Bytes of the file of weights of a mixture, which has codes somewhere.
    pub(super) fn file_bytes(&self, choices: &[usize]) -> Result<u64, QuantizeError> {
        expect_codes(&self.choices, choices)?;
        let checkpoint = open_checkpoint(&self.checkpoint_directory)?;
        let recipe = Recipe::from(self.recipe_of(choices));
        Ok(QuantizePlan::new(&checkpoint, &recipe)?.file_bytes())
    }
}
