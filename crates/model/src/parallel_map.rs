//! One function of many items, on several threads.

use crate::ModelError;

/// What `one` makes of each of `items`, in their order, on `threads` threads.
pub(crate) fn parallel_map<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    one: impl Fn(&T) -> Result<R, ModelError> + Sync,
) -> Result<Vec<R>, ModelError> {
    if threads == 1 || items.len() <= 1 {
        return items.iter().map(one).collect();
    }
    let one = &one;
    std::thread::scope(|scope| {
        let parts: Vec<_> = items
            .chunks(items.len().div_ceil(threads))
            .map(|part| scope.spawn(move || part.iter().map(one).collect::<Result<Vec<_>, _>>()))
            .collect();
        let mut results = Vec::with_capacity(items.len());
        for part in parts {
            match part.join() {
                Ok(part) => results.extend(part?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(results)
    })
}
