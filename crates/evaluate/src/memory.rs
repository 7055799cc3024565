//! Peak memory of this process.

/// The most resident memory that this process has had since it started, in bytes: `VmHWM` of
/// `/proc/self/status`. `None` where the system has no such file.
///
/// The figure covers everything that the process has done, so measure each model in a process of its
/// own. Pages of mapped files count while they are resident.
pub fn peak_resident_bytes() -> Option<u64> {
    parse_peak(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse_peak(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_found_among_others() {
        let status = "Name:\tfewbit\nVmPeak:\t  300000 kB\nVmHWM:\t  123456 kB\nVmRSS:\t  100 kB\n";
        assert_eq!(parse_peak(status), Some(123_456 * 1024));
    }

    #[test]
    fn anything_else_is_none() {
        for status in [
            "",
            "VmPeak:\t1 kB\n",
            "VmHWM:\n",
            "VmHWM:\t12 MB\n",
            "VmHWM:\t-1 kB\n",
            "VmHWM:\t99999999999999999999 kB\n",
        ] {
            assert_eq!(parse_peak(status), None, "{status:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_covers_memory_that_was_touched() {
        let touched = vec![1u8; 32 << 20];
        let peak = peak_resident_bytes().expect("Linux tells");
        assert!(peak >= touched.len() as u64, "{peak}");
    }
}
