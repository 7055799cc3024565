//! `fewbit calibrate`, and `fewbit quantize --method static`

use crate::tiny_model::Workspace;

const TEXTS: &str = "a small dog\nthe sea\nred\na red dog\n";

fn workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.write("texts.txt", TEXTS);
    workspace
}

const QUANTIZE: [&str; 8] = [
    "quantize",
    "model",
    "-o",
    "out",
    "--method",
    "static",
    "--samples",
    "4",
];

#[test]
fn a_static_model_is_made_from_texts_and_again_from_its_recipe() {
    let workspace = workspace();
    let outcome = workspace.succeed(&[&QUANTIZE[..], &["--calibration", "texts.txt"]].concat());
    let label = "static + int8 embeddings: ";
    assert!(outcome.stdout.contains(label), "{}", outcome.stdout);
    let config = workspace.json("out/config.json");
    let group = &config["quantization_config"]["config_groups"]["group_0"];
    assert_eq!(group["input_activations"]["dynamic"], false);
    assert_eq!(group["input_activations"]["strategy"], "tensor");
    let embeddings = workspace
        .succeed(&["embed", "out", "-i", "texts.txt"])
        .embeddings();
    assert_eq!(embeddings.len(), 4);
    workspace.succeed(&[
        "quantize",
        "model",
        "-o",
        "again",
        "--recipe",
        "out/recipe.toml",
    ]);
    for file in ["model.safetensors", "config.json", "recipe.toml"] {
        assert_eq!(
            workspace.read(&format!("out/{file}")),
            workspace.read(&format!("again/{file}")),
            "{file}"
        );
    }
}

#[test]
fn saved_statistics_take_the_place_of_texts() {
    let workspace = workspace();
    for (texts, stats) in [
        ("a small dog\nthe sea\n", "a.json"),
        ("red\na red dog\n", "b.json"),
    ] {
        workspace.write("part.txt", texts);
        let arguments = [
            "calibrate",
            "model",
            "--calibration",
            "part.txt",
            "--samples",
            "2",
            "--observer",
            "min-max",
            "--stats",
            stats,
        ];
        let summary = workspace
            .succeed(&[&arguments[..], &["--json"]].concat())
            .json();
        assert_eq!(summary["samples"], 2);
        assert_eq!(summary["sensitivity"].as_array().unwrap().len(), 8);
        let again = workspace.fail(&arguments);
        assert!(
            again.contains(&format!("{stats}: expected no file, found one")),
            "{again}"
        );
    }
    let of_stats = [
        "quantize", "model", "-o", "stats", "--method", "static", "--stats", "a.json", "--stats",
        "b.json",
    ];
    // A bound in the middle, so that some inputs are dynamic and some are not.
    let json = workspace.succeed(&[&of_stats[..], &["--dry-run", "--json"]].concat());
    let json = json.json();
    let mut ratios: Vec<f64> = json["sensitivity"]
        .as_array()
        .unwrap()
        .iter()
        .map(|site| site["static_sqnr_db"].as_f64().unwrap())
        .collect();
    ratios.sort_by(f64::total_cmp);
    assert_eq!(ratios.len(), 8);
    let middle = ((ratios[3] + ratios[4]) / 2.0).to_string();
    let bound = ["--min-sqnr", &middle];
    let told = workspace.succeed(&[&of_stats[..], &bound[..]].concat());
    assert!(told.stdout.contains(" dynamic\n"), "{}", told.stdout);
    assert!(told.stdout.contains(" static\n"), "{}", told.stdout);
    workspace.succeed(
        &[
            &QUANTIZE[..],
            &["--calibration", "texts.txt", "--observer", "min-max"],
            &bound[..],
        ]
        .concat(),
    );
    for file in ["model.safetensors", "recipe.toml", "config.json"] {
        let of_texts = workspace.read(&format!("out/{file}"));
        assert_eq!(workspace.read(&format!("stats/{file}")), of_texts, "{file}");
    }
    let mixed = workspace.fail(
        &[
            &of_stats[..3],
            &["mixed"],
            &of_stats[4..],
            &["--observer", "mse"],
        ]
        .concat(),
    );
    assert!(mixed.contains("statistics: settings: expected "), "{mixed}");
}

/// Of every input, with the layers that read it, and in the table.
#[test]
fn the_effect_of_each_input_on_the_embeddings_is_measured_where_it_is_asked_for() {
    let workspace = workspace();
    let calibrated = [&QUANTIZE[..], &["--calibration", "texts.txt", "--dry-run"]].concat();
    let effects = |more: &[&str]| -> Vec<Option<f64>> {
        let outcome = workspace.succeed(&[&calibrated[..], more, &["--json"]].concat());
        let json = outcome.json();
        let sites = json["sensitivity"].as_array().unwrap().iter();
        sites.map(|site| site["output_effect"].as_f64()).collect()
    };
    assert_eq!(effects(&[]), [None; 8]);
    let measured = effects(&["--sensitivity", "output", "--skip", "*.layer.0.*"]);
    // A float layer reads floats.
    assert_eq!(measured[..4], [None; 4]);
    // A range for all tokens is another than that of each, and the error of 8 bits is small.
    for effect in &measured[4..] {
        let effect = effect.unwrap();
        assert!(effect != 0.0 && effect.abs() < 0.01, "{measured:?}");
    }
    let table = workspace.succeed(&[&calibrated[..], &["--sensitivity", "output"]].concat());
    let lines = table.stdout.lines();
    let of_table = lines.filter(|line| line.starts_with("encoder.layer."));
    // The first tables are those of the plan, of another layout.
    assert!(of_table.filter(|line| line.contains("e-")).count() >= 8);
    assert!(table.stdout.contains("effect on output: "));
    let texts = workspace.misuse(&[&QUANTIZE[..6], &["--sensitivity", "output"]].concat());
    assert!(texts.contains("--calibration <FILE>"), "{texts}");
}

#[test]
fn what_cannot_be_calibrated_is_refused_and_leaves_nothing() {
    let workspace = workspace();
    let nothing = workspace.misuse(&QUANTIZE[..6]);
    assert!(
        nothing.contains("--method static: expected --calibration FILE or --stats FILE"),
        "{nothing}"
    );
    let samples_only = workspace.misuse(&QUANTIZE);
    assert!(samples_only.contains("--calibration"), "{samples_only}");
    let dynamic = workspace.misuse(&[
        "quantize",
        "model",
        "-o",
        "out",
        "--method",
        "dynamic",
        "--calibration",
        "texts.txt",
    ]);
    assert!(
        dynamic.contains("do not go with the method `dynamic`"),
        "{dynamic}"
    );
    let observer = workspace.misuse(&[
        "quantize",
        "model",
        "-o",
        "out",
        "--method",
        "dynamic",
        "--observer",
        "mse",
    ]);
    assert!(
        observer.contains("do not go with the method `dynamic`"),
        "{observer}"
    );
    let ratio = workspace.misuse(
        &[
            &QUANTIZE[..],
            &["--calibration", "texts.txt", "--min-sqnr", "nan"],
        ]
        .concat(),
    );
    assert!(
        ratio.contains("--min-sqnr: expected a number of decibels, found NaN"),
        "{ratio}"
    );
    let few = workspace.fail(&[&QUANTIZE[..7], &["5", "--calibration", "texts.txt"]].concat());
    assert!(
        few.contains("texts.txt: expected at least 5 texts, found 4"),
        "{few}"
    );
    assert!(!workspace.path("out").exists() && !workspace.path("s.json").exists());
}

#[test]
fn fp8_inputs_are_static_and_choices_of_integers_are_refused() {
    let workspace = workspace();
    let fp8 = ["--weights", "fp8", "--weight-scales", "per-tensor"];
    let flags = [&QUANTIZE[..], &fp8, &["--calibration", "texts.txt"]].concat();
    let outcome = workspace.succeed(&flags);
    let label = "static + fp8 + per tensor: ";
    assert!(outcome.stdout.starts_with(label), "{}", outcome.stdout);
    let config = workspace.json("out/config.json");
    let groups = config["quantization_config"]["config_groups"].as_object();
    assert_eq!(groups.unwrap().len(), 1);
    let group = &groups.unwrap()["group_0"];
    assert_eq!(group["format"], "float-quantized");
    assert_eq!(group["weights"]["strategy"], "tensor");
    assert_eq!(group["input_activations"]["strategy"], "tensor");
    assert_eq!(group["input_activations"]["dynamic"], false);
    workspace.succeed(&["embed", "out", "-i", "texts.txt"]);
    let again = ["quantize", "model", "-o", "again", "--recipe"];
    workspace.succeed(&[&again[..], &["out/recipe.toml"]].concat());
    for file in ["model.safetensors", "config.json", "recipe.toml"] {
        let written = |directory: &str| workspace.read(&format!("{directory}/{file}"));
        assert_eq!(written("out"), written("again"), "{file}");
    }
    let per_channel = [
        "out/recipe.toml",
        "--force",
        "--weight-scales",
        "per-channel",
    ];
    let message = workspace.misuse(&[&again[..], &per_channel].concat());
    assert!(
        message.starts_with("error: --weight-scales contradicts the recipe file"),
        "{message}"
    );
    for flag in [
        &["--observer", "mse"][..],
        &["--min-sqnr", "3"],
        &["--backend", "x86"],
        &["--sensitivity", "output"],
    ] {
        let message = workspace.misuse(&[&flags[..], flag].concat());
        let expected = format!("error: {} does not go with --weights fp8", flag[0]);
        assert!(message.starts_with(&expected), "{message}");
    }
    let int8 = [
        "--calibration",
        "texts.txt",
        "--weight-scales",
        "per-tensor",
    ];
    let message = workspace.misuse(&[&QUANTIZE[..], &int8].concat());
    assert!(
        message.starts_with("error: --weight-scales: expected --weights fp8 beside it"),
        "{message}"
    );
}
