//! Relative positions for the checks of attention.

use fewbit_kernels::{Isa, Kernels, Workspace};

use crate::attention::Case;
use crate::support::Numbers;

/// Random keys and queries of relative positions.
pub(crate) struct Positions {
    /// (buckets, stride): keys and queries next to one another.
    pub(crate) values: Vec<f32>,
    pub(crate) stride: usize,
    /// From the last key before the first query to the last key after it.
    pub(crate) buckets: Vec<u32>,
    pub(crate) has_keys: bool,
    pub(crate) has_queries: bool,
}

impl Positions {
    /// Each of the nearest distances has a bucket, further ones share some and leave some out.
    pub(crate) fn new(
        tokens: usize,
        width: usize,
        parts: (bool, bool),
        numbers: &mut Numbers,
    ) -> Self {
        let near = numbers.below(tokens.max(1));
        let mut bucket = 0;
        let buckets = (1..2 * tokens).map(|place| {
            let step = match place.abs_diff(tokens) <= near {
                true => 1,
                false => [0, 0, 1, 2][numbers.below(4)],
            };
            bucket += step;
            bucket
        });
        let buckets: Vec<u32> = buckets.collect();
        let rows = buckets.last().map_or(0, |last| *last as usize + 1);
        let stride = 2 * width + numbers.below(5);
        Self {
            values: numbers.floats(rows * stride, 2.0),
            stride,
            buckets,
            has_keys: parts.0,
            has_queries: parts.1,
        }
    }
}

#[test]
#[should_panic(expected = "a bucket for each distance from the queries 0..5 to the keys 0..5")]
fn positions_that_do_not_reach_are_refused() {
    let mut numbers = Numbers::new(54);
    let mut case = Case::new(5, 2, 4, &mut numbers);
    let mut positions = Positions::new(5, 8, (true, true), &mut numbers);
    positions.buckets.pop();
    case.positions = Some(positions);
    let kernels = Kernels::for_isa(Isa::Scalar).unwrap();
    case.run(kernels, &mut Workspace::new());
}

#[test]
#[should_panic(expected = "the keys of positions have a row of 8 elements for bucket")]
fn positions_without_a_row_for_each_bucket_are_refused() {
    let mut numbers = Numbers::new(55);
    let mut case = Case::new(5, 2, 4, &mut numbers);
    let mut positions = Positions::new(5, 8, (true, true), &mut numbers);
    *positions.buckets.last_mut().unwrap() += 1;
    case.positions = Some(positions);
    let kernels = Kernels::for_isa(Isa::Scalar).unwrap();
    case.run(kernels, &mut Workspace::new());
}
