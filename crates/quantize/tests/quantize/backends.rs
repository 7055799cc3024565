//! What PyTorch's backends make of a layer, written and run.

use std::collections::BTreeMap;
use std::path::Path;

use fewbit_checkpoint::{Checkpoint, StoredWeight};
use fewbit_model::{EncoderSpec, Network, RaggedBatch, Tap};
use fewbit_numerics::affine::{AffineParameters, CodeRange};
use fewbit_numerics::dynamic_linear::{PerTensorInt8, dynamic_linear, quantize_per_tensor_int8};
use fewbit_quantize::{
    Backend, EmbeddingStorage, IntegerRecipe, Method, QuantizeError, Recipe, RecipeFields,
    StaticInput, StaticInputs, WeightScales, quantize_model,
};
use serde_json::{Value, json};

use crate::tiny_bert::{TinyBert, linear_modules};

/// Everything that any site shows, one text after the other.
#[derive(Default)]
pub(crate) struct Shown(pub(crate) BTreeMap<String, Vec<Vec<f32>>>);

impl Tap for Shown {
    fn wants(&self, _site: &str) -> bool {
        true
    }

    fn see(&mut self, site: &str, _rows: usize, _columns: usize, values: &[f32]) {
        let site = self.0.entry(site.to_owned()).or_default();
        site.push(values.to_vec());
    }
}

pub(crate) fn shown(network: &Network, batch: &RaggedBatch) -> Shown {
    let mut shown = Shown::default();
    network
        .hidden_states_tapped(batch, &mut shown)
        .expect("runs");
    shown
}

pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn numbers<T: for<'de> serde::Deserialize<'de>>(value: &Value) -> T {
    serde_json::from_value(value.clone()).expect("golden numbers")
}

/// The input group of the first layer in config.json.
fn group(checkpoint: &Checkpoint) -> &Value {
    &checkpoint.config()["quantization_config"]["config_groups"]["group_0"]
}

#[test]
fn the_first_products_are_those_of_torch_quantize_dynamic() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/quantize_dynamic");
    let expected = std::fs::read(golden.join("expected.json")).expect("golden file");
    let expected: Value = serde_json::from_slice(&expected).expect("JSON");
    let texts: Vec<Vec<u32>> = numbers(&expected["texts"]);
    let batch = RaggedBatch::from_sequences(&texts.iter().map(Vec::as_slice).collect::<Vec<_>>());
    for backend in Backend::ALL {
        if backend == Backend::Native {
            continue;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let out = directory.path().join("out");
        let recipe = Recipe::quantize_dynamic(backend);
        quantize_model(&golden, &recipe, &out, false, &mut |_, _, _| {}).expect("quantizes");
        let checkpoint = Checkpoint::open(&out).expect("opens");
        let spec = EncoderSpec::from_checkpoint(&checkpoint).expect("an encoder");
        for module in spec.catalogue().linear_modules() {
            let StoredWeight::Int8 { codes, scales, .. } =
                module.stored_weight(&checkpoint).expect("a weight")
            else {
                panic!("{}", module.name);
            };
            let scale: u32 = numbers(&expected["weight_scales"][&module.name]);
            assert!(scales.iter().all(|found| found.to_bits() == scale));
            if module.name.ends_with("query") {
                assert_eq!(codes[..], numbers::<Vec<i8>>(&expected["query_codes"]));
            }
        }
        let (network, _) = Network::load(&checkpoint).expect("loads");
        let shown = shown(&network, &batch);
        for name in ["query", "key", "value"] {
            let module = format!("encoder.layer.0.attention.self.{name}");
            let found = shown.0[&format!("{module}.output")].concat();
            let torch: Vec<u32> = numbers(&expected["outputs"][backend.name()][name]);
            assert_eq!(found.len(), torch.len());
            if matches!(backend, Backend::Fbgemm | Backend::X86) {
                assert_eq!(bits(&found), torch, "{backend}, {name}");
                continue;
            }
            // Here one rounding follows the product and the bias. There the product is rounded once for each factor beyond the
            // exact sum, at most three times, and the sum with the bias once: 2^-24 of the number at hand each time.
            let bias = checkpoint
                .require(&format!("{module}.bias"))
                .and_then(|bias| bias.to_f32())
                .expect("a bias");
            for (index, (found, torch)) in found.iter().zip(torch).enumerate() {
                let torch = f32::from_bits(torch);
                let product = (found - bias[index % bias.len()]).abs();
                let bound = (3.1 * product + 2.1 * found.abs()) * 2f32.powi(-24);
                assert!(
                    (found - torch).abs() <= bound,
                    "{backend}, {name} {index}: {found} and {torch}"
                );
            }
        }
    }
}

/// The reference is that of fewbit-numerics, which has its own golden files from torch.
#[test]
fn every_layer_quantizes_one_text_at_a_time_as_the_reference_does() {
    let source = TinyBert::f32().write();
    let float = source.open();
    let (_, checkpoint) = source.converted(&Recipe::quantize_dynamic(Backend::X86));
    assert_eq!(
        group(&checkpoint)["input_activations"],
        json!({
            "num_bits": 8, "type": "int", "symmetric": false, "strategy": "tensor", "dynamic": true, "group_size": null,
            "observer_kwargs": {"reduce_range": true},
        })
    );
    assert_eq!(group(&checkpoint)["weights"]["strategy"], "tensor");
    let (network, _) = Network::load(&checkpoint).expect("loads");
    let texts: [&[u32]; 4] = [
        &[1, 2, 3],
        &[9],
        &[4, 5, 6, 7, 8, 30, 31, 32, 33, 34, 35, 36],
        &[39, 1],
    ];
    let batch = RaggedBatch::from_sequences(&texts);
    let shown = shown(&network, &batch);
    for (module, shape) in linear_modules() {
        let tensor = |name: &str| {
            let view = float.require(&format!("bert.{module}.{name}"));
            view.and_then(|view| view.to_f32()).expect("floats")
        };
        let weight = quantize_per_tensor_int8(&tensor("weight"));
        let inputs = &shown.0[&format!("{module}.input")];
        let outputs = &shown.0[&format!("{module}.output")];
        assert_eq!((inputs.len(), outputs.len()), (texts.len(), texts.len()));
        for (input, output) in inputs.iter().zip(outputs) {
            let expected = dynamic_linear(input, shape[1], &weight, Some(&tensor("bias")), true);
            assert_eq!(bits(output), bits(&expected), "{module}");
        }
    }
    // So that a text has the same bits alone, in a batch, on several threads.
    let together = network.hidden_states(&batch, 2).expect("runs");
    let alone: Vec<f32> = texts
        .iter()
        .flat_map(|text| {
            let alone = RaggedBatch::from_sequences(&[text]);
            network.hidden_states(&alone, 1).expect("runs")
        })
        .collect();
    assert_eq!(bits(&together), bits(&alone));
}

/// The static layers of a backend are written with its weights and its codes, and run with them: inputs far outside of the range
/// end at the last code of 7 bits or of 8.
#[test]
fn static_layers_have_the_weights_and_the_codes_of_the_backend() {
    let source = TinyBert::f32().write();
    let float = source.open();
    let input = StaticInput {
        scale: 0.011,
        zero_point: -9,
    };
    let inputs: BTreeMap<String, StaticInput> = linear_modules()
        .into_iter()
        .map(|(module, _)| (module, input))
        .collect();
    for (backend, strategy, bits_of_codes, codes) in [
        (Backend::Native, "channel", 8, CodeRange::INT8),
        (
            Backend::Fbgemm,
            "channel",
            7,
            CodeRange { min: -64, max: 63 },
        ),
        (Backend::X86, "channel", 7, CodeRange { min: -64, max: 63 }),
        (Backend::Qnnpack, "tensor", 8, CodeRange::INT8),
        (Backend::Onednn, "channel", 8, CodeRange::INT8),
    ] {
        let qconfig = backend.qconfig();
        let recipe = Recipe::from(
            IntegerRecipe::from(StaticInputs {
                scales: inputs.clone(),
                weight_scales: qconfig.weight_scales(),
                reduce_range: qconfig.activation().rule().reduce_range(),
            })
            .with_embeddings(EmbeddingStorage::Keep),
        );
        let out = source.out(backend.name());
        source
            .quantize_into(&recipe, &out, false)
            .expect("quantizes");
        assert_eq!(Recipe::read(out.join("recipe.toml")).unwrap(), recipe);
        let checkpoint = Checkpoint::open(&out).expect("opens");
        let group = group(&checkpoint);
        assert_eq!(group["weights"]["strategy"], strategy, "{backend}");
        assert_eq!(group["weights"]["num_bits"], 8, "{backend}");
        assert_eq!(
            group["input_activations"]["num_bits"], bits_of_codes,
            "{backend}"
        );
        let (network, _) = Network::load(&checkpoint).expect("loads");
        let batch = RaggedBatch::from_sequences(&[&[1, 2, 3, 4], &[39]]);
        let shown = shown(&network, &batch);
        let (mut least, mut greatest) = (0, 0);
        for (module, [rows, columns]) in linear_modules() {
            let name = format!("bert.{module}");
            let scale = checkpoint.require(&format!("{name}.weight_scale")).unwrap();
            let weight = float
                .require(&format!("{name}.weight"))
                .and_then(|view| view.to_f32())
                .unwrap();
            let per_tensor = quantize_per_tensor_int8(&weight);
            match qconfig.weight_scales() {
                WeightScales::PerTensor => {
                    assert_eq!(scale.info.shape, [1]);
                    assert_eq!(scale.to_f32().unwrap(), [per_tensor.scale]);
                }
                WeightScales::PerChannel => assert_eq!(scale.info.shape, [rows, 1]),
            }
            let scales = scale.to_f32().unwrap();
            let stored = checkpoint.stored_weight(&name, [rows, columns]).unwrap();
            let StoredWeight::Int8 {
                codes: weight_codes,
                ..
            } = stored
            else {
                panic!("{name}");
            };
            if qconfig.weight_scales() == WeightScales::PerTensor {
                let PerTensorInt8 { codes, .. } = per_tensor;
                assert_eq!(weight_codes[..], codes);
            }
            let bias = float
                .require(&format!("{name}.bias"))
                .and_then(|view| view.to_f32())
                .unwrap();
            let parameters = AffineParameters {
                scale: input.scale,
                zero_point: i32::from(input.zero_point),
            };
            let x = shown.0[&format!("{module}.input")].concat();
            let y = shown.0[&format!("{module}.output")].concat();
            for (x, y) in x.chunks_exact(columns).zip(y.chunks_exact(rows)) {
                let x: Vec<i32> = x.iter().map(|&x| parameters.quantize(x, codes)).collect();
                least = least.min(*x.iter().min().unwrap());
                greatest = greatest.max(*x.iter().max().unwrap());
                let expected = (0..rows).map(|row| {
                    let sum: i32 = x
                        .iter()
                        .zip(&weight_codes[row * columns..])
                        .map(|(&x, &w)| (x - parameters.zero_point) * i32::from(w))
                        .sum();
                    let scale = scales[row % scales.len()];
                    (sum as f32).mul_add(input.scale * scale, bias[row])
                });
                assert_eq!(bits(y), bits(&expected.collect::<Vec<_>>()), "{module}");
            }
        }
        assert_eq!((least, greatest), (codes.min, codes.max), "{backend}");
    }
}

#[test]
fn what_has_no_meaning_is_refused() {
    let source = TinyBert::f32().write();
    let first_line =
        |error: QuantizeError| error.to_string().lines().next().unwrap_or("").to_owned();
    let refused = |fields: RecipeFields| first_line(Recipe::try_from(fields).unwrap_err());
    let of_static = RecipeFields {
        method: Method::Static,
        ..RecipeFields::from(Recipe::quantize_dynamic(Backend::X86))
    };
    assert_eq!(
        refused(of_static),
        "recipe: `activations`: expected `per-token` with the method `static`, found `per-tensor`"
    );
    for method in [Method::Dynamic, Method::WeightOnly, Method::Nf4] {
        let per_tensor = RecipeFields {
            weight_scales: WeightScales::PerTensor,
            ..RecipeFields::new(method)
        };
        assert_eq!(
            refused(per_tensor),
            format!(
                "recipe: `weight_scales`: expected `per-channel` with the method `{method}`, found `per-tensor`"
            )
        );
        let reduced = RecipeFields {
            reduce_range: true,
            ..RecipeFields::new(method)
        };
        assert_eq!(
            refused(reduced),
            format!(
                "recipe: `reduce_range`: expected false with the method `{method}`, found true"
            )
        );
    }
    let input = StaticInput {
        scale: 0.1,
        zero_point: 64,
    };
    let eight_bits = Recipe::from(IntegerRecipe::from(StaticInputs {
        scales: BTreeMap::from([(linear_modules()[0].0.clone(), input)]),
        weight_scales: WeightScales::PerChannel,
        reduce_range: true,
    }));
    assert_eq!(
        first_line(source.quantize(&eight_bits).unwrap_err()),
        "recipe: `static_inputs`: expected a zero point of `encoder.layer.0.attention.self.query` in -64..=63, the codes of a reduced range, found 64"
    );
    assert!(source.siblings().is_empty());
}

#[test]
fn recipes_of_backends_read_back() {
    for backend in Backend::ALL {
        let recipe = Recipe::quantize_dynamic(backend);
        assert_eq!(Recipe::from_toml(&recipe.to_toml()).unwrap(), recipe);
        assert_eq!(Recipe::from_json(&recipe.to_json()).unwrap(), recipe);
    }
    assert_eq!(
        Recipe::quantize_dynamic(Backend::Native),
        Recipe::new(Method::Dynamic)
    );
    assert_eq!(
        Recipe::quantize_dynamic(Backend::X86).label(),
        "dynamic, activations per text, weights per tensor, reduced range"
    );
}
