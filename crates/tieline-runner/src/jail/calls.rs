//! What the runner may ask of the system: a list, as data.
//!
//! A call that is not here ends the process with its name ([`super::filter`]). Each has the reason why it
//! must be here; a test compares the list with what a runner really calls, both ways, and what it does not
//! call in that run says why it is here all the same.

use tieline_types::wire::CACHE_FD;

/// Until when a call is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// While the model is loaded.
    Load,
    /// For as long as the runner lives.
    Always,
}

/// With which arguments a call is allowed. Only numbers can be looked at: what a pointer points to may
/// change after the look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Only {
    /// Any.
    Any,
    /// The argument is this number.
    Is(u8, u64),
    /// The argument is one of these numbers.
    OneOf(u8, &'static [u64]),
    /// The argument is not this number.
    IsNot(u8, u64),
    /// The argument has none of these bits.
    Without(u8, u64),
    /// A mapping, whose rights and flags these arguments are, of memory that does not run, and that is no shared memory without a
    /// file: what the system bounds is private memory and files.
    Maps(u8, u8),
    /// The argument is this process.
    ThisProcess(u8),
    /// These arguments are the open folder of the cache; never where there is none.
    InCache(&'static [u8]),
    /// A name to open in that folder, with the right to do something with it: Landlock does not look at
    /// what is opened for its path alone.
    OpenInCache,
    /// None: the call fails as if the kernel did not know it, for which its caller is prepared.
    Never,
}

/// What becomes of a call with other arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Otherwise {
    /// The process ends.
    End,
    /// The call fails with this error.
    Fail(i32),
}

/// One system call that is allowed, or that fails without ending the process.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(any(test, feature = "attacks")),
    expect(dead_code, reason = "the reasons are for the reader and for tests")
)]
pub(super) struct Call {
    pub(super) name: &'static str,
    pub(super) number: libc::c_long,
    pub(super) until: Stage,
    pub(super) only: Only,
    pub(super) otherwise: Otherwise,
    /// What needs it.
    pub(super) why: &'static str,
    /// Why a run that does everything once may not make it; `None`: it does.
    pub(super) unseen: Option<&'static str>,
}

impl Call {
    const fn new(name: &'static str, number: libc::c_long, why: &'static str) -> Self {
        let (only, otherwise) = (Only::Any, Otherwise::End);
        Self { name, number, until: Stage::Always, only, otherwise, why, unseen: None }
    }

    const fn while_loading(mut self) -> Self {
        self.until = Stage::Load;
        self
    }

    const fn only(mut self, only: Only) -> Self {
        self.only = only;
        self
    }

    const fn else_fails(mut self, error: i32) -> Self {
        self.otherwise = Otherwise::Fail(error);
        self
    }

    /// Fails always, and never ends the process.
    const fn refused(mut self, error: i32) -> Self {
        self.only = Only::Never;
        self.else_fails(error)
    }

    const fn unseen(mut self, why: &'static str) -> Self {
        self.unseen = Some(why);
        self
    }
}

/// `Call::new` with the number that libc has for the name.
macro_rules! call {
    ($name:ident, $why:literal) => {
        Call::new(stringify!($name).split_at(4).1, libc::$name, $why)
    };
}

pub(super) const EXECUTABLE: u64 = libc::PROT_EXEC as u64;
const CACHE: u64 = CACHE_FD as u64;
/// What glibc's `pthread_create` asks for: memory, files and signals shared, nothing of its own.
const THREAD: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID) as u64;

/// Why a thread's first calls may not be seen after the seal.
const STARTING: &str = "only of a thread of ours that starts in the moment of the seal";

/// The list for a runner that computes on the processor.
#[rustfmt::skip] // One call a line or two, as a table.
pub(super) const PROCESSOR: &[Call] = &[
    // Frames, and files that are open already.
    call!(SYS_read, "frames from the engine, the model's header, files of the cache"),
    call!(SYS_write, "frames to the engine, last words, files of the cache"),
    call!(SYS_close, "files of the cache; the model's when it is loaded"),
    call!(SYS_lseek, "reading the model and files of the cache from where they say"),
    call!(SYS_fstat, "the length of an open file"),
    call!(SYS_pread64, "headers of files of the cache; what the processors do, of a file that is open already"),
    // The cache's folder.
    call!(SYS_openat, "files of the cache, by their names in its open folder")
        .only(Only::OpenInCache).else_fails(libc::EACCES),
    call!(SYS_unlinkat, "the cache keeps to its quota").only(Only::InCache(&[0])),
    call!(SYS_renameat, "a file of the cache appears whole").only(Only::InCache(&[0, 2])),
    call!(SYS_utimensat, "marks an open file of the cache as used: no path").only(Only::Is(1, 0)),
    // Memory.
    call!(SYS_mmap, "memory, the model, stacks of threads").only(Only::Maps(2, 3)),
    call!(SYS_mprotect, "stacks and heaps begin without access").only(Only::Without(2, EXECUTABLE)),
    call!(SYS_munmap, "gives memory back"),
    call!(SYS_madvise, "gives memory back, and says how the model is read"),
    call!(SYS_mremap, "a vector beyond the allocator's threshold grows")
        .unseen("only long prompts and large files have one"),
    call!(SYS_brk, "memory of the first thread").unseen("the first thread only waits"),
    // Threads.
    call!(SYS_futex, "threads wait for each other"),
    call!(SYS_clone, "threads of a pool and of the cache, never a process").only(Only::Is(0, THREAD)),
    call!(SYS_clone3, "its flags lie in memory, where no filter can look: glibc then takes clone")
        .refused(libc::ENOSYS),
    call!(SYS_rseq, "glibc registers each thread"),
    call!(SYS_set_robust_list, "glibc registers each thread"),
    call!(SYS_sigaltstack, "the standard library notices a stack that overflows"),
    call!(SYS_gettid, "the standard library tells threads apart").unseen(STARTING),
    call!(SYS_prctl, "names of threads; and, with the seal, a promise that is kept already")
        .only(Only::OneOf(0, &[libc::PR_SET_NAME as u64, libc::PR_SET_NO_NEW_PRIVS as u64]))
        .unseen(STARTING),
    call!(SYS_sched_getaffinity, "glibc finds where a thread's stack ends").unseen(STARTING),
    call!(SYS_sched_yield, "the standard library's channels wait for a short while")
        .unseen("only where two threads meet at the same moment"),
    // Signals.
    call!(SYS_rt_sigprocmask, "glibc blocks signals while it makes or ends a thread"),
    call!(SYS_rt_sigreturn, "the end of a signal's handler")
        .unseen("no signal is handled in a run that goes well"),
    call!(SYS_rt_sigaction, "glibc's abort; never the handler that names a forbidden call")
        .only(Only::IsNot(0, libc::SIGSYS as u64)).unseen("only where llama.cpp gives up"),
    call!(SYS_getpid, "glibc's abort; names of the cache's temporary files")
        .unseen("only while loading, or where llama.cpp gives up"),
    call!(SYS_tgkill, "glibc's abort: a signal to itself")
        .only(Only::ThisProcess(0)).unseen("only where llama.cpp gives up"),
    // Time and chance.
    call!(SYS_clock_gettime, "clocks")
        .unseen("answered without the kernel where the processor's clock is good"),
    call!(SYS_clock_nanosleep, "the last moments after the engine is gone; a millisecond between two looks"),
    call!(SYS_restart_syscall, "a sleep goes on after the process was stopped")
        .unseen("nobody stops the process"),
    call!(SYS_getrandom, "seeds of hash tables"),
    call!(SYS_getrusage, "the most memory that was taken, told with each answer"),
    // The end.
    call!(SYS_exit, "the end of a thread"),
    call!(SYS_exit_group, "the end"),
    // While loading alone.
    call!(SYS_getdents64, "the names in the cache's folder").while_loading(),
    call!(SYS_fcntl, "the C library looks at a descriptor before it makes a stream or a listing of it; each plan \
        has the model's file for itself")
        .only(Only::OneOf(1, &[libc::F_GETFL as u64, libc::F_DUPFD_CLOEXEC as u64])).while_loading(),
    call!(SYS_fadvise64, "llama.cpp says that it reads the model in order").while_loading(),
    call!(SYS_sysinfo, "llama.cpp asks how much memory there is").while_loading(),
    call!(SYS_seccomp, "the seal itself").while_loading(),
    // Never: their callers do without.
    call!(SYS_newfstatat, "glibc before 2.39 asks for an open file's length by a call that takes paths")
        .refused(libc::ENOSYS).unseen("only while loading, where the C library has buffers"),
    call!(SYS_statx, "so does the standard library").refused(libc::ENOSYS)
        .unseen("nothing of ours asks in this way"),
];

/// What a driver of a GPU asks besides. Wider by far: its calls into the kernel's driver are `ioctl`s that no
/// filter can look into. Tested with Vulkan on a processor (Mesa's llvmpipe), which has no such driver: no machine with a real device
/// has run this list.
#[rustfmt::skip] // As above.
pub(super) const GPU: &[Call] = &[
    call!(SYS_ioctl, "the kernel's driver of the device").unseen(DRIVER),
    call!(SYS_openat, "the device and what the system says of it: Landlock says which"),
    call!(SYS_mmap, "memory of the device, and kernels made at run time"),
    call!(SYS_mprotect, "kernels made at run time"),
    call!(SYS_fcntl, "descriptors of the device").unseen(DRIVER),
    call!(SYS_newfstatat, "whether a device is there").unseen(DRIVER),
    call!(SYS_statx, "whether a device is there").unseen(DRIVER),
    call!(SYS_readlinkat, "where a device hangs").unseen(DRIVER),
    call!(SYS_faccessat, "whether a device is there").unseen(DRIVER),
    call!(SYS_getdents64, "which devices there are").unseen(DRIVER),
    call!(SYS_eventfd2, "news of the device").unseen(DRIVER),
    call!(SYS_pipe2, "news of the device").unseen(DRIVER),
    call!(SYS_ppoll, "news of the device").unseen(DRIVER),
    call!(SYS_mlock, "memory that the device reads").unseen(DRIVER),
    call!(SYS_munlock, "memory that the device reads").unseen(DRIVER),
    call!(SYS_getuid, "whose device it is").unseen(DRIVER),
    call!(SYS_geteuid, "whether variables of the environment may be believed").unseen(DRIVER),
    call!(SYS_uname, "which kernel it is").unseen(DRIVER),
    call!(SYS_sysinfo, "how much memory there is").unseen(DRIVER),
];

const DRIVER: &str = "not tested: a driver's own business";

/// Whether this build computes on a GPU.
pub(super) const HAS_GPU: bool =
    cfg!(any(feature = "cuda", feature = "vulkan", feature = "metal", feature = "rocm"));

/// The name of this build's list.
pub(super) const PROFILE: &str = if HAS_GPU { "gpu" } else { "processor" };

/// This build's list: what the device needs stands in place of what the processor does.
pub(super) fn profile() -> impl Iterator<Item = &'static Call> {
    let device = if HAS_GPU { GPU } else { &[] };
    let is_replaced = |call: &&Call| device.iter().any(|other| other.number == call.number);
    PROCESSOR.iter().filter(move |call| !is_replaced(call)).chain(device)
}

/// The number of the descriptor of the cache's folder, as an argument.
pub(super) const CACHE_ARGUMENT: u64 = CACHE;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::jail::names;

    #[test]
    fn each_call_is_listed_once_under_its_own_name_and_with_a_reason() {
        for list in [PROCESSOR, GPU] {
            let numbers: HashSet<_> = list.iter().map(|call| call.number).collect();
            assert_eq!(numbers.len(), list.len());
        }
        for call in PROCESSOR.iter().chain(GPU) {
            assert!(!call.why.is_empty() && call.unseen != Some(""), "{}", call.name);
            assert!(names::name(call.number).is_none_or(|name| name == call.name), "{}", call.name);
        }
    }

    #[test]
    fn nothing_that_escapes_is_listed() {
        let escapes = [
            libc::SYS_socket,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_io_uring_setup,
            libc::SYS_bpf,
            libc::SYS_keyctl,
            libc::SYS_userfaultfd,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_mount,
            libc::SYS_memfd_create,
            libc::SYS_ioctl,
            libc::SYS_kill,
            libc::SYS_linkat,
            libc::SYS_symlinkat,
            libc::SYS_openat2,
        ];
        assert!(PROCESSOR.iter().all(|call| !escapes.contains(&call.number)));
    }
}
