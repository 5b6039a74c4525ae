//! How much memory the process has.

/// Resident memory in bytes, where the system tells.
pub(crate) fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::resident;

    #[test]
    fn memory_that_is_written_to_is_resident() {
        const MORE: usize = 64 << 20;
        let before = resident().unwrap();
        let block = vec![1_u8; MORE];
        let after = resident().unwrap();
        assert!(after > before + (MORE as u64) / 2, "{before} then {after}");
        assert_eq!(block[MORE - 1], 1);
    }
}
