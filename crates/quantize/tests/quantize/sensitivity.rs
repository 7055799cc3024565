//! What fewer bits cost layer by layer, and the mixtures that are chosen.

use std::path::Path;
use std::sync::LazyLock;

use fewbit_data::TokenRow;
use fewbit_model::{EncodeOptions, Encoder};
use fewbit_numerics::error_statistics::cosine;
use fewbit_quantize::calibration::CalibrationSamples;
use fewbit_quantize::{
    Backend, BlockScales, Calibrator, EmbeddingStorage, GroupSize, Int4Options, IntegerRecipe,
    QuantizeError, Recipe, SensitivityGoal, SensitivityOptions, SensitivityReport, StaticInputs,
    WeightChoice, WeightCodes, WeightSensitivity, quantize_model, quantize_model_with_gptq,
};

use crate::calibration::source;
use crate::gptq::{GPTQ, TEXTS, calibration, texts};
use crate::tiny_bert::{Source, TinyBert};

const INT4: WeightCodes = WeightCodes::Int4(Int4Options {
    group_size: GroupSize::Columns(16),
    asymmetric: false,
    scales: BlockScales::Absmax,
    layout: fewbit_quantize::CodeLayout::PackQuantized,
});

fn options(base: IntegerRecipe) -> SensitivityOptions {
    SensitivityOptions {
        base,
        choices: vec![WeightCodes::Int8.into(), INT4.into()],
        threads: 2,
    }
}

fn measure(source: &Source, base: IntegerRecipe) -> WeightSensitivity {
    let samples = texts(&TEXTS);
    WeightSensitivity::measure(
        &source.directory,
        &options(base),
        &samples,
        &mut |_, _, _| {},
    )
    .unwrap()
}

fn choose(measured: &WeightSensitivity, goal: SensitivityGoal) -> SensitivityReport {
    measured.choose(goal, &mut |_, _, _| {}).unwrap()
}

static SOURCE: LazyLock<Source> = LazyLock::new(|| source(TinyBert::f32()));
static MEASURED: LazyLock<WeightSensitivity> =
    LazyLock::new(|| measure(&SOURCE, IntegerRecipe::weight_only()));

/// Bytes of the file with int8 everywhere, and with int4.
static MEASURED_BYTES: LazyLock<Vec<u64>> = LazyLock::new(|| {
    let report = choose(&MEASURED, SensitivityGoal::MaxBytes(u64::MAX));
    report.uniform.iter().map(|row| row.file_bytes).collect()
});

/// Mean cosine of the embeddings of two models.
fn mean_cosine(one: &Path, other: &Path) -> f64 {
    let embed = |directory: &Path| {
        let encoder = Encoder::open(directory).unwrap();
        encoder.encode(&TEXTS, &EncodeOptions::default()).unwrap()
    };
    let (one, other) = (embed(one), embed(other));
    let rows = 0..one.rows;
    rows.map(|row| cosine(one.row(row), other.row(row)))
        .sum::<f64>()
        / one.rows as f64
}

#[test]
fn one_group_is_what_reads_the_same_rows() {
    let report = choose(&MEASURED, SensitivityGoal::MaxBytes(u64::MAX));
    assert_eq!(report.groups.len(), 8);
    let names =
        ["query", "key", "value"].map(|name| format!("encoder.layer.0.attention.self.{name}"));
    assert_eq!(report.groups[0].modules, names);
    assert_eq!(report.groups[3].modules, ["encoder.layer.0.output.dense"]);
    assert_eq!(report.baseline, "int8");
    for group in &report.groups {
        // 32 x 32 and 32 x 48: 8 bits and a scale a row, or 4 bits and a scale for 16.
        let [int8, int4] = &group.choices[..] else {
            panic!("two choices")
        };
        assert_eq!((int8.weights.as_str(), int8.loss), ("int8", 0.0));
        assert_eq!(int4.weights, "int4+group-16+absmax");
        assert!(int4.bytes < int8.bytes, "{group:?}");
        assert!(int4.loss.is_finite() && int4.loss != 0.0);
    }
}

#[test]
fn no_mixture_is_predicted_to_be_better_than_the_chosen_one() {
    let everything = choose(&MEASURED, SensitivityGoal::MaxBytes(u64::MAX));
    let groups = &everything.groups;
    // Whatever the header takes, the same is taken of mixtures whose tensors have the same bytes.
    let every: Vec<(u64, f64)> = (0..1usize << groups.len())
        .map(|mixture| {
            let sums = groups.iter().enumerate().map(|(number, group)| {
                let choice = &group.choices[mixture >> number & 1];
                (choice.bytes, choice.loss)
            });
            sums.fold((0, 0.0), |(bytes, loss), (more, cost)| {
                (bytes + more, loss + cost)
            })
        })
        .collect();
    let sums = |report: &SensitivityReport| {
        let chosen = report.groups.iter().map(|group| {
            let mut choices = group.choices.iter();
            choices
                .find(|choice| choice.weights == group.chosen)
                .unwrap()
        });
        chosen.fold((0, 0.0), |(bytes, loss), choice| {
            (bytes + choice.bytes, loss + choice.loss)
        })
    };
    let largest = everything.file_bytes.max(everything.uniform[0].file_bytes);
    let smallest = everything.uniform[1].file_bytes;
    let mut seen = Vec::new();
    for limit in (smallest..=largest).step_by(97).chain([smallest, largest]) {
        let report = choose(&MEASURED, SensitivityGoal::MaxBytes(limit));
        assert!(
            report.file_bytes <= limit,
            "{} <= {limit}",
            report.file_bytes
        );
        let (bytes, loss) = sums(&report);
        let within = every.iter().filter(|(other, _)| *other <= bytes);
        let least = within.map(|(_, loss)| *loss).fold(f64::INFINITY, f64::min);
        assert!(
            loss <= least + 1e-12,
            "{loss} at {bytes} bytes, {least} can be had"
        );
        let predicted = everything.uniform[0].cosine - loss;
        assert!((report.predicted_cosine - predicted).abs() < 1e-12);
        seen.push(report.file_bytes);
    }
    seen.dedup();
    assert!(seen.len() > 5, "limits have an effect: {seen:?}");
}

#[test]
fn the_recipe_makes_what_the_report_says() {
    let smallest = choose(&MEASURED, SensitivityGoal::MaxBytes(u64::MAX)).uniform[1].file_bytes;
    let report = choose(&MEASURED, SensitivityGoal::MaxBytes(smallest + 1500));
    let chosen: Vec<&str> = report
        .groups
        .iter()
        .map(|group| group.chosen.as_str())
        .collect();
    assert!(
        chosen.contains(&"int8") && chosen.contains(&"int4+group-16+absmax"),
        "{chosen:?}"
    );
    let out = SOURCE.out("mixed");
    let written = quantize_model(
        &SOURCE.directory,
        &report.recipe,
        &out,
        true,
        &mut |_, _, _| {},
    );
    assert_eq!(written.unwrap().file_bytes, report.file_bytes);
    let found = mean_cosine(&SOURCE.directory, &out);
    assert!((found - report.measured_cosine).abs() < 1e-12, "{found}");
    assert_eq!(
        Recipe::from_toml(&report.recipe.to_toml()).unwrap(),
        report.recipe
    );
    // The same of what has one kind of weights.
    for (uniform, codes) in report.uniform.iter().zip([WeightCodes::Int8, INT4]) {
        let recipe = IntegerRecipe::weight_only().with_weights(codes).into();
        let out = SOURCE.out(&format!("uniform-{codes}"));
        let written = quantize_model(&SOURCE.directory, &recipe, &out, true, &mut |_, _, _| {});
        assert_eq!(written.unwrap().file_bytes, uniform.file_bytes);
        let found = mean_cosine(&SOURCE.directory, &out);
        assert!((found - uniform.cosine).abs() < 1e-12, "{found}");
    }
}

#[test]
fn with_gptq_the_weights_are_those_that_it_rounds() {
    let base = IntegerRecipe::dynamic()
        .with_rounding(GPTQ)
        .with_embeddings(EmbeddingStorage::Keep);
    let measured = measure(&SOURCE, base);
    let smallest = choose(&measured, SensitivityGoal::MaxBytes(u64::MAX)).uniform[1].file_bytes;
    let report = choose(&measured, SensitivityGoal::MaxBytes(smallest + 1500));
    let out = SOURCE.out("mixed-gptq");
    let calibration = calibration(texts(&TEXTS));
    let written = quantize_model_with_gptq(
        &SOURCE.directory,
        &report.recipe,
        &calibration,
        &out,
        true,
        &mut |_, _, _| {},
    );
    assert_eq!(written.unwrap().file_bytes, report.file_bytes);
    let found = mean_cosine(&SOURCE.directory, &out);
    assert!((found - report.measured_cosine).abs() < 1e-12, "{found}");
}

#[test]
fn a_least_cosine_is_reached_with_few_bytes_or_refused() {
    let everything = choose(&MEASURED, SensitivityGoal::MaxBytes(u64::MAX));
    let [int8, int4] = &everything.uniform[..] else {
        panic!("two choices")
    };
    let mut before = 0;
    for share in [0.0, 0.3, 0.6, 0.9] {
        let goal = int4.cosine + share * (int8.cosine - int4.cosine);
        let report = choose(&MEASURED, SensitivityGoal::MinCosine(goal));
        assert!(
            report.measured_cosine >= goal,
            "{} >= {goal}",
            report.measured_cosine
        );
        assert!(report.file_bytes <= int8.file_bytes);
        // Another goal may happen to be reached by the same mixture.
        assert!(report.file_bytes >= before);
        before = report.file_bytes;
    }
    let low = choose(&MEASURED, SensitivityGoal::MinCosine(-1.0));
    assert_eq!(low.file_bytes, int4.file_bytes);
    let refusal = |goal| {
        let refused = MEASURED.choose(SensitivityGoal::MinCosine(goal), &mut |_, _, _| {});
        refused.unwrap_err().to_string()
    };
    let text = refusal(1.0);
    assert!(
        text.starts_with("min-cosine: expected at most 0.9"),
        "{text}"
    );
    assert!(refusal(1.5).contains("expected a cosine, -1 to 1, found 1.5"));
    assert!(refusal(f64::NAN).contains("found NaN"));
}

#[test]
fn fewer_bytes_than_there_can_be_are_refused_with_the_least() {
    let least = choose(&MEASURED, SensitivityGoal::MaxBytes(u64::MAX)).uniform[1].file_bytes;
    for limit in [0, 1000, least - 1] {
        let refused = MEASURED.choose(SensitivityGoal::MaxBytes(limit), &mut |_, _, _| {});
        let text = refused.unwrap_err().to_string();
        assert!(
            text.contains(&format!("expected at least {least}, the bytes")),
            "{text}"
        );
        assert!(text.contains(&format!("found {limit}")), "{text}");
        // The same before anything is measured.
        let goal = SensitivityGoal::MaxBytes(limit);
        let early = goal.check(&SOURCE.directory, &options(IntegerRecipe::weight_only()));
        assert_eq!(early.unwrap_err().to_string(), text);
    }
    let goal = SensitivityGoal::MaxBytes(least);
    goal.check(&SOURCE.directory, &options(IntegerRecipe::weight_only()))
        .unwrap();
    let report = choose(&MEASURED, goal);
    assert!(report.groups.iter().all(|group| group.chosen != "int8"));
    assert!(report.recipe.integer().unwrap().modules.is_empty());
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let refusal = |directory: &Path, options: &SensitivityOptions, samples: &CalibrationSamples| {
        let measured = WeightSensitivity::measure(directory, options, samples, &mut |_, _, _| {});
        measured.unwrap_err().to_string()
    };
    let usual = options(IntegerRecipe::weight_only());
    let directory = &SOURCE.directory;
    let text = refusal(directory, &usual, &texts(&[]));
    assert!(
        text.contains("expected at least one text, found none"),
        "{text}"
    );
    let rows = vec![TokenRow {
        token_ids: vec![2, 5, 3],
        token_type_ids: Vec::new(),
    }];
    let text = refusal(directory, &usual, &CalibrationSamples::Tokens(rows));
    assert!(text.contains("found 1 rows of token ids"), "{text}");
    let with = |choices: &[WeightCodes]| SensitivityOptions {
        choices: choices.iter().copied().map(WeightChoice::from).collect(),
        ..usual.clone()
    };
    let text = refusal(directory, &with(&[INT4]), &texts(&TEXTS));
    assert!(text.contains("at least two choices, found 1"), "{text}");
    let text = refusal(
        directory,
        &with(&[INT4, WeightCodes::Int8, INT4]),
        &texts(&TEXTS),
    );
    assert!(
        text.contains("found `int4+group-16+absmax` twice"),
        "{text}"
    );
    let fixed = options(StaticInputs::default().into());
    let text = refusal(directory, &fixed, &texts(&TEXTS));
    assert!(text.contains("found `static` without any"), "{text}");
    let floats = SensitivityOptions {
        choices: vec![WeightChoice::Float],
        ..usual.clone()
    };
    let text = refusal(directory, &floats, &texts(&TEXTS));
    assert!(text.contains("at least two choices"), "{text}");
    let skipped = options(IntegerRecipe::weight_only().with_skip(["*.quarry"]));
    let text = refusal(directory, &skipped, &texts(&TEXTS));
    assert!(text.contains("matches no module"), "{text}");
    let mut broken = TinyBert::f32();
    broken.poke("bert.encoder.layer.1.output.dense.weight", 7, f32::NAN);
    let broken = source(broken);
    let text = refusal(&broken.directory, &usual, &texts(&TEXTS));
    assert!(
        text.contains("encoder.layer.1.output.dense.weight"),
        "{text}"
    );
}

#[test]
fn skipped_layers_are_no_choice_and_one_text_is_enough() -> Result<(), QuantizeError> {
    let base = IntegerRecipe::weight_only().with_skip(["*.self.key", "*.layer.1.output.dense"]);
    let samples = texts(&TEXTS[..1]);
    let options = options(base);
    let measured =
        WeightSensitivity::measure(&SOURCE.directory, &options, &samples, &mut |_, _, _| {})?;
    let report = measured.choose(SensitivityGoal::MinCosine(0.5), &mut |_, _, _| {})?;
    assert_eq!((report.texts, report.groups.len()), (1, 7));
    let modules = report.groups.iter().flat_map(|group| &group.modules);
    assert!(modules.clone().all(|module| !module.ends_with("key")));
    assert_eq!(modules.count(), 9);
    assert_eq!(report.recipe.skip().len(), 2);
    Ok(())
}

/// Layers may stay float: the recipe skips them, and the model is the one that was measured.
#[test]
fn floats_are_a_choice() {
    let choices = vec![WeightChoice::Float, WeightCodes::Int8.into(), INT4.into()];
    let options = SensitivityOptions {
        choices,
        ..options(IntegerRecipe::weight_only())
    };
    let samples = texts(&TEXTS);
    let measured =
        WeightSensitivity::measure(&SOURCE.directory, &options, &samples, &mut |_, _, _| {});
    let measured = measured.unwrap();
    let uniform: Vec<u64> = MEASURED_BYTES.to_vec();
    // Between int8 everywhere and one more layer of floats than the limit allows.
    let report = choose(&measured, SensitivityGoal::MaxBytes(uniform[0] + 15_000));
    assert_eq!(report.baseline, "float");
    assert_eq!(report.choices, ["float", "int8", "int4+group-16+absmax"]);
    let found: Vec<u64> = report.uniform.iter().map(|row| row.file_bytes).collect();
    assert_eq!(found, uniform);
    for group in &report.groups {
        // 32 x 32 and 32 x 48 in F32.
        let weights = if group.site.contains(".attention.output.") {
            32 * 32
        } else {
            0
        };
        let bytes = group.choices[0].bytes;
        assert!(weights == 0 || bytes == 4 * weights, "{group:?}");
        assert!(bytes > group.choices[1].bytes && group.choices[0].loss == 0.0);
    }
    let is_float = |chosen: &str| chosen == "float";
    let floats = report.groups.iter().filter(|group| is_float(&group.chosen));
    let skipped: Vec<&String> = floats.flat_map(|group| &group.modules).collect();
    assert!(!skipped.is_empty(), "{report:?}");
    assert_eq!(report.recipe.skip().iter().collect::<Vec<_>>(), skipped);
    let out = SOURCE.out("mixed-floats");
    let recipe = &report.recipe;
    let written = quantize_model(&SOURCE.directory, recipe, &out, true, &mut |_, _, _| {});
    assert_eq!(written.unwrap().file_bytes, report.file_bytes);
    let found = mean_cosine(&SOURCE.directory, &out);
    assert!((found - report.measured_cosine).abs() < 1e-12, "{found}");
    let everything = measured.choose(SensitivityGoal::MaxBytes(u64::MAX), &mut |_, _, _| {});
    match everything {
        // Where an error of int8 happens to make good another's, floats everywhere are not the best.
        Ok(report) => assert!(report.groups.iter().any(|group| !is_float(&group.chosen))),
        Err(error) => {
            let text = error.to_string();
            assert!(
                text.contains("a limit under which a layer has codes"),
                "{text}"
            );
        }
    }
}

/// Ranges of inputs are those of the float model, and every mixture has them.
#[test]
fn static_inputs_keep_their_scales() {
    let mut calibrator =
        Calibrator::prepare(&SOURCE.directory, Backend::Native.qconfig().activation()).unwrap();
    calibrator.observe(&TEXTS).unwrap();
    let fixed = calibrator.finish().unwrap().recipe().unwrap();
    let base = fixed.integer().unwrap().clone();
    let options = SensitivityOptions {
        choices: vec![WeightChoice::Float, WeightCodes::Int8.into(), INT4.into()],
        ..options(base)
    };
    let samples = texts(&TEXTS);
    let measured =
        WeightSensitivity::measure(&SOURCE.directory, &options, &samples, &mut |_, _, _| {});
    let measured = measured.unwrap();
    let report = choose(
        &measured,
        SensitivityGoal::MaxBytes(MEASURED_BYTES[0] + 8000),
    );
    let kinds = ["float", "int8"].map(|kind| {
        let mut groups = report.groups.iter();
        groups.any(|group| group.chosen == kind)
    });
    assert_eq!(kinds, [true, true], "{report:?}");
    let skipped = report.recipe.skip();
    let scales = report.recipe.static_inputs().unwrap();
    assert_eq!(scales.len() + skipped.len(), 12);
    for (module, scale) in scales {
        assert_eq!(fixed.static_inputs().unwrap()[module], *scale);
        assert!(!skipped.contains(module));
    }
    let out = SOURCE.out("mixed-static");
    let recipe = &report.recipe;
    let written = quantize_model(&SOURCE.directory, recipe, &out, true, &mut |_, _, _| {});
    assert_eq!(written.unwrap().file_bytes, report.file_bytes);
    let found = mean_cosine(&SOURCE.directory, &out);
    assert!((found - report.measured_cosine).abs() < 1e-12, "{found}");
}
