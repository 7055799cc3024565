//! What is measured on texts that are not trained on.

use candle_core::Tensor;
use fewbit_kernels::Kernels;
use fewbit_model::pooling::Pooling;
use fewbit_model::{HeadSpec, Labels, RaggedBatch};
use rayon::iter::{IntoParallelIterator, IntoParallelRefIterator, ParallelIterator};
use serde::{Deserialize, Serialize};

use crate::logit_distance::{LogitAgreement, LogitComparison, LogitSums};
use crate::loss::PoolingWeights;
use crate::student::Student;
use crate::teacher::TeacherStates;
use crate::{DifferentiableEncoder, Parameters, TrainError};

/// How near a student is to its teacher on held-out texts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Agreement {
    /// Mean cosine of the embeddings.
    pub(crate) cosine: f64,
    /// Of a model with a head.
    pub(crate) logits: Option<LogitAgreement>,
}

impl Agreement {
    /// Whether a student is nearer to its teacher than `other`: by its logits, where the model has a head, and else by its embeddings.
    pub(crate) fn is_better_than(&self, other: &Self) -> bool {
        match (&self.logits, &other.logits) {
            (Some(logits), Some(others)) => logits.distance < others.distance,
            _ => self.cosine > other.cosine,
        }
    }
}

/// Held-out texts with what the teacher makes of them.
#[derive(Default)]
pub(crate) struct HeldOut {
    parts: Vec<Part>,
    /// How logits are compared, of a model with a head.
    logits: Option<LogitComparison>,
}

struct Part {
    batch: RaggedBatch,
    pooling: PoolingWeights,
    /// The teacher's embeddings (texts, hidden size).
    embeddings: Tensor,
    /// The teacher's logits.
    logits: Option<Tensor>,
}

impl HeldOut {
    /// Texts in parts. `teacher` gives what the teacher makes of one; `head` is that of the model, where it has one.
    ///
    /// # Errors
    /// Those of `teacher`.
    pub(crate) fn new(
        parts: Vec<RaggedBatch>,
        pooling: Option<&Pooling>,
        head: Option<(&HeadSpec, &Labels)>,
        teacher: impl Fn(&RaggedBatch) -> Result<TeacherStates, TrainError> + Sync,
    ) -> Result<Self, TrainError> {
        let of_part = |batch: RaggedBatch| {
            let teacher = teacher(&batch)?;
            let pooling = PoolingWeights::new(pooling, &batch)?;
            let Some(last) = teacher.states.last() else {
                return Err(candle_core::Error::Msg("no hidden states".to_owned()).into());
            };
            Ok::<_, TrainError>(Part {
                embeddings: pooling.pooled(last)?,
                logits: teacher.logits,
                pooling,
                batch,
            })
        };
        let parts = parts.into_par_iter().map(of_part);
        let parts: Vec<Part> = parts.collect::<Result<_, _>>()?;
        let of_teacher = parts.iter().filter_map(|part| part.logits.as_ref());
        let logits = head.map(|(head, labels)| LogitComparison::new(head, labels, of_teacher));
        Ok(Self {
            logits: logits.transpose()?,
            parts,
        })
    }

    /// How logits are compared, of a model with a head.
    pub(crate) fn logits(&self) -> Option<&LogitComparison> {
        self.logits.as_ref()
    }

    /// How near `student` is to its teacher; NaN where its numbers are not finite.
    pub(crate) fn agreement(
        &self,
        model: &DifferentiableEncoder,
        student: &Student,
        kernels: &Kernels,
    ) -> Result<Agreement, TrainError> {
        let parameters = match student.parameters(kernels) {
            Err(TrainError::NotFinite { .. }) => {
                return Ok(Agreement {
                    cosine: f64::NAN,
                    logits: None,
                });
            }
            leaves => leaves?.parameters.detached(),
        };
        let of_part = |part: &Part| self.of_part(part, model, student, &parameters);
        let parts = self.parts.par_iter().map(of_part);
        let parts: Vec<(Vec<f32>, Option<LogitSums>)> = parts.collect::<Result<_, _>>()?;
        let cosines = parts.iter().flat_map(|(cosines, _)| cosines);
        let sum: f64 = cosines.clone().map(|&cosine| f64::from(cosine)).sum();
        let logits = parts.iter().filter_map(|(_, logits)| *logits);
        Ok(Agreement {
            cosine: sum / cosines.count().max(1) as f64,
            logits: self.logits.as_ref().map(|of| of.agreement(logits)),
        })
    }

    /// The cosines of the texts of a part, and the sums over their logits.
    fn of_part(
        &self,
        part: &Part,
        model: &DifferentiableEncoder,
        student: &Student,
        parameters: &Parameters,
    ) -> Result<(Vec<f32>, Option<LogitSums>), TrainError> {
        let inputs = student.inputs.with(parameters);
        let states = model.hidden_states(parameters, &part.batch, &inputs)?;
        let Some(last) = states.last() else {
            return Ok((Vec::new(), None));
        };
        let cosines = part.pooling.cosines(last, &part.embeddings)?;
        let logits = model.logits(parameters, &part.batch, last, &inputs)?;
        let sums = match (&self.logits, &logits, &part.logits) {
            (Some(comparison), Some(student), Some(teacher)) => {
                Some(comparison.sums(student, teacher, &part.batch)?)
            }
            _ => None,
        };
        Ok((cosines.to_vec1()?, sums))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LogitMeasure;

    #[test]
    fn logits_decide_where_there_are_some() {
        let of = |cosine, distance: Option<f64>| Agreement {
            cosine,
            logits: distance.map(|distance| LogitAgreement {
                measure: LogitMeasure::KullbackLeibler,
                distance,
                same_answers: Some(1.0),
            }),
        };
        assert!(of(0.9, None).is_better_than(&of(0.8, None)));
        assert!(!of(0.9, None).is_better_than(&of(0.9, None)));
        assert!(of(0.8, Some(0.1)).is_better_than(&of(0.9, Some(0.2))));
        assert!(!of(0.9, Some(0.2)).is_better_than(&of(0.8, Some(0.1))));
        assert!(!of(f64::NAN, None).is_better_than(&of(0.8, Some(0.1))));
        assert!(!of(0.9, Some(f64::NAN)).is_better_than(&of(0.8, Some(0.1))));
    }
}
