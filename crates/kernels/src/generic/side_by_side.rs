//! Groups of elements side by side, one in each lane of a vector: what is summed up along a group needs no reduction, and has the order of the elements.

use crate::simd::{LANES, Simd};

/// Sixteen groups at most, and what each element counts.
pub(crate) struct SideBySide {
    /// Line i has element i of each group; zeros in lanes without one.
    pub(crate) values: Vec<[f32; LANES]>,
    /// Likewise.
    pub(crate) importance: Vec<[f32; LANES]>,
}

impl SideBySide {
    pub(crate) fn new() -> Self {
        Self {
            values: Vec::new(),
            importance: Vec::new(),
        }
    }

    /// Takes `values`, at most sixteen groups of `size` elements, and the importance of each if there is one.
    pub(crate) fn fill(&mut self, values: &[f32], importance: Option<&[f32]>, size: usize) {
        interleave(values, size, &mut self.values);
        interleave(importance.unwrap_or_default(), size, &mut self.importance);
    }
}

fn interleave(groups: &[f32], size: usize, lines: &mut Vec<[f32; LANES]>) {
    lines.clear();
    lines.resize(size, [0.0; LANES]);
    for (lane, group) in groups.chunks_exact(size).enumerate() {
        for (line, &element) in lines.iter_mut().zip(group) {
            line[lane] = element;
        }
    }
}

/// Along each group: the squared error of values times a scale, and the sums from which least squares fit a scale to the values.
pub(crate) struct Sums<S: Simd> {
    pub(crate) error: S::F32,
    products: S::F32,
    squares: S::F32,
}

impl<S: Simd> Sums<S> {
    #[inline(always)]
    pub(crate) fn new(s: S) -> Self {
        let zero = s.splat(0.0);
        Self {
            error: zero,
            products: zero,
            squares: zero,
        }
    }

    /// Adds element `index` of each group, `x`, for which `value * scale` stands.
    #[inline(always)]
    pub(crate) fn add<const WEIGHTED: bool>(
        &mut self,
        s: S,
        groups: &SideBySide,
        index: usize,
        [x, value, scale]: [S::F32; 3],
    ) {
        let difference = s.sub(x, s.mul(value, scale));
        let mut terms = [
            s.mul(difference, difference),
            s.mul(x, value),
            s.mul(value, value),
        ];
        if WEIGHTED {
            let importance = s.load(&groups.importance[index]);
            for term in &mut terms {
                *term = s.mul(importance, *term);
            }
        }
        self.error = s.add(self.error, terms[0]);
        self.products = s.add(self.products, terms[1]);
        self.squares = s.add(self.squares, terms[2]);
    }

    /// The scale with which the values have the least error.
    #[inline(always)]
    pub(crate) fn fitted_scale(&self, s: S) -> S::F32 {
        s.div(self.products, self.squares)
    }
}
