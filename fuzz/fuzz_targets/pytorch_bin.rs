//! A pytorch_model.bin: read without running anything, in time and memory that its length bounds, or refused with the file's name.
#![no_main]

use fewbit_checkpoint::Checkpoint;
use fewbit_fuzz::{Scratch, Tensor, safetensors_file};
use fewbit_numerics::dtype::DType;
use libfuzzer_sys::fuzz_target;
use safetensors::Dtype;
use std::collections::HashSet;
use std::sync::LazyLock;

static SCRATCH: LazyLock<Scratch> = LazyLock::new(|| {
    let scratch = Scratch::new();
    scratch.write("config.json", b"{}");
    scratch
});
/// Where what was read is written again, as safetensors.
static AGAIN: LazyLock<Scratch> = LazyLock::new(|| {
    let scratch = Scratch::new();
    scratch.write("config.json", b"{}");
    scratch
});

fuzz_target!(|file: &[u8]| {
    let path = SCRATCH.write("pytorch_model.bin", file);
    let checkpoint = match Checkpoint::open(SCRATCH.path()) {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            assert_eq!(error.file(), Some(path.as_path()), "{error}");
            return;
        }
    };
    let mut names = HashSet::new();
    let mut tensors = Vec::new();
    for info in checkpoint.tensors() {
        assert!(names.insert(&info.name), "`{}` stands twice", info.name);
        let view = checkpoint.get(&info.name).expect("a tensor that is listed");
        let bytes = view.bytes().expect("no adapter changes it");
        let elements: usize = info.shape.iter().product();
        assert_eq!(bytes.len(), elements * info.dtype.bytes());
        assert_eq!(bytes.len(), info.byte_len);
        // A view of a storage has at most its bytes, a copy at most those of the file.
        assert!(bytes.len() <= file.len());
        let mapped = checkpoint
            .mapped(&info.name)
            .expect("no adapter changes it");
        assert_eq!(mapped.bytes(), &*bytes);
        let floats = view.to_f32();
        assert_eq!(
            floats.is_ok(),
            matches!(
                info.dtype,
                DType::F64 | DType::F32 | DType::F16 | DType::BF16
            )
        );
        // The metadata of a safetensors file have this name.
        if info.name != "__metadata__" {
            tensors.push(Tensor {
                name: info.name.clone(),
                dtype: safetensors_dtype(info.dtype),
                shape: info.shape.clone(),
                bytes: bytes.into_owned(),
            });
        }
    }
    // Many names may share one storage: written again, each has its own bytes.
    if tensors
        .iter()
        .map(|tensor| tensor.bytes.len())
        .sum::<usize>()
        > 1 << 20
    {
        return;
    }
    AGAIN.write("model.safetensors", &safetensors_file(&tensors));
    let again = Checkpoint::open(AGAIN.path()).expect("what was read can be written");
    for tensor in &tensors {
        let view = again.get(&tensor.name).expect("the same names");
        assert_eq!(view.info.shape, tensor.shape);
        assert_eq!(*view.bytes().expect("stored"), *tensor.bytes);
    }
});

fn safetensors_dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::Bool => Dtype::BOOL,
        DType::U8 => Dtype::U8,
        DType::I8 => Dtype::I8,
        DType::F8E4M3 => Dtype::F8_E4M3,
        DType::F8E5M2 => Dtype::F8_E5M2,
        DType::I16 => Dtype::I16,
        DType::U16 => Dtype::U16,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I32 => Dtype::I32,
        DType::U32 => Dtype::U32,
        DType::F32 => Dtype::F32,
        DType::F64 => Dtype::F64,
        DType::I64 => Dtype::I64,
        DType::U64 => Dtype::U64,
    }
}
