//! What an observer refuses.

/// An error of an observer. An observer that returns one is left as it was.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ObserverError {
    /// A value is NaN or infinite.
    #[error(
        "value {index}: expected a finite number, found {value}\n  hint: NaN and infinity come from a damaged weight or an overflow before this place; a range that leaves them out would hide it"
    )]
    NonFinite {
        /// Place in the slice that `update` was given.
        index: usize,
        /// The value.
        value: f32,
    },
    /// The number of values is no multiple of the number of channels.
    #[error(
        "values: expected a multiple of {channels} channels, found {values}\n  hint: pass whole rows of the tensor that the observer was made for"
    )]
    Channels {
        /// Channels of the observer.
        channels: usize,
        /// Values in the slice.
        values: usize,
    },
    /// Two observers that do not observe the same thing.
    #[error(
        "merge: {field}: expected {expected}, found {found}\n  hint: merge statistics that were collected for the same site with the same settings"
    )]
    Merge {
        /// Which setting differs.
        field: &'static str,
        /// Its value here.
        expected: String,
        /// Its value in the other observer.
        found: String,
    },
    /// Parameters are asked for before any value was seen.
    #[error(
        "expected values, found none\n  hint: calibrate() must run before convert(), with at least one text"
    )]
    NothingObserved,
    /// A setting that does not fit the others, or is out of its bounds.
    #[error("{field}: expected {expected}, found {found}\n  hint: {hint}")]
    Settings {
        /// Which setting.
        field: &'static str,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// Saved statistics that no observer wrote.
    #[error(
        "statistics: {field}: expected {expected}, found {found}\n  hint: the file is damaged or was edited: collect the statistics again"
    )]
    Damaged {
        /// Which field.
        field: &'static str,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
    },
}
