//! Which modules are quantized, and what skip globs do.

use fewbit_model::EncoderSpec;
use fewbit_numerics::dtype::DType;
use fewbit_quantize::{
    EmbeddingStorage, FourBitRecipe, IntegerRecipe, KeepReason, Method, QuantizePlan, Recipe,
    Selection,
};

use crate::tiny_bert::{TinyBert, linear_modules};

fn select(prefix: &str, recipe: &Recipe) -> Selection {
    let checkpoint = TinyBert::new(DType::F32, prefix).write().open();
    let spec = EncoderSpec::from_checkpoint(&checkpoint).unwrap();
    Selection::new(&checkpoint, &spec.catalogue(), recipe).unwrap()
}

fn quantized(selection: &Selection) -> Vec<&str> {
    selection
        .quantized
        .iter()
        .map(|selected| selected.module.name.as_str())
        .collect()
}

#[test]
fn by_default_the_linear_layers_of_the_encoder() {
    for method in [
        Method::Dynamic,
        Method::WeightOnly,
        Method::Nf4,
        Method::Fp4,
    ] {
        let recipe = match Recipe::new(method) {
            Recipe::Integer(options) => options.with_embeddings(EmbeddingStorage::Keep).into(),
            recipe => recipe,
        };
        let selection = select("", &recipe);
        let mut found = quantized(&selection);
        found.sort_unstable();
        let mut expected: Vec<String> =
            linear_modules().into_iter().map(|(name, _)| name).collect();
        expected.sort();
        assert_eq!(found, expected, "{method}");
    }
}

#[test]
fn what_stays_float_is_listed_with_its_reason() {
    let kept = |recipe: &Recipe| -> Vec<(String, String)> {
        select("bert.", recipe)
            .kept
            .into_iter()
            .map(|kept| (kept.module, kept.reason.to_string()))
            .collect()
    };
    let pair = |module: &str, reason: &str| (module.to_owned(), reason.to_owned());
    let pooler = pair("bert.pooler.dense", "poolers stay float");
    let head = pair("classifier", "task heads stay float");
    let mut found = kept(
        &IntegerRecipe::dynamic()
            .with_embeddings(EmbeddingStorage::Keep)
            .into(),
    );
    found.sort();
    assert_eq!(
        found,
        [
            pair(
                "bert.embeddings.word_embeddings",
                "the recipe keeps the embedding table in floats"
            ),
            pooler.clone(),
            head.clone(),
        ]
    );
    let mut found = kept(&Recipe::new(Method::Nf4));
    found.sort();
    assert_eq!(
        found[0],
        pair(
            "bert.embeddings.word_embeddings",
            "loaders of the bitsandbytes layout take float embeddings alone"
        )
    );
    // int8 is the default of the table.
    let mut found = kept(&Recipe::new(Method::Dynamic));
    found.sort();
    assert_eq!(found, [pooler, head]);
}

#[test]
fn globs_match_with_and_without_the_prefix() {
    let all = linear_modules().len();
    for (pattern, matched) in [
        ("bert.encoder.layer.0.attention.self.query", 1),
        ("encoder.layer.0.attention.self.query", 1),
        ("encoder.layer.0.*", 6),
        ("*.query", 2),
        ("*.output.dense", 4),
        ("encoder.layer.[1-9].output.dense", 1),
        ("*.{query,key}", 4),
        ("*.layer.?.intermediate.dense", 2),
    ] {
        let recipe = IntegerRecipe::dynamic().with_embeddings(EmbeddingStorage::Keep);
        let selection = select("bert.", &recipe.with_skip([pattern]).into());
        assert_eq!(selection.quantized.len(), all - matched, "{pattern}");
        let reason = KeepReason::SkipPattern(pattern.to_owned());
        let kept = selection.kept.iter().filter(|kept| kept.reason == reason);
        assert_eq!(kept.count(), matched, "{pattern}");
    }
}

#[test]
fn globs_are_added_to_the_defaults() {
    let recipe = Recipe::from(
        IntegerRecipe::dynamic()
            .with_embeddings(EmbeddingStorage::Keep)
            .with_skip(["*.query", "*.layer.0.*"]),
    );
    let selection = select("bert.", &recipe);
    assert_eq!(selection.quantized.len(), 12 - 2 - 5);
    let module = |name: &str| selection.kept.iter().any(|kept| kept.module == name);
    assert!(module("bert.pooler.dense") && module("classifier"));
}

#[test]
fn embeddings_can_be_skipped_by_glob_like_any_module() {
    let recipe = Recipe::from(
        IntegerRecipe::dynamic()
            .with_embeddings(EmbeddingStorage::Int8)
            .with_skip(["embeddings.word_embeddings"]),
    );
    assert!(!quantized(&select("bert.", &recipe)).contains(&"bert.embeddings.word_embeddings"));
    let recipe = Recipe::from(IntegerRecipe::dynamic().with_embeddings(EmbeddingStorage::Int8));
    assert!(quantized(&select("bert.", &recipe)).contains(&"bert.embeddings.word_embeddings"));
}

#[test]
fn a_glob_that_matches_nothing_lists_near_names() {
    let checkpoint = TinyBert::f32().write().open();
    let text = |pattern: &str| {
        let recipe = Recipe::from(IntegerRecipe::dynamic().with_skip([pattern]));
        QuantizePlan::new(&checkpoint, &recipe)
            .unwrap_err()
            .to_string()
    };
    insta::assert_snapshot!(text("encoder.layer.0.atention.self.query"), @r"
    recipe: `skip`: pattern `encoder.layer.0.atention.self.query` matches no module that would be quantized
      hint: modules with near names: encoder.layer.0.attention.self.query, encoder.layer.1.attention.self.query, encoder.layer.0.attention.self.key, encoder.layer.1.attention.self.key, encoder.layer.0.attention.self.value
    ");
    // What stays float anyway needs no pattern.
    insta::assert_snapshot!(text("classifier"), @r"
    recipe: `skip`: pattern `classifier` matches no module that would be quantized
      hint: `classifier` stays float without it: leave the pattern out
    ");
    insta::assert_snapshot!(text("encoder.[0"), @r"
    recipe: `skip`: pattern `encoder.[0` is not a glob: unclosed character class; missing ']'
      hint: `*` matches any text, `?` one character, `{a,b}` either, `[0-9]` a range
    ");
}

#[test]
fn layers_beyond_those_of_the_config_are_named() {
    let mut model = TinyBert::f32();
    model.config["num_hidden_layers"] = 1.into();
    let plan = QuantizePlan::new(&model.write().open(), &Recipe::new(Method::Dynamic)).unwrap();
    let outside: Vec<&str> = plan
        .kept()
        .iter()
        .filter(|kept| kept.reason == KeepReason::OutsideTheEncoder)
        .map(|kept| kept.module.as_str())
        .collect();
    assert_eq!(outside.len(), 6, "{outside:?}");
    assert!(
        outside
            .iter()
            .all(|module| module.starts_with("bert.encoder.layer.1."))
    );
}

#[test]
fn enormous_globs_are_errors() {
    let checkpoint = TinyBert::f32().write().open();
    let text = |pattern: &str| {
        let recipe = Recipe::from(IntegerRecipe::dynamic().with_skip([pattern]));
        QuantizePlan::new(&checkpoint, &recipe)
            .unwrap_err()
            .to_string()
    };
    for (part, length) in [("{", 1_000_000), ("[a-z]", 1_000_000), ("?", 1001)] {
        let pattern: String = part.chars().cycle().take(length).collect();
        let start: String = pattern.chars().take(40).collect();
        assert_eq!(
            text(&pattern),
            format!(
                "recipe: `skip`: pattern `{start}…` is too long: expected at most 1000 characters, found {length}\n  hint: give several patterns"
            )
        );
    }
    // The longest that are compiled.
    for part in ["?", "*?", "é", "[a-z]", "[!a]", "{a,b}", "**/a"] {
        let pattern = part.repeat(1000 / part.chars().count());
        let text = text(&pattern);
        assert!(
            text.contains("matches no module that would be quantized"),
            "{part}: {text}"
        );
    }
    let nested = |open: &str, depth| format!("{}a{}", open.repeat(depth), "}".repeat(depth));
    for (pattern, problem) in [
        ("{".repeat(1000), "is not a glob"),
        (nested("{", 499), "is nested too deeply"),
        (nested("{a,", 249), "is nested too deeply"),
    ] {
        assert!(text(&pattern).contains(problem), "{}", text(&pattern));
    }
}

#[test]
fn skipping_everything_is_an_error() {
    let checkpoint = TinyBert::f32().write().open();
    let recipe = Recipe::from(FourBitRecipe::nf4().with_skip(["*"]));
    let error = QuantizePlan::new(&checkpoint, &recipe).unwrap_err();
    insta::assert_snapshot!(error, @r"
    recipe: `skip`: expected at least one module left to quantize, found none: the patterns match all 12
      hint: use narrower patterns, or copy the directory if nothing is to be quantized
    ");
}
