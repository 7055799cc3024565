//! Measurements in rounds that visit every model.

use crate::Error;

/// Takes a measurement of every model in every round, and gives those of each model. Every other round goes backwards, so that a
/// machine that grows slower meanwhile disturbs all models alike. `measure` is told what it took of the same model before.
pub(crate) fn in_rounds<M, T>(
    rounds: usize,
    models: &mut [M],
    mut measure: impl FnMut(&mut M, &[T]) -> Result<T, Error>,
) -> Result<Vec<Vec<T>>, Error> {
    let mut taken: Vec<Vec<T>> = models.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..models.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let measurement = measure(&mut models[index], &taken[index])?;
            taken[index].push(measurement);
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::in_rounds;

    #[test]
    fn every_other_round_goes_backwards_and_knows_what_was_taken_before() {
        let mut visited = Vec::new();
        let taken = in_rounds(3, &mut ['a', 'b', 'c'], |model, before: &[usize]| {
            visited.push(*model);
            Ok(before.len())
        });
        assert_eq!(visited.into_iter().collect::<String>(), "abccbaabc");
        assert_eq!(taken.unwrap(), [[0, 1, 2]; 3]);
    }
}
