//! What the machine offers: instruction set, cores and memory. Linux tells all of it, other systems a part.

use std::path::Path;

use pentimento_kernels::Isa;

/// Facts about this machine; None where the system does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// The architecture, and the instruction set that the kernels use.
    pub(crate) isa: String,
    /// Threads that may run at once.
    pub(crate) cores: usize,
    /// All memory, or what the container may use of it, in bytes.
    pub(crate) memory_total: Option<u64>,
    /// What could be taken now, in bytes.
    pub(crate) memory_available: Option<u64>,
}

impl Machine {
    /// Looks now.
    pub(crate) fn look() -> Self {
        let meminfo = meminfo();
        let limit = cgroup_number("memory.max");
        let used = cgroup_number("memory.current");
        let free_in_container = limit.zip(used).map(|(limit, used)| limit.saturating_sub(used));
        Self {
            isa: isa(),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_total: memory_total(),
            memory_available: least(field_bytes(&meminfo, "MemAvailable"), free_in_container),
        }
    }
}

/// All memory, or what the container may use of it, in bytes.
pub(crate) fn memory_total() -> Option<u64> {
    least(field_bytes(&meminfo(), "MemTotal"), cgroup_number("memory.max"))
}

fn meminfo() -> String {
    fs_err::read_to_string("/proc/meminfo").unwrap_or_default()
}

/// The most memory that this process has used so far, in bytes.
pub(crate) fn peak_memory() -> Option<u64> {
    field_bytes(&fs_err::read_to_string("/proc/self/status").ok()?, "VmHWM")
}

/// Bytes as people read them.
pub(crate) fn gibibytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one decimal is printed")]
    let gibibytes = bytes as f64 / f64::from(1 << 30);
    format!("{gibibytes:.1} GiB")
}

fn least(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// A line `Name:   123 kB`, as the files in /proc have it.
pub(crate) fn field_bytes(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The limit of a container; `max` is none.
fn cgroup_number(file: &str) -> Option<u64> {
    fs_err::read_to_string(Path::new("/sys/fs/cgroup").join(file))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// The architecture and the set that the kernels use of it.
fn isa() -> String {
    format!("{} {}", std::env::consts::ARCH, Isa::detect()).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_proc_are_read() {
        let text = "MemTotal:       16 kB\nMemAvailable:    8 kB\nHugePages_Total: 0\n";
        assert_eq!(field_bytes(text, "MemAvailable"), Some(8192));
        assert_eq!(field_bytes(text, "HugePages_Total"), None);
        assert_eq!(field_bytes(text, "Mem"), None);
        assert_eq!(gibibytes(3 << 29), "1.5 GiB");
    }

    #[test]
    fn this_machine_has_a_core_and_an_instruction_set() {
        let machine = Machine::look();
        assert!(machine.cores >= 1);
        assert!(machine.isa.starts_with(std::env::consts::ARCH));
    }
}
