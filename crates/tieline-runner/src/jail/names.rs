//! Names of system calls, for the message of a process that made a forbidden one.

/// `(number, name)` of each of libc's constants.
macro_rules! names {
    ($($constant:ident)*) => {
        &[$((libc::$constant, stringify!($constant))),*]
    };
}

/// Calls of every processor that a hostile or a new llama.cpp is likely to try.
const NAMES: &[(libc::c_long, &str)] = names! {
    SYS_accept SYS_accept4 SYS_acct SYS_add_key SYS_adjtimex SYS_bind SYS_bpf SYS_capset SYS_chdir
    SYS_chroot SYS_clock_adjtime SYS_clock_settime SYS_clone SYS_clone3 SYS_close SYS_close_range
    SYS_connect SYS_copy_file_range SYS_delete_module SYS_dup SYS_dup3 SYS_epoll_create1 SYS_epoll_ctl
    SYS_epoll_pwait SYS_eventfd2 SYS_execve SYS_execveat SYS_faccessat SYS_faccessat2 SYS_fadvise64
    SYS_fallocate SYS_fanotify_init SYS_fanotify_mark SYS_fchdir SYS_fchmod SYS_fchmodat SYS_fchown
    SYS_fchownat SYS_fcntl SYS_fdatasync SYS_fgetxattr SYS_finit_module SYS_flock SYS_fsconfig
    SYS_fsetxattr SYS_fsmount SYS_fsopen SYS_fspick SYS_fstat SYS_fstatfs SYS_fsync SYS_ftruncate
    SYS_futex SYS_get_mempolicy SYS_getcpu SYS_getcwd SYS_getdents64 SYS_getpeername SYS_getppid
    SYS_getpriority SYS_getrandom SYS_getrlimit SYS_getrusage SYS_getsockname SYS_getsockopt
    SYS_geteuid SYS_gettimeofday SYS_getuid SYS_getxattr SYS_init_module SYS_inotify_add_watch SYS_inotify_init1
    SYS_io_setup SYS_io_submit SYS_io_uring_enter SYS_io_uring_register SYS_io_uring_setup SYS_ioctl
    SYS_kcmp SYS_kexec_load SYS_keyctl SYS_kill SYS_landlock_add_rule SYS_landlock_create_ruleset
    SYS_landlock_restrict_self SYS_linkat SYS_listen SYS_lseek SYS_madvise SYS_mbind SYS_membarrier
    SYS_memfd_create SYS_memfd_secret SYS_migrate_pages SYS_mincore SYS_mkdirat SYS_mknodat SYS_mlock
    SYS_mlock2 SYS_mlockall SYS_mmap SYS_mount SYS_mount_setattr SYS_move_mount SYS_move_pages
    SYS_mprotect SYS_mq_open SYS_mremap SYS_msgget SYS_munlock SYS_name_to_handle_at SYS_nanosleep
    SYS_newfstatat SYS_open_by_handle_at SYS_open_tree SYS_openat SYS_openat2 SYS_perf_event_open
    SYS_personality SYS_pidfd_getfd SYS_pidfd_open SYS_pidfd_send_signal SYS_pipe2 SYS_pivot_root
    SYS_pkey_alloc SYS_pkey_mprotect SYS_ppoll SYS_prctl SYS_pread64 SYS_preadv SYS_prlimit64
    SYS_process_madvise SYS_process_vm_readv SYS_process_vm_writev SYS_pselect6 SYS_ptrace SYS_pwrite64
    SYS_quotactl SYS_readahead SYS_readlinkat SYS_reboot SYS_recvfrom SYS_recvmsg SYS_remap_file_pages
    SYS_renameat SYS_renameat2 SYS_request_key SYS_rt_sigaction SYS_rt_sigpending SYS_rt_sigqueueinfo
    SYS_rt_sigsuspend SYS_rt_sigtimedwait SYS_rt_tgsigqueueinfo SYS_sched_getparam SYS_sched_getscheduler
    SYS_sched_setaffinity SYS_sched_setattr SYS_sched_setparam SYS_sched_setscheduler SYS_seccomp
    SYS_semget SYS_sendfile SYS_sendmsg SYS_sendto SYS_set_mempolicy SYS_setdomainname SYS_setgid
    SYS_setgroups SYS_sethostname SYS_setns SYS_setpgid SYS_setpriority SYS_setresuid SYS_setrlimit
    SYS_setsid SYS_setsockopt SYS_settimeofday SYS_setuid SYS_setxattr SYS_shmat SYS_shmget SYS_shutdown
    SYS_signalfd4 SYS_socket SYS_socketpair SYS_splice SYS_statfs SYS_statx SYS_swapon SYS_symlinkat
    SYS_sync SYS_syncfs SYS_sysinfo SYS_syslog SYS_tee SYS_tgkill SYS_timer_create SYS_timerfd_create
    SYS_tkill SYS_truncate SYS_umask SYS_umount2 SYS_uname SYS_unlinkat SYS_unshare SYS_userfaultfd
    SYS_utimensat SYS_vhangup SYS_vmsplice SYS_wait4 SYS_waitid SYS_writev SYS_readv SYS_pwritev
};

/// Those that newer processors do without.
#[cfg(target_arch = "x86_64")]
const OLD: &[(libc::c_long, &str)] = names! {
    SYS_access SYS_alarm SYS_arch_prctl SYS_chmod SYS_chown SYS_creat SYS_dup2 SYS_epoll_create
    SYS_epoll_wait SYS_eventfd SYS_fork SYS_getdents SYS_inotify_init SYS_ioperm SYS_iopl SYS_lchown
    SYS_link SYS_lstat SYS_mkdir SYS_mknod SYS_modify_ldt SYS_open SYS_pause SYS_pipe SYS_poll
    SYS_readlink SYS_rename SYS_rmdir SYS_select SYS_signalfd SYS_stat SYS_symlink SYS_time SYS_unlink
    SYS_ustat SYS_utime SYS_utimes SYS_vfork
};

#[cfg(not(target_arch = "x86_64"))]
const OLD: &[(libc::c_long, &str)] = &[];

/// The name of a system call, as its manual page has it. Allocates nothing: a signal handler asks.
pub(super) fn name(number: libc::c_long) -> Option<&'static str> {
    let found = NAMES.iter().chain(OLD).find(|(known, _)| *known == number)?;
    found.1.strip_prefix("SYS_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_their_names() {
        assert_eq!(name(libc::SYS_ptrace), Some("ptrace"));
        assert_eq!(name(libc::SYS_openat), Some("openat"));
        assert_eq!(name(100_000), None);
    }
}
