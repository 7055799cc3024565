//! Rotary position embeddings: see [`crate::spec::Rotary`].

use crate::spec::RotaryFrequencies;
use std::ops::Range;

impl RotaryFrequencies {
    /// The cosines, and then the sines, of the angles that `position` turns the features of a head by, (head_size) in all.
    ///
    /// Angles are rounded to f32 before their cosines are taken, as in transformers; cosines are those of a library in Rust, the same on
    /// every machine.
    pub fn turn(&self, position: usize) -> impl Iterator<Item = f32> {
        let frequencies = self.frequencies.iter();
        let angles = frequencies.map(move |frequency| f64::from(position as f32 * frequency));
        let cosines = angles.clone().map(|angle| libm::cos(angle) as f32);
        let sines = angles.map(|angle| libm::sin(angle) as f32);
        cosines.chain(sines).map(|value| value * self.factor)
    }
}

/// Cosines and sines of the angles that positions turn the features of a head by.
#[derive(Default)]
pub(super) struct Rotations {
    /// (positions, head_size / 2) of each, next to one another: cosines, then sines of a position.
    table: Vec<f32>,
    /// What the table is for.
    of: RotaryFrequencies,
}

impl Rotations {
    /// Makes the table reach to position `tokens - 1`.
    pub(super) fn fit(&mut self, tokens: usize, of: &RotaryFrequencies) {
        if self.of != *of {
            self.table.clear();
            self.of = of.clone();
        }
        let half = of.frequencies.len();
        let positions = self.table.len() / (2 * half).max(1);
        if half == 0 || positions >= tokens {
            return;
        }
        self.table.reserve_exact((tokens - positions) * 2 * half);
        for position in positions..tokens {
            self.table.extend(of.turn(position));
        }
    }

    /// The cosines and sines of some positions, (positions, head_size), as the kernels take them.
    pub(super) fn of_positions(&self, positions: Range<usize>) -> &[f32] {
        let columns = 2 * self.of.frequencies.len();
        &self.table[positions.start * columns..positions.end * columns]
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.table.capacity() * size_of::<f32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One radian a position in the first pair, half of it in the second.
    #[test]
    fn angles_grow_with_the_position() {
        let mut rotations = Rotations::default();
        let of = |frequencies: &[f32], factor| RotaryFrequencies {
            frequencies: frequencies.to_vec(),
            factor,
            ..RotaryFrequencies::default()
        };
        rotations.fit(2, &of(&[1.0, 0.5], 1.0));
        rotations.fit(5, &of(&[1.0, 0.5], 1.0));
        let expected = [3f32.cos(), 1.5f32.cos(), 3f32.sin(), 1.5f32.sin()];
        for (found, expected) in rotations.of_positions(3..4).iter().zip(expected) {
            assert!((found - expected).abs() < 1e-7);
        }
        // Other frequencies or another factor begin anew.
        for factor in [1.0, 1.5] {
            rotations.fit(1, &of(&[1.0], factor));
            assert_eq!(rotations.of_positions(0..1), [factor, 0.0]);
        }
    }
}
