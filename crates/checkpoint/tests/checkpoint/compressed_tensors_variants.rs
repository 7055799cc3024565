//! compressed-tensors checkpoints made by hand: configs and tensors that are refused, and the variants that are read.

use crate::checkpoint_builder::{CheckpointDirectory, Tensor, f32_tensor, tensor};
use fewbit_checkpoint::{Checkpoint, CheckpointErrorKind};
use insta::assert_snapshot;
use safetensors::Dtype;
use serde_json::{Value, json};

/// The config of one group with `changes` merged into it.
fn group(changes: &Value) -> Value {
    let mut group = json!({
        "targets": ["Linear"],
        "weights": {"num_bits": 8, "type": "int", "symmetric": true, "strategy": "channel"},
        "input_activations": {"num_bits": 8, "type": "int", "symmetric": true, "strategy": "token", "dynamic": true},
    });
    for (field, value) in changes.as_object().unwrap() {
        match (group.get_mut(field).and_then(Value::as_object_mut), value) {
            (Some(fields), Value::Object(changes)) => fields.extend(changes.clone()),
            _ => group[field] = value.clone(),
        }
    }
    json!({"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": {"group_0": group}})
}

/// The tensors of a 2 x 8 int-quantized module `m`.
fn int8_tensors(scale: &[f32; 2]) -> Vec<Tensor> {
    vec![
        tensor("m.weight", Dtype::I8, &[2, 8], [[1u8; 16]]),
        f32_tensor("m.weight_scale", &[2, 1], scale),
    ]
}

fn read(config: &Value, tensors: &[Tensor]) -> Result<Vec<f32>, (CheckpointErrorKind, String)> {
    let directory = CheckpointDirectory::new(&json!({"quantization_config": config}), tensors);
    let result = Checkpoint::open(directory.path())
        .and_then(|checkpoint| checkpoint.stored_weight("m", [2, 8])?.dequantize([2, 8]));
    result.map_err(|error| (error.kind(), directory.text(&error)))
}

#[test]
fn schemes_that_are_not_read() {
    for (config, expected) in [
        (
            group(&json!({"format": "marlin-24"})),
            "compressed-tensors format `marlin-24` (config_groups.group_0)",
        ),
        (
            group(&json!({"format": "mxfp8-quantized"})),
            "compressed-tensors format `mxfp8-quantized` (config_groups.group_0)",
        ),
        (
            group(&json!({"weights": {"type": "float"}})),
            "compressed-tensors number type `float` (config_groups.group_0.weights)",
        ),
        (
            group(&json!({"weights": {"symmetric": false}})),
            "compressed-tensors weights of 8 bits with groups or zero points, and quantized activations (config_groups.group_0)",
        ),
        (
            group(&json!({"weights": {"strategy": "block"}})),
            "compressed-tensors weight strategy `block` (config_groups.group_0)",
        ),
        (
            group(&json!({"weights": {"num_bits": 3}})),
            "compressed-tensors int-quantized with 3 bits, strategy `channel` (config_groups.group_0)",
        ),
        (
            group(
                &json!({"format": "pack-quantized", "weights": {"num_bits": 3}, "input_activations": null}),
            ),
            "compressed-tensors pack-quantized with 3 bits, strategy `channel` (config_groups.group_0)",
        ),
        (
            group(&json!({"weights": {"actorder": "group"}})),
            "compressed-tensors actorder \"group\" (config_groups.group_0)",
        ),
        (
            group(&json!({"weights": {"dynamic": true}})),
            "compressed-tensors dynamic weights (config_groups.group_0)",
        ),
        (
            group(&json!({"input_activations": {"num_bits": 4}})),
            "compressed-tensors input activations with 4 bits, strategy `token`, dynamic true (config_groups.group_0.input_activations)",
        ),
        // Without PyTorch's keyword nothing says how the scale is chosen.
        (
            group(&json!({"input_activations": {"strategy": "tensor", "symmetric": false}})),
            "compressed-tensors input activations with 8 bits, strategy `tensor`, dynamic true (config_groups.group_0.input_activations)",
        ),
        (
            group(
                &json!({"input_activations": {"num_bits": 6, "strategy": "tensor", "dynamic": false}}),
            ),
            "compressed-tensors input activations with 6 bits, strategy `tensor`, dynamic false (config_groups.group_0.input_activations)",
        ),
        (
            group(&json!({"input_activations": {"dynamic": "local"}})),
            "compressed-tensors dynamic `local` (config_groups.group_0.input_activations)",
        ),
        (
            group(&json!({"output_activations": {"num_bits": 8}})),
            "compressed-tensors output_activations (config_groups.group_0)",
        ),
    ] {
        let (kind, text) = read(&config, &int8_tensors(&[1.0, 1.0])).unwrap_err();
        assert_eq!(kind, CheckpointErrorKind::UnsupportedQuantization, "{text}");
        let first = text.lines().next().unwrap();
        assert_eq!(first, format!("DIR/config.json: unsupported: {expected}"));
    }
    for (field, value, expected) in [
        (
            "sparsity_config",
            json!({"format": "sparse-24-bitmask"}),
            "compressed-tensors sparsity format `sparse-24-bitmask`",
        ),
        (
            "kv_cache_scheme",
            json!({"num_bits": 8}),
            "compressed-tensors kv_cache_scheme",
        ),
        (
            "transform_config",
            json!({"config_groups": {}}),
            "compressed-tensors transform_config",
        ),
        (
            "quantization_status",
            json!("frozen"),
            "compressed-tensors with quantization_status `frozen`, expected `compressed`",
        ),
    ] {
        let mut config = group(&json!({}));
        config[field] = value;
        let (_, text) = read(&config, &int8_tensors(&[1.0, 1.0])).unwrap_err();
        assert_eq!(
            text.lines().next().unwrap(),
            format!("DIR/config.json: unsupported: {expected}")
        );
    }
}

#[test]
fn malformed_configs() {
    let mut no_groups = group(&json!({}));
    no_groups["config_groups"] = json!({});
    for (config, expected) in [
        (
            json!({"quant_method": "compressed-tensors"}),
            "quantization_config.config_groups: expected an object, found none",
        ),
        (
            no_groups,
            "quantization_config.config_groups: expected at least one group, found none",
        ),
        (
            group(&json!({"weights": null})),
            "quantization_config.config_groups.group_0.weights: expected an object, found none",
        ),
        (
            group(&json!({"weights": {"num_bits": "8"}})),
            "quantization_config.config_groups.group_0.weights.num_bits: expected a positive integer, found \"8\"",
        ),
        (
            group(
                &json!({"input_activations": {"strategy": "tensor", "symmetric": false, "observer_kwargs": {"reduce_range": 1}}}),
            ),
            "quantization_config.config_groups.group_0.input_activations.observer_kwargs.reduce_range: expected true or false, found 1",
        ),
        (
            group(&json!({"weights": {"strategy": "group", "group_size": 0}})),
            "quantization_config.config_groups.group_0.weights.group_size: expected a positive integer, found 0",
        ),
        (
            group(&json!({"targets": "Linear"})),
            "quantization_config.config_groups.group_0.targets: expected a list of names, found \"Linear\"",
        ),
        (
            group(&json!({"targets": [1]})),
            "quantization_config.config_groups.group_0.targets: expected a name, found 1",
        ),
    ] {
        let (kind, text) = read(&config, &int8_tensors(&[1.0, 1.0])).unwrap_err();
        assert_eq!(kind, CheckpointErrorKind::Malformed, "{text}");
        assert_eq!(text, format!("DIR/config.json: {expected}"));
    }
}

#[test]
fn tensors_that_contradict_the_config() {
    let config = group(&json!({}));
    let (kind, text) = read(&config, &int8_tensors(&[1.0, f32::NAN])).unwrap_err();
    assert_eq!(kind, CheckpointErrorKind::NonFinite);
    assert_snapshot!(text, @r"
    DIR/model.safetensors: tensor `m.weight_scale`: element 1: expected a finite number, found NaN
      hint: the checkpoint is damaged, or was quantized from weights that were not finite
    ");

    let float = [f32_tensor("m.weight", &[2, 8], &[1.0; 16])];
    let (kind, text) = read(&config, &float).unwrap_err();
    assert_eq!(kind, CheckpointErrorKind::WrongDType);
    assert_snapshot!(text, @r"
    DIR/model.safetensors: tensor `m.weight`: config.json (compressed-tensors int-quantized): expected the int-quantized tensors of group `group_0`, found F32
      hint: a module that stays float must be on the `ignore` list of quantization_config
    ");
    // On the list, or outside every group, it is float.
    let mut ignoring = config.clone();
    ignoring["ignore"] = json!(["re:.*m$"]);
    assert_eq!(read(&ignoring, &float).unwrap(), [1.0; 16]);
    assert_eq!(
        read(&group(&json!({"targets": ["other"]})), &float).unwrap(),
        [1.0; 16]
    );

    let (_, text) = read(&ignoring, &int8_tensors(&[1.0, 1.0])).unwrap_err();
    assert_snapshot!(text, @r"
    DIR/model.safetensors: tensor `m.weight_scale`: config.json (compressed-tensors int-quantized): expected a float weight, as no group covers the module, found int-quantized
      hint: config.json and the weights belong to different models, or its list of ignored modules is wrong
    ");
    let packed = group(&json!({"format": "pack-quantized", "input_activations": null}));
    let (_, text) = read(&packed, &int8_tensors(&[1.0, 1.0])).unwrap_err();
    assert_snapshot!(text, @r"
    DIR/model.safetensors: tensor `m.weight_scale`: config.json (compressed-tensors pack-quantized): expected pack-quantized, found int-quantized
      hint: config.json and the weights belong to different models, or its list of ignored modules is wrong
    ");
    let (kind, text) = read(&config, &int8_tensors(&[1.0, 1.0])[..1]).unwrap_err();
    assert_eq!(kind, CheckpointErrorKind::WrongDType, "{text}");
    let (kind, text) = read(&config, &[f32_tensor("other.weight", &[1], &[0.0])]).unwrap_err();
    assert_eq!(kind, CheckpointErrorKind::MissingTensor, "{text}");
}

#[test]
fn int_quantized_details() {
    let dynamic = group(&json!({}));
    let with = |extra: Vec<Tensor>| [int8_tensors(&[0.5, 2.0]), extra].concat();
    let zero_point = |values: [u8; 2]| tensor("m.weight_zero_point", Dtype::I8, &[2, 1], [values]);
    // Zeros, as older writers stored them.
    assert_eq!(
        read(&dynamic, &with(vec![zero_point([0, 0])])).unwrap()[7..9],
        [0.5, 2.0]
    );
    let (kind, text) = read(&dynamic, &with(vec![zero_point([0, 1])])).unwrap_err();
    assert_eq!(kind, CheckpointErrorKind::UnsupportedQuantization);
    assert!(text.starts_with("DIR/model.safetensors: tensor `m.weight_zero_point`: unsupported: compressed-tensors weight zero points"), "{text}");

    let (_, text) = read(
        &dynamic,
        &with(vec![tensor(
            "m.weight_g_idx",
            Dtype::I32,
            &[8],
            [[0u8; 32]],
        )]),
    )
    .unwrap_err();
    assert!(
        text.starts_with("DIR/model.safetensors: tensor `m.weight_g_idx`: unsupported: "),
        "{text}"
    );

    // One scale for the whole weight, and scales without the dimension of 1.
    let weight = int8_tensors(&[1.0, 1.0])[0].clone();
    let per_tensor = group(&json!({"weights": {"strategy": "tensor"}}));
    assert_eq!(
        read(
            &per_tensor,
            &[weight.clone(), f32_tensor("m.weight_scale", &[1], &[0.25])]
        )
        .unwrap(),
        [0.25; 16]
    );
    assert_eq!(
        read(
            &dynamic,
            &[
                weight.clone(),
                f32_tensor("m.weight_scale", &[2], &[0.5, 2.0])
            ]
        )
        .unwrap()[7..9],
        [0.5, 2.0]
    );
    let (_, text) = read(
        &dynamic,
        &[weight, f32_tensor("m.weight_scale", &[1], &[0.25])],
    )
    .unwrap_err();
    assert_snapshot!(text, @"DIR/model.safetensors: tensor `m.weight_scale`: shape: expected [2], found [1]");

    let static_inputs = |symmetric: bool| {
        group(
            &json!({"input_activations": {"strategy": "tensor", "dynamic": false, "symmetric": symmetric}}),
        )
    };
    let inputs = |zero_point: u8| {
        with(vec![
            f32_tensor("m.input_scale", &[1], &[0.1]),
            tensor("m.input_zero_point", Dtype::I8, &[1], [[zero_point]]),
        ])
    };
    assert!(read(&static_inputs(false), &inputs(251)).is_ok());
    let (_, text) = read(&static_inputs(true), &inputs(251)).unwrap_err();
    assert_snapshot!(text, @"DIR/model.safetensors: tensor `m.input_zero_point`: zero point: expected 0, as the config says symmetric, found -5");
    let mut seven_bits = static_inputs(false);
    seven_bits["config_groups"]["group_0"]["input_activations"]["num_bits"] = 7.into();
    assert!(read(&seven_bits, &inputs(63)).is_ok());
    let (_, text) = read(&seven_bits, &inputs(64)).unwrap_err();
    assert_snapshot!(text, @"DIR/model.safetensors: tensor `m.input_zero_point`: zero point: expected a number in -64..=63, found 64");
    let (kind, text) = read(&static_inputs(false), &inputs(0)[..3]).unwrap_err();
    assert_eq!(kind, CheckpointErrorKind::MissingTensor);
    assert!(text.contains("`m.input_zero_point`: missing"), "{text}");
    for scale in [0.0, -0.5, 1e-40] {
        let scale = with(vec![f32_tensor("m.input_scale", &[1], &[scale])]);
        let (kind, text) = read(&static_inputs(true), &scale).unwrap_err();
        assert_eq!(kind, CheckpointErrorKind::Malformed);
        assert!(
            text.contains("scale: expected a positive number, found"),
            "{text}"
        );
    }
    let (_, text) = read(&static_inputs(true), &int8_tensors(&[1.0, 1.0])).unwrap_err();
    assert!(text.contains("`m.input_scale`: missing"), "{text}");
}

#[test]
fn pack_quantized_details() {
    let config = group(&json!({
        "format": "pack-quantized",
        "weights": {"num_bits": 4, "strategy": "group", "group_size": 4},
        "input_activations": null,
    }));
    // Eight codes of 4 bits a row: -8..=-1 and 0..=7, low nibble first.
    let packed = tensor(
        "m.weight_packed",
        Dtype::I32,
        &[2, 1],
        [0x7654_3210u32.to_le_bytes(), 0xfedc_ba98u32.to_le_bytes()],
    );
    let scale = f32_tensor("m.weight_scale", &[2, 2], &[1.0, 2.0, 0.5, 0.25]);
    let shape = |columns: i64| {
        tensor(
            "m.weight_shape",
            Dtype::I64,
            &[2],
            [2i64.to_le_bytes(), columns.to_le_bytes()],
        )
    };
    let values = read(&config, &[packed.clone(), scale.clone(), shape(8)]).unwrap();
    assert_eq!(
        values[..8],
        [-8.0, -7.0, -6.0, -5.0, -8.0, -6.0, -4.0, -2.0]
    );
    assert_eq!(values[8..], [0.0, 0.5, 1.0, 1.5, 1.0, 1.25, 1.5, 1.75]);

    let (_, text) = read(&config, &[packed.clone(), scale.clone(), shape(9)]).unwrap_err();
    assert_snapshot!(text, @"DIR/model.safetensors: tensor `m.weight_shape`: content: expected [2, 8], found [2, 9]");
    let (_, text) = read(
        &config,
        &[
            packed.clone(),
            f32_tensor("m.weight_scale", &[2, 1], &[1.0, 1.0]),
            shape(8),
        ],
    )
    .unwrap_err();
    assert_snapshot!(text, @"DIR/model.safetensors: tensor `m.weight_scale`: shape: expected [2, 2], found [2, 1]");
    let wide = tensor("m.weight_packed", Dtype::I32, &[2, 2], [[0u8; 16]]);
    let (_, text) = read(&config, &[wide, scale.clone(), shape(8)]).unwrap_err();
    assert_snapshot!(text, @"DIR/model.safetensors: tensor `m.weight_packed`: shape: expected [2, 1], found [2, 2]");
    let mut odd_groups = config;
    odd_groups["config_groups"]["group_0"]["weights"]["group_size"] = json!(3);
    let (_, text) = read(&odd_groups, &[packed, scale, shape(8)]).unwrap_err();
    assert_snapshot!(text, @"DIR/model.safetensors: tensor `m.weight_scale`: group_size: expected a divisor of the 8 columns of the weight, found 3");
}
