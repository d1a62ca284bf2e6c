//! Looks at the machine: processor, memory, instruction sets.

use std::thread;

use sysinfo::{
    CGroupLimits, CpuRefreshKind, MemoryRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate,
    RefreshKind, System,
};
use tieline_types::{Bytes, ProcessMemory};

/// What this machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Cores, not counting hyper-threads twice; never more than this process may use.
    pub cores: u32,
    /// Processors that this process may use, hyper-threads included.
    pub logical_processors: u32,
    /// All memory, or the container's limit where that is lower.
    pub memory: Bytes,
    /// Memory that can be had without swapping.
    pub memory_available: Bytes,
    /// Kernel and its version.
    pub system: String,
    /// Instruction sets that matter to llama.cpp and that the processor has, by ggml's names.
    pub instruction_sets: Vec<&'static str>,
}

/// Looks at the machine now.
pub fn machine() -> Machine {
    let what = RefreshKind::nothing()
        .with_cpu(CpuRefreshKind::nothing())
        .with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(what).ok();
    let (memory, memory_available) = system.as_ref().map(memory).unwrap_or_default();
    Machine {
        processor: system.as_ref().map(processor).unwrap_or_default(),
        cores: cores(),
        logical_processors: logical_processors(),
        memory,
        memory_available,
        system: System::long_os_version().unwrap_or_default()
            + " "
            + &System::kernel_version().unwrap_or_default(),
        instruction_sets: instruction_sets(),
    }
}

/// How many threads compute best: one for each core. llama.cpp's threads wait for each other by
/// spinning, so a second thread on a core costs more than it gives.
pub fn cores() -> u32 {
    let logical = logical_processors();
    let physical = System::physical_core_count().ok().and_then(|n| u32::try_from(n).ok());
    physical.filter(|&n| n > 0).map_or(logical, |physical| physical.min(logical))
}

/// Memory that a process holds now: private, shared and mapped. `None` where there is no such process.
pub fn resident_memory(pid: u32) -> Option<Bytes> {
    let pid = Pid::from_u32(pid);
    let mut system = System::new().ok()?;
    let what = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, what);
    system.process(pid).map(|process| Bytes(process.memory()))
}

/// What a process has allocated, and the most that it may. `None` where there is no such process, or the system does not
/// tell.
#[cfg(target_os = "linux")]
pub fn process_memory(pid: u32) -> Option<ProcessMemory> {
    let told = |what: &str| std::fs::read_to_string(format!("/proc/{pid}/{what}")).ok();
    Some(ProcessMemory {
        allocated: allocated_in(&told("status")?)?,
        limit: told("limits").and_then(|limits| limit_in(&limits)),
    })
}

/// No other system tells.
#[cfg(not(target_os = "linux"))]
pub fn process_memory(_: u32) -> Option<ProcessMemory> {
    None
}

#[cfg(target_os = "linux")]
fn allocated_in(status: &str) -> Option<Bytes> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Bytes(kibibytes.saturating_mul(1024)))
}

/// The soft limit: the one that holds.
#[cfg(target_os = "linux")]
fn limit_in(limits: &str) -> Option<Bytes> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max data size"))?;
    line.split_whitespace().next()?.parse().ok().map(Bytes)
}

/// Names of the instruction sets that `kernels` were compiled without although the processor has them.
///
/// Only sets that make decoding or prefill faster count; the list is what `doctor` shouts about.
pub fn unused_instruction_sets(kernels: &[String]) -> Vec<&'static str> {
    instruction_sets()
        .into_iter()
        .filter(|set| !kernels.iter().any(|kernel| kernel == set))
        .collect()
}

fn logical_processors() -> u32 {
    thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

fn processor(system: &System) -> String {
    system.cpus().first().map(|cpu| cpu.brand().trim().to_owned()).unwrap_or_default()
}

fn memory(system: &System) -> (Bytes, Bytes) {
    let whole = (system.total_memory(), system.available_memory());
    let (total, available) = match system.cgroup_limits() {
        Some(limits) if limits.total_memory > 0 && limits.total_memory < whole.0 => {
            within(&limits, file_pages(), whole.1)
        }
        _ => whole,
    };
    (Bytes(total), Bytes(available))
}

/// What a container may take and what can be had of it. The pages of files are given back where they are needed, as on a
/// whole machine; the limit's own count of what is free takes them for used.
fn within(limits: &CGroupLimits, file_pages: u64, free: u64) -> (u64, u64) {
    let available = limits.free_memory.saturating_add(file_pages);
    let most = limits.total_memory.saturating_sub(limits.rss).min(free);
    (limits.total_memory, available.min(most))
}

/// What this container's files hold of the page cache; 0 where nobody says so. A file system in memory is no such file.
fn file_pages() -> u64 {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    // Version 2 under its own path, or that of the container; version 1.
    let folders = [
        format!("/sys/fs/cgroup/{own}"),
        "/sys/fs/cgroup".to_owned(),
        "/sys/fs/cgroup/memory".to_owned(),
    ];
    let read = |folder: &String| std::fs::read_to_string(format!("{folder}/memory.stat")).ok();
    folders.iter().find_map(read).map_or(0, |text| file_pages_in(&text))
}

fn file_pages_in(stat: &str) -> u64 {
    let pages = stat.lines().filter_map(|line| {
        let (name, bytes) = line.split_once(' ')?;
        let is_file = matches!(name, "active_file" | "inactive_file");
        is_file.then(|| bytes.trim().parse::<u64>().ok())?
    });
    pages.fold(0, u64::saturating_add)
}

#[cfg(target_arch = "x86_64")]
fn instruction_sets() -> Vec<&'static str> {
    use std::arch::is_x86_feature_detected as has;

    [
        ("AVX", has!("avx")),
        ("AVX2", has!("avx2")),
        ("F16C", has!("f16c")),
        ("FMA", has!("fma")),
        ("BMI2", has!("bmi2")),
        ("AVX_VNNI", has!("avxvnni")),
        // ggml's flag stands for these four together.
        (
            "AVX512",
            has!("avx512f")
                && has!("avx512cd")
                && has!("avx512vl")
                && has!("avx512dq")
                && has!("avx512bw"),
        ),
        ("AVX512_VBMI", has!("avx512vbmi")),
        ("AVX512_VNNI", has!("avx512vnni")),
        ("AVX512_BF16", has!("avx512bf16")),
    ]
    .into_iter()
    .filter_map(|(name, present)| present.then_some(name))
    .collect()
}

#[cfg(target_arch = "aarch64")]
fn instruction_sets() -> Vec<&'static str> {
    use std::arch::is_aarch64_feature_detected as has;

    [
        ("NEON", has!("neon")),
        ("DOTPROD", has!("dotprod")),
        ("MATMUL_INT8", has!("i8mm")),
        ("FP16_VA", has!("fp16")),
        ("SVE", has!("sve")),
        ("SME", has!("sme")),
    ]
    .into_iter()
    .filter_map(|(name, present)| present.then_some(name))
    .collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn instruction_sets() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_something() {
        let machine = machine();
        assert!(machine.cores >= 1 && machine.cores <= machine.logical_processors);
        assert!(machine.memory.0 > 0 && machine.memory_available <= machine.memory);
    }

    #[test]
    fn pages_of_files_are_free_in_a_container_too() {
        let limits =
            |free_memory, rss| CGroupLimits { total_memory: 8000, free_memory, free_swap: 0, rss };
        // 4,500 of a file that was read are in its page cache.
        assert_eq!(within(&limits(3400, 100), 4500, 60_000), (8000, 7900));
        // As much is in a file system in memory, and cannot be given back.
        assert_eq!(within(&limits(3400, 100), 0, 60_000), (8000, 3400));
        assert_eq!(within(&limits(900, 7000), 100, 60_000), (8000, 1000));
        // Nor more than the machine has.
        assert_eq!(within(&limits(3400, 100), 4500, 5000), (8000, 5000));
        let stat = "anon 5\nfile 70\nshmem 20\ninactive_file 30\nactive_file 20\nslab 9\n";
        assert_eq!(file_pages_in(stat), 50);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_a_process_may_allocate_is_read_as_the_system_says_it() {
        let status = "Name:\trunner\nVmSize:\t  9 kB\nVmData:\t  180212 kB\nVmStk:\t 132 kB\n";
        assert_eq!(allocated_in(status), Some(Bytes(180_212 * 1024)));
        // A kernel thread has none.
        assert_eq!(allocated_in("Name:\tkthreadd\n"), None);
        let limits = |soft: &str| {
            format!(
                "Limit   Soft Limit   Hard Limit   Units\nMax data size   {soft}   unlimited   bytes\n"
            )
        };
        assert_eq!(limit_in(&limits("1234")), Some(Bytes(1234)));
        assert_eq!(limit_in(&limits("unlimited")), None);
        let ours = process_memory(std::process::id()).unwrap();
        assert!(ours.allocated.0 > 0 && ours.limit.is_none_or(|most| most >= ours.allocated));
    }

    #[test]
    fn kernels_that_use_all_leave_nothing_unused() {
        let all: Vec<String> = instruction_sets().iter().map(ToString::to_string).collect();
        assert_eq!(unused_instruction_sets(&all), [""; 0]);
        assert_eq!(unused_instruction_sets(&[]), instruction_sets());
    }
}
