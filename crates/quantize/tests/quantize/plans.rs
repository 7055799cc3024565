//! Plans: exact sizes without reading a weight.

use fewbit_quantize::{
    EmbeddingStorage, FourBitRecipe, IntegerRecipe, Method, QuantizePlan, Recipe, TensorAction,
    method_sizes,
};

use crate::tiny_bert::TinyBert;

fn plan(recipe: &Recipe) -> QuantizePlan {
    QuantizePlan::new(&TinyBert::f32().write().open(), recipe).unwrap()
}

fn row<'a>(plan: &'a QuantizePlan, tensor: &str) -> &'a fewbit_quantize::PlanRow {
    plan.rows().iter().find(|row| row.tensor == tensor).unwrap()
}

#[test]
fn bytes_of_one_layer_by_hand() {
    let name = "bert.encoder.layer.0.intermediate.dense.weight";
    // 48 x 32 = 1536 elements.
    let source = 4 * 1536;
    for (recipe, bytes) in [
        (Recipe::new(Method::Fp16), 2 * 1536),
        (Recipe::new(Method::Dynamic), 1536 + 4 * 48),
        // Beside an int8 table the codes are not packed; else words of four codes, scales, and two 64-bit numbers.
        (Recipe::new(Method::WeightOnly), 1536 + 4 * 48),
        (
            IntegerRecipe::weight_only()
                .with_embeddings(EmbeddingStorage::Keep)
                .into(),
            1536 + 4 * 48 + 16,
        ),
    ] {
        let plan = plan(&recipe);
        let row = row(&plan, name);
        assert_eq!(
            (row.source_bytes, row.output_bytes),
            (source, bytes),
            "{}",
            recipe.label()
        );
        assert_eq!(
            row.module.as_deref(),
            Some("bert.encoder.layer.0.intermediate.dense")
        );
        assert_eq!((row.part, row.dtype), ("feed-forward", "F32"));
    }
    for (recipe, bytes) in [
        // 24 blocks of 64, code table of 16.
        (Recipe::new(Method::Nf4), 768 + 4 * 24 + 4 * 16),
        // One byte a block, one nested block, two tables.
        (
            FourBitRecipe::fp4().with_double_quantization(true).into(),
            768 + 24 + 4 + 4 * 16 + 4 * 256,
        ),
    ] {
        let plan = plan(&recipe);
        let row = row(&plan, name);
        let state = row.outputs.last().unwrap();
        assert!(state.name.contains("quant_state.bitsandbytes__"));
        assert_eq!(
            row.output_bytes,
            bytes + state.byte_len(),
            "{}",
            recipe.label()
        );
    }
}

#[test]
fn totals_are_sums_over_rows_and_over_parts() {
    for recipe in Recipe::standard() {
        let plan = plan(&recipe);
        let rows =
            |f: fn(&fewbit_quantize::PlanRow) -> usize| plan.rows().iter().map(f).sum::<usize>();
        assert_eq!(plan.source_bytes(), rows(|row| row.source_bytes));
        assert_eq!(plan.output_bytes(), rows(|row| row.output_bytes));
        let parts: usize = plan.parts().iter().map(|part| part.output_bytes).sum();
        assert_eq!(plan.output_bytes(), parts);
        assert_eq!(
            plan.compression_ratio(),
            plan.source_bytes() as f64 / plan.output_bytes() as f64
        );
    }
}

#[test]
fn bits_per_weight_by_hand() {
    assert_eq!(
        plan(&Recipe::new(Method::Bf16)).bits_per_weight(),
        Some(16.0)
    );
    // Each layer: four 32 x 32, one 48 x 32, one 32 x 48; a scale of four bytes a row.
    let weights = 4 * 1024 + 2 * 1536;
    let bytes = weights + 4 * (4 * 32 + 48 + 32);
    assert_eq!(
        plan(
            &IntegerRecipe::dynamic()
                .with_embeddings(EmbeddingStorage::Keep)
                .into()
        )
        .bits_per_weight(),
        Some(8.0 * bytes as f64 / weights as f64)
    );
}

#[test]
fn actions_are_told_in_words() {
    let action = |recipe: Recipe, tensor: &str| row(&plan(&recipe), tensor).action.to_string();
    let weight = "bert.encoder.layer.0.output.dense.weight";
    let table = "bert.embeddings.word_embeddings.weight";
    assert_eq!(
        action(Recipe::new(Method::Fp16), weight),
        "convert to float16"
    );
    let kept = IntegerRecipe::dynamic().with_embeddings(EmbeddingStorage::Keep);
    assert_eq!(action(kept.into(), table), "keep");
    assert_eq!(
        action(Recipe::new(Method::Dynamic), table),
        "quantize to int8 per row"
    );
    assert_eq!(
        action(Recipe::new(Method::Dynamic), weight),
        "quantize to int8 per channel, activations per token"
    );
    assert_eq!(
        action(Recipe::new(Method::WeightOnly), weight),
        "quantize to int8 per channel, weight-only"
    );
    assert_eq!(
        action(
            IntegerRecipe::weight_only()
                .with_embeddings(EmbeddingStorage::Int8)
                .into(),
            table
        ),
        "quantize to int8 per row"
    );
    assert_eq!(
        action(
            FourBitRecipe::fp4().with_double_quantization(true).into(),
            weight
        ),
        "quantize to fp4, blocks of 64, double quantization"
    );
}

#[test]
fn integer_buffers_are_kept_by_every_method() {
    for recipe in Recipe::standard() {
        let plan = plan(&recipe);
        let row = row(&plan, "bert.embeddings.position_ids");
        assert_eq!(row.action, TensorAction::Keep, "{}", recipe.label());
        assert_eq!((row.dtype, row.output_bytes), ("I64", 128));
    }
}

#[test]
fn sizes_of_all_methods_are_those_of_their_plans() {
    let checkpoint = TinyBert::f32().write().open();
    let sizes = method_sizes(&checkpoint).unwrap();
    let labels: Vec<&str> = sizes.iter().map(|size| size.label.as_str()).collect();
    assert_eq!(
        labels,
        [
            "fp16",
            "bf16",
            "dynamic",
            "dynamic + float embeddings",
            "static",
            "static + float embeddings",
            "weight-only",
            "weight-only + float embeddings",
            "nf4",
            "nf4 + double quantization",
            "fp4",
            "fp4 + double quantization",
        ]
    );
    // A recipe of `static` has no scales before calibration; its size is tested against a model that is written.
    for size in sizes
        .iter()
        .filter(|size| !size.recipe.method().needs_calibration())
    {
        let plan = QuantizePlan::new(&checkpoint, &size.recipe).unwrap();
        assert_eq!(size.output_bytes, plan.output_bytes(), "{}", size.label);
    }
}

#[test]
fn a_plan_serializes_for_a_dry_run() {
    let plan = plan(&IntegerRecipe::dynamic().with_skip(["*.layer.1.*"]).into());
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["recipe"]["method"], "dynamic");
    assert_eq!(json["output_bytes"], plan.output_bytes());
    let rows = json["rows"].as_array().unwrap();
    let row = rows
        .iter()
        .find(|row| row["tensor"] == "bert.encoder.layer.0.attention.self.key.weight")
        .unwrap();
    insta::assert_json_snapshot!(row, @r#"
    {
      "tensor": "bert.encoder.layer.0.attention.self.key.weight",
      "module": "bert.encoder.layer.0.attention.self.key",
      "part": "attention",
      "dtype": "F32",
      "shape": [
        32,
        32
      ],
      "action": "quantize to int8 per channel, activations per token",
      "source_bytes": 4096,
      "output_bytes": 1152,
      "outputs": [
        {
          "tensor": "bert.encoder.layer.0.attention.self.key.weight",
          "dtype": "I8",
          "shape": [
            32,
            32
          ],
          "bytes": 1024
        },
        {
          "tensor": "bert.encoder.layer.0.attention.self.key.weight_scale",
          "dtype": "F32",
          "shape": [
            32,
            1
          ],
          "bytes": 128
        }
      ]
    }
    "#);
}
