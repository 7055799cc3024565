//! The tensors of a state dict: where each lies in the file, or a copy of those whose elements lie in another order.
use super::objects::{Object, Objects, Storage, Tensor, Value};
use super::{malformed, unsupported};
use crate::memory_map::{MappedFile, MappedTensor};
use crate::weights_file::WeightsFile;
use crate::{CheckpointError, TensorInfo};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Reads the state dict `root`. `place` says which bytes of the file a storage's are.
pub(super) fn read<'a>(
    path: &Path,
    map: &Arc<MappedFile>,
    objects: &Objects<'a>,
    root: Value<'a>,
    place: impl Fn(&Storage<'a>) -> Result<Range<usize>, CheckpointError>,
) -> Result<WeightsFile, CheckpointError> {
    let Some(Object::Dict(entries)) = objects.object(root) else {
        return Err(unsupported(format!(
            "expected a state dict, from names to tensors, found {}",
            objects.describe(root)
        )));
    };
    let mut names = HashSet::with_capacity(entries.len());
    let mut tensors = Vec::with_capacity(entries.len());
    let mut data = Vec::with_capacity(entries.len());
    let mut others = Vec::new();
    let mut copies = Copies::new(map);
    for &(name, value) in entries {
        let Value::Str(name) = name else {
            return Err(malformed(format!(
                "expected the names of tensors as keys of the state dict, found {}",
                objects.describe(name)
            )));
        };
        let at_tensor = |error: CheckpointError| error.at_tensor(name);
        if !names.insert(name) {
            return Err(at_tensor(malformed("the state dict has this name twice")));
        }
        let Some(Object::Tensor(tensor)) = objects.object(value) else {
            others.push((name, objects.describe(value)));
            continue;
        };
        let layout = Layout::new(tensor).map_err(at_tensor)?;
        let storage = place(&tensor.storage).map_err(at_tensor)?;
        let bytes = layout.within(tensor, storage).map_err(at_tensor)?;
        let mapped = if layout.is_contiguous() {
            MappedTensor::new(Arc::clone(map), bytes)
        } else {
            copies.row_major(&layout, bytes.start).map_err(at_tensor)?
        };
        tensors.push(TensorInfo {
            name: name.to_owned(),
            dtype: tensor.dtype,
            byte_len: layout.byte_len,
            shape: layout.shape,
            file: path.to_owned(),
        });
        data.push(mapped);
    }
    pass_over(path, &others, tensors.is_empty())?;
    Ok(WeightsFile::new(tensors, data))
}

/// What is no tensor is passed over, with a warning, as transformers does it. Where there is nothing else, transformers would give the
/// model random weights: the state dict is probably one of these values.
fn pass_over(path: &Path, others: &[(&str, &str)], are_all: bool) -> Result<(), CheckpointError> {
    if let (true, Some((name, found))) = (are_all, others.first()) {
        return Err(unsupported(format!(
            "expected tensors in the state dict, found none: `{name}` is {found}"
        ))
        .hint(format!(
            "save the state dict itself: torch.save(torch.load(FILE, weights_only=True)[\"{name}\"], FILE)"
        )));
    }
    for (name, found) in others {
        tracing::warn!(
            "{}: `{name}` is {found}, not a tensor, and is passed over",
            path.display()
        );
    }
    Ok(())
}

/// As many as PyTorch has.
const MAX_DIMENSIONS: usize = 64;

/// Sizes and strides that are known to make sense: every offset that they lead to is a number of bytes.
struct Layout {
    shape: Vec<usize>,
    /// In elements.
    strides: Vec<usize>,
    width: usize,
    /// Of the tensor in row-major order.
    byte_len: usize,
    /// From the first element's first byte to the last one's last byte.
    extent: usize,
}

impl Layout {
    fn new(tensor: &Tensor<'_>) -> Result<Self, CheckpointError> {
        let Tensor { shape, strides, .. } = tensor;
        let width = tensor.dtype.bytes();
        let unsigned = |numbers: &[i64]| -> Option<Vec<usize>> {
            numbers.iter().map(|&n| usize::try_from(n).ok()).collect()
        };
        let refuse = || {
            malformed(format!(
                "sizes {shape:?} with strides {strides:?}: expected none negative, and a number of bytes that does not overflow"
            ))
        };
        if shape.len() != strides.len() || shape.len() > MAX_DIMENSIONS {
            return Err(malformed(format!(
                "expected as many strides as sizes, at most {MAX_DIMENSIONS}, found {} sizes and {} strides",
                shape.len(),
                strides.len()
            )));
        }
        let (Some(sizes), Some(steps)) = (unsigned(shape), unsigned(strides)) else {
            return Err(refuse());
        };
        // Of one element the stride says nothing.
        let steps: Vec<usize> = sizes
            .iter()
            .zip(steps)
            .map(|(&size, step)| if size == 1 { 0 } else { step })
            .collect();
        let byte_len = sizes
            .iter()
            .try_fold(width, |product, &size| product.checked_mul(size))
            .ok_or_else(refuse)?;
        let extent = if byte_len == 0 {
            0
        } else {
            sizes
                .iter()
                .zip(&steps)
                .try_fold(0usize, |last, (&size, &step)| {
                    last.checked_add((size - 1).checked_mul(step)?)
                })
                .and_then(|last| last.checked_add(1)?.checked_mul(width))
                .ok_or_else(refuse)?
        };
        Ok(Layout {
            shape: sizes,
            strides: steps,
            width,
            byte_len,
            extent,
        })
    }

    /// Whether the elements lie in row-major order without gaps.
    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.byte_len == 0
            || self
                .shape
                .iter()
                .zip(&self.strides)
                .rev()
                .filter(|&(&size, _)| size != 1)
                .all(|(&size, &stride)| {
                    let fits = stride == expected;
                    expected *= size;
                    fits
                })
    }

    /// The bytes of the file from the first to the last element, `storage` being those of the tensor's storage.
    fn within(
        &self,
        tensor: &Tensor<'_>,
        storage: Range<usize>,
    ) -> Result<Range<usize>, CheckpointError> {
        let range = usize::try_from(tensor.offset)
            .ok()
            .and_then(|offset| offset.checked_mul(self.width))
            .and_then(|start| Some(start..start.checked_add(self.extent)?))
            .ok_or_else(|| {
                malformed(format!(
                    "offset in its storage: expected a number of elements, found {}",
                    tensor.offset
                ))
            })?;
        // A tensor of no elements may say any offset.
        if self.extent == 0 {
            return Ok(storage.start..storage.start);
        }
        if range.end > storage.len() {
            return Err(malformed(format!(
                "storage `{}`: expected at least {} bytes for sizes {:?} with strides {:?} from element {} on, found {}",
                tensor.storage.key, range.end, self.shape, self.strides, tensor.offset, storage.len()
            ))
            .hint(super::DOWNLOAD_AGAIN));
        }
        Ok(storage.start + range.start..storage.start + range.end)
    }
}

/// Copies of tensors whose elements do not lie in row-major order, in all no larger than the file.
struct Copies<'m> {
    map: &'m MappedFile,
    /// What may still be copied.
    left: usize,
    /// By where the first element is, and the layout: tied weights are copied once.
    made: HashMap<CopyKey, MappedTensor>,
}

/// Start, sizes, strides, bytes of an element.
type CopyKey = (usize, Vec<usize>, Vec<usize>, usize);

impl<'m> Copies<'m> {
    fn new(map: &'m MappedFile) -> Self {
        Copies {
            map,
            left: map.bytes().len(),
            made: HashMap::new(),
        }
    }

    /// The elements of `layout`, the first of which is at byte `start` of the file, in row-major order.
    fn row_major(
        &mut self,
        layout: &Layout,
        start: usize,
    ) -> Result<MappedTensor, CheckpointError> {
        let key = (
            start,
            layout.shape.clone(),
            layout.strides.clone(),
            layout.width,
        );
        if let Some(made) = self.made.get(&key) {
            return Ok(made.clone());
        }
        self.left = self.left.checked_sub(layout.byte_len).ok_or_else(|| {
            unsupported(format!(
                "sizes {:?} with strides {:?}: expected tensors that share no elements, as they are copied in row-major order, found more to copy than the file has",
                layout.shape, layout.strides
            ))
            .hint("save the state dict again with every tensor made contiguous: {name: tensor.contiguous()}")
        })?;
        let bytes = self.map.bytes();
        let mut copy = Vec::with_capacity(layout.byte_len);
        let mut index = vec![0usize; layout.shape.len()];
        let mut at = start;
        while copy.len() < layout.byte_len {
            copy.extend_from_slice(&bytes[at..at + layout.width]);
            // The next index, the last dimension first.
            for (dimension, position) in index.iter_mut().enumerate().rev() {
                let step = layout.strides[dimension] * layout.width;
                *position += 1;
                if *position < layout.shape[dimension] {
                    at += step;
                    break;
                }
                *position = 0;
                at -= step * (layout.shape[dimension] - 1);
            }
        }
        let tensor = MappedTensor::in_memory(copy);
        self.made.insert(key, tensor.clone());
        Ok(tensor)
    }
}
