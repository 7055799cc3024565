//! How far the student is from its teacher.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use fewbit_model::RaggedBatch;
use fewbit_model::pooling::{Pooling, PoolingMode};

use crate::logit_distance::LogitComparison;
use crate::operations::values::{slice, values};
use crate::teacher::TeacherStates;

/// What one of the embeddings counts beside the hidden states.
const EMBEDDING_WEIGHT: f64 = 1.0;

/// What the distance of logits counts beside the hidden states.
const LOGIT_WEIGHT: f64 = 1.0;

/// What becomes of a batch by pooling, where that is a weighted sum of hidden states: all of sentence-transformers' modes but `max`.
pub(crate) struct PoolingWeights {
    /// (texts, tokens)
    weights: Tensor,
}

impl PoolingWeights {
    /// The first mode of `pooling` that is a sum, or the mean.
    pub(crate) fn new(pooling: Option<&Pooling>, batch: &RaggedBatch) -> Result<Self> {
        let modes = pooling.map_or(&[][..], Pooling::modes);
        let mode = modes.iter().find(|mode| **mode != PoolingMode::Max);
        let mode = mode.copied().unwrap_or(PoolingMode::Mean);
        let (texts, tokens) = (batch.sequences(), batch.tokens());
        let mut weights = vec![0.0f32; texts * tokens];
        for (text, row) in weights.chunks_exact_mut(tokens).enumerate() {
            let row = &mut row[batch.range(text)];
            let length = row.len() as f32;
            match mode {
                PoolingMode::Cls => row[0] = 1.0,
                PoolingMode::LastToken => row[row.len() - 1] = 1.0,
                PoolingMode::WeightedMean => {
                    let sum = length * (length + 1.0) / 2.0;
                    for (place, weight) in (1..).zip(row) {
                        *weight = place as f32 / sum;
                    }
                }
                // The length of a sum makes no difference to its direction.
                PoolingMode::Mean | PoolingMode::MeanSqrtLength | PoolingMode::Max => {
                    row.fill(1.0 / length);
                }
            }
        }
        let weights = Tensor::from_vec(weights, (texts, tokens), &candle_core::Device::Cpu)?;
        Ok(Self { weights })
    }

    /// The embeddings (texts, hidden size) of hidden states.
    pub(crate) fn pooled(&self, states: &Tensor) -> Result<Tensor> {
        self.weights.matmul(states)
    }

    /// The cosines of the embeddings of hidden states and those of a teacher, (texts).
    pub(crate) fn cosines(&self, states: &Tensor, teacher: &Tensor) -> Result<Tensor> {
        let student = self.pooled(states)?;
        let product = (&student * teacher)?.sum(1)?;
        let lengths = (student.sqr()?.sum(1)? * teacher.sqr()?.sum(1)?)?;
        product / (lengths + 1e-24)?.sqrt()?
    }
}

/// The squared distance of all hidden states after layers, as shares of their squared lengths, averaged over layers, and the distance of embeddings, 1 - cosine; both as
/// sums over texts, of which a batch has `texts`.
///
/// The hidden states of every layer, and not the last alone, give each layer a target of its own (Sun et al. 2019, "Patient Knowledge Distillation", arXiv:1908.09355).
pub(crate) fn distillation_loss(
    student: &[Tensor],
    teacher: &TeacherStates,
    pooling: &PoolingWeights,
    batch: &RaggedBatch,
    texts: usize,
) -> Result<Tensor> {
    let share = batch.sequences() as f64 / texts as f64;
    let (Some(last), Some(last_of_teacher)) = (student.last(), teacher.states.last()) else {
        candle_core::bail!("no hidden states");
    };
    let cosines = pooling.cosines(last, &pooling.pooled(last_of_teacher)?)?;
    let mut loss = ((1.0 - cosines)?.sum_all()? * (EMBEDDING_WEIGHT / texts as f64))?;
    // The embeddings before the first layer depend on normalization alone.
    let layers = student.iter().zip(&teacher.states).skip(1);
    let factor = share / (student.len() - 1).max(1) as f64;
    for (student, teacher) in layers {
        let energy = f64::from(teacher.sqr()?.sum_all()?.to_scalar::<f32>()?);
        let distance = student.apply_op1(SquaredDistance {
            target: teacher.clone(),
        })?;
        loss = (loss + (distance * (factor / energy.max(f64::MIN_POSITIVE)))?)?;
    }
    Ok(loss)
}

/// The distance of logits, as `comparison` says, as a sum over texts, of which a batch has `texts`. It is added to [`distillation_loss`] where a model has a head.
///
/// # Errors
/// Logits of different shapes.
pub(crate) fn logit_loss(
    comparison: &LogitComparison,
    student: &Tensor,
    teacher: &Tensor,
    batch: &RaggedBatch,
    texts: usize,
) -> Result<Tensor> {
    let share = batch.sequences() as f64 / texts as f64;
    comparison.loss(student, teacher, batch)? * (share * LOGIT_WEIGHT)
}

/// The sum of squared differences to a constant, with one pass for its gradient.
struct SquaredDistance {
    target: Tensor,
}

impl CustomOp1 for SquaredDistance {
    fn name(&self) -> &'static str {
        "squared distance"
    }

    fn cpu_fwd(&self, states: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (states, target) = (slice(states, layout)?, values(&self.target)?);
        if states.len() != target.len() {
            candle_core::bail!("{} hidden states for {}", states.len(), target.len());
        }
        let squares = states.iter().zip(target.iter()).map(|(value, target)| {
            let difference = f64::from(value - target);
            difference * difference
        });
        let sum = squares.sum::<f64>() as f32;
        Ok((CpuStorage::F32(vec![sum]), Shape::from(())))
    }

    fn bwd(&self, values: &Tensor, _sum: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let factor = 2.0 * f64::from(gradient.to_scalar::<f32>()?);
        Ok(Some(((values - &self.target)? * factor)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    fn batch() -> RaggedBatch {
        RaggedBatch::from_sequences(&[&[1, 2, 3][..], &[4]])
    }

    fn states(values: [f32; 8]) -> Result<Tensor> {
        Tensor::from_slice(&values, (4, 2), &Device::Cpu)
    }

    #[test]
    fn a_student_like_its_teacher_has_no_loss_and_no_gradient() -> Result<()> {
        let values = [1.0, 2.0, -3.0, 4.0, 0.5, 0.0, 7.0, 1.0];
        let student = Var::from_tensor(&states(values)?)?;
        let teacher = TeacherStates {
            states: vec![states(values)?, states(values)?],
            logits: None,
        };
        let pooling = PoolingWeights::new(None, &batch())?;
        let layers = [student.as_tensor().clone(), student.as_tensor().clone()];
        let loss = distillation_loss(&layers, &teacher, &pooling, &batch(), 2)?;
        assert!(loss.to_scalar::<f32>()?.abs() < 1e-6);
        let gradients = loss.backward()?;
        let gradient = gradients.get(&student).expect("a leaf");
        let most = gradient.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(most < 1e-6, "{most}");
        Ok(())
    }

    #[test]
    fn the_gradient_of_the_loss_is_its_slope() -> Result<()> {
        let values = [1.0, 2.0, -3.0, 4.0, 0.5, 0.0, 7.0, 1.0];
        let other = [1.5, 2.0, -2.0, 3.0, 0.5, 1.0, 6.0, 1.0];
        let teacher = TeacherStates {
            states: vec![states(other)?, states(other)?],
            logits: None,
        };
        let pooling = PoolingWeights::new(None, &batch())?;
        let loss = |student: &Tensor| {
            let layers = [student.clone(), student.clone()];
            distillation_loss(&layers, &teacher, &pooling, &batch(), 2)
        };
        let student = Var::from_tensor(&states(values)?)?;
        let gradients = loss(&student)?.backward()?;
        let gradient = gradients.get(&student).expect("a leaf").flatten_all()?;
        for (place, gradient) in gradient.to_vec1::<f32>()?.into_iter().enumerate() {
            let moved = |by: f32| {
                let mut moved = values;
                moved[place] += by;
                loss(&states(moved)?)?.to_scalar::<f32>()
            };
            // The second difference of the loss is below 1, its values below 2: half a step errs by 2^-24 * 2 / 2^-8, and 2^-16.
            let slope = (moved(1.0 / 256.0)? - moved(-1.0 / 256.0)?) * 128.0;
            assert!(
                (slope - gradient).abs() < 1e-4,
                "{place}: {slope} {gradient}"
            );
        }
        Ok(())
    }

    #[test]
    fn pooling_takes_the_tokens_of_its_mode() -> Result<()> {
        let weights = |mode: PoolingMode| {
            let pooling = Pooling::from(mode);
            PoolingWeights::new(Some(&pooling), &batch())?
                .weights
                .to_vec2::<f32>()
        };
        let third = 1.0 / 3.0;
        assert_eq!(
            weights(PoolingMode::Mean)?,
            [[third, third, third, 0.0], [0.0, 0.0, 0.0, 1.0]]
        );
        assert_eq!(weights(PoolingMode::Cls)?[0], [1.0, 0.0, 0.0, 0.0]);
        assert_eq!(weights(PoolingMode::LastToken)?[0], [0.0, 0.0, 1.0, 0.0]);
        let sixth = 1.0 / 6.0;
        assert_eq!(
            weights(PoolingMode::WeightedMean)?[0],
            [sixth, 2.0 / 6.0, 3.0 / 6.0, 0.0]
        );
        Ok(())
    }
}
