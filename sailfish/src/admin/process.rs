//! What the process as a whole uses, from `/proc/self`.

use std::fs;

/// Gauges of the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    /// Resident memory, in bytes.
    pub rss_bytes: u64,
    /// Open files.
    pub open_files: u64,
    /// The limit of open files.
    pub open_files_max: u64,
    /// CPU time, user and system, in seconds.
    pub cpu_seconds: f64,
}

impl Process {
    /// Reads them; what cannot be read is 0.
    pub fn read() -> Self {
        Self {
            rss_bytes: rss_bytes().unwrap_or_default(),
            open_files: open_files().unwrap_or_default(),
            open_files_max: rustix::process::getrlimit(rustix::process::Resource::Nofile)
                .current
                .unwrap_or_default(),
            cpu_seconds: cpu_seconds().unwrap_or_default(),
        }
    }
}

fn rss_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

fn open_files() -> Option<u64> {
    // Linux tells the number as the folder's size from 6.2 on; before, it is 0 and they are counted.
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => Some(fs::read_dir("/proc/self/fd").ok()?.count() as u64),
        count => Some(count),
    }
}

/// From `schedstat`-free `stat`: fields 14 and 15, in ticks.
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The command's name, in brackets, may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_and_files() {
        let process = Process::read();
        assert!(process.rss_bytes > 100_000, "{process:?}");
        assert!((3..10_000).contains(&process.open_files), "{process:?}");
        assert!(process.open_files_max >= process.open_files, "{process:?}");
    }
}
