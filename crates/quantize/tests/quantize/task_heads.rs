//! What becomes of task heads: they stay as they are, in every family.

use std::path::Path;

use fewbit_checkpoint::Checkpoint;
use fewbit_model::TaskModel;
use fewbit_quantize::default_embeddings::needs_shared_embeddings;
use fewbit_quantize::{Method, Recipe, quantize_model};

#[test]
fn heads_stay_float_and_are_run_from_what_is_written() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/task_heads");
    let output = tempfile::tempdir().unwrap();
    let mut written = 0;
    for entry in std::fs::read_dir(golden).unwrap() {
        let source = entry.unwrap().path();
        let before = Checkpoint::open(&source).unwrap();
        for recipe in Recipe::standard() {
            let halves = matches!(recipe.method(), Method::Fp16 | Method::Bf16);
            if halves || needs_shared_embeddings(&before, &recipe) {
                continue;
            }
            let out = output.path().join(written.to_string());
            if let Err(error) = quantize_model(&source, &recipe, &out, false, &mut |_, _, _| {}) {
                panic!("{}, {}: {error}", source.display(), recipe.label());
            }
            written += 1;
            let after = Checkpoint::open(&out).unwrap();
            let model = TaskModel::open(&out).unwrap();
            for module in model.head().modules() {
                let weight = format!("{}.weight", module.name);
                let Some(view) = before.get(&weight) else {
                    // The older name of a normalization's weight.
                    assert!(
                        before.contains(&format!("{}.gamma", module.name)),
                        "{weight}"
                    );
                    continue;
                };
                let same = after.require(&weight).unwrap();
                assert_eq!(
                    same.info.dtype,
                    view.info.dtype,
                    "{weight}, {}",
                    recipe.label()
                );
                assert_eq!(
                    same.bytes().unwrap(),
                    view.bytes().unwrap(),
                    "{weight}, {}",
                    recipe.label()
                );
            }
        }
    }
    assert!(written > 100, "{written}");
}
