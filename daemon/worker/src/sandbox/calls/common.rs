//! Calls that x86-64, AArch64 and 32-bit Arm have under one name.

use super::{Condition, EACCES, EPERM, INT, Row, Value, Verdict, int, rows};
use nix::libc::*;

/// A thread of this process; anything else that `clone` makes is a process or a namespace.
const THREAD: u64 = (CLONE_VM | CLONE_SIGHAND | CLONE_THREAD) as u64;
const NAMESPACES: u64 = (CLONE_NEWNS
    | CLONE_NEWUTS
    | CLONE_NEWIPC
    | CLONE_NEWUSER
    | CLONE_NEWPID
    | CLONE_NEWNET
    | CLONE_NEWCGROUP) as u64;
const A_THREAD: &[Condition] = &[Condition {
    argument: 0,
    mask: THREAD | NAMESPACES,
    value: Value::Is(THREAD),
}];
const OWN_PROCESS: &[Condition] = &[Condition {
    argument: 0,
    mask: INT,
    value: Value::OwnProcess,
}];
const UNIX_SOCKET: &[Condition] = &[int(0, AF_UNIX)];
/// `new_limit` of `prlimit64` is a null pointer: the limit is read.
const READ_LIMIT: &[Condition] = &[Condition {
    argument: 2,
    mask: u64::MAX,
    value: Value::Is(0),
}];
const PROCESS_OPTIONS: &[Condition] = &[
    // Threads are named, memory is labelled: for whoever debugs.
    int(0, PR_SET_NAME),
    int(0, PR_GET_NAME),
    int(0, PR_SET_VMA),
    // Libraries ask which rights they have.
    int(0, PR_CAPBSET_READ),
    int(0, PR_GET_NO_NEW_PRIVS),
    int(0, PR_GET_DUMPABLE),
    int(0, PR_GET_PDEATHSIG),
    // Vector lengths of SVE and SME, which Arm kernels are chosen by.
    int(0, PR_SVE_GET_VL),
    int(0, PR_SME_GET_VL),
];
const PR_SVE_GET_VL: i32 = 51;
const PR_SME_GET_VL: i32 = 64;
/// What any descriptor may be asked; nothing of a device.
const DESCRIPTOR_REQUESTS: &[Condition] = &[
    request(FIONBIO),
    request(FIOCLEX),
    request(FIONCLEX),
    request(FIONREAD),
    request(TCGETS),
];

#[allow(
    clippy::unnecessary_cast,
    reason = "as wide as a word, and so 32 bits on Arm"
)]
const fn request(number: Ioctl) -> Condition {
    Condition {
        argument: 1,
        mask: INT,
        value: Value::Is(number as u64),
    }
}

/// Calls of every worker.
pub const ROWS: &[Row] = rows! {
    // What computing and waiting take, the most frequent first.
    SYS_futex: "locks and conditions";
    SYS_read: "files, pipes, counters";
    SYS_write: "standard error, counters";
    SYS_recvmsg: "frames and descriptors of the broker and of streams";
    SYS_sendmsg: "frames and descriptors to them";
    SYS_sched_yield: "spinning threads";
    SYS_clock_gettime: "time, where the vDSO cannot tell it";
    SYS_clock_getres: "resolution of clocks";
    SYS_clock_nanosleep: "sleep";
    SYS_nanosleep: "sleep";
    SYS_gettimeofday: "time, where the vDSO cannot tell it";
    SYS_restart_syscall: "the kernel's own, after a stop";
    SYS_getrandom: "seeds of hash tables and samplers";
    SYS_getcpu: "the processor a thread is on";
    SYS_membarrier: "lock-free lists of allocators";
    SYS_rseq: "per-processor data of the C library and allocators";

    // Memory.
    SYS_mprotect: "libraries as they are loaded; code that is compiled at run time";
    SYS_munmap: "memory given back";
    SYS_mremap: "growing allocations";
    SYS_madvise: "memory given back, huge pages, read ahead of weights";
    SYS_brk: "the C library's heap";
    SYS_mincore: "whether weights are resident";
    SYS_msync: "mapped outputs";
    SYS_memfd_create: "memory that goes to clients";
    SYS_fallocate: "memory of a memfd";
    SYS_ftruncate: "size of a memfd or clip";

    // Files, within what Landlock leaves open.
    SYS_openat: "libraries, weights, what the kernel tells";
    SYS_close: "descriptors";
    SYS_close_range: "descriptors";
    SYS_statx: "size and kind of files";
    SYS_lseek: "position in clips";
    SYS_pread64: "weights, clips";
    SYS_pwrite64: "clips";
    SYS_readv: "files";
    SYS_writev: "files, standard error";
    SYS_preadv: "files";
    SYS_pwritev: "files";
    SYS_readlinkat: "real paths of weights beside a model";
    SYS_faccessat: "whether a library is there";
    SYS_faccessat2: "the same, as newer C libraries ask it";
    SYS_getdents64: "folders";
    SYS_getcwd: "paths that are not absolute";
    SYS_fcntl: "close-on-exec, seals of a memfd";
    SYS_dup: "descriptors";
    SYS_dup3: "descriptors";
    SYS_fsync: "clips and caches that must not be torn";
    SYS_fdatasync: "the same";
    SYS_flock: "caches that several workers share";
    SYS_unlinkat: "within the compile cache";
    SYS_renameat2: "within the compile cache";
    SYS_renameat: "within the compile cache";
    SYS_mkdirat: "within the compile cache";
    SYS_umask: "modes of files in the compile cache";

    // Descriptors to wait on; sockets that were given.
    SYS_ppoll: "waiting for sockets";
    SYS_pselect6: "waiting for descriptors";
    SYS_epoll_create1: "waiting for descriptors";
    SYS_epoll_ctl: "waiting for descriptors";
    SYS_epoll_pwait: "waiting for descriptors";
    SYS_eventfd2: "threads that wake each other";
    SYS_pipe2: "threads that wake each other";
    SYS_timerfd_create: "timers of libraries";
    SYS_timerfd_settime: "timers of libraries";
    SYS_timerfd_gettime: "timers of libraries";
    SYS_sendto: "sockets that were given";
    SYS_recvfrom: "sockets that were given";
    SYS_shutdown: "end of a stream";
    SYS_getsockopt: "sockets that were given";
    SYS_setsockopt: "sockets that were given";
    SYS_getsockname: "sockets that were given";
    SYS_getpeername: "sockets that were given";
    SYS_socketpair: "threads that wake each other" => Verdict::AllowIf(UNIX_SOCKET, EACCES);

    // Threads of this process, and its end.
    SYS_clone: "threads; no processes, no namespaces" => Verdict::AllowIf(A_THREAD, EPERM);
    SYS_set_robust_list: "a thread's start";
    SYS_get_robust_list: "a thread's start";
    SYS_set_tid_address: "a thread's start";
    SYS_exit: "a thread's end";
    SYS_exit_group: "the end";
    SYS_rt_sigaction: "signal handlers";
    SYS_rt_sigprocmask: "threads start with signals blocked";
    SYS_rt_sigreturn: "return from a handler";
    SYS_rt_sigtimedwait: "threads that wait for signals";
    SYS_rt_sigsuspend: "threads that wait for signals";
    SYS_sigaltstack: "the stack on which overflows are told";
    SYS_tgkill: "abort" => Verdict::AllowIf(OWN_PROCESS, EPERM);
    SYS_kill: "raise" => Verdict::AllowIf(OWN_PROCESS, EPERM);
    SYS_sched_getaffinity: "processors to compute with";
    SYS_sched_setaffinity: "threads that stay on a processor";
    SYS_sched_getparam: "priority of threads";
    SYS_sched_getscheduler: "priority of threads";
    SYS_sched_get_priority_max: "priority of threads";
    SYS_sched_get_priority_min: "priority of threads";
    SYS_getpriority: "priority of threads";

    // What the kernel tells of this process and the machine.
    SYS_capget: "libraries ask which rights they have";
    SYS_getpid: "messages";
    SYS_gettid: "messages, locks";
    SYS_getppid: "whether the broker is there";
    SYS_getuid: "whether the environment can be trusted";
    SYS_geteuid: "whether the environment can be trusted";
    SYS_getgid: "whether the environment can be trusted";
    SYS_getegid: "whether the environment can be trusted";
    SYS_getrusage: "time used";
    SYS_times: "time used";
    SYS_uname: "kernel version";
    SYS_sysinfo: "memory of the machine";
    SYS_prlimit64: "limits are read, not set" => Verdict::AllowIf(READ_LIMIT, EPERM);
    SYS_prctl: "names; no change of rights" => Verdict::AllowIf(PROCESS_OPTIONS, EPERM);
    SYS_ioctl: "descriptors; no devices" => Verdict::AllowIf(DESCRIPTOR_REQUESTS, ENOTTY);

    // Refused with what callers expect, so that they say what was the matter.
    SYS_socket: "no network, nor services of this machine" => Verdict::Refuse(EACCES);
    SYS_connect: "no network, nor services of this machine" => Verdict::Refuse(EACCES);
    SYS_bind: "no network, nor services of this machine" => Verdict::Refuse(EACCES);
    SYS_listen: "no network, nor services of this machine" => Verdict::Refuse(EACCES);
    SYS_execve: "no programs" => Verdict::Refuse(EACCES);
    SYS_execveat: "no programs" => Verdict::Refuse(EACCES);
    SYS_ptrace: "other processes are none of its business" => Verdict::Refuse(EPERM);
    SYS_process_vm_readv: "the same" => Verdict::Refuse(EPERM);
    SYS_process_vm_writev: "the same" => Verdict::Refuse(EPERM);
    SYS_perf_event_open: "counters tell of other processes" => Verdict::Refuse(EACCES);
    SYS_bpf: "a large way into the kernel" => Verdict::Refuse(EPERM);
    SYS_userfaultfd: "makes races in the kernel winnable" => Verdict::Refuse(EPERM);
    SYS_io_uring_setup: "calls that no filter sees" => Verdict::Refuse(EPERM);
    SYS_keyctl: "keys of the user" => Verdict::Refuse(EPERM);
    SYS_add_key: "keys of the user" => Verdict::Refuse(EPERM);
    SYS_request_key: "keys of the user" => Verdict::Refuse(EPERM);
    SYS_mount: "the tree of files stays as it is" => Verdict::Refuse(EPERM);
    SYS_umount2: "the tree of files stays as it is" => Verdict::Refuse(EPERM);
    SYS_pivot_root: "the tree of files stays as it is" => Verdict::Refuse(EPERM);
    SYS_chroot: "the tree of files stays as it is" => Verdict::Refuse(EPERM);
    SYS_unshare: "no namespaces" => Verdict::Refuse(EPERM);
    SYS_setns: "no namespaces" => Verdict::Refuse(EPERM);
    SYS_fchmod: "modes of files stay as they are: OpenVINO wants its cache read-only" => Verdict::Pretend;
    SYS_fchmodat: "as fchmod" => Verdict::Pretend;
    SYS_fchown: "owners of files stay as they are" => Verdict::Refuse(EPERM);
    SYS_fchownat: "owners of files stay as they are" => Verdict::Refuse(EPERM);
};

/// Calls of workers whose provider has a driver, in front of [`ROWS`].
pub const DRIVER_ROWS: &[Row] = rows! {
    SYS_ioctl: "how drivers are talked to; Landlock says which devices";
    SYS_mlock: "memory that a device reads";
    SYS_munlock: "memory that a device reads";
    SYS_mlock2: "memory that a device reads";
    SYS_mbind: "memory near a device";
    SYS_get_mempolicy: "memory near a device";
    SYS_set_mempolicy: "memory near a device";
    SYS_sched_setscheduler: "threads of a driver; the process may not be real-time";
    SYS_kcmp: "whether two descriptors are one buffer" => Verdict::AllowIf(OWN_PROCESS, EPERM);
};
