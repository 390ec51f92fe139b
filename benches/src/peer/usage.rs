//! What a process has used, from `/proc`.

use std::path::PathBuf;
use std::{fs, io};

/// `sysconf(_SC_CLK_TCK)`, which Linux fixes at 100 for user space.
const TICKS_PER_SECOND: u64 = 100;

/// CPU time and memory of a process at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// User and system time so far, in µs, in steps of 10 ms.
    pub cpu_us: u64,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
}

impl Usage {
    /// Reads it now. Fails when the process is gone.
    pub fn of(pid: u32) -> io::Result<Self> {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let stat = fs::read_to_string(proc.join("stat"))?;
        let status = fs::read_to_string(proc.join("status"))?;
        let parsed = cpu_ticks(&stat).zip(rss_kib(&status));
        let (ticks, kib) = parsed.ok_or_else(|| io::Error::other("unreadable /proc"))?;
        Ok(Self { cpu_us: ticks * (1_000_000 / TICKS_PER_SECOND), rss_bytes: kib * 1024 })
    }
}

/// Fields 14 and 15 of `stat`; the name before them may hold anything, so count from its closing bracket.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn rss_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = "42 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(rss_kib("Name:\tx\nVmRSS:\t  123 kB\n"), Some(123));
    }
}
