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
    /// When it started, in seconds since the UNIX epoch.
    pub started_unix_seconds: u64,
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
            started_unix_seconds: started_unix_seconds().unwrap_or_default(),
        }
    }

    /// The names that Prometheus clients give these, what they are, and their values.
    pub fn gauges(&self) -> [(&'static str, &'static str, u64); 4] {
        [
            ("process_resident_memory_bytes", "Resident memory.", self.rss_bytes),
            ("process_open_fds", "Open files.", self.open_files),
            ("process_max_fds", "The limit of open files.", self.open_files_max),
            (
                "process_start_time_seconds",
                "When the process started, in seconds since 1970.",
                self.started_unix_seconds,
            ),
        ]
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

/// Field `number` of `/proc/self/stat`, counted from 1 as `man proc` does; those after the command's name.
fn stat(number: usize) -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The command's name, in brackets, may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(number - 3)?.parse().ok()
}

fn cpu_seconds() -> Option<f64> {
    let ticks = stat(14)? + stat(15)?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn started_unix_seconds() -> Option<u64> {
    let of_system = fs::read_to_string("/proc/stat").ok()?;
    let booted = of_system.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(booted.trim().parse::<u64>().ok()? + stat(22)? / rustix::param::clock_ticks_per_second())
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
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!((now - 86_400..=now + 1).contains(&process.started_unix_seconds), "{process:?} at {now}");
    }
}
