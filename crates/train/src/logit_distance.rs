//! How far the logits of the student are from those of its teacher.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};
use fewbit_model::task_head::ProblemType;
use fewbit_model::{HeadSpec, Labels, RaggedBatch, Task};
use fewbit_numerics::logits::{
    decisions, divergence, divergence_of_decisions, largest, log_softmax, sigmoid,
};
use serde::{Deserialize, Serialize};

use crate::operations::values::{slice, values};

/// What logits are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogitMeasure {
    /// The Kullback-Leibler divergence of the student's probabilities from the teacher's, `sum p ln(p / q)`, in nats.
    KullbackLeibler,
    /// The squared difference to the teacher's values, as a share of their variance.
    RelativeSquaredDistance,
}

/// What the logits of a head say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// One of the labels of a row is right.
    Label,
    /// Any number of them is right.
    Labels,
    /// One of the tokens of a text is right, in each column: where an answer starts, and where it ends.
    Token,
    /// Each is a value.
    Values,
}

/// How logits are compared.
///
/// Where they are of one label that is right, by the Kullback-Leibler divergence of their softmax, `sum p ln(p / q)` with the teacher's probabilities p and the student's
/// q: but for the entropy of p, which is constant, the cross-entropy with soft targets of Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", arXiv:1503.02531, at
/// temperature 1, with their gradient q - p. Labels that are right or not by themselves have a divergence each, of p and 1 - p, which are added. Of question answering the
/// probabilities are those of the tokens of a text. Values are compared by their squared difference, divided by the variance of the teacher's.
///
/// The mean is over texts, or over tokens or starts and ends of answers where logits are of these.
#[derive(Debug, Clone)]
pub(crate) struct LogitComparison {
    answer: Answer,
    /// What squared differences are divided by, of each column of values.
    variances: Arc<[f64]>,
}

/// How near logits of a student are to those of its teacher on held-out texts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LogitAgreement {
    /// What `distance` is.
    pub measure: LogitMeasure,
    /// The mean over texts, tokens (token classification), or starts and ends (question answering); 0 where logits say the same.
    pub distance: f64,
    /// The share of them that have the teacher's answer: the same most probable label or token, or the same set of labels with more than 1/2. None where logits are values.
    pub same_answers: Option<f64>,
}

/// Values whose variance is a smaller share of their mean square than this are taken for equal ones.
const LEAST_VARIANCE: f64 = 1e-6;

/// Sums over answers.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct LogitSums {
    distance: f64,
    same: usize,
    answers: usize,
}

impl LogitComparison {
    /// That of a head. `teacher` are logits of the teacher, (rows, columns) each, which variances are taken from.
    ///
    /// # Errors
    /// Tensors that are not f32.
    pub(crate) fn new<'t>(
        head: &HeadSpec,
        labels: &Labels,
        teacher: impl Iterator<Item = &'t Tensor>,
    ) -> Result<Self> {
        let answer = match head.task {
            Task::QuestionAnswering => Answer::Token,
            Task::TokenClassification | Task::MaskedLm => Answer::Label,
            Task::SequenceClassification => match labels.problem_type() {
                Some(ProblemType::MultiLabelClassification) => Answer::Labels,
                Some(ProblemType::Regression) => Answer::Values,
                // What transformers trains it as.
                _ if labels.len() == 1 => Answer::Values,
                _ => Answer::Label,
            },
        };
        let mut rows = Vec::new();
        if answer == Answer::Values {
            for logits in teacher {
                rows.extend(logits.to_vec2::<f32>()?);
            }
        }
        let column = |column: usize| {
            let values = rows.iter().map(move |row| f64::from(row[column]));
            let count = values.clone().count() as f64;
            let mean = values.clone().sum::<f64>() / count;
            let about = |center: f64| {
                let squares = values.clone().map(|value| (value - center).powi(2));
                squares.sum::<f64>() / count
            };
            let (variance, square) = (about(mean), about(0.0));
            // Of a single value, or of equal ones, its square stands for it.
            match variance > LEAST_VARIANCE * square {
                true => variance,
                false if square > 0.0 => square,
                false => 1.0,
            }
        };
        let columns = rows.first().map_or(0, Vec::len);
        Ok(Self {
            answer,
            variances: (0..columns).map(column).collect(),
        })
    }

    fn measure(&self) -> LogitMeasure {
        match self.answer {
            Answer::Values => LogitMeasure::RelativeSquaredDistance,
            Answer::Label | Answer::Labels | Answer::Token => LogitMeasure::KullbackLeibler,
        }
    }

    /// Calls `see` with the places of the numbers of each answer in logits of `columns` columns.
    fn each_answer(
        &self,
        offsets: &[usize],
        rows: usize,
        columns: usize,
        mut see: impl FnMut(&[usize]),
    ) {
        match self.answer {
            Answer::Token => {
                for pair in offsets.windows(2) {
                    for column in 0..columns {
                        let places = (pair[0]..pair[1]).map(|row| row * columns + column);
                        see(&places.collect::<Vec<_>>());
                    }
                }
            }
            Answer::Label | Answer::Labels | Answer::Values => {
                for row in 0..rows {
                    see(&(row * columns..(row + 1) * columns).collect::<Vec<_>>());
                }
            }
        }
    }

    /// The distance of one answer; NaN of a student whose logits are not finite.
    fn distance(&self, student: &[f32], teacher: &[f32]) -> f64 {
        if student.iter().any(|logit| !logit.is_finite()) {
            return f64::NAN;
        }
        match self.answer {
            Answer::Label | Answer::Token => divergence(teacher, student),
            Answer::Labels => divergence_of_decisions(teacher, student),
            Answer::Values => {
                let values = student.iter().zip(teacher).zip(self.variances.iter());
                let shares = values.map(|((&student, &teacher), variance)| {
                    (f64::from(student) - f64::from(teacher)).powi(2) / variance
                });
                shares.sum::<f64>() / student.len() as f64
            }
        }
    }

    /// The gradient of [`distance`](Self::distance) with respect to the student's logits.
    fn gradient(&self, student: &[f32], teacher: &[f32]) -> Vec<f64> {
        match self.answer {
            Answer::Label | Answer::Token => {
                let [q, p] = [student, teacher].map(log_softmax);
                let pairs = q.iter().zip(&p);
                pairs.map(|(q, p)| q.exp() - p.exp()).collect()
            }
            Answer::Labels => {
                let pairs = student.iter().zip(teacher);
                pairs.map(|(&q, &p)| sigmoid(q) - sigmoid(p)).collect()
            }
            Answer::Values => {
                let columns = student.len() as f64;
                let values = student.iter().zip(teacher).zip(self.variances.iter());
                let slopes = values.map(|((&student, &teacher), variance)| {
                    2.0 * (f64::from(student) - f64::from(teacher)) / (variance * columns)
                });
                slopes.collect()
            }
        }
    }

    /// Whether two answers are the same; of values none is.
    fn is_same(&self, student: &[f32], teacher: &[f32]) -> bool {
        match self.answer {
            Answer::Label | Answer::Token => largest(student) == largest(teacher),
            Answer::Labels => decisions(student).eq(decisions(teacher)),
            Answer::Values => false,
        }
    }

    /// The mean distance of the answers of a batch, with its gradient.
    ///
    /// # Errors
    /// Logits of different shapes.
    pub(crate) fn loss(
        &self,
        student: &Tensor,
        teacher: &Tensor,
        batch: &RaggedBatch,
    ) -> Result<Tensor> {
        student.contiguous()?.apply_op1(MeanDistance {
            comparison: self.clone(),
            teacher: teacher.contiguous()?,
            offsets: batch.offsets.as_slice().into(),
        })
    }

    /// The sums over the answers of a batch.
    ///
    /// # Errors
    /// Logits of different shapes.
    pub(crate) fn sums(
        &self,
        student: &Tensor,
        teacher: &Tensor,
        batch: &RaggedBatch,
    ) -> Result<LogitSums> {
        let (rows, columns) = student.dims2()?;
        let (student, teacher) = (student.contiguous()?, teacher.contiguous()?);
        let (student, teacher) = (values(&student)?, values(&teacher)?);
        self.sums_of(&student, &teacher, [rows, columns], &batch.offsets)
    }

    fn sums_of(
        &self,
        student: &[f32],
        teacher: &[f32],
        [rows, columns]: [usize; 2],
        offsets: &[usize],
    ) -> Result<LogitSums> {
        if student.len() != teacher.len() {
            candle_core::bail!("{} logits for {}", student.len(), teacher.len());
        }
        let mut sums = LogitSums::default();
        self.each_answer(offsets, rows, columns, |places| {
            let [student, teacher] = [student, teacher].map(|logits| at(logits, places));
            sums.distance += self.distance(&student, &teacher);
            sums.same += usize::from(self.is_same(&student, &teacher));
            sums.answers += 1;
        });
        Ok(sums)
    }

    /// What sums over all held-out texts come to.
    pub(crate) fn agreement(&self, sums: impl Iterator<Item = LogitSums>) -> LogitAgreement {
        let sums = sums.fold(LogitSums::default(), |sums, other| LogitSums {
            distance: sums.distance + other.distance,
            same: sums.same + other.same,
            answers: sums.answers + other.answers,
        });
        let answers = sums.answers.max(1) as f64;
        LogitAgreement {
            measure: self.measure(),
            distance: sums.distance / answers,
            same_answers: (self.answer != Answer::Values).then_some(sums.same as f64 / answers),
        }
    }
}

fn at(logits: &[f32], places: &[usize]) -> Vec<f32> {
    places.iter().map(|&place| logits[place]).collect()
}

/// The mean distance of logits to constant ones.
struct MeanDistance {
    comparison: LogitComparison,
    teacher: Tensor,
    /// Of the sequences of the batch.
    offsets: Arc<[usize]>,
}

impl CustomOp1 for MeanDistance {
    fn name(&self) -> &'static str {
        "mean distance of logits"
    }

    fn cpu_fwd(&self, student: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, columns) = layout.shape().dims2()?;
        let (student, teacher) = (slice(student, layout)?, values(&self.teacher)?);
        let sums = &self.comparison;
        let sums = sums.sums_of(student, &teacher, [rows, columns], &self.offsets)?;
        let mean = sums.distance / sums.answers.max(1) as f64;
        Ok((CpuStorage::F32(vec![mean as f32]), Shape::from(())))
    }

    fn bwd(&self, student: &Tensor, _mean: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (rows, columns) = student.dims2()?;
        let factor = f64::from(gradient.to_scalar::<f32>()?);
        let mut slopes = vec![0.0; rows * columns];
        let mut answers = 0;
        let (logits, teacher) = (values(student)?, values(&self.teacher)?);
        let comparison = &self.comparison;
        comparison.each_answer(&self.offsets, rows, columns, |places| {
            let [student, teacher] = [&*logits, &*teacher].map(|logits| at(logits, places));
            let gradient = comparison.gradient(&student, &teacher);
            for (&place, slope) in places.iter().zip(gradient) {
                slopes[place] = slope;
            }
            answers += 1;
        });
        let factor = factor / f64::from(answers.max(1));
        let slopes: Vec<f32> = slopes.iter().map(|slope| (slope * factor) as f32).collect();
        Ok(Some(Tensor::from_vec(
            slopes,
            (rows, columns),
            &Device::Cpu,
        )?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::finite_differences::{assert_gradients, random};

    const ANSWERS: [Answer; 4] = [Answer::Label, Answer::Labels, Answer::Token, Answer::Values];

    fn comparison(answer: Answer) -> LogitComparison {
        LogitComparison {
            answer,
            variances: [0.5, 2.0].into(),
        }
    }

    /// Two texts of one and two tokens.
    fn batch() -> RaggedBatch {
        RaggedBatch::from_sequences(&[&[1][..], &[2, 3]])
    }

    fn logits(values: [[f32; 2]; 3]) -> Tensor {
        Tensor::new(&values, &Device::Cpu).expect("a tensor")
    }

    #[test]
    fn gradients_are_those_of_differences() {
        let teacher = random(&[3, 2], 5);
        for answer in ANSWERS {
            assert_gradients(&[random(&[3, 2], 1)], |inputs| {
                comparison(answer).loss(&inputs[0], &teacher, &batch())
            });
        }
    }

    #[test]
    fn logits_like_the_teachers_have_no_distance_and_no_gradient() -> Result<()> {
        let teacher = logits([[1.0, -2.0], [0.0, 3.0], [5.0, 5.0]]);
        for answer in ANSWERS {
            let student = candle_core::Var::from_tensor(&teacher)?;
            let loss = comparison(answer).loss(&student, &teacher, &batch())?;
            assert_eq!(loss.to_scalar::<f32>()?, 0.0, "{answer:?}");
            let gradients = loss.backward()?;
            let gradient = gradients.get(&student).expect("a leaf");
            assert_eq!(gradient.to_vec2::<f32>()?, [[0.0; 2]; 3], "{answer:?}");
        }
        Ok(())
    }

    #[test]
    fn distances_by_hand() -> Result<()> {
        let ln3 = 3f32.ln();
        let teacher = logits([[ln3, 0.0], [ln3, -1.0], [0.0, -1.0]]);
        let student = logits([[0.0, 0.0], [0.0, -1.0], [0.0, -1.0]]);
        // Probabilities (3/4, 1/4) against (1/2, 1/2).
        let one = 0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln();
        let agreement = |answer| {
            let comparison = comparison(answer);
            let sums = comparison.sums(&student, &teacher, &batch())?;
            Ok::<_, candle_core::Error>(comparison.agreement([sums].into_iter()))
        };
        let near = |found: f64, expected: f64| (found - expected).abs() < 1e-7;
        // The second row of the student has the first label, too.
        let of_row = divergence(&[ln3, -1.0], &[0.0, -1.0]);
        let labels = agreement(Answer::Label)?;
        assert!(near(labels.distance, (one + of_row) / 3.0), "{labels:?}");
        assert_eq!(labels.same_answers, Some(1.0));
        assert_eq!(labels.measure, LogitMeasure::KullbackLeibler);
        // Each of the first two rows has a label that is right with 3/4 for the teacher and not decided for the student.
        let labels = agreement(Answer::Labels)?;
        assert!(near(labels.distance, 2.0 * one / 3.0), "{labels:?}");
        assert_eq!(labels.same_answers, Some(1.0 / 3.0));
        // Of four starts and ends, the start of the second text alone differs: a text of one token has no choice.
        let tokens = agreement(Answer::Token)?;
        assert!(near(tokens.distance, one / 4.0), "{tokens:?}");
        assert_eq!(tokens.same_answers, Some(1.0));
        let squares = f64::from(ln3).powi(2) / 0.5;
        let values = agreement(Answer::Values)?;
        assert!(
            near(values.distance, 2.0 * squares / 2.0 / 3.0),
            "{values:?}"
        );
        assert_eq!(values.same_answers, None);
        assert_eq!(values.measure, LogitMeasure::RelativeSquaredDistance);
        Ok(())
    }

    #[test]
    fn values_are_compared_in_units_of_their_variance() -> Result<()> {
        let directory = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../model/tests/golden/task_heads/bert-regression"
        );
        let checkpoint = fewbit_checkpoint::Checkpoint::open(directory).expect("golden");
        let labels = Labels::from_checkpoint(&checkpoint).expect("labels");
        let spec = fewbit_model::EncoderSpec::from_checkpoint(&checkpoint).expect("a spec");
        let head = HeadSpec::from_checkpoint(&checkpoint, &spec, &labels).expect("a head");
        let variance = |values: &[f32]| {
            let teacher = Tensor::from_slice(values, (values.len(), 1), &Device::Cpu)?;
            let comparison = LogitComparison::new(&head, &labels, [&teacher].into_iter())?;
            assert_eq!(comparison.measure(), LogitMeasure::RelativeSquaredDistance);
            Ok::<_, candle_core::Error>(comparison.variances[0])
        };
        assert_eq!(variance(&[1.0, 3.0])?, 1.0);
        // One value, equal ones, and zeros have none.
        assert_eq!(variance(&[3.0])?, 9.0);
        let square = f64::from(0.1f32).powi(2);
        assert!((variance(&[0.1; 3])? - square).abs() < 1e-14 * square);
        assert_eq!(variance(&[0.0, 0.0])?, 1.0);
        Ok(())
    }

    #[test]
    fn logits_that_are_not_finite_are_not_near() -> Result<()> {
        let teacher = logits([[1.0, -2.0], [0.0, 3.0], [5.0, 5.0]]);
        let student = logits([[1.0, -2.0], [0.0, f32::NAN], [5.0, f32::INFINITY]]);
        for answer in ANSWERS {
            let sums = comparison(answer).sums(&student, &teacher, &batch())?;
            assert!(sums.distance.is_nan(), "{answer:?}");
        }
        let other = Tensor::new(&[[1f32, 2.0]], &Device::Cpu)?;
        assert!(
            comparison(Answer::Label)
                .sums(&other, &teacher, &batch())
                .is_err()
        );
        Ok(())
    }
}
