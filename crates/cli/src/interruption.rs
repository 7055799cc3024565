//! What a signal that ends the program leaves behind: nothing.

use anyhow::{Context, Result};
use fewbit::checkpoint::unfinished;

/// Exit code of a program that a signal ended, by the convention of shells (128 + SIGINT).
const INTERRUPTED: i32 = 130;

/// From now on Ctrl-C, SIGTERM and SIGHUP remove temporary files and unfinished directories before they end the program.
pub(crate) fn clean_up_on_signals() -> Result<()> {
    ctrlc::set_handler(|| {
        unfinished::remove_all();
        std::process::exit(INTERRUPTED);
    })
    .context("cannot handle signals")
}

/// Ends this process when the one that started it ends, however that does.
pub(crate) fn end_with_parent() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, set_parent_process_death_signal};
        // Where this fails, a measurement that nobody waits for runs to its end.
        let _ = set_parent_process_death_signal(Some(Signal::TERM));
    }
}
