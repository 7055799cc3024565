//! Recipes: two spellings, defaults, and every way of being wrong.

use fewbit_quantize::{
    EmbeddingStorage, FourBitRecipe, IntegerRecipe, Method, QuantizeError, Recipe, Rounding,
};

fn text(result: Result<Recipe, QuantizeError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn defaults_are_filled_in() {
    let recipe = Recipe::from_toml("version = 1\nmethod = \"nf4\"\n").unwrap();
    let options = recipe.four_bit().unwrap();
    assert_eq!(options.block_size, 64);
    assert!(!options.double_quantization && !recipe.embeddings().is_quantized());
    assert!(recipe.skip().is_empty());
    assert_eq!(Recipe::new(Method::Nf4), recipe);
    assert!(Recipe::new(Method::Dynamic).four_bit().is_none());
}

#[test]
fn every_standard_recipe_survives_both_spellings() {
    for recipe in Recipe::standard() {
        recipe.validate().unwrap();
        assert_eq!(Recipe::from_toml(&recipe.to_toml()).unwrap(), recipe);
        assert_eq!(Recipe::from_json(&recipe.to_json()).unwrap(), recipe);
    }
    let recipe = Recipe::from(
        IntegerRecipe::dynamic()
            .with_embeddings(EmbeddingStorage::Int8)
            .with_skip(["*.query", "encoder.layer.{0,1}.*"]),
    );
    assert_eq!(Recipe::from_toml(&recipe.to_toml()).unwrap(), recipe);
    assert_eq!(Recipe::from_json(&recipe.to_json()).unwrap(), recipe);
}

#[test]
fn int4_in_a_file_means_nf4() {
    let recipe = Recipe::from_json(r#"{"version": 1, "method": "int4"}"#).unwrap();
    assert_eq!(recipe.method(), Method::Nf4);
    assert!(recipe.to_toml().contains("method = \"nf4\""));
}

#[test]
fn fields_that_do_not_fit_are_named() {
    insta::assert_snapshot!(text(Recipe::from_toml("version = 2\nmethod = \"nf4\"")), @r"
    recipe: `version`: expected 1, found 2
      hint: the recipe was made for another version of fewbit
    ");
    insta::assert_snapshot!(text(Recipe::from_toml("version = 1\nmethod = \"nf4\"\nblock_size = 48")), @r"
    recipe: `block_size`: expected a power of two from 32 to 4096, found 48
      hint: 64 is what bitsandbytes uses
    ");
    insta::assert_snapshot!(text(Recipe::from_toml("version = 1\nmethod = \"dynamic\"\nblock_size = 64")), @r"
    recipe: `block_size`: expected none with the method `dynamic`, found 64
      hint: `nf4` and `fp4` have a block size
    ");
    insta::assert_snapshot!(text(Recipe::from_toml("version = 1\nmethod = \"fp16\"\ndouble_quantization = true")), @r"
    recipe: `double_quant`: expected false with the method `fp16`, found true
      hint: `nf4` and `fp4` have double quantization
    ");
    insta::assert_snapshot!(text(Recipe::from_toml("version = 1\nmethod = \"nf4\"\nquantize_embeddings = true")), @r#"
    recipe: `quantize_embeddings`: expected false with the method `nf4`, found true
      hint: no other loader reads int8 embeddings in the bitsandbytes layout: if fewbit alone is to read them, `embeddings = "int8"` writes them
    "#);
    insta::assert_snapshot!(text(Recipe::from_toml("version = 1\nmethod = \"bf16\"\nquantize_embeddings = true")), @r"
    recipe: `quantize_embeddings`: expected false with the method `bf16`, found true
      hint: `dynamic`, `static` and `weight-only` have int8 embeddings
    ");
    insta::assert_snapshot!(text(Recipe::from_toml("version = 1\nmethod = \"bf16\"\nskip = [\"pooler*\"]")), @r#"
    recipe: `skip`: expected no patterns with the method `bf16`, found ["pooler*"]
      hint: a checkpoint of mixed dtypes is loaded as one dtype: leave the patterns out
    "#);
}

#[test]
fn gptq_and_weighted_scales_go_with_four_bits() {
    for (recipe, label) in [
        ("method = \"nf4\"\ngptq = true", "nf4 + GPTQ"),
        (
            "method = \"fp4\"\ndouble_quant = true\nscales = \"activation-weighted\"",
            "fp4 + double quantization + activation-weighted scales",
        ),
        (
            "method = \"nf4\"\ngptq = true\nscales = \"mse\"",
            "nf4 + GPTQ + MSE scales",
        ),
        (
            "method = \"dynamic\"\nweights = \"int4\"\ngptq = true",
            "dynamic + int4 + GPTQ",
        ),
        (
            "method = \"weight-only\"\nweights = \"int4\"\nscales = \"activation-weighted\"",
            "weight-only + int4 + activation-weighted scales",
        ),
    ] {
        let recipe = Recipe::from_toml(&format!("version = 1\n{recipe}\n")).unwrap();
        assert!(recipe.label().starts_with(label), "{}", recipe.label());
        assert!(recipe.needs_samples());
        assert_eq!(recipe.needs_gptq(), label.contains("GPTQ"));
        assert_eq!(Recipe::from_toml(&recipe.to_toml()).unwrap(), recipe);
    }
    assert!(!Recipe::new(Method::Nf4).needs_samples());
}

#[test]
fn gptq_goes_with_int8_weights_that_have_a_scale_for_each_channel() {
    let recipe = Recipe::from_toml(
        "version = 1\nmethod = \"dynamic\"\ngptq = true\nsaturation_proof = true",
    );
    let recipe = recipe.unwrap();
    assert_eq!(
        recipe,
        Recipe::from(
            IntegerRecipe::dynamic()
                .with_embeddings(EmbeddingStorage::Keep)
                .with_rounding(Rounding::Gptq {
                    saturation_proof: true
                })
        )
    );
    assert_eq!(
        recipe.label(),
        "dynamic + GPTQ + saturation-proof + float embeddings"
    );
    assert_eq!(Recipe::from_toml(&recipe.to_toml()).unwrap(), recipe);
    insta::assert_snapshot!(text(Recipe::from_toml("version = 1\nmethod = \"bf16\"\ngptq = true")), @"
    recipe: `gptq`: expected false with the method `bf16`, found true
      hint: GPTQ rounds codes of 8 and of 4 bits: use any method but `fp16` and `bf16`
    ");
    insta::assert_snapshot!(text(Recipe::from_toml("version = 1\nmethod = \"nf4\"\ngptq = true\nsaturation_proof = true")), @"
    recipe: `saturation_proof`: expected false with the method `nf4`, found true
      hint: pairs of int8 weights can saturate: use `dynamic`, `static` or `weight-only`
    ");
    insta::assert_snapshot!(text(Recipe::from_toml("version = 1\nmethod = \"dynamic\"\nweights = \"int4\"\ngptq = true\nsaturation_proof = true")), @"
    recipe: `saturation_proof`: expected false with `weights = \"int4\"`, found true
      hint: no two int4 weights can saturate 16 bits: leave it out
    ");
    insta::assert_snapshot!(text(Recipe::from_toml("version = 1\nmethod = \"dynamic\"\nactivations = \"per-tensor\"\nweight_scales = \"per-tensor\"\ngptq = true")), @"
    recipe: `weight_scales`: expected `per-channel` with `gptq`, found `per-tensor`
      hint: PyTorch's backends qnnpack, fbgemm and x86 may have one scale for a weight: leave out the backend, or GPTQ
    ");
    insta::assert_snapshot!(text(Recipe::from_toml("version = 1\nmethod = \"dynamic\"\nsaturation_proof = true")), @"
    recipe: `saturation_proof`: expected false without `gptq`, found true
      hint: the steps of such weights are half as wide again, which only GPTQ makes up for: set `gptq`, too
    ");
}

#[test]
fn block_sizes_at_the_limits() {
    for (block_size, valid) in [
        (0, false),
        (16, false),
        (32, true),
        (4096, true),
        (8192, false),
    ] {
        let recipe = Recipe::from(FourBitRecipe::fp4().with_block_size(block_size));
        assert_eq!(recipe.validate().is_ok(), valid, "{block_size}");
    }
}

#[test]
fn what_is_no_recipe_is_told_with_its_place() {
    insta::assert_snapshot!(text(Recipe::from_toml("version = 1\nmethod = \"nf4\"\nblok_size = 64")), @r"
    recipe: not a recipe: TOML parse error at line 3, column 1
      |
    3 | blok_size = 64
      | ^^^^^^^^^
    unknown field `blok_size`, expected one of `version`, `method`, `weights`, `group_size`, `asymmetric`, `layout`, `block_size`, `double_quant`, `double_quantization`, `scales`, `embeddings`, `quantize_embeddings`, `float_dtype`, `activations`, `weight_scales`, `reduce_range`, `gptq`, `saturation_proof`, `qat`, `skip`, `weight_only`, `modules`, `static_inputs`
      hint: did you mean `block_size`?
    ");
    insta::assert_snapshot!(text(Recipe::from_toml("version = 1\nmethod = \"int3\"")), @r#"
    recipe: not a recipe: TOML parse error at line 2, column 10
      |
    2 | method = "int3"
      |          ^^^^^^
    unknown variant `int3`, expected one of `fp16`, `bf16`, `dynamic`, `static`, `weight-only`, `int4`, `nf4`, `fp4`
      hint: a recipe.toml stands beside every model that fewbit quantized; docs/recipe.md describes it
    "#);
    insta::assert_snapshot!(text(Recipe::from_json("{\"method\": \"nf4\"}")), @r"
    recipe: not a recipe: missing field `version` at line 1 column 17
      hint: a recipe.toml stands beside every model that fewbit quantized; docs/recipe.md describes it
    ");
    insta::assert_snapshot!(text(Recipe::from_json("{\"version\": 1,")), @r"
    recipe: not a recipe: EOF while parsing a value at line 1 column 14
      hint: a recipe.toml stands beside every model that fewbit quantized; docs/recipe.md describes it
    ");
}

#[test]
fn files_are_read_by_their_ending_and_named_in_errors() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let recipe = Recipe::new(Method::Fp4);
    let toml = write("recipe.toml", &recipe.to_toml());
    let json = write("recipe.json", &recipe.to_json());
    assert_eq!(Recipe::read(toml).unwrap(), recipe);
    assert_eq!(Recipe::read(json).unwrap(), recipe);

    let shown = |result: Result<Recipe, QuantizeError>| {
        text(result).replace(&format!("{}/", directory.path().display()), "")
    };
    insta::assert_snapshot!(shown(Recipe::read(write("wrong.json", "{\"version\": 1}"))), @r"
    wrong.json: not a recipe: missing field `method` at line 1 column 14
      hint: a recipe.toml stands beside every model that fewbit quantized; docs/recipe.md describes it
    ");
    let block_size = write(
        "block.toml",
        "version = 1\nmethod = \"nf4\"\nblock_size = 1",
    );
    insta::assert_snapshot!(shown(Recipe::read(block_size)), @r"
    block.toml: `block_size`: expected a power of two from 32 to 4096, found 1
      hint: 64 is what bitsandbytes uses
    ");
    insta::assert_snapshot!(shown(Recipe::read(directory.path().join("none.toml"))), @r"
    none.toml: No such file or directory (os error 2)
      hint: check the path, and that you may read it
    ");
}
