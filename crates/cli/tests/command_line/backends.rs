//! `--backend`, and `--activations per-tensor`

use crate::tiny_model::{Outcome, Workspace};
use fewbit::QuantizationManager;
use fewbit::quantize::Backend;

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
            "--keep-embeddings",
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
            "error: flags of calibration do not go with the method `dynamic`, which is not calibrated"
        );
    }
    workspace.write("recipe.toml", "version = 1\nmethod = \"dynamic\"\n");
    assert_eq!(
        refused(&["--recipe", "recipe.toml", "--activations", "per-tensor"]),
        "error: --activations contradicts the recipe file: the flag says per-tensor, the file per-token"
    );
    assert!(!workspace.path("out").exists());
}

/// Inputs of the linear layers of the tiny model: queries, keys and values read one.
const INPUTS: usize = 2 * 4;

/// A model with one input that 8 bits fit with more than 30 dB and 7 bits with less: a normalization makes one channel eight times as
/// wide as most.
fn with_a_wide_channel() -> Workspace {
    let workspace = Workspace::new();
    workspace.write("texts.txt", TEXTS);
    workspace.edit_weights(|header, data| {
        let tensor = &header["embeddings.LayerNorm.weight"];
        let at = tensor["data_offsets"][0].as_u64().unwrap() as usize;
        data[at..at + 4].copy_from_slice(&8f32.to_le_bytes());
    });
    workspace
}

#[test]
fn pytorch_backends_make_every_input_static_and_say_what_that_costs() {
    let workspace = with_a_wide_channel();
    let calibration = ["--samples", "4", "--calibration", "texts.txt"];
    let quantize = |backend: &str, out: &str, more: &[&str]| {
        let start = [
            "quantize", "model", "--method", "static", "-o", out, "--json",
        ];
        let backend = ["--backend", backend];
        workspace.succeed(&[&start[..], &backend, &calibration, more].concat())
    };
    for backend in ["fbgemm", "x86", "qnnpack", "onednn"] {
        let default = quantize(backend, backend, &[]);
        let all = format!("{backend}-all");
        let asked_for = quantize(backend, &all, &["--min-sqnr=-inf"]);
        assert_eq!(asked_for.stderr, "", "who asks for it is not warned");
        for file in ["recipe.toml", "model.safetensors", "config.json"] {
            assert_eq!(
                workspace.read(&format!("{backend}/{file}")),
                workspace.read(&format!("{all}/{file}")),
                "{backend}: {file}"
            );
        }
        let report = default.json();
        let inputs = report["recipe"]["static_inputs"].as_object().unwrap();
        assert_eq!(inputs.len(), 2 * 6, "{backend}");
        let sites = report["sensitivity"].as_array().unwrap();
        assert_eq!(sites.len(), INPUTS);
        let ratio = |site: &serde_json::Value| site["static_sqnr_db"].as_f64().unwrap();
        let noisy = sites.iter().filter(|site| ratio(site) < 30.0).count();
        let worst = sites.iter().map(ratio).fold(f64::INFINITY, f64::min);
        let warnings: Vec<&str> = default.stderr.lines().collect();
        if noisy == 0 {
            assert_eq!(warnings, [""; 0], "{backend}");
            continue;
        }
        assert_eq!(warnings.len(), 1, "{backend}: {warnings:?}");
        let start = format!(
            "warning: backend {backend}: every input is static, as in PyTorch; {noisy} of {INPUTS} have a signal to noise ratio below 30 dB, at worst {worst:.1} dB ("
        );
        assert!(warnings[0].starts_with(&start), "{}", warnings[0]);
        // The way out is one.
        let remedy = warnings[0].contains("--min-sqnr 30 makes these dynamic per token");
        assert_eq!(remedy, noisy < INPUTS, "{}", warnings[0]);
        if remedy {
            quantize(backend, &format!("{backend}-30"), &["--min-sqnr", "30"]);
        }
    }
    // The codes of 7 bits are what the warning is for.
    let fewer_bits = quantize("x86", "again", &[]);
    assert!(fewer_bits.stderr.starts_with("warning: backend x86: "));
    assert!(quantize("x86", "quiet", &["--quiet"]).stderr == fewer_bits.stderr);
}

#[test]
fn statistics_of_a_reduced_range_are_those_of_a_pytorch_backend() {
    let workspace = with_a_wide_channel();
    let common = ["--samples", "4", "--calibration", "texts.txt"];
    let calibrate = [
        "calibrate",
        "model",
        "--stats",
        "a.json",
        "--backend",
        "fbgemm",
    ];
    let shown = workspace.succeed(&[&calibrate[..], &common].concat());
    assert!(
        shown.stdout.contains("(every input is static)"),
        "{}",
        shown.stdout
    );
    let quantize = [
        "quantize", "model", "--method", "static", "--stats", "a.json",
    ];
    workspace.succeed(&[&quantize[..], &["-o", "plain"]].concat());
    workspace.succeed(&[&quantize[..], &["-o", "named", "--backend", "fbgemm"]].concat());
    assert_eq!(
        workspace.read("plain/model.safetensors"),
        workspace.read("named/model.safetensors")
    );
    let refused = workspace.fail(&[&quantize[..], &["-o", "out", "--backend", "native"]].concat());
    assert!(
        refused.contains("statistics of different observers"),
        "{refused}"
    );
}

/// The library and the command line have one set of defaults.
#[test]
fn the_manager_and_compare_make_what_quantize_makes() {
    let workspace = with_a_wide_channel();
    let texts: Vec<&str> = TEXTS.lines().collect();
    let calibration = ["--samples", "4", "--calibration", "texts.txt"];
    for backend in Backend::ALL {
        let name = backend.name();
        let flags = [&calibration[..], &["--backend", name]].concat();
        let quantize = ["quantize", "model", "--method", "static", "-o", name];
        workspace.succeed(&[&quantize[..], &flags].concat());
        let keep = format!("kept-{name}");
        let compare = ["compare", "model", "--methods", "static", "--keep", &keep];
        Outcome::of(&mut workspace.command(&[&compare[..], &flags].concat()));
        let kept = format!("{keep}/{}", workspace.entries(&keep)[0]);

        let mut manager = QuantizationManager::new(workspace.path("model")).unwrap();
        let prepared = manager.prepare_static_quantization(backend).unwrap();
        let calibrated = prepared.calibrate(&texts).unwrap();
        let managed = format!("managed-{name}");
        manager
            .convert_static_quantization(&calibrated, workspace.path(&managed))
            .unwrap();
        for file in ["recipe.toml", "model.safetensors", "config.json"] {
            let expected = workspace.read(&format!("{name}/{file}"));
            for other in [&kept, &managed] {
                assert_eq!(
                    workspace.read(&format!("{other}/{file}")),
                    expected,
                    "{other}: {file}"
                );
            }
        }
        let noisy = calibrated
            .noisy_static_inputs()
            .map_or(0, |noisy| noisy.count);
        assert!(backend != Backend::Native || noisy == 0);
        assert!(!matches!(backend, Backend::X86 | Backend::Fbgemm) || noisy > 0);
    }
}

/// The effect of ranges on the output is measured beside a `dynamic` model, whose weights always have a scale for each channel.
#[test]
fn the_effect_on_the_output_is_measured_for_weights_per_tensor_too() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a b\nc d e\n");
    let flags = "quantize model --dry-run --json --method static --calibration texts.txt --backend qnnpack --sensitivity output";
    let plan = workspace
        .succeed(&flags.split(' ').collect::<Vec<_>>())
        .stdout;
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    let sites = plan["sensitivity"].as_array().unwrap();
    assert!(!sites.is_empty());
    for site in sites {
        assert!(site["output_effect"].is_f64(), "{site}");
    }
    assert_eq!(plan["recipe"]["weight_scales"], "per-tensor");
}
