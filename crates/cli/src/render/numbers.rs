//! Numbers as people read them. A megabyte is 1,000,000 bytes throughout.

/// Megabytes with `digits` digits after the point, without the unit.
pub(crate) fn megabytes(bytes: u64, digits: usize) -> String {
    format!("{:.digits$}", bytes as f64 / 1e6)
}

/// Bytes with the unit that keeps three or four digits: `512 B`, `48.2 kB`, `90.9 MB`, `1.34 GB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let value = bytes as f64;
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", value / 1e6),
        _ => format!("{:.2} GB", value / 1e9),
    }
}

/// An integer with a comma between groups of three digits.
pub(crate) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `one text`, `2 texts`.
pub(crate) fn count(number: usize, singular: &str, plural: &str) -> String {
    if number == 1 {
        format!("1 {singular}")
    } else {
        format!("{} {plural}", grouped(number as u64))
    }
}

/// Digits after the point that a column of positive numbers needs, so that the smallest has two digits or more, if three
/// after the point are enough for that.
pub(crate) fn decimals(values: impl Iterator<Item = f64>) -> usize {
    let smallest = values.fold(f64::INFINITY, f64::min);
    match smallest {
        ..0.1 => 3,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    }
}

/// `name` in at most `width` characters, the middle left out where it is longer: names of models differ at their ends.
pub(crate) fn shortened(name: &str, width: usize) -> String {
    let characters: Vec<char> = name.chars().collect();
    if characters.len() <= width {
        return name.to_owned();
    }
    let kept = width.saturating_sub(1);
    let head = kept / 2;
    let tail = characters.len() - (kept - head);
    let (head, tail): (String, String) = (
        characters[..head].iter().collect(),
        characters[tail..].iter().collect(),
    );
    format!("{head}…{tail}")
}

/// A text of a model's files, with spaces in place of characters that would do something to a terminal.
pub(crate) fn without_control_characters(text: &str) -> String {
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(visible).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_show_what_the_smallest_number_needs() {
        let of = |values: &[f64]| decimals(values.iter().copied());
        assert_eq!(of(&[0.073, 360.0]), 3);
        assert_eq!(of(&[0.873, 360.0]), 2);
        assert_eq!(of(&[7.5, 62.0]), 2);
        assert_eq!(of(&[10.0, 99.0]), 1);
        assert_eq!(of(&[100.0, 1e6]), 0);
        assert_eq!(of(&[]), 0);
    }

    #[test]
    fn long_names_keep_both_ends() {
        assert_eq!(shortened("minilm", 6), "minilm");
        assert_eq!(shortened("all-MiniLM-L6-v2-dynamic", 13), "all-Mi…ynamic");
        assert_eq!(shortened("äöüß", 3), "ä…ß");
        assert_eq!(shortened("abc", 1), "…");
    }

    #[test]
    fn units_change_at_powers_of_a_thousand() {
        let shown: Vec<String> = [0, 999, 1_000, 999_949, 1_000_000, 90_868_376, 1_340_000_000]
            .map(bytes)
            .into();
        assert_eq!(
            shown,
            [
                "0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "90.9 MB", "1.34 GB"
            ]
        );
    }

    #[test]
    fn digits_are_grouped_from_the_right() {
        assert_eq!(
            [0, 12, 123, 1_234, 22_713_216].map(grouped),
            ["0", "12", "123", "1,234", "22,713,216"]
        );
        assert_eq!(count(1, "text", "texts"), "1 text");
        assert_eq!(count(3000, "text", "texts"), "3,000 texts");
    }
}
