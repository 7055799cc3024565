//! Panics inside the tokenizers crate, which a damaged tokenizer.json can cause, as errors.
//!
//! The crate trusts some fields of the file (a normalizer's table, a chunk length, a template) and panics where they are
//! wrong, when it reads them or at the first text.

use crate::ModelError;
use std::path::Path;

/// Runs calls into the tokenizers crate on behalf of `file`.
///
/// # Errors
/// [`ModelError::Tokenizer`] with the message of a panic. Values that `run` was changing are then in an unknown state, and
/// must not be used.
pub(super) fn contain<T>(file: &Path, run: impl FnOnce() -> T) -> Result<T, ModelError> {
    fewbit_panics::contain(run).map_err(|message| ModelError::Tokenizer {
        file: file.to_owned(),
        message: format!("expected a tokenizer that works, found one that fails: {message}"),
        hint:
            "the file is damaged; fetch it again, or write it with a recent version of transformers"
                .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_that_names_the_file() {
        let file = Path::new("tokenizer.json");
        assert_eq!(contain(file, || 7).expect("no panic"), 7);
        let error = contain(file, || panic!("inside"));
        assert_eq!(
            error.expect_err("panics").to_string(),
            "tokenizer.json: expected a tokenizer that works, found one that fails: inside\n  \
             hint: the file is damaged; fetch it again, or write it with a recent version of transformers"
        );
    }
}
