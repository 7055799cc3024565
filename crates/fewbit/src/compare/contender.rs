//! One model of a comparison on its way to a row.

use super::FailedMethod;
use super::kept_models::directory_name;
use crate::Error;
use crate::measure::Memory;
use fewbit_evaluate::median;
use fewbit_model::Embeddings;
use fewbit_quantize::Recipe;
use std::path::{Path, PathBuf};

pub(super) struct Contender {
    pub(super) name: String,
    /// None for the original, and for a quantized model that does not say how it was made.
    pub(super) recipe: Option<Recipe>,
    /// Whether the others are compared with it.
    is_original: bool,
    pub(super) directory: PathBuf,
    pub(super) quantize_seconds: Option<f64>,
    pub(super) encoded: Option<Encoded>,
    /// Of one text alone, in each round.
    pub(super) median_milliseconds: Vec<f64>,
    /// In batches, in each round.
    pub(super) texts_per_second: Vec<f64>,
    failure: Option<FailedMethod>,
}

/// What a model made of all texts.
pub(super) struct Encoded {
    pub(super) embeddings: Embeddings,
    pub(super) memory: Memory,
    pub(super) load_seconds: f64,
}

impl Contender {
    pub(super) fn original(source: &Path) -> Self {
        Self {
            is_original: true,
            ..Self::new("original".to_owned(), None, source.to_owned())
        }
    }

    /// A model that is quantized already, under the name of its directory.
    pub(super) fn quantized(directory: &Path) -> Self {
        let recipe = Recipe::read(directory.join("recipe.toml")).ok();
        Self::new(quantized_name(directory), recipe, directory.to_owned())
    }

    /// What `recipe` will make, in a directory below `root`.
    pub(super) fn of(recipe: &Recipe, root: &Path) -> Self {
        let name = recipe.label();
        let directory = root.join(directory_name(&name));
        Self::new(name, Some(recipe.clone()), directory)
    }

    fn new(name: String, recipe: Option<Recipe>, directory: PathBuf) -> Self {
        Contender {
            name,
            recipe,
            is_original: false,
            directory,
            quantize_seconds: None,
            encoded: None,
            median_milliseconds: Vec::new(),
            texts_per_second: Vec::new(),
            failure: None,
        }
    }

    /// Does a piece of work that this model needs for its row. A method that fails at it is out of the race; without the original there
    /// is nothing to compare with.
    pub(super) fn attempt(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        match work(self) {
            Err(error) if !self.is_original => {
                self.failure = Some(FailedMethod::new(self.name.clone(), &error));
                Ok(())
            }
            result => result,
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    pub(super) fn into_failure(self) -> Option<FailedMethod> {
        self.failure
    }

    pub(super) fn encoded(&self) -> Result<&Encoded, Error> {
        self.encoded.as_ref().ok_or_else(|| self.not_measured())
    }

    /// The middle one of the figures of all rounds.
    pub(super) fn middle_of(&self, rounds: &[f64]) -> Result<f64, Error> {
        median(rounds.to_vec()).ok_or_else(|| self.not_measured())
    }

    fn not_measured(&self) -> Error {
        Error::Measure(format!("{}: not measured", self.name))
    }
}

/// What a quantized model is called in a table: the last part of its path.
pub(super) fn quantized_name(directory: &Path) -> String {
    let name = directory.file_name().unwrap_or(directory.as_os_str());
    name.to_string_lossy().into_owned()
}
