//! What the kernel knows of this process, from `/proc`. What cannot be read is zero.

use std::fs::read_to_string;

/// Ticks per second of the times in `/proc/*/stat`: fixed by the kernel's interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    pub(crate) user: f64,
    pub(crate) system: f64,
    pub(crate) children_user: f64,
    pub(crate) children_system: f64,
}

/// Processor time of all threads.
pub(crate) fn cpu_of_process() -> Cpu {
    cpu(&read_to_string("/proc/self/stat").unwrap_or_default())
}

/// Processor time of the thread that the process began with.
pub(crate) fn cpu_of_main_thread() -> Cpu {
    let path = format!("/proc/self/task/{}/stat", std::process::id());
    cpu(&read_to_string(path).unwrap_or_default())
}

/// Fields 14 to 17 of a `stat` line. The second field is a name that may contain anything, in
/// parentheses.
fn cpu(line: &str) -> Cpu {
    let fields = line.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut ticks = fields.split_whitespace().skip(11);
    let mut seconds = || {
        let ticks = ticks.next().and_then(|field| field.parse::<f64>().ok());
        ticks.unwrap_or(0.0) / TICKS_PER_SECOND
    };
    let (user, system) = (seconds(), seconds());
    Cpu { user, system, children_user: seconds(), children_system: seconds() }
}

/// Bytes of memory that are resident.
pub(crate) fn rss_bytes() -> u64 {
    kilobytes(&read_to_string("/proc/self/status").unwrap_or_default(), "VmRSS:") * 1024
}

/// The same, and how many of them are of files, which are those of the program.
pub(crate) fn rss_and_program_bytes() -> (u64, u64) {
    let text = read_to_string("/proc/self/status").unwrap_or_default();
    let of = |name| kilobytes(&text, name) * 1024;
    (of("VmRSS:"), of("RssFile:") + of("RssShmem:"))
}

/// Bytes of memory of the machine.
pub(crate) fn total_memory_bytes() -> u64 {
    kilobytes(&read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal:") * 1024
}

/// The number of a line like `VmRSS:   1234 kB`.
fn kilobytes(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|v| v.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// System, release and machine, as `uname -srm`.
pub(crate) fn os() -> String {
    let read = |name: &str| {
        let text = read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
        text.trim().to_owned()
    };
    format!("{} {} {}", read("ostype"), read("osrelease"), std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_past_odd_names() {
        let line = "12 (a) b c) S 1 2 3 4 5 6 7 8 9 10 150 25 300 7 20 0";
        let cpu = cpu(line);
        let times = (cpu.user, cpu.system, cpu.children_user, cpu.children_system);
        assert_eq!(times, (1.5, 0.25, 3.0, 0.07));
        assert_eq!(super::cpu("").user, 0.0);
    }

    #[test]
    fn sizes_are_in_bytes() {
        assert_eq!(kilobytes("VmPeak:\t 5 kB\nVmRSS:\t  12 kB\n", "VmRSS:"), 12);
        assert_eq!(kilobytes("", "VmRSS:"), 0);
        let (rss, program) = rss_and_program_bytes();
        assert!(program > 0 && rss > program);
        assert!(rss_bytes() > 0 && total_memory_bytes() > rss_bytes());
        assert!(os().starts_with("Linux "));
    }
}
