//! The facade on a tiny BERT: sizes that are foretold are the sizes that are written, and a comparison measures what its
//! recipes made.

use crate::scripted_host::ScriptedHost;
use crate::tiny_model::workspace;
use fewbit::checkpoint::Checkpoint;
use fewbit::compare::{
    CompareOptions, CompareStep, CompareTexts, compare, default_recipes, method_name, parse_method,
};
use fewbit::evaluate::{SentencePair, TextOrder, TextRequest};
use fewbit::measure::{InProcess, ModelHost, ModelOutput};
use fewbit::quantize::calibration::CalibrationSamples;
use fewbit::quantize::{Backend, GptqCalibration, IntegerRecipe, Rounding};
use fewbit::{
    EmbeddingStorage, EncodeOptions, Encoder, Error, Method, QuantizationManager, Recipe,
};

#[test]
fn the_manager_foretells_sizes_and_then_finds_them() {
    let (directory, model) = workspace();
    let mut manager = QuantizationManager::new(&model).unwrap();
    let size = manager.model_size().unwrap();
    // 80 x 32 words, 36 positions, 2 types; per layer 4 (32 x 32 + 32) + 44 x 32 + 44 + 32 x 44 + 32; the norms; the pooler.
    assert_eq!(
        size.parameters,
        118 * 32 + 2 * (4 * 1056 + 2 * 1408 + 76) + 5 * 64 + 1056
    );
    assert_eq!(
        (size.parameter_bytes, size.buffer_bytes),
        (4 * size.parameters, 0)
    );

    let planned = manager.compare_sizes().unwrap();
    assert_eq!(
        (planned[0].label.as_str(), planned[0].compression_ratio),
        ("original", 1.0)
    );
    let out = |name: &str| directory.path().join(name);
    manager.apply_dynamic_quantization(out("dynamic")).unwrap();
    manager
        .apply_weight_only_quantization(out("weight-only"))
        .unwrap();
    manager.apply_fp16_quantization(out("fp16")).unwrap();
    manager.apply_bf16_quantization(out("bf16")).unwrap();
    manager.apply_int4_quantization(out("nf4")).unwrap();
    let found = manager.compare_sizes().unwrap();
    assert_eq!(found.len(), planned.len());
    let applied = [
        ("dynamic", "dynamic"),
        ("weight-only", "weight-only"),
        ("fp16", "fp16"),
        ("bf16", "bf16"),
        ("nf4 + double quantization", "nf4"),
    ];
    for (name, folder) in applied {
        let row = |rows: &[fewbit::manager::SizeComparison]| {
            rows.iter().find(|row| row.label == name).cloned().unwrap()
        };
        assert_eq!(row(&found).bytes, row(&planned).bytes, "{name}");
        assert_eq!(
            (row(&found).directory, row(&planned).directory),
            (Some(out(folder)), None)
        );
    }
}

#[test]
fn the_manager_rounds_for_the_texts_that_it_is_given() {
    let (directory, model) = workspace();
    let out = |name: &str| directory.path().join(name);
    let mut manager = QuantizationManager::new(&model).unwrap();
    let recipe = Recipe::from(IntegerRecipe::dynamic().with_rounding(Rounding::Gptq {
        saturation_proof: false,
    }));
    let without = manager.apply(&recipe, out("without")).unwrap_err();
    assert!(without.to_string().contains("calibration texts beside it"));
    let texts = ["a b c", "x y"].map(str::to_owned).to_vec();
    let calibration = GptqCalibration::new(CalibrationSamples::Texts(texts), 1);
    manager
        .apply_gptq(&recipe, &calibration, out("gptq"))
        .unwrap();
    let rows = manager.compare_sizes().unwrap();
    assert_eq!(rows[1].label, "dynamic + GPTQ");
    let dynamic = rows.iter().find(|row| row.label == "dynamic").unwrap();
    assert_eq!(rows[1].bytes, dynamic.bytes);

    let options = CompareOptions {
        recipes: vec![
            IntegerRecipe::dynamic()
                .with_rounding(Rounding::Gptq {
                    saturation_proof: true,
                })
                .into(),
        ],
        gptq: Some(calibration),
        ..CompareOptions::default()
    };
    let comparison = compare(&model, &options, &mut InProcess, &mut |_| {}).unwrap();
    assert!(comparison.failed.is_empty(), "{:?}", comparison.failed);
    let row = &comparison.rows[1];
    assert_eq!(row.name, "dynamic + GPTQ + saturation-proof");
}

#[test]
fn an_output_is_replaced_only_with_force() {
    let (directory, model) = workspace();
    let out = directory.path().join("out");
    let mut manager = QuantizationManager::new(&model).unwrap();
    manager.apply_fp16_quantization(&out).unwrap();
    assert!(matches!(
        manager.apply_bf16_quantization(&out),
        Err(Error::Quantize(_))
    ));
    let mut manager = manager.with_force(true);
    manager.apply_bf16_quantization(&out).unwrap();
    let applied: Vec<_> = manager
        .compare_sizes()
        .unwrap()
        .into_iter()
        .filter(|row| row.directory == Some(out.clone()))
        .collect();
    assert_eq!(applied.len(), 1);
    assert_eq!(applied[0].label, "bf16");
}

#[test]
fn a_quantized_model_counts_the_weights_and_not_their_codes() {
    let (directory, model) = workspace();
    let expected = QuantizationManager::new(&model)
        .unwrap()
        .model_size()
        .unwrap()
        .parameters;
    for (index, recipe) in Recipe::standard().into_iter().enumerate() {
        let out = directory.path().join(index.to_string());
        QuantizationManager::new(&model)
            .unwrap()
            .apply(&recipe, &out)
            .unwrap();
        let inspection = fewbit::inspect(&out).unwrap();
        assert_eq!(inspection.size.parameters, expected, "{}", recipe.label());
        let tensors: u64 = inspection.tensors.iter().map(|tensor| tensor.bytes).sum();
        assert_eq!(inspection.size.tensor_bytes(), tensors);
        let stored: u64 = Checkpoint::open(&out)
            .unwrap()
            .tensors()
            .map(|info| info.byte_len as u64)
            .sum();
        assert_eq!(tensors, stored);
        let quantized = recipe.float_dtype().is_none();
        assert_eq!(inspection.quantization.is_some(), quantized);
        assert_eq!(inspection.methods.is_empty(), quantized);
        assert_eq!(inspection.size.buffer_bytes > 0, quantized);
    }
}

/// Latency is best in the second round, throughput in the third. Each round begins with a pass that does not count.
fn host() -> ScriptedHost {
    ScriptedHost::new(|_, what, before| match what {
        "texts by 1 AsGiven on 1" => [9.0, 0.060, 9.0, 0.020, 9.0, 0.040][before],
        "texts by 32 ByLength on 1" => [4.0, 2.0, 1.0][before],
        _ => 0.5,
    })
}

#[test]
fn speed_is_taken_in_rounds_and_the_middle_one_counts() {
    let (_directory, model) = workspace();
    let options = CompareOptions {
        recipes: vec![Recipe::new(Method::Fp16), Recipe::new(Method::Nf4)],
        ..CompareOptions::default()
    };
    let mut host = host();
    host.embedding = |name| match name {
        "nf4" => [0.6, 0.8],
        _ => [1.0, 0.0],
    };
    let mut steps = 0;
    let comparison = compare(&model, &options, &mut host, &mut |step| {
        steps += 1;
        assert!(steps > 2 || matches!(step, CompareStep::Quantizing(_)));
    })
    .unwrap();
    let asked = |names: [&str; 3], what: &[&str]| {
        let of = |name| what.iter().map(move |what| format!("{name} {what}"));
        names.into_iter().flat_map(of).collect::<Vec<_>>()
    };
    let (alone, batches) = ("texts by 1 AsGiven on 1", "texts by 32 ByLength on 1");
    let speed = [alone, alone, batches];
    let expected = [
        asked(["model", "fp16", "nf4"], &["encode", "memory"]),
        asked(["model", "fp16", "nf4"], &speed),
        asked(["nf4", "fp16", "model"], &speed),
        asked(["model", "fp16", "nf4"], &speed),
    ];
    assert_eq!(host.asked(), expected.concat());
    assert_eq!(steps, 2 + 3 + 9);
    assert_eq!(steps, options.steps());
    for row in &comparison.rows {
        assert_eq!(
            (
                row.memory.weight_memory_bytes,
                row.memory.scratch_bytes,
                row.load_seconds
            ),
            (1, 2, 0.5)
        );
        // Of the original's parameters, whatever a row stores.
        let bits = 8.0 * row.disk_bytes as f64 / comparison.parameters as f64;
        assert_eq!(row.bits_per_weight, bits);
        let cosine = row
            .agreement
            .as_ref()
            .map(|agreement| agreement.mean_cosine);
        match row.name.as_str() {
            "original" => assert_eq!(cosine, None),
            "fp16" => assert_eq!(cosine, Some(1.0)),
            _ => assert!((cosine.unwrap() - 0.6).abs() < 1e-7),
        }
        assert!((row.median_milliseconds - 20.0).abs() < 1e-9);
        assert_eq!(row.texts_per_second, comparison.texts as f64 / 2.0);
        assert_eq!(row.directory, None);
    }
    assert_eq!(
        (comparison.texts_kind, comparison.texts),
        ("built-in", fewbit::compare::SAMPLE_TEXTS.len())
    );
}

#[test]
fn a_method_that_cannot_be_measured_leaves_the_others() {
    let (_directory, model) = workspace();
    let methods = [Method::Bf16, Method::Fp16, Method::Nf4];
    let options = CompareOptions {
        recipes: methods.map(Recipe::new).to_vec(),
        texts: CompareTexts::Texts(vec!["a cat sat".to_owned(), "dogs".to_owned()]),
        ..CompareOptions::default()
    };
    let mut host = host();
    host.refused = vec![("bf16", "encode"), ("nf4", "texts by 1 AsGiven on 1")];
    let comparison = compare(&model, &options, &mut host, &mut |_| {}).unwrap();
    let names: Vec<&str> = comparison
        .rows
        .iter()
        .map(|row| row.name.as_str())
        .collect();
    assert_eq!(names, ["original", "fp16"]);
    let failed = |name: &str, error: &str| fewbit::compare::FailedMethod {
        name: name.to_owned(),
        error: error.to_owned(),
    };
    assert_eq!(
        comparison.failed,
        [
            failed("bf16", "cannot do: encode"),
            failed("nf4", "cannot do: texts by 1 AsGiven on 1")
        ]
    );
}

#[test]
fn the_gate_names_who_loses_more_than_allowed() {
    let (_directory, model) = workspace();
    let texts = ["a cat sat", "dogs", "by the sea"]
        .map(str::to_owned)
        .to_vec();
    let options = CompareOptions {
        recipes: vec![Recipe::new(Method::Bf16), Recipe::new(Method::Fp4)],
        texts: CompareTexts::Texts(texts),
        ..CompareOptions::default()
    };
    let comparison = compare(&model, &options, &mut InProcess, &mut |_| {}).unwrap();
    let loss = |row: usize| 100.0 * (1.0 - comparison.rows[row].agreement.unwrap().mean_cosine);
    assert!(loss(1) < loss(2), "bf16 loses less than fp4");
    let between = (loss(1) + loss(2)) / 2.0;
    let missed = comparison.missed_gates(between);
    assert_eq!(missed.len(), 1);
    assert_eq!((missed[0].name.as_str(), missed[0].drop), ("fp4", loss(2)));
    assert_eq!(comparison.missed_gates(loss(2)), []);
    // A correlation decides where there is one, whatever the cosines say; what is no number is never good enough.
    let mut with_scores = comparison.clone();
    let similarity = |spearman| {
        Some(fewbit::evaluate::SentenceSimilarity {
            spearman,
            pearson: 0.0,
            pairs: 9,
        })
    };
    for (row, spearman) in with_scores.rows.iter_mut().zip([0.86, 0.859, f64::NAN]) {
        row.similarity = similarity(spearman);
    }
    let missed = with_scores.missed_gates(0.2);
    assert_eq!(missed.len(), 1);
    assert_eq!(missed[0].name, "fp4");
    assert!(missed[0].drop.is_nan());
    let missed = with_scores.missed_gates(0.05);
    assert_eq!(missed.len(), 2);
    assert!((missed[0].drop - 0.1).abs() < 1e-9);
}

#[test]
fn methods_read_as_they_are_typed() {
    let label = |text: &str| {
        parse_method(text)
            .map(|recipe| recipe.label())
            .map_err(|error| error.to_string())
    };
    assert_eq!(label("int4"), Ok("nf4".to_owned()));
    assert_eq!(
        label("dynamic + embeddings"),
        Ok("dynamic + int8 embeddings".to_owned())
    );
    assert_eq!(
        label("fp4+double"),
        Ok("fp4 + double quantization".to_owned())
    );
    for recipe in Recipe::standard() {
        assert_eq!(label(&recipe.label()), Ok(recipe.label()));
        assert_eq!(label(&method_name(&recipe)), Ok(recipe.label()));
    }
    assert_eq!(
        label("nf4 + double quant."),
        Ok("nf4 + double quantization".to_owned())
    );
    assert_eq!(
        label("weight-only+embeddings+gptq"),
        Ok("weight-only + GPTQ + int8 embeddings".to_owned())
    );
    for (text, name) in [
        ("nf4+double+fp16", "nf4 + double quantization + fp16 floats"),
        (
            "fp4+nf4-embeddings+bf16",
            "fp4 + nf4 embeddings + bf16 floats",
        ),
        ("static+float-embeddings", "static + float embeddings"),
        ("nf4+int8-embeddings", "nf4 + int8 embeddings"),
        (
            "weight-only+fp16-embeddings",
            "weight-only + fp16 embeddings",
        ),
    ] {
        let recipe = parse_method(text).unwrap();
        assert_eq!(recipe.label(), name);
        assert_eq!(label(&recipe.label()), Ok(name.to_owned()));
        assert_eq!(method_name(&recipe), text);
    }
    for text in [
        "dynamic+gptq",
        "static + GPTQ",
        "dynamic+gptq+saturation-proof",
        "weight-only+gptq+saturation-proof+embeddings",
        "dynamic+fp16+gptq+float-embeddings",
        "nf4+gptq",
        "fp4+gptq+double+activation-weighted",
        "weight-only+int4+activation-weighted+gptq",
    ] {
        let recipe = parse_method(text).unwrap();
        assert!(recipe.needs_gptq(), "{text}");
        assert_eq!(label(&recipe.label()), Ok(recipe.label()));
        assert_eq!(label(&method_name(&recipe)), Ok(recipe.label()));
    }
    let expected = "expected one of fp16, bf16, dynamic, dynamic+float-embeddings, static, static+float-embeddings, weight-only, weight-only+float-embeddings, nf4, nf4+double, fp4, fp4+double, int4 (the same as nf4), an integer method with +int4, any but fp16 and bf16 with +gptq, int8 weights with +gptq+saturation-proof, or any but fp16 and bf16 with +fp16 or +bf16, the dtype of what is not quantized";
    for wrong in [
        "",
        "nf4+",
        "dynamic+double",
        "int3",
        "nf4+gptq+saturation-proof",
        "fp16+gptq",
        "dynamic+saturation-proof",
        "dynamic+gptq+gptq",
        "dynamic+nf4-embeddings",
        "dynamic+fp16+bf16",
        "fp16+bf16",
        "nf4+float-embeddings+embeddings",
    ] {
        assert_eq!(
            label(wrong).unwrap_err(),
            format!("unknown method `{wrong}`: {expected}")
        );
    }
    assert_eq!(
        label("int8").unwrap_err(),
        format!(
            "unknown method `int8`: {expected}\n  hint: `dynamic` computes with int8 activations, `weight-only` with activations of 12 bits"
        )
    );
    assert_eq!(default_recipes().len(), 8);
}

#[test]
fn a_model_that_is_open_in_this_process_does_what_its_encoder_does() {
    let (_directory, model) = workspace();
    let mut open = InProcess
        .open(&model, None, ModelOutput::Embeddings)
        .unwrap();
    let facts = open.facts().clone();
    assert_eq!(facts.checkpoint_directory, model);
    assert!(facts.load_seconds > 0.0);
    let request = TextRequest {
        pairs: Vec::new(),
        texts: ["a cat sat", "", "by the sea"].map(str::to_owned).to_vec(),
        order: TextOrder::AsGiven,
        batch_size: 2,
        threads: 1,
    };
    let encoder = Encoder::open(&model).unwrap();
    let expected = encoder.encode(&request.texts, &EncodeOptions::default());
    let embeddings = open.encode(&request).unwrap();
    assert_eq!(embeddings, expected.unwrap());
    let pass = open.time_texts(&request).unwrap();
    assert_eq!(
        (pass.call_seconds.len(), pass.tokens),
        (2, embeddings.tokens)
    );
    let memory = open.memory().unwrap();
    let weights = encoder.network().memory_bytes() as u64;
    assert_eq!(memory.weight_memory_bytes, weights);
    assert!(memory.scratch_bytes > 0);
    let absent = model.join("absent");
    let error = InProcess
        .open(&absent, None, ModelOutput::Embeddings)
        .err()
        .unwrap();
    assert!(error.to_string().contains("absent"), "{error}");
}

#[test]
fn an_encoder_in_a_folder_of_its_own_is_compared_by_the_bytes_of_its_weights() {
    let (directory, model) = workspace();
    let outer = directory.path().join("outer");
    std::fs::create_dir_all(outer.join("1_Pooling")).unwrap();
    std::fs::rename(&model, outer.join("0_Transformer")).unwrap();
    for (name, content) in [
        (
            "modules.json",
            r#"[{"idx": 0, "name": "0", "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"},
                {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]"#,
        ),
        (
            "1_Pooling/config.json",
            r#"{"word_embedding_dimension": 32, "pooling_mode_mean_tokens": true}"#,
        ),
    ] {
        std::fs::write(outer.join(name), content).unwrap();
    }
    let options = CompareOptions {
        recipes: vec![Recipe::new(Method::Fp16)],
        ..CompareOptions::default()
    };
    let comparison = compare(&outer, &options, &mut host(), &mut |_| {}).unwrap();
    let weights = std::fs::metadata(outer.join("0_Transformer/model.safetensors")).unwrap();
    let [original, fp16] = comparison.rows.as_slice() else {
        panic!("{:?}", comparison.failed)
    };
    assert_eq!(original.disk_bytes, weights.len());
    let ratio = weights.len() as f64 / fp16.disk_bytes as f64;
    assert_eq!(
        (original.compression_ratio, fp16.compression_ratio),
        (1.0, ratio)
    );
}

#[test]
fn what_cannot_be_compared_is_found_before_any_step() {
    let (directory, model) = workspace();
    let refused = |options: &CompareOptions| {
        compare(&model, options, &mut host(), &mut |step| panic!("{step:?}"))
            .unwrap_err()
            .to_string()
    };
    let pair = |score| SentencePair {
        sentence1: "a".to_owned(),
        sentence2: "b".to_owned(),
        score,
    };
    let equal_scores = CompareOptions {
        texts: CompareTexts::Pairs(vec![pair(2.0), pair(2.0), pair(2.0)]),
        ..CompareOptions::default()
    };
    assert!(
        refused(&equal_scores)
            .starts_with("all scores are equal, so there is no rank correlation\n  hint: ")
    );
    let keep = directory.path().join("kept");
    std::fs::create_dir_all(keep.join("nf4")).unwrap();
    std::fs::write(keep.join("nf4/precious.txt"), "keep me").unwrap();
    let occupied = CompareOptions {
        recipes: vec![Recipe::new(Method::Fp16), Recipe::new(Method::Nf4)],
        keep: Some(keep.clone()),
        ..CompareOptions::default()
    };
    assert_eq!(
        refused(&occupied),
        format!(
            "{}: exists and is not empty\n  hint: name another --keep directory, or remove it",
            keep.join("nf4").display()
        )
    );
    assert!(!keep.join("fp16").exists());
}

#[test]
fn a_model_that_finds_all_pairs_equally_similar_has_no_correlation_and_misses_the_gate() {
    let (_directory, model) = workspace();
    let pair = |score| SentencePair {
        sentence1: "a cat".to_owned(),
        sentence2: "the sea".to_owned(),
        score,
    };
    let options = CompareOptions {
        recipes: vec![Recipe::new(Method::Bf16)],
        texts: CompareTexts::Pairs(vec![pair(1.0), pair(2.0)]),
        ..CompareOptions::default()
    };
    let comparison = compare(&model, &options, &mut InProcess, &mut |_| {}).unwrap();
    assert!(comparison.rows.iter().all(|row| row.similarity.is_none()));
    let missed = comparison.missed_gates(1e9);
    assert_eq!(missed.len(), 1);
    assert!(missed[0].drop.is_nan());
}

/// Prepare, calibrate, convert: any other order does not compile.
#[test]
fn a_static_model_has_the_scales_that_calibration_chose() {
    let (directory, model) = workspace();
    let mut manager = QuantizationManager::new(&model).unwrap();
    let prepare = || {
        manager
            .prepare_static_quantization(Backend::Native)
            .unwrap()
    };
    let none: [&str; 0] = [];
    let error = prepare().calibrate(&none).unwrap_err().to_string();
    assert!(
        error.contains("calibrate() must run before convert()"),
        "{error}"
    );
    let calibrated = prepare()
        .calibrate(&["a small dog", "the sea", "red"])
        .unwrap();
    assert_eq!(calibrated.sites().len(), 4 * 2);
    assert!(!calibrated.recipe().static_inputs().unwrap().is_empty());
    let out = directory.path().join("static");
    let report = manager
        .convert_static_quantization(&calibrated, &out)
        .unwrap();
    let scales = calibrated.recipe().static_inputs();
    assert_eq!(report.recipe.static_inputs(), scales);
    assert_eq!(report.recipe.embeddings(), EmbeddingStorage::Int8);
    assert!(Encoder::open(&out).is_ok());
    let rows = manager.compare_sizes().unwrap();
    let fixed: Vec<_> = rows.iter().filter(|row| row.label == "static").collect();
    assert_eq!(fixed.len(), 1, "what is written is not planned any more");
    assert_eq!(fixed[0].directory.as_deref(), Some(&*out));
}
