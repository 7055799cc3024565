//! Parameters are counted by what tensors encode: in files of the real libraries, by the shapes that these dequantize to.

use crate::checkpoint_builder::golden;
use fewbit_checkpoint::Checkpoint;
use safetensors::SafeTensors;
use std::fs;

#[test]
fn every_layout_counts_the_elements_of_its_weights() {
    for (name, least_modules) in [
        ("bitsandbytes-4bit", 4),
        ("bitsandbytes-8bit", 1),
        ("compressed-tensors", 9),
    ] {
        let checkpoint = Checkpoint::open(golden(name)).unwrap();
        let bytes = fs::read(golden(name).join("expected.safetensors")).unwrap();
        let expected = SafeTensors::deserialize(&bytes).unwrap();
        let mut modules = 0;
        for (module, view) in expected.tensors() {
            let counts: Vec<u64> = checkpoint
                .weight_tensor_names(&module)
                .iter()
                .filter_map(|tensor| {
                    let info = checkpoint.get(tensor).unwrap().info;
                    checkpoint.parameter_count(info).unwrap()
                })
                .collect();
            let elements: usize = view.shape().iter().product();
            // One tensor holds the parameters; whatever goes with it counts as nothing, not as zero parameters.
            assert_eq!(counts, [elements as u64], "{name}: {module}");
            modules += 1;
        }
        assert!(modules >= least_modules, "{name}: {modules}");
    }
}
