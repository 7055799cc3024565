//! Weights and scales of a student apart from the rest of it: those that were best, and their running average.

use rayon::iter::ParallelIterator;
use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, IntoParallelRefMutIterator};

use crate::student::Student;
use crate::weight_quantizer::WeightQuantizer;

/// Values and scales of each tensor of a student, in its order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Weights(pub(crate) Vec<(Vec<f32>, Vec<f32>)>);

impl Weights {
    /// Those of `student`.
    pub(crate) fn of(student: &Student) -> Self {
        let tensors = student.tensors.iter();
        Self(
            tensors
                .map(|tensor| (tensor.values.clone(), tensor.quantizer.scales().to_vec()))
                .collect(),
        )
    }

    /// Gives them to `student`, and takes its own.
    pub(crate) fn exchange(&mut self, student: &mut Student) {
        for (tensor, (values, scales)) in student.tensors.iter_mut().zip(&mut self.0) {
            std::mem::swap(&mut tensor.values, values);
            if let WeightQuantizer::Groups(groups) = &mut tensor.quantizer {
                std::mem::swap(&mut groups.scales, scales);
            }
        }
    }

    /// Moves them by `share` of the way to those of `student`.
    pub(crate) fn follow(&mut self, student: &Student, share: f32) {
        let towards = |from: &mut [f32], to: &[f32]| {
            for (from, to) in from.iter_mut().zip(to) {
                *from += share * (to - *from);
            }
        };
        let each = self.0.par_iter_mut().zip(student.tensors.par_iter());
        each.for_each(|((values, scales), tensor)| {
            towards(values, &tensor.values);
            towards(scales, tensor.quantizer.scales());
        });
    }
}
