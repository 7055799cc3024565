//! `--backend`, and `--activations per-tensor`

use crate::tiny_model::Workspace;

const TEXTS: &str = "a small dog\nthe sea\nred\na red dog\n";

#[test]
fn dynamic_as_pytorch_runs_and_does_not_depend_on_the_batch() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", TEXTS);
    for (backend, reduce_range) in [
        ("fbgemm", true),
        ("x86", true),
        ("onednn", true),
        ("qnnpack", false),
    ] {
        let arguments = ["quantize", "model", "-o", backend, "--method", "dynamic"];
        let outcome = workspace.succeed(
            &[
                &arguments[..],
                &["--activations", "per-tensor", "--backend", backend],
            ]
            .concat(),
        );
        assert!(
            outcome
                .stdout
                .contains("dynamic, activations per text, weights per tensor"),
            "{}",
            outcome.stdout
        );
        let config = workspace.json(&format!("{backend}/config.json"));
        let group = &config["quantization_config"]["config_groups"]["group_0"];
        assert_eq!(group["weights"]["strategy"], "tensor");
        let inputs = &group["input_activations"];
        assert_eq!(
            (&inputs["strategy"], &inputs["dynamic"]),
            (&"tensor".into(), &true.into())
        );
        assert_eq!(inputs["observer_kwargs"]["reduce_range"], reduce_range);
        let embed = |batch: &str| {
            workspace
                .succeed(&["embed", backend, "-i", "texts.txt", "--batch-size", batch])
                .embeddings()
        };
        assert_eq!(embed("1"), embed("4"), "{backend}");
        let recipe = format!("{backend}/recipe.toml");
        workspace.succeed(&[
            "quantize", "model", "-o", "again", "--force", "--recipe", &recipe,
        ]);
        for file in ["model.safetensors", "config.json", "recipe.toml"] {
            assert_eq!(
                workspace.read(&format!("{backend}/{file}")),
                workspace.read(&format!("again/{file}")),
                "{file}"
            );
        }
    }
}

#[test]
fn static_has_the_weights_and_the_codes_of_the_backend() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", TEXTS);
    for (backend, strategy, bits) in [
        ("native", "channel", 8),
        ("fbgemm", "channel", 7),
        ("x86", "channel", 7),
        ("qnnpack", "tensor", 8),
        ("onednn", "channel", 8),
    ] {
        let common = ["--samples", "4", "--calibration", "texts.txt"];
        let quantize = [
            "quantize",
            "model",
            "--method",
            "static",
            "--backend",
            backend,
        ];
        let all_static = ["--min-sqnr", "-100", "-o", backend];
        workspace.succeed(&[&quantize[..], &common, &all_static].concat());
        let config = workspace.json(&format!("{backend}/config.json"));
        let groups = &config["quantization_config"]["config_groups"];
        assert_eq!(groups.as_object().map(|groups| groups.len()), Some(1));
        assert_eq!(
            groups["group_0"]["weights"]["strategy"], strategy,
            "{backend}"
        );
        let inputs = &groups["group_0"]["input_activations"];
        assert_eq!(inputs["num_bits"], bits, "{backend}");
        let embeddings = workspace.succeed(&["embed", backend, "-i", "texts.txt"]);
        assert_eq!(embeddings.embeddings().len(), 4);
        // Statistics know the codes that they were collected for.
        let stats = format!("{backend}.json");
        let calibrate = [
            "calibrate",
            "model",
            "--stats",
            &stats,
            "--backend",
            backend,
        ];
        workspace.succeed(&[&calibrate[..], &common].concat());
        let of_stats = [
            &quantize[..],
            &["--stats", &stats, "-o", "of-stats", "--force"],
        ]
        .concat();
        workspace.succeed(&of_stats);
        assert_eq!(
            workspace.read(&format!("{backend}/model.safetensors")),
            workspace.read("of-stats/model.safetensors"),
            "{backend}"
        );
    }
}

#[test]
fn flags_without_a_meaning_are_refused() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", TEXTS);
    let refused = |arguments: &[&str]| {
        let text = workspace.misuse(&[&["quantize", "model", "-o", "out"], arguments].concat());
        text.lines().next().unwrap_or_default().to_owned()
    };
    let method = |name| ["--method", name];
    let per_tensor = ["--activations", "per-tensor"];
    assert!(
        refused(&[method("dynamic"), per_tensor].concat())
            .starts_with("error: --activations per-tensor: expected --backend fbgemm, x86, qnnpack or onednn beside it"),
    );
    assert_eq!(
        refused(&[method("dynamic"), ["--backend", "x86"]].concat()),
        "error: --backend x86 with --method dynamic: expected --activations per-tensor beside it"
    );
    for name in ["static", "weight-only", "fp16", "nf4"] {
        assert_eq!(
            refused(&[method(name), per_tensor, ["--backend", "x86"]].concat()),
            format!("error: --activations per-tensor does not go with the method `{name}`")
        );
    }
    for more in [["--observer", "mse"], ["--calibration", "texts.txt"]] {
        assert_eq!(
            refused(&[method("dynamic"), per_tensor, ["--backend", "x86"], more].concat()),
            "error: flags of calibration do not go with the method `dynamic`"
        );
    }
    workspace.write("recipe.toml", "version = 1\nmethod = \"dynamic\"\n");
    assert_eq!(
        refused(&["--recipe", "recipe.toml", "--activations", "per-tensor"]),
        "error: --activations contradicts the recipe file: the flag says per-tensor, the file per-token"
    );
    assert!(!workspace.path("out").exists());
}
