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
    assert!(outcome.stdout.contains("static: "), "{}", outcome.stdout);
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
    let told = workspace.succeed(&of_stats).stderr;
    assert!(told.contains("all of them are static"), "{told}");
    workspace.succeed(
        &[
            &QUANTIZE[..],
            &[
                "--calibration",
                "texts.txt",
                "--observer",
                "min-max",
                "--min-sqnr",
                "-100",
            ],
        ]
        .concat(),
    );
    assert_eq!(
        workspace.read("stats/model.safetensors"),
        workspace.read("out/model.safetensors")
    );
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
    workspace.write("gap.txt", "a\n\nb\n");
    let gap = workspace.fail(&[
        "calibrate",
        "model",
        "--calibration",
        "gap.txt",
        "--samples",
        "1",
        "--stats",
        "s.json",
    ]);
    assert!(gap.contains("gap.txt: line 2: expected a text"), "{gap}");
    assert!(!workspace.path("out").exists() && !workspace.path("s.json").exists());
}
