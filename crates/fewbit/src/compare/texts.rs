//! What the models of a comparison are run on.

use super::SAMPLE_TEXTS;
use crate::Error;
use fewbit_evaluate::{
    ClassTexts, EvaluateError, MetricError, SentencePair, SentenceSimilarity, pair_texts,
};
use fewbit_model::Embeddings;

/// What the models of a comparison are run on.
#[derive(Debug, Clone, PartialEq)]
pub enum CompareTexts {
    /// A few dozen neutral sentences, [`SAMPLE_TEXTS`]: enough to see a broken model and the size of a method's error; a
    /// decision needs texts of one's own.
    BuiltIn,
    /// Texts of one's own.
    Texts(Vec<String>),
    /// Sentence pairs with a score of their similarity: the comparison then has a Spearman correlation.
    Pairs(Vec<SentencePair>),
    /// Texts for a classifier, with second texts or right labels or both.
    Classes(ClassTexts),
}

/// Texts, each alone or with another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inputs {
    pub(super) texts: Vec<String>,
    /// For each of them the text that is read with it, or none at all.
    pub(super) pairs: Vec<String>,
}

impl Inputs {
    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    /// At most `count` of them, evenly spread over all.
    pub(super) fn spread(&self, count: usize) -> Self {
        Self {
            texts: spread(&self.texts, count),
            pairs: spread(&self.pairs, count),
        }
    }
}

fn spread(texts: &[String], count: usize) -> Vec<String> {
    let count = count.min(texts.len());
    (0..count)
        .map(|index| texts[index * texts.len() / count].clone())
        .collect()
}

impl CompareTexts {
    /// Errors if nothing can be learnt from these texts, whatever the models are.
    ///
    /// # Errors
    /// Pairs that all have one score.
    pub fn check(&self) -> Result<(), Error> {
        match self {
            CompareTexts::Pairs(pairs)
                if pairs.windows(2).all(|two| two[0].score == two[1].score) =>
            {
                Err(Error::Compare(
                    "all scores are equal, so there is no rank correlation\n  hint: bring pairs of different similarity"
                        .to_owned(),
                ))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            CompareTexts::BuiltIn => "built-in",
            CompareTexts::Texts(_) => "texts",
            CompareTexts::Pairs(_) => "pairs",
            CompareTexts::Classes(texts) if texts.labels.is_empty() => "texts",
            CompareTexts::Classes(_) => "labelled",
        }
    }

    pub(super) fn texts(&self) -> Vec<String> {
        match self {
            CompareTexts::BuiltIn => SAMPLE_TEXTS.iter().map(|&text| text.to_owned()).collect(),
            CompareTexts::Texts(texts) => texts.clone(),
            CompareTexts::Classes(texts) => texts.texts.clone(),
            CompareTexts::Pairs(pairs) => {
                pair_texts(pairs).into_iter().map(str::to_owned).collect()
            }
        }
    }

    pub(super) fn inputs(&self) -> Inputs {
        Inputs {
            texts: self.texts(),
            pairs: match self {
                CompareTexts::Classes(texts) => texts.pairs.clone(),
                _ => Vec::new(),
            },
        }
    }

    /// The correlation of embeddings of [`CompareTexts::texts`] with the scores; none where there are no scores, and for a model
    /// that finds all pairs equally similar.
    pub(super) fn similarity(
        &self,
        embeddings: &Embeddings,
    ) -> Result<Option<SentenceSimilarity>, Error> {
        let CompareTexts::Pairs(pairs) = self else {
            return Ok(None);
        };
        let scores: Vec<f64> = pairs.iter().map(|pair| pair.score).collect();
        match SentenceSimilarity::evaluate(embeddings, &scores) {
            Ok(similarity) => Ok(Some(similarity)),
            Err(EvaluateError::Metric(MetricError::Constant { .. })) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_keeps_order_and_takes_no_text_twice() {
        let texts =
            |numbers: std::ops::Range<u8>| numbers.map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(spread(&texts(0..7), 3), ["0", "2", "4"]);
        assert_eq!(spread(&texts(0..2), 3), ["0", "1"]);
        assert!(spread(&[], 3).is_empty());
    }
}
