//! Lists in which each number is to stand once.

/// The first number that stood in the list before.
pub fn first_repeated(numbers: &[usize]) -> Option<usize> {
    let mut places = numbers.iter().enumerate();
    places.find_map(|(index, number)| numbers[..index].contains(number).then_some(*number))
}

#[cfg(test)]
mod tests {
    use super::first_repeated;

    #[test]
    fn the_first_number_that_stood_before_is_found() {
        assert_eq!(first_repeated(&[2, 1, 3, 1, 2]), Some(1));
        assert_eq!(first_repeated(&[2, 1]), None);
    }
}
