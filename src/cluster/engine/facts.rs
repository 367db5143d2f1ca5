//! What this machine has, as Mesos counts it: a part of memory and disk is kept back for the system.

use std::path::Path;

use super::ResourceSettings;
use crate::model::resources::{PortRange, Resources, Scalar};

/// Kept back of the memory, MiB; of less than twice as much, one half is kept back.
const MEM_RESERVE: u64 = 1024;
/// Kept back of the disk, MiB; likewise.
const DISK_RESERVE: u64 = 5 * 1024;
/// Mesos' default ports.
pub const DEFAULT_PORTS: PortRange = PortRange::new(31000, 32000);

/// What may be used, with what the settings say instead.
///
/// # Errors
/// A fact that is needed cannot be read.
pub fn resources(settings: &ResourceSettings, work_dir: &Path) -> Result<Resources, String> {
    let cpus = match settings.cpus {
        Some(cpus) => cpus,
        None => std::thread::available_parallelism()
            .map(|count| Scalar::whole(count.get() as u64))
            .map_err(|error| format!("cannot count the CPUs: {error}; say how many there are"))?,
    };
    let mem = match settings.mem {
        Some(mem) => mem,
        None => Scalar::whole(usable(memory_mib()?, MEM_RESERVE)),
    };
    let disk = match settings.disk {
        Some(disk) => disk,
        None => Scalar::whole(usable(disk_mib(work_dir)?, DISK_RESERVE)),
    };
    let mut ports = settings.ports.clone();
    ports.sort_by_key(|range| range.begin);
    Ok(Resources { cpus, mem, disk, gpus: settings.gpus, ports })
}

fn usable(total: u64, reserve: u64) -> u64 {
    if total >= 2 * reserve { total - reserve } else { total / 2 }
}

fn memory_mib() -> Result<u64, String> {
    let text = std::fs::read_to_string("/proc/meminfo").map_err(|error| format!("cannot read /proc/meminfo: {error}"))?;
    parse_meminfo(&text).ok_or_else(|| "/proc/meminfo does not say how much memory there is; say how much".to_owned())
}

fn parse_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib / 1024)
}

/// Milliseconds since the machine was started. Nobody sets this clock, and it goes on when the server does not. `None`: the machine does not say.
pub fn uptime_ms() -> Option<u64> {
    parse_uptime(&std::fs::read_to_string("/proc/uptime").ok()?)
}

fn parse_uptime(text: &str) -> Option<u64> {
    let (seconds, hundredths) = text.split_whitespace().next()?.split_once('.')?;
    Some(seconds.parse::<u64>().ok()?.saturating_mul(1000).saturating_add(hundredths.parse::<u64>().ok()?.min(99) * 10))
}

fn disk_mib(work_dir: &Path) -> Result<u64, String> {
    let stat =
        rustix::fs::statvfs(work_dir).map_err(|error| format!("cannot ask how big the disk of {} is: {error}", work_dir.display()))?;
    Ok(stat.f_blocks.saturating_mul(stat.f_frsize) >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_keeps_its_part() {
        let check = |total: u64, reserve: u64, expected: u64| assert_eq!(usable(total, reserve), expected);
        check(24_105, MEM_RESERVE, 23_081);
        check(2_048, MEM_RESERVE, 1_024);
        check(2_047, MEM_RESERVE, 1_023);
        check(512, MEM_RESERVE, 256);
    }

    #[test]
    fn the_uptime_is_read() {
        assert_eq!(parse_uptime("350735.47 234388.90\n"), Some(350_735_470));
        assert_eq!(parse_uptime("1.05 0.00\n"), Some(1_050));
        assert_eq!((parse_uptime(""), parse_uptime("soon 1.0"), parse_uptime("-1.00")), (None, None, None));
        let before = uptime_ms().unwrap();
        assert!(before > 0 && uptime_ms().unwrap() >= before);
    }

    #[test]
    fn meminfo_is_read() {
        assert_eq!(parse_meminfo("MemTotal:       24683520 kB\nMemFree:  1 kB\n"), Some(24105));
        assert_eq!(parse_meminfo("MemFree: 1 kB\n"), None);
        assert!(resources(&ResourceSettings::default(), Path::new("/")).unwrap().mem > Scalar::ZERO);
    }
}
