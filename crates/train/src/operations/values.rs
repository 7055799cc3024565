//! The numbers of tensors as slices.

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor};
use std::ops::{Deref, Range};

/// The numbers of a tensor, row-major, while it is locked for reading.
struct Values<Guard> {
    storage: Guard,
    range: Range<usize>,
}

/// The numbers of a contiguous f32 tensor.
///
/// # Errors
/// It is not one.
pub(crate) fn values(tensor: &Tensor) -> Result<impl Deref<Target = [f32]>> {
    let (storage, layout) = tensor.storage_and_layout();
    let range = contiguous(layout)?;
    match &*storage {
        Storage::Cpu(CpuStorage::F32(_)) => Ok(Values { storage, range }),
        _ => candle_core::bail!(
            "expected an f32 tensor of the CPU, found {:?}",
            tensor.dtype()
        ),
    }
}

impl<Guard: Deref<Target = Storage>> Deref for Values<Guard> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.range.clone()],
            // Not made of any other.
            _ => &[],
        }
    }
}

/// The numbers of an argument of an operation, which must be contiguous.
///
/// # Errors
/// They are not, or not f32.
pub(crate) fn slice<'s>(storage: &'s CpuStorage, layout: &Layout) -> Result<&'s [f32]> {
    Ok(&storage.as_slice::<f32>()?[contiguous(layout)?])
}

fn contiguous(layout: &Layout) -> Result<Range<usize>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(start..end),
        None => candle_core::bail!("expected a contiguous tensor, found {layout:?}"),
    }
}
