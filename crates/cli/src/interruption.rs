//! What a signal that ends the program leaves behind: whole outputs or none, and an exit code that names the signal.
//!
//! The signal is taken by a thread of its own, which waits for a commit that is under way, removes what is unfinished and ends the
//! process. From the moment at which the signal arrives, the other threads say nothing any more and do not end the process: what fails
//! them then is what the signal did.

use crate::streams;
use anyhow::{Context, Result};
use fewbit::checkpoint::unfinished;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

/// The number of the last signal that arrived; 0 if none did.
static ARRIVED: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// By the convention of shells, the exit code of a program that a signal ended is this and the signal's number.
const SIGNALLED: i32 = 128;

/// From now on Ctrl-C, SIGTERM and SIGHUP remove temporary files and unfinished directories before they end the program.
#[cfg(unix)]
pub(crate) fn clean_up_on_signals() -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut numbers = vec![SIGINT, SIGTERM];
    // `nohup` means that the work goes on when the terminal is closed.
    if !is_ignored(SIGHUP) {
        numbers.push(SIGHUP);
    }
    let failed = "cannot handle signals";
    // Before the flags are set: a signal that only set its flag would not be handled, and the other threads would wait for ever.
    let mut signals = signal_hook::iterator::Signals::new(&numbers).context(failed)?;
    for &number in &numbers {
        let value = usize::try_from(number).context(failed)?;
        signal_hook::flag::register_usize(number, Arc::clone(&ARRIVED), value).context(failed)?;
    }
    // One that came between the two.
    if let Some(number) = signals.pending().next() {
        end(number);
    }
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if let Some(number) = signals.forever().next() {
                // More signals change nothing: the thread that would take them is this one.
                end(number);
            }
        })
        .context(failed)?;
    Ok(())
}

/// From now on Ctrl-C removes temporary files and unfinished directories before it ends the program.
#[cfg(not(unix))]
pub(crate) fn clean_up_on_signals() -> Result<()> {
    const SIGINT: i32 = 2;
    ctrlc::set_handler(|| {
        ARRIVED.store(1, Ordering::SeqCst);
        end(SIGINT);
    })
    .context("cannot handle signals")
}

/// Ends the program by signal `number`, and says where what it has finished is kept.
fn end(number: i32) -> ! {
    unfinished::end_process(SIGNALLED + number, |kept| {
        for directory in kept {
            streams::note_in_the_end(&format!(
                "interrupted: what is finished is kept in {}\n  hint: the same command with --resume goes on from there\n",
                directory.display()
            ));
        }
    })
}

/// Whether the process was started with `signal` ignored. False where the system does not say it.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let mask = status
                .lines()
                .find_map(|line| line.strip_prefix("SigIgn:"))?;
            u64::from_str_radix(mask.trim(), 16).ok()
        })
        .is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Never returns once a signal arrived: the process is about to end.
pub(crate) fn hold_if_interrupted() {
    if ARRIVED.load(Ordering::SeqCst) != 0 {
        loop {
            std::thread::park();
        }
    }
}

/// Ends the program with the exit code that `report` gives, unless a signal arrived before.
pub(crate) fn leave(report: impl FnOnce() -> ExitCode) -> ExitCode {
    hold_if_interrupted();
    let code = report();
    let section = unfinished::critical_section();
    if ARRIVED.load(Ordering::SeqCst) != 0 {
        drop(section);
        hold_if_interrupted();
    } else {
        // Never left again: a signal that arrives from now on is too late.
        std::mem::forget(section);
    }
    code
}

/// A measuring process leaves Ctrl-C and a closed terminal to the process that started it, and ends when that one ends, however it does.
pub(crate) fn end_with_parent() -> Result<()> {
    #[cfg(unix)]
    {
        use signal_hook::consts::{SIGHUP, SIGINT};
        for signal in [SIGINT, SIGHUP] {
            signal_hook::flag::register(signal, Arc::default()).context("cannot handle signals")?;
        }
    }
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, set_parent_process_death_signal};
        // Where this fails, a measurement whose result is not read runs to its end.
        let _ = set_parent_process_death_signal(Some(Signal::TERM));
    }
    Ok(())
}
