//! How a quantization config names modules: by exact name, by class, or by regular expression.
use crate::CheckpointError;
use crate::quantization_error::unsupported;
use regex::Regex;

/// An entry of `targets` or `ignore` in a compressed-tensors config.
#[derive(Debug, Clone)]
pub(crate) struct ModulePattern {
    text: String,
    /// For `re:…`; fits where a match starts at the start, as with Python's `re.match`.
    regex: Option<Regex>,
}

/// How closely a pattern fits; where several groups fit a module, the closest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fit {
    Name,
    Regex,
    Class,
}

impl PartialEq for ModulePattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl ModulePattern {
    pub(crate) fn parse(text: &str) -> Result<Self, CheckpointError> {
        let regex = match text.strip_prefix("re:") {
            None => None,
            Some(pattern) => Some(Regex::new(pattern).map_err(|error| {
                unsupported(format!(
                    "regular expression `{text}` in quantization_config: {error}"
                ))
                .caused_by(error)
            })?),
        };
        Ok(ModulePattern {
            text: text.to_owned(),
            regex,
        })
    }

    /// Whether and how the pattern fits `module` of class `class`.
    ///
    /// A file may name modules with the model's prefix (`bert.`) where the config has none, or the other way round: a name
    /// fits if one is the end of the other at a dot, an expression if it fits the name with or without its first component.
    pub(crate) fn fit(&self, module: &str, class: &str) -> Option<Fit> {
        match &self.regex {
            Some(regex) => {
                let without_prefix = module.split_once('.').map_or("", |(_, rest)| rest);
                // A search finds the leftmost match: the one at the start, if there is one.
                let fits = |name: &str| regex.find(name).is_some_and(|found| found.start() == 0);
                (fits(module) || (!without_prefix.is_empty() && fits(without_prefix)))
                    .then_some(Fit::Regex)
            }
            None if ends_at_dot(module, &self.text) || ends_at_dot(&self.text, module) => {
                Some(Fit::Name)
            }
            None => (self.text == class).then_some(Fit::Class),
        }
    }
}

/// Whether `name` is `end` or ends with `.end`.
fn ends_at_dot(name: &str, end: &str) -> bool {
    name.strip_suffix(end)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The class that a module has in PyTorch, as far as its name tells.
pub(crate) fn class_of(module: &str) -> &'static str {
    let last = module.rsplit('.').next().unwrap_or(module);
    let embedding = last.ends_with("embeddings")
        || matches!(
            last,
            "embed_tokens"
                | "embed_positions"
                | "relative_attention_bias"
                | "wte"
                | "wpe"
                | "shared"
        );
    if embedding { "Embedding" } else { "Linear" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(pattern: &str, module: &str) -> Option<Fit> {
        ModulePattern::parse(pattern)
            .unwrap()
            .fit(module, class_of(module))
    }

    #[test]
    fn names_classes_and_expressions() {
        let dense = "bert.encoder.layer.1.output.dense";
        assert_eq!(fit("Linear", dense), Some(Fit::Class));
        assert_eq!(fit("Embedding", dense), None);
        assert_eq!(
            fit("Embedding", "bert.embeddings.word_embeddings"),
            Some(Fit::Class)
        );
        assert_eq!(
            fit("Linear", "electra.embeddings_project"),
            Some(Fit::Class)
        );
        assert_eq!(fit("encoder.layer.1.output.dense", dense), Some(Fit::Name));
        assert_eq!(fit(dense, "encoder.layer.1.output.dense"), Some(Fit::Name));
        // At a dot only, and only whole names.
        assert_eq!(fit("dense", "roberta.xdense"), None);
        assert_eq!(fit("encoder.layer.1.output.dens", dense), None);
        assert_eq!(fit("re:encoder", dense), Some(Fit::Regex));
        assert_eq!(fit("re:layer", dense), None);
        assert_eq!(fit(r"re:.*layer\.1\.", dense), Some(Fit::Regex));
        assert_eq!(fit("re:encoder|nothing", "nothing"), Some(Fit::Regex));
        // Anchored: every alternative at the start.
        assert_eq!(fit("re:a|dense", "x.y.dense"), None);
    }

    #[test]
    fn an_expression_stands_for_itself() {
        // Neither parenthesis nor comment has an effect on how the expression is anchored.
        let unbalanced = ModulePattern::parse("re:nothing)|(dense").unwrap_err();
        assert!(
            unbalanced.to_string().contains("unopened group"),
            "{unbalanced}"
        );
        assert_eq!(
            fit("re:(?x) encoder # all of it", "bert.encoder.layer"),
            Some(Fit::Regex)
        );
    }

    #[test]
    fn expression_beyond_what_is_read() {
        let error = ModulePattern::parse("re:(?!lm_head)").unwrap_err();
        assert_eq!(
            error.kind(),
            crate::CheckpointErrorKind::UnsupportedQuantization
        );
        assert!(error.to_string().contains("`re:(?!lm_head)`"), "{error}");
    }
}
