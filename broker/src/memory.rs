//! How much memory this process may use: the container's limit, or else the machine's memory.

/// Where the kernel tells a container its limit: control groups version 2, then 1.
const LIMIT_FILES: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// Bytes that this process may use.
pub fn available() -> usize {
    let info = rustix::system::sysinfo();
    let machine = info.totalram.saturating_mul(u64::from(info.mem_unit));
    let limits = LIMIT_FILES.iter().filter_map(|path| std::fs::read_to_string(path).ok());
    // "max" stands for no limit; version 1 says so with a number larger than any machine's memory.
    let least = limits.filter_map(|text| text.trim().parse().ok()).fold(machine, u64::min);
    usize::try_from(least).unwrap_or(usize::MAX)
}
