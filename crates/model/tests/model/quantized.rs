//! Quantized weights in the executor.

use crate::golden_files::{golden, largest_difference};
use crate::tiny_checkpoint::{Tensor, TinyCheckpoint};
use fewbit_checkpoint::Checkpoint;
use fewbit_kernels::{Isa, Kernels};
use fewbit_model::{Network, RaggedBatch, Tap, WeightOnlyArithmetic};
use fewbit_numerics::rows::quantize_rows_int8;
use proptest::prelude::*;
use safetensors::Dtype;
use std::sync::LazyLock;

fn load(checkpoint: &TinyCheckpoint, isa: Isa) -> Option<Network> {
    let directory = checkpoint.write();
    let checkpoint = Checkpoint::open(directory.path()).expect("opens");
    Some(
        Network::load_with_kernels(&checkpoint, Kernels::for_isa(isa)?)
            .expect("loads")
            .0,
    )
}

/// The same int8 models on every instruction set of this CPU that keeps the same bits: BERT, MPNet with its attention bias, and one whose
/// weights alone are int8.
static INT8: LazyLock<Vec<Vec<Network>>> = LazyLock::new(|| {
    let models =
        ["bert-long", "mpnet"].map(|case| TinyCheckpoint::of(case).with_dynamic_int8(false));
    let on_every_isa = |model| {
        Isa::ALL
            .iter()
            .filter(|isa| isa.keeps_same_bits())
            .filter_map(|&isa| load(model, isa))
            .collect()
    };
    let mut networks: Vec<Vec<Network>> = models.iter().map(on_every_isa).collect();
    let weight_only = golden("written_by_others").join("bitsandbytes-int8");
    let checkpoint = Checkpoint::open(&weight_only).expect("opens");
    networks.push(
        Kernels::available()
            .filter(|kernels| kernels.isa().keeps_same_bits())
            .map(|kernels| {
                let integers = WeightOnlyArithmetic::Integers;
                let network = Network::load_with(&checkpoint, kernels, integers);
                network.expect("loads").0
            })
            .collect(),
    );
    networks
});

fn bits(states: &[f32]) -> Vec<u32> {
    states.iter().map(|value| value.to_bits()).collect()
}

/// Mostly short ones, and some from about where attention goes on in integers.
fn sequence() -> impl Strategy<Value = Vec<u32>> {
    let of = |length| prop::collection::vec(0u32..64, length);
    prop_oneof![6 => of(1..30), 1 => of(60..70), 1 => of(100..140)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// The result of a sequence is the same bits alone, in any batch, in any order, on 1, 2 or 3 threads, on every
    /// instruction set.
    #[test]
    fn an_int8_result_depends_on_nothing_but_the_sequence(
        model in 0usize..3,
        sequences in prop::collection::vec(sequence(), 1..40),
        rotation in 0usize..40,
        threads in 1usize..4,
    ) {
        let networks = &INT8[model];
        let hidden_size = networks[0].spec().hidden_size;
        let vocabulary = u32::try_from(networks[0].spec().vocab_size).expect("small");
        let mut sequences = sequences;
        for sequence in &mut sequences {
            sequence.truncate(networks[0].spec().positions.max_tokens());
            sequence.iter_mut().for_each(|id| *id %= vocabulary);
        }
        let alone: Vec<Vec<u32>> = sequences
            .iter()
            .map(|sequence| bits(&networks[0].hidden_states(&RaggedBatch::from_sequences(&[sequence]), 1).expect("runs")))
            .collect();
        let mut order: Vec<usize> = (0..sequences.len()).collect();
        order.rotate_left(rotation % sequences.len());
        let batch = order.iter().map(|&index| sequences[index].as_slice()).collect::<Vec<_>>();
        let batch = RaggedBatch::from_sequences(&batch);
        for network in networks {
            let states = bits(&network.hidden_states(&batch, threads).expect("runs"));
            for (position, &index) in order.iter().enumerate() {
                let rows = batch.range(position);
                prop_assert_eq!(&states[rows.start * hidden_size..rows.end * hidden_size], &alone[index][..]);
            }
        }
    }
}

/// Of few tokens, several threads share the columns of every product, whatever its weight and what follows it.
#[test]
fn threads_that_share_columns_give_the_bits_of_one() {
    let wide = || TinyCheckpoint::of("bert-long").widened();
    let mut weight_only = wide().with_dynamic_int8(false);
    weight_only.config["quantization_config"]["config_groups"]["group_0"]
        .as_object_mut()
        .unwrap()
        .remove("input_activations");
    let models = [
        ("float", wide()),
        ("dynamic", wide().with_dynamic_int8(false)),
        ("static", wide().with_static_int8(0.03, |_| true)),
        (
            "static output",
            wide().with_static_int8(0.03, |module| module == "encoder.layer.0.output.dense"),
        ),
        (
            "static key",
            wide().with_static_int8(0.03, |module| module.ends_with("key")),
        ),
        (
            "a scale for a text",
            wide().with_int8_scales_for_texts(false),
        ),
        ("weight-only", weight_only),
    ];
    let isas = Isa::ALL.iter().filter(|isa| isa.keeps_same_bits());
    for ((name, checkpoint), &isa) in models
        .iter()
        .flat_map(|model| isas.clone().map(move |isa| (model, isa)))
    {
        let Some(network) = load(checkpoint, isa) else {
            continue;
        };
        for lengths in [&[9][..], &[16], &[3, 1, 20], &[64], &[70, 40]] {
            let texts: Vec<Vec<u32>> = (1u32..)
                .zip(lengths)
                .map(|(seed, &length)| (0..length).map(|index| (index * 7 + seed) % 80).collect())
                .collect();
            let batch =
                RaggedBatch::from_sequences(&texts.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let expected = bits(&network.hidden_states(&batch, 1).expect("runs"));
            for threads in [2, 3, 5] {
                let found = bits(&network.hidden_states(&batch, threads).expect("runs"));
                assert!(
                    found == expected,
                    "{name} on {isa:?}, {lengths:?} tokens, {threads} threads"
                );
            }
        }
    }
}

/// Attention in integers gives what attention in float gives, but for its codes: the two meet where a sequence is one token longer.
#[test]
fn integer_attention_is_near_float_attention() {
    let network = &INT8[0][0];
    let spec = network.spec();
    let vocabulary = u32::try_from(spec.vocab_size).expect("small");
    let sequence: Vec<u32> = (0..200).map(|index| (index * 7 + 3) % vocabulary).collect();
    let run = |tokens: usize| {
        let batch = RaggedBatch::from_sequences(&[&sequence[..tokens]]);
        network.hidden_states(&batch, 1).expect("runs")
    };
    let (float, integers) = (run(63), run(64));
    // The additional token takes about a 64th of the attention; codes of a 127th and the steps of int8 layers are as small. A wrong scale
    // or offset gives several units.
    let difference = largest_difference(&float, &integers[..float.len()]);
    assert!(difference > 0.0 && difference < 0.5, "{difference}");
}

/// With one scale for a text its rows stay together, however many they are and whoever shares them: what a tap sees, which is
/// shown whole texts in any case, is what everyone gets. Each text counts for itself.
#[test]
fn a_scale_for_a_text_is_that_of_all_its_rows() {
    let checkpoint = TinyCheckpoint::of("bert-long").with_int8_scales_for_texts(true);
    let network = load(&checkpoint, Isa::Scalar).expect("scalar");
    let vocabulary = u32::try_from(network.spec().vocab_size).expect("small");
    let lengths = [network.spec().positions.max_tokens(), 1, 7, 1, 130, 40];
    assert!(
        lengths[0] > 128,
        "more rows than go through a layer at a time: {}",
        lengths[0]
    );
    let texts: Vec<Vec<u32>> = (1u32..)
        .zip(lengths)
        .map(|(seed, length)| {
            (1u32..)
                .map(|i| i * i * seed % vocabulary)
                .take(length)
                .collect()
        })
        .collect();
    let batch = RaggedBatch::from_sequences(&texts.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let tapped = network
        .hidden_states_tapped(&batch, &mut Everything)
        .expect("runs");
    for threads in [1, 3] {
        let states = network.hidden_states(&batch, threads).expect("runs");
        assert_eq!(bits(&states), bits(&tapped), "{threads} threads");
    }
    let alone = texts.iter().flat_map(|text| {
        let alone = RaggedBatch::from_sequences(&[text]);
        network.hidden_states(&alone, 3).expect("runs")
    });
    assert_eq!(bits(&alone.collect::<Vec<_>>()), bits(&tapped));
}

/// Looks at everything.
struct Everything;

impl Tap for Everything {
    fn wants(&self, _site: &str) -> bool {
        true
    }

    fn see(&mut self, _site: &str, _rows: usize, _columns: usize, _values: &[f32]) {}
}

/// The int8 layers give what the dequantized weights give in float, but for the rounding of activations.
#[test]
fn dynamic_int8_is_near_the_float_model_of_the_same_weights() {
    for symmetric in [false, true] {
        let float = TinyCheckpoint::of("bert");
        let mut dequantized = TinyCheckpoint::of("bert");
        for module in float.spec().catalogue().linear_modules() {
            let name = format!("{}.weight", module.name);
            let rows = quantize_rows_int8(
                &float.tensors[&name].values(),
                module.shape[0],
                module.shape[1],
            );
            let values: Vec<f32> = rows
                .codes
                .chunks(module.shape[1])
                .zip(&rows.scales)
                .flat_map(|(codes, scale)| codes.iter().map(move |&code| f32::from(code) * scale))
                .collect();
            dequantized
                .tensors
                .insert(name, Tensor::f32(&module.shape, &values));
        }
        let batch =
            RaggedBatch::from_sequences(&[&[2, 7, 9, 11, 3], &[2, 30, 31, 32, 33, 34, 35, 3]]);
        let run = |checkpoint: &TinyCheckpoint| {
            load(checkpoint, Isa::Scalar)
                .expect("scalar")
                .hidden_states(&batch, 1)
                .expect("runs")
        };
        let (int8, float) = (run(&float.with_dynamic_int8(symmetric)), run(&dequantized));
        let difference = largest_difference(&int8, &float);
        // Activations are rounded to 1/255 of their range, values of about 6 after LayerNorm: 0.02 a value, in random directions
        // over two layers. Ten times that is far below what a wrong scale or zero point gives (several units).
        assert!(
            difference > 0.0 && difference < 0.2,
            "symmetric {symmetric}: {difference}"
        );
    }
}

#[test]
fn half_precision_tables_are_kept_compact_and_widened_exactly() {
    for (case, bytes) in [("bert-fp16", 2), ("bert-bf16", 2)] {
        let stored = TinyCheckpoint::of(case);
        let mut widened = TinyCheckpoint::of(case);
        for tensor in widened
            .tensors
            .values_mut()
            .filter(|tensor| tensor.dtype != Dtype::F32)
        {
            assert_eq!(
                tensor.bytes.len(),
                bytes * tensor.shape.iter().product::<usize>()
            );
            let mut values = vec![0.0; tensor.shape.iter().product()];
            if tensor.dtype == Dtype::F16 {
                fewbit_numerics::half_precision::f16_bytes_to_f32(&tensor.bytes, &mut values);
            } else {
                fewbit_numerics::half_precision::bf16_bytes_to_f32(&tensor.bytes, &mut values);
            }
            *tensor = Tensor::f32(&tensor.shape, &values);
        }
        let batch = RaggedBatch::from_sequences(&[&[2, 7, 9, 11, 3]]);
        let (stored, widened) = (
            load(&stored, Isa::Scalar).expect("scalar"),
            load(&widened, Isa::Scalar).expect("scalar"),
        );
        assert!(stored.memory_bytes() < widened.memory_bytes());
        let states = |network: &Network| bits(&network.hidden_states(&batch, 1).expect("runs"));
        assert_eq!(states(&stored), states(&widened), "{case}");
    }
}

#[test]
fn int8_embeddings_are_codes_times_the_row_scale() {
    let mut quantized = TinyCheckpoint::of("bert").with_dynamic_int8(false);
    let mut dequantized = TinyCheckpoint::of("bert").with_dynamic_int8(false);
    let name = "embeddings.word_embeddings.weight";
    let shape = quantized.tensors[name].shape.clone();
    let rows = quantize_rows_int8(&quantized.tensors[name].values(), shape[0], shape[1]);
    let codes = rows.codes.iter().map(|code| code.cast_unsigned()).collect();
    quantized.tensors.insert(
        name.to_owned(),
        Tensor {
            dtype: Dtype::I8,
            shape: shape.clone(),
            bytes: codes,
        },
    );
    quantized.tensors.insert(
        "embeddings.word_embeddings.weight_scale".to_owned(),
        Tensor::f32(&[shape[0], 1], &rows.scales),
    );
    let groups = &mut quantized.config["quantization_config"]["config_groups"];
    groups["group_1"] = serde_json::json!({
        "targets": ["re:.*word_embeddings$"],
        "weights": {"num_bits": 8, "type": "int", "symmetric": true, "strategy": "channel", "dynamic": false},
        "input_activations": null,
    });
    let values: Vec<f32> = rows
        .codes
        .chunks(shape[1])
        .zip(&rows.scales)
        .flat_map(|(codes, scale)| codes.iter().map(move |&code| f32::from(code) * scale))
        .collect();
    dequantized
        .tensors
        .insert(name.to_owned(), Tensor::f32(&shape, &values));
    let batch = RaggedBatch::from_sequences(&[&[2, 7, 9, 11, 3]]);
    let run = |checkpoint: &TinyCheckpoint| {
        load(checkpoint, Isa::Scalar)
            .expect("scalar")
            .hidden_states(&batch, 1)
            .expect("runs")
    };
    assert_eq!(bits(&run(&quantized)), bits(&run(&dequantized)));
}

/// Looks at every site and remembers nothing.
struct Onlooker {
    seen: usize,
}

impl Tap for Onlooker {
    fn wants(&self, _site: &str) -> bool {
        true
    }

    fn see(&mut self, _site: &str, _rows: usize, _columns: usize, values: &[f32]) {
        self.seen += values.len();
    }
}

/// While somebody looks, every operation is done apart and the middle of the feed-forward exists in floats.
#[test]
fn fused_static_layers_give_the_bits_of_separate_operations() {
    let everything: fn(&str) -> bool = |_| true;
    let output: fn(&str) -> bool =
        |module| module.ends_with("output.dense") && !module.ends_with("attention.output.dense");
    let all_but_output: fn(&str) -> bool = |module| !module.contains("output.dense");
    let sequences: [&[u32]; 3] = [&[2, 7, 9, 11, 3], &[2], &[2, 30, 31, 32, 33, 34, 35, 3]];
    let batch = RaggedBatch::from_sequences(&sequences);
    for case in [
        "bert",
        "bert-relu",
        "bert-quick-gelu",
        "bert-silu",
        "bert-gelu-new",
        "bert-heads-of-12",
    ] {
        let mut results = Vec::new();
        for is_static in [everything, output, all_but_output] {
            let checkpoint = TinyCheckpoint::of(case).with_static_int8(0.03, is_static);
            let networks: Vec<Network> = Isa::ALL
                .iter()
                .filter(|isa| isa.keeps_same_bits())
                .filter_map(|&isa| load(&checkpoint, isa))
                .collect();
            let mut onlooker = Onlooker { seen: 0 };
            let separate = networks[0].hidden_states_tapped(&batch, &mut onlooker);
            let separate = bits(&separate.expect("runs"));
            assert!(onlooker.seen > 0);
            for network in &networks {
                for threads in [1, 2] {
                    let fused = network.hidden_states(&batch, threads).expect("runs");
                    assert_eq!(
                        bits(&fused),
                        separate,
                        "{case} on {:?}",
                        network.kernels().isa()
                    );
                }
            }
            results.push(separate);
        }
        // The scales take part in what comes out.
        assert!(results[0] != results[1] && results[0] != results[2]);
    }
}

#[test]
fn a_static_scale_of_zero_is_refused() {
    for scale in [0.0, -1.0, 1e-40, f32::NAN, f32::INFINITY] {
        let directory = TinyCheckpoint::of("bert")
            .with_static_int8(scale, |_| true)
            .write();
        let checkpoint = Checkpoint::open(directory.path()).expect("opens");
        let error = Network::load(&checkpoint).expect_err("refused").to_string();
        let start =
            "model.safetensors: tensor `encoder.layer.0.attention.self.query.input_scale`: ";
        assert!(error.contains(start) && error.contains("hint"), "{error}");
    }
}
