//! A recipe file in TOML or JSON: written and read again it is the same, and a plan for a model comes out of it or an error.
#![no_main]

use fewbit_checkpoint::Checkpoint;
use fewbit_fuzz::{Scratch, small_bert};
use fewbit_quantize::{QuantizePlan, Recipe};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static SCRATCH: LazyLock<Scratch> = LazyLock::new(Scratch::new);
static BERT: LazyLock<Checkpoint> = LazyLock::new(small_bert);

fuzz_target!(|bytes: &[u8]| {
    let json = bytes.trim_ascii_start().starts_with(b"{");
    let path = SCRATCH.write(if json { "recipe.json" } else { "recipe.toml" }, bytes);
    let recipe = match Recipe::read(&path) {
        Ok(recipe) => recipe,
        Err(error) => {
            let text = error.to_string();
            assert!(text.starts_with(path.to_str().expect("UTF-8")), "{text}");
            return;
        }
    };
    recipe.validate().expect("what was read is valid");
    assert_eq!(
        Recipe::from_toml(&recipe.to_toml()).expect("TOML that was written"),
        recipe
    );
    assert_eq!(
        Recipe::from_json(&recipe.to_json()).expect("JSON that was written"),
        recipe
    );
    assert!(!recipe.label().is_empty());
    if let Ok(plan) = QuantizePlan::new(&BERT, &recipe) {
        assert_eq!(*plan.recipe(), recipe);
        assert_eq!(plan.rows().len(), BERT.tensors().count());
        let bytes: usize = BERT.tensors().map(|tensor| tensor.byte_len).sum();
        assert_eq!(plan.source_bytes(), bytes);
        assert!(plan.output_bytes() > 0);
    }
});
