//! Rotary position embeddings: see [`crate::spec::Rotary`].

use crate::spec::RotaryFrequencies;

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
    ///
    /// Angles are rounded to f32 before their cosines are taken, as in transformers; cosines are those of a library in Rust, the same on
    /// every machine.
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
            let angles = of
                .frequencies
                .iter()
                .map(|frequency| f64::from(position as f32 * frequency));
            let cosines = angles.clone().map(|angle| libm::cos(angle) as f32);
            let sines = angles.map(|angle| libm::sin(angle) as f32);
            let scaled = cosines.chain(sines).map(|value| value * of.factor);
            self.table.extend(scaled);
        }
    }

    /// Turns the heads of a token's row: (x1, x2) becomes (x1 cos - x2 sin, x2 cos + x1 sin), x1 being the first half of a head.
    pub(super) fn turn(&self, position: usize, row: &mut [f32]) {
        let half = self.of.frequencies.len();
        let (cosines, sines) = self.table[position * 2 * half..][..2 * half].split_at(half);
        for head in row.chunks_exact_mut(2 * half) {
            let (first, second) = head.split_at_mut(half);
            let pairs = first.iter_mut().zip(second);
            for ((x1, x2), (cos, sin)) in pairs.zip(cosines.iter().zip(sines)) {
                (*x1, *x2) = (*x1 * cos - *x2 * sin, *x2 * cos + *x1 * sin);
            }
        }
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
    fn a_row_turns_by_its_position() {
        let mut rotations = Rotations::default();
        let of = |frequencies: &[f32], factor| RotaryFrequencies {
            frequencies: frequencies.to_vec(),
            factor,
        };
        rotations.fit(2, &of(&[1.0, 0.5], 1.0));
        rotations.fit(5, &of(&[1.0, 0.5], 1.0));
        let mut row = [1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 1.0, 0.0];
        rotations.turn(3, &mut row);
        for (pair, angle) in [(0, 3.0f32), (1, 1.5)] {
            let (x1, x2) = ([1.0, 2.0][pair], [3.0, 4.0][pair]);
            let (sin, cos) = angle.sin_cos();
            assert!((row[pair] - (x1 * cos - x2 * sin)).abs() < 1e-6);
            assert!((row[2 + pair] - (x2 * cos + x1 * sin)).abs() < 1e-6);
        }
        assert!((row[4] + 3f32.sin()).abs() < 1e-6 && (row[6] - 3f32.cos()).abs() < 1e-6);
        // Other frequencies or another factor begin anew.
        for factor in [1.0, 1.5] {
            rotations.fit(1, &of(&[1.0], factor));
            let mut row = [1.0, 1.0];
            rotations.turn(0, &mut row);
            assert_eq!(row, [factor, factor]);
        }
    }
}
