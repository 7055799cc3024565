//! Several threads compute products of few rows: each some of their columns.

use fewbit_kernels::{COLUMN_SPLIT, OutputColumns, Workspace};
use rayon::Yield;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a thread looks for work that may come, or waits for work that is done elsewhere, before it goes to sleep: longer than anything
/// between two products takes, as a product of few rows is done before a thread has woken up.
const PATIENCE: Duration = Duration::from_micros(200);

/// Calls `product(index, columns, workspace)` for parts of the columns of each of `outputs`: one part for each workspace, where there are
/// enough columns, on as many threads of the current pool.
pub(crate) fn share_columns<T: Send, const N: usize>(
    outputs: [OutputColumns<'_, T>; N],
    workspaces: &mut [Workspace],
    product: &(impl Fn(usize, OutputColumns<'_, T>, &mut Workspace) + Sync),
) {
    if let [workspace] = workspaces {
        for (index, out) in outputs.into_iter().enumerate() {
            product(index, out, workspace);
        }
        return;
    }
    let threads = workspaces.len();
    let mut shares: Vec<Vec<_>> = workspaces.iter().map(|_| Vec::with_capacity(N)).collect();
    for (index, mut out) in outputs.into_iter().enumerate() {
        let columns = out.columns();
        let panels = columns.len().div_ceil(COLUMN_SPLIT);
        for (thread, share) in shares.iter_mut().enumerate() {
            let end = columns.start + panels * (thread + 1) / threads * COLUMN_SPLIT;
            let (part, rest) = out.split_at(end.min(columns.end));
            if !part.columns().is_empty() {
                share.push((index, part));
            }
            out = rest;
        }
    }
    let run = |share: Vec<_>, workspace: &mut Workspace| {
        for (index, part) in share {
            product(index, part, workspace);
        }
    };
    let (started, finished) = (AtomicUsize::new(0), AtomicUsize::new(0));
    rayon::in_place_scope(|scope| {
        let mut shares = shares.into_iter().zip(workspaces).rev();
        // The last one has columns, if there are any.
        let own = shares.next();
        for (share, workspace) in shares.filter(|(share, _)| !share.is_empty()) {
            let (run, started, finished) = (&run, &started, &finished);
            scope.spawn(move |_| {
                started.fetch_add(1, Ordering::Relaxed);
                run(share, workspace);
                finished.fetch_add(1, Ordering::Relaxed);
            });
        }
        if let Some((share, workspace)) = own {
            run(share, workspace);
        }
        // The scope would put this thread to sleep too soon. What no other thread has started is left to this one, by the scope.
        let waits_since = Instant::now();
        while started.load(Ordering::Relaxed) > finished.load(Ordering::Relaxed)
            && waits_since.elapsed() < PATIENCE
        {
            std::hint::spin_loop();
        }
    });
}

/// Runs `work`, which calls [`share_columns`] again and again, while other threads of the current pool stay awake: `threads` with the caller.
pub(crate) fn with_threads_awake<R>(threads: usize, work: impl FnOnce() -> R) -> R {
    if threads == 1 {
        return work();
    }
    let done = AtomicBool::new(false);
    rayon::in_place_scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|_| take_work_until(&done));
        }
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    })
}

/// Runs work that waits in the pool, until `done`. Ends after some time without any, too: a thread that waits for others may have begun this
/// on top of the very work that would set `done`.
fn take_work_until(done: &AtomicBool) {
    let mut idle_since = Instant::now();
    while !done.load(Ordering::Relaxed) && idle_since.elapsed() < PATIENCE {
        match rayon::yield_now() {
            Some(Yield::Executed) => idle_since = Instant::now(),
            _ => std::hint::spin_loop(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn every_column_is_in_one_part() {
        // Where the parts end.
        for (columns, threads, expected) in [
            (384, 1, &[384][..]),
            (384, 2, &[192, 384]),
            (384, 4, &[64, 192, 256, 384]),
            (100, 2, &[64, 100]),
            (100, 8, &[64, 100]),
            (64, 3, &[64]),
            (0, 2, &[]),
        ] {
            let mut matrices = [(); 2].map(|()| vec![0.0; 3 * columns]);
            let parts = Mutex::new([vec![], vec![]]);
            let mut workspaces: Vec<_> = (0..threads).map(|_| Workspace::new()).collect();
            let outputs = matrices
                .each_mut()
                .map(|matrix| OutputColumns::<f32>::of_matrix(matrix, columns));
            share_columns(outputs, &mut workspaces, &|index, part, _| {
                parts.lock().unwrap()[index].push(part.columns());
            });
            for mut parts in parts.into_inner().unwrap() {
                parts.sort_by_key(|part| part.start);
                let ends: Vec<_> = parts.iter().map(|part| part.end).collect();
                assert_eq!(ends, expected, "{columns} columns, {threads} threads");
                let starts = parts.iter().map(|part| part.start);
                assert!(starts.eq([0].into_iter().chain(ends.clone()).take(ends.len())));
            }
        }
    }
}
