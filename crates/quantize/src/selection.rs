//! Which modules are quantized.
//!
//! By default these are the linear layers of the encoder proper: attention query, key, value and
//! output, both feed-forward layers and, where there is one, the projection after the embeddings.
//! They hold nearly all the multiplications. What stays float by default, and why:
//!
//! * **Pooler and task heads.** Few parameters, run once a text instead of once a token, and the last
//!   thing before a decision: an error here is not averaged out by anything after it. They are also
//!   what is replaced or trained further most often.
//! * **Position and token type tables.** They are small. The word embedding table, often half of a small model, is stored as int8 with one
//!   scale a row where the loaders of the layout take that ([`EmbeddingStorage`]): a lookup multiplies nothing, so it saves bytes but no time.
//! * **Layer normalization and biases.** A few vectors.
//!
//! The globs of [`Recipe::skip`] come on top of that. A glob matches the whole module path, either as
//! the checkpoint spells it (`bert.encoder.layer.0.output.dense`) or without the model prefix
//! (`encoder.layer.0.output.dense`); `*` also matches dots. A glob that matches no module that would
//! have been quantized is an error, because a mistyped one would otherwise quantize what was meant
//! to stay float.
//!
//! The globs of [`Recipe::weight_only`] match in the same way, among the linear layers that are quantized, and one that matches none of
//! these is an error, too; so do those of [`IntegerRecipe::modules`](crate::IntegerRecipe::modules), of which a layer's own path goes before all globs.

use std::fmt;

use fewbit_checkpoint::Checkpoint;
use fewbit_model::{Catalogue, Module, ModuleKind, Role, experts_of, is_router};
use globset::{GlobBuilder, GlobSet};
use serde::{Serialize, Serializer};

use crate::default_embeddings::with_decided_embeddings;
use crate::{EmbeddingStorage, Method, ModuleWeights, QuantizeError, Recipe, WeightCodes};

/// The most characters of a glob; longer ones are slips, and can exhaust whatever compiles them.
const LONGEST_GLOB: usize = 1000;
/// How many near names a hint lists.
const NEAR_NAMES: usize = 5;

/// A module whose weight is quantized.
#[derive(Debug, Clone, PartialEq)]
pub struct SelectedModule {
    /// A linear layer or an embedding table.
    pub module: Module,
    /// Whether its inputs are not quantized to 8 bits and its codes not packed: a glob of [`Recipe::weight_only`] matches it, or readers need
    /// it so.
    pub weight_only: bool,
    /// Codes of the weight, where the method has integer ones and the module is a linear layer.
    pub weights: WeightCodes,
}

/// Why a module stays float.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeepReason {
    /// A glob of the recipe matches it.
    SkipPattern(String),
    /// Poolers stay float by default.
    Pooler,
    /// Task heads stay float by default.
    TaskHead,
    /// The encoder has no such module.
    OutsideTheEncoder,
    /// A table of a model that fewbit does not run.
    Table,
    /// A matrix that is kept as (in, out), where loaders of the layout know linear layers alone.
    Transposed,
    /// A convolution of a model that fewbit does not run.
    Convolution,
    /// An expert of a mixture, by itself in the file.
    Expert,
    /// What chooses between experts.
    Router,
    /// transformers keeps the layer in float32 where others become 4-bit layers.
    KeptInFloat32,
    /// The recipe asks for float embeddings.
    EmbeddingTable,
    /// A head that predicts words shares the table, and loaders cannot run it on codes.
    SharedEmbeddingTable,
    /// The bitsandbytes layout has no quantized embeddings that other loaders read, and the recipe does not ask for others.
    EmbeddingTableFourBit,
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeepReason::SkipPattern(pattern) => write!(f, "matches the skip pattern `{pattern}`"),
            KeepReason::Pooler => f.write_str("poolers stay float"),
            KeepReason::TaskHead => f.write_str("task heads stay float"),
            KeepReason::OutsideTheEncoder => f.write_str("not part of the encoder"),
            KeepReason::Table => f.write_str("tables that are looked up stay float"),
            KeepReason::Transposed => f.write_str(
                "it is a Conv1D, which loaders of compressed-tensors refuse; `nf4` and `fp4` quantize it",
            ),
            KeepReason::Convolution => {
                f.write_str("it is a convolution, which no loader of these layouts quantizes")
            }
            KeepReason::Expert => f.write_str(
                "transformers stacks experts into one tensor, which no loader quantizes",
            ),
            KeepReason::Router => {
                f.write_str("it chooses between experts, and loaders have no linear layer for it")
            }
            KeepReason::KeptInFloat32 => {
                f.write_str("transformers keeps it in float32 beside 4-bit layers")
            }
            KeepReason::EmbeddingTable => {
                f.write_str("the recipe keeps the embedding table in floats")
            }
            KeepReason::SharedEmbeddingTable => f.write_str(
                "a head shares the embedding table, which other loaders cannot run on codes",
            ),
            KeepReason::EmbeddingTableFourBit => {
                f.write_str("loaders of the bitsandbytes layout take float embeddings alone")
            }
        }
    }
}

impl Serialize for KeepReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A module that could be quantized and is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeptModule {
    /// Module path as in the checkpoint.
    pub module: String,
    /// Why it stays float.
    pub reason: KeepReason,
}

/// The modules of one checkpoint, sorted by what a recipe does to them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Selection {
    /// Modules whose weights are quantized, in execution order. Empty for `fp16` and `bf16`, which
    /// convert every float tensor.
    pub quantized: Vec<SelectedModule>,
    /// Modules with a matrix that stays float, and why.
    pub kept: Vec<KeptModule>,
}

impl Selection {
    /// Applies the defaults and the globs of `recipe`, which is valid.
    ///
    /// # Errors
    /// A glob that is malformed or matches nothing, or globs that leave nothing to quantize.
    pub fn new(
        checkpoint: &Checkpoint,
        catalogue: &Catalogue,
        recipe: &Recipe,
    ) -> Result<Self, QuantizeError> {
        if recipe.method().float_dtype().is_some() {
            return Ok(Self::default());
        }
        let by_default = recipe.embeddings() == EmbeddingStorage::Auto;
        let recipe = &with_decided_embeddings(checkpoint, catalogue, recipe);
        let candidate = |module: &Module| SelectedModule {
            module: module.clone(),
            weight_only: false,
            weights: recipe
                .integer()
                .map_or(WeightCodes::Int8, |options| options.weights),
        };
        let mut candidates = Vec::new();
        let mut selection = Self::default();
        let embeddings = recipe.embeddings();
        match catalogue.word_embeddings() {
            Some(table) if embeddings.is_quantized() => candidates.push(candidate(table)),
            Some(table) => selection.kept.push(KeptModule {
                module: table.name.clone(),
                reason: match recipe.integer() {
                    Some(options) if by_default && !options.has_one_scale_at_run_time() => {
                        KeepReason::SharedEmbeddingTable
                    }
                    Some(_) => KeepReason::EmbeddingTable,
                    None => KeepReason::EmbeddingTableFourBit,
                },
            }),
            None if embeddings != EmbeddingStorage::Keep => {
                return Err(QuantizeError::Recipe {
                    origin: "recipe".to_owned(),
                    field: "embeddings",
                    expected: "a model that fewbit runs, whose word embedding table it knows"
                        .to_owned(),
                    found: format!("`model_type` {}", catalogue.model_type),
                    hint: "leave it out".to_owned(),
                });
            }
            None => {}
        }
        for module in catalogue.linear_modules() {
            let is_four_bit = recipe.four_bit().is_some();
            let reason = match module.role {
                Role::OtherTransposedLinear if !is_four_bit => Some(KeepReason::Transposed),
                _ if is_four_bit && is_kept_in_float32(catalogue, module) => {
                    Some(KeepReason::KeptInFloat32)
                }
                _ => None,
            };
            match reason {
                None => candidates.push(candidate(module)),
                Some(reason) => selection.kept.push(KeptModule {
                    module: module.name.clone(),
                    reason,
                }),
            }
        }
        selection
            .kept
            .extend(matrices_that_stay_float(checkpoint, catalogue));
        if candidates.is_empty() {
            return Err(QuantizeError::NoLinearLayer {
                file: checkpoint.directory().to_owned(),
                kept: selection.kept.len(),
            });
        }
        let globs = Globs::compile(
            "skip",
            recipe.skip(),
            &candidates.iter().collect::<Vec<_>>(),
            &selection.kept,
            catalogue,
        )?;
        let number_of_candidates = candidates.len();
        for candidate in candidates {
            match globs.first_match(&candidate.module.name, catalogue) {
                Some(pattern) => selection.kept.push(KeptModule {
                    module: candidate.module.name,
                    reason: KeepReason::SkipPattern(pattern.to_owned()),
                }),
                None => selection.quantized.push(candidate),
            }
        }
        if selection.quantized.is_empty() {
            return Err(QuantizeError::Recipe {
                origin: "recipe".to_owned(),
                field: "skip",
                expected: "at least one module left to quantize".to_owned(),
                found: format!("none: the patterns match all {number_of_candidates}"),
                hint: "use narrower patterns, or copy the directory if nothing is to be quantized"
                    .to_owned(),
            });
        }
        selection.mark_weight_only(recipe.weight_only(), catalogue)?;
        if let Some(options) = recipe.integer() {
            selection.choose_weights_of_modules(&options.modules, catalogue)?;
        }
        // transformers decompresses a checkpoint of one format while it loads it, but not one of two: beside a table, which is never packed,
        // the layers are not, either.
        let is_table = |selected: &SelectedModule| selected.module.kind() == ModuleKind::Table;
        let has_table = selection.quantized.iter().any(is_table);
        if recipe.method() == Method::WeightOnly
            && (has_table || needs_a_tensor_named_weight(catalogue))
        {
            for selected in &mut selection.quantized {
                selected.weight_only = selected.module.kind() == ModuleKind::Linear;
            }
        }
        Ok(selection)
    }

    /// Gives single layers the codes that `modules` has for them.
    fn choose_weights_of_modules(
        &mut self,
        modules: &ModuleWeights,
        catalogue: &Catalogue,
    ) -> Result<(), QuantizeError> {
        let Some(first) = modules.keys().next() else {
            return Ok(());
        };
        if !catalogue.is_of_an_encoder() {
            return Err(QuantizeError::Recipe {
                origin: "recipe".to_owned(),
                field: "modules",
                expected: "a model that fewbit runs: loaders may give the modules of another other names, and would take all of them for layers of one kind".to_owned(),
                found: format!("`{first}` and `model_type` {}", catalogue.model_type),
                hint: "leave it out: `weights` says what all layers have; `skip` leaves some in floats".to_owned(),
            });
        }
        let is_linear = |selected: &SelectedModule| selected.module.kind() == ModuleKind::Linear;
        let candidates: Vec<_> = self.quantized.iter().filter(|m| is_linear(m)).collect();
        let patterns: Vec<String> = modules.keys().cloned().collect();
        let globs = Globs::compile("modules", &patterns, &candidates, &self.kept, catalogue)?;
        for selected in self.quantized.iter_mut().filter(|m| is_linear(m)) {
            let name = selected.module.name.as_str();
            let of_the_path = modules
                .get(name)
                .or_else(|| modules.get(catalogue.without_prefix(name)));
            if let Some(codes) = of_the_path {
                selected.weights = *codes;
                continue;
            }
            let mut matching = globs.matches(name, catalogue);
            let Some(pattern) = matching.next() else {
                continue;
            };
            let codes = modules[pattern];
            if let Some(other) = matching.find(|other| modules[*other] != codes) {
                return Err(QuantizeError::Recipe {
                    origin: "recipe".to_owned(),
                    field: "modules",
                    expected: format!("patterns that say the same of `{name}`"),
                    found: format!("`{pattern}` and `{other}`, which do not"),
                    hint: format!(
                        "use narrower patterns, or name `{}` itself: a name goes before patterns",
                        catalogue.without_prefix(name)
                    ),
                });
            }
            selected.weights = codes;
        }
        Ok(())
    }

    fn mark_weight_only(
        &mut self,
        patterns: &[String],
        catalogue: &Catalogue,
    ) -> Result<(), QuantizeError> {
        let is_linear = |selected: &SelectedModule| selected.module.kind() == ModuleKind::Linear;
        let candidates: Vec<_> = self.quantized.iter().filter(|m| is_linear(m)).collect();
        let globs = Globs::compile("weight_only", patterns, &candidates, &self.kept, catalogue)?;
        for selected in self.quantized.iter_mut().filter(|m| is_linear(m)) {
            selected.weight_only = globs
                .first_match(&selected.module.name, catalogue)
                .is_some();
        }
        Ok(())
    }
}

/// Whether the model's class in transformers looks, or may look, at the weight of each layer while it is made, packed codes or not: those of models that
/// fewbit does not run may all do so.
fn needs_a_tensor_named_weight(catalogue: &Catalogue) -> bool {
    looks_at_weights(catalogue) || !catalogue.is_of_an_encoder()
}

/// Whether the model's class in transformers is known to do so.
pub(crate) fn looks_at_weights(catalogue: &Catalogue) -> bool {
    catalogue.model_type == "modernbert"
}

/// Whether transformers leaves the layer out (`_keep_in_fp32_modules`) when it makes 4-bit layers, of T5 and its kin.
fn is_kept_in_float32(catalogue: &Catalogue, module: &Module) -> bool {
    ["t5", "mt5", "umt5", "udop"].contains(&catalogue.model_type.as_str())
        && module.name.ends_with(".wo")
}

/// Modules with a weight matrix in the checkpoint that are no candidates: heads, poolers, and what the encoder proper does not have; of models that
/// fewbit does not run also convolutions, and experts that are stacked into one tensor.
fn matrices_that_stay_float<'a>(
    checkpoint: &'a Checkpoint,
    catalogue: &'a Catalogue,
) -> impl Iterator<Item = KeptModule> + 'a {
    checkpoint.tensors().filter_map(|info| {
        let of_an_encoder = catalogue.is_of_an_encoder();
        if !of_an_encoder && info.shape.len() > 2 && experts_of(&info.name).is_some() {
            return Some(KeptModule {
                module: info.name.clone(),
                reason: KeepReason::Expert,
            });
        }
        let module = info.name.strip_suffix(".weight")?;
        let reason = match catalogue.part_of(&info.name) {
            "pooler" => KeepReason::Pooler,
            "head" => KeepReason::TaskHead,
            "other" if of_an_encoder => KeepReason::OutsideTheEncoder,
            _ if of_an_encoder => return None,
            _ if (3..=5).contains(&info.shape.len()) => {
                return Some(KeptModule {
                    module: module.to_owned(),
                    reason: KeepReason::Convolution,
                });
            }
            _ => match catalogue.named(module) {
                None if experts_of(module).is_some() => KeepReason::Expert,
                None if is_router(module) => KeepReason::Router,
                None => KeepReason::OutsideTheEncoder,
                Some(table) if table.kind() == ModuleKind::Table => KeepReason::Table,
                Some(_) => return None,
            },
        };
        (info.shape.len() == 2).then(|| KeptModule {
            module: module.to_owned(),
            reason,
        })
    })
}

/// The compiled globs of one field, each of which matches something.
struct Globs<'a> {
    globs: Vec<(&'a str, GlobSet)>,
}

impl<'a> Globs<'a> {
    /// Of `field`, which is about `candidates`; those in `kept` stay float, whatever it says.
    fn compile(
        field: &'static str,
        patterns: &'a [String],
        candidates: &[&SelectedModule],
        kept: &[KeptModule],
        catalogue: &Catalogue,
    ) -> Result<Self, QuantizeError> {
        let mut globs = Vec::with_capacity(patterns.len());
        for pattern in patterns {
            let glob = compile_glob(field, pattern)?;
            let matches = |module: &str| is_match(&glob, module, catalogue);
            if !candidates
                .iter()
                .any(|candidate| matches(&candidate.module.name))
            {
                let float = kept.iter().find(|kept| matches(&kept.module));
                return Err(QuantizeError::Pattern {
                    origin: "recipe".to_owned(),
                    field,
                    pattern: pattern.clone(),
                    problem: match field {
                        "weight_only" | "modules" => {
                            "matches no linear layer that would be quantized"
                        }
                        _ => "matches no module that would be quantized",
                    }
                    .to_owned(),
                    hint: match float {
                        Some(KeptModule {
                            module,
                            reason: KeepReason::SkipPattern(skip),
                        }) => format!(
                            "`{module}` stays float, as it matches the skip pattern `{skip}`: leave out one of the two"
                        ),
                        Some(float) => format!(
                            "`{}` stays float without it: leave the pattern out",
                            float.module
                        ),
                        None => near_names_hint(pattern, candidates, catalogue),
                    },
                });
            }
            globs.push((pattern.as_str(), glob));
        }
        Ok(Self { globs })
    }

    fn first_match(&self, module: &str, catalogue: &Catalogue) -> Option<&'a str> {
        self.matches(module, catalogue).next()
    }

    fn matches(&self, module: &str, catalogue: &Catalogue) -> impl Iterator<Item = &'a str> {
        let globs = self.globs.iter();
        let globs = globs.filter(move |(_, glob)| is_match(glob, module, catalogue));
        globs.map(|(pattern, _)| *pattern)
    }
}

/// A set of one glob: unlike a matcher, a set says what it cannot compile.
fn compile_glob(field: &'static str, pattern: &str) -> Result<GlobSet, QuantizeError> {
    let refuse = |pattern: String, problem: String, hint: &str| QuantizeError::Pattern {
        origin: "recipe".to_owned(),
        field,
        pattern,
        problem,
        hint: hint.to_owned(),
    };
    let length = pattern.chars().count();
    if length > LONGEST_GLOB {
        let start: String = pattern.chars().take(40).collect();
        let problem =
            format!("is too long: expected at most {LONGEST_GLOB} characters, found {length}");
        return Err(refuse(
            format!("{start}…"),
            problem,
            "give several patterns",
        ));
    }
    let glob = GlobBuilder::new(pattern).build().map_err(|error| {
        refuse(
            pattern.to_owned(),
            format!("is not a glob: {}", error.kind()),
            "`*` matches any text, `?` one character, `{a,b}` either, `[0-9]` a range",
        )
    })?;
    GlobSet::new([glob]).map_err(|_too_large| {
        refuse(
            pattern.to_owned(),
            "is nested too deeply or too large to compile".to_owned(),
            "give several patterns",
        )
    })
}

fn is_match(glob: &GlobSet, module: &str, catalogue: &Catalogue) -> bool {
    glob.is_match(module) || glob.is_match(catalogue.without_prefix(module))
}

fn near_names_hint(pattern: &str, candidates: &[&SelectedModule], catalogue: &Catalogue) -> String {
    let names = candidates
        .iter()
        .map(|candidate| catalogue.without_prefix(&candidate.module.name));
    format!(
        "modules with near names: {}",
        near_names(pattern, names).join(", ")
    )
}

/// The names with the least edit distance to `pattern`, nearest first; equal distances in the order
/// given.
fn near_names<'a>(pattern: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut ranked: Vec<(usize, &str)> = names
        .map(|name| (strsim::levenshtein(pattern, name), name))
        .collect();
    ranked.sort_by_key(|(distance, _)| *distance);
    ranked
        .into_iter()
        .take(NEAR_NAMES)
        .map(|(_, name)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_sorted_by_distance_and_keep_their_order() {
        let names = [
            "output.dense",
            "attention.query",
            "output.dens",
            "outpu.dense",
        ];
        assert_eq!(
            near_names("output.dense*", names.into_iter())[..3],
            ["output.dense", "output.dens", "outpu.dense"]
        );
    }
}
