//! Gradients of operations against differences.

use candle_core::{Device, Result, Tensor, Var};

/// Numbers between -1 and 1.
pub(crate) fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut random = fastrand::Rng::with_seed(seed);
    let count = shape.iter().product();
    let numbers: Vec<f32> = (0..count).map(|_| 2.0 * random.f32() - 1.0).collect();
    Tensor::from_vec(numbers, shape, &Device::Cpu).expect("a tensor")
}

/// Errors unless the gradients of a randomly weighted sum of what `function` gives are its differences, for each number of each input.
///
/// Differences over h and 2 h together are wrong by terms of h^4, about 1e-5 for functions whose derivatives are of size 1. Results of size 1 are rounded by
/// 1e-7, some hundred of them together by 1e-6 or 1e-5 at the most, which is divided by h.
pub(crate) fn assert_gradients(inputs: &[Tensor], function: impl Fn(&[Tensor]) -> Result<Tensor>) {
    const STEP: f32 = 0.03;
    let run = |inputs: &[Tensor]| function(inputs).expect("a result");
    let weights = random(run(inputs).dims(), 99);
    let value = |inputs: &[Tensor]| {
        let numbers = |tensor: &Tensor| {
            let flat = tensor.flatten_all().expect("a tensor");
            flat.to_vec1::<f32>().expect("floats")
        };
        let (results, weights) = (numbers(&run(inputs)), numbers(&weights));
        let pairs = results.iter().zip(&weights);
        pairs
            .map(|(x, y)| f64::from(*x) * f64::from(*y))
            .sum::<f64>()
    };
    let variables: Vec<Tensor> = inputs
        .iter()
        .map(|input| {
            Var::from_tensor(input)
                .expect("a variable")
                .as_tensor()
                .clone()
        })
        .collect();
    let loss = (run(&variables) * &weights)
        .expect("of a shape")
        .sum_all()
        .expect("a sum");
    let gradients = loss.backward().expect("gradients");
    for (place, variable) in variables.iter().enumerate() {
        let gradient = gradients.get(variable).expect("a gradient");
        assert_eq!(gradient.dims(), variable.dims());
        let flat = |tensor: &Tensor| tensor.flatten_all().and_then(|flat| flat.to_vec1::<f32>());
        let numbers = flat(variable).expect("floats");
        for (index, gradient) in flat(gradient).expect("floats").into_iter().enumerate() {
            let at = |step: f32| {
                let mut moved = numbers.clone();
                moved[index] += step;
                let mut inputs = inputs.to_vec();
                inputs[place] =
                    Tensor::from_vec(moved, variable.dims(), &Device::Cpu).expect("a tensor");
                value(&inputs)
            };
            let difference = |step: f32| (at(step) - at(-step)) / (2.0 * f64::from(step));
            let found = (4.0 * difference(STEP) - difference(2.0 * STEP)) / 3.0;
            let error = (found - f64::from(gradient)).abs();
            assert!(
                error < 1e-3 * (1.0 + found.abs()),
                "input {place}, element {index}: {gradient}, differences {found}"
            );
        }
    }
}
