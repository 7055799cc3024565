//! Places in a text in characters, as Python counts them.

use std::ops::Range;

/// Where the characters of a text begin.
pub(super) struct Characters(Vec<usize>);

impl Characters {
    pub(super) fn of(text: &str) -> Self {
        Self(text.char_indices().map(|(start, _)| start).collect())
    }

    /// The number of characters that begin before the byte `at`.
    fn before(&self, at: usize) -> usize {
        self.0.partition_point(|&start| start < at)
    }

    /// The first character of `bytes` and the one behind the last.
    pub(super) fn range(&self, bytes: &Range<usize>) -> (usize, usize) {
        (self.before(bytes.start), self.before(bytes.end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_code_points() {
        let text = "aé中😀b";
        let characters = Characters::of(text);
        for part in ["a", "é中", "😀b", ""] {
            let start = text.find(part).unwrap();
            let (first, behind) = characters.range(&(start..start + part.len()));
            let found: String = text.chars().skip(first).take(behind - first).collect();
            assert_eq!(found, part);
        }
        assert_eq!(characters.range(&(text.len()..text.len())), (5, 5));
    }
}
