//! Enters a worker's sandbox, or does not, and then tries what a worker that was taken over would
//! try. Prints one line per attempt: its name, and `ok` or the number of the error.
//!
//!     mote-sandbox-test on|off FOLDER PORT
//!
//! FOLDER has `model/weights` (to be read), `compiled/` (to be written), `secret` and `socket` (a
//! listening Unix socket); on PORT of the loopback interface something listens too.
#![allow(
    unsafe_code,
    reason = "attacks are bare system calls, with arguments no binding takes"
)]

use anyhow::{Context, Result};
use mote_worker::sandbox::{self, Access, Mode, Scope};
use nix::errno::Errno;
use nix::libc;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// What the attempts need to know.
struct Target {
    folder: PathBuf,
    port: u16,
    /// Another process of the same user.
    victim: i32,
}

type Attempt = fn(&Target) -> io::Result<()>;

const WORK: &[(&str, Attempt)] = &[
    ("read model", |t| read(&t.folder.join("model/weights"))),
    ("list model", |t| {
        fs::read_dir(t.folder.join("model")).map(drop)
    }),
    ("write cache", |t| {
        let file = t.folder.join("compiled/new");
        fs::write(&file, "x")?;
        fs::rename(&file, t.folder.join("compiled/newer"))?;
        fs::remove_file(t.folder.join("compiled/newer"))
    }),
    ("make folder in cache", |t| {
        fs::create_dir(t.folder.join("compiled/sub"))?;
        fs::remove_dir(t.folder.join("compiled/sub"))
    }),
    ("read own memory use", |_| {
        read(Path::new("/proc/self/statm"))
    }),
    ("read processor", |_| read(Path::new("/proc/cpuinfo"))),
    ("write null", |_| fs::write("/dev/null", "x")),
    ("make shared memory", |_| {
        let memory = mote_wire::Memfd::holding("test", &[7; 5_000])?;
        drop(memory);
        Ok(())
    }),
    ("start thread", |_| {
        let thread = std::thread::Builder::new()
            .name("test".into())
            .spawn(|| 7)?;
        match thread.join() {
            Ok(7) => Ok(()),
            _ => Err(io::ErrorKind::Other.into()),
        }
    }),
    ("pair sockets", |_| {
        let (mut one, mut other) = UnixStream::pair()?;
        one.write_all(b"x")?;
        other.read_exact(&mut [0])
    }),
    ("load system library", |_| {
        let name = CString::new("libm.so.6")?;
        // SAFETY: the C library's own companion, whose constructors do nothing.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            Err(io::ErrorKind::NotFound.into())
        } else {
            Ok(())
        }
    }),
    ("map code", |_| {
        let protection = libc::PROT_READ | libc::PROT_EXEC;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: new memory, which nothing uses.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }),
    ("sleep", |_| {
        std::thread::sleep(std::time::Duration::from_millis(1));
        Ok(())
    }),
];

const ATTACKS: &[(&str, Attempt)] = &[
    ("read secret", |t| read(&t.folder.join("secret"))),
    ("read secret in a thread", |t| {
        let secret = t.folder.join("secret");
        let thread = std::thread::spawn(move || read(&secret));
        thread
            .join()
            .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    }),
    ("read secret by way of cache", |t| {
        let link = t.folder.join("compiled/link");
        call(
            libc::SYS_symlinkat,
            &[path(&t.folder.join("secret"))?, at_cwd(), path(&link)?],
        )?;
        read(&link)
    }),
    ("read passwords", |_| read(Path::new("/etc/passwd"))),
    ("list root", |_| fs::read_dir("/").map(drop)),
    ("list homes", |_| fs::read_dir("/home").map(drop)),
    ("read environment of another", |t| {
        read(&PathBuf::from(format!("/proc/{}/environ", t.victim)))
    }),
    ("write model", |t| {
        fs::write(t.folder.join("model/weights"), "x")
    }),
    ("truncate model", |t| {
        let file = CString::new(
            t.folder
                .join("model/weights")
                .as_os_str()
                .as_encoded_bytes(),
        )?;
        // SAFETY: a C string that outlives the call.
        Errno::result(unsafe { libc::truncate(file.as_ptr(), 0) }).map(drop)?;
        Ok(())
    }),
    ("add to model", |t| {
        fs::write(t.folder.join("model/new"), "x")
    }),
    ("remove model", |t| {
        fs::remove_file(t.folder.join("model/other"))
    }),
    ("move cache into model", |t| {
        fs::write(t.folder.join("compiled/planted"), "x")?;
        fs::rename(
            t.folder.join("compiled/planted"),
            t.folder.join("model/planted"),
        )
    }),
    ("write temporary file", |_| {
        let file = std::env::temp_dir().join(format!("mote-sandbox-{}", std::process::id()));
        fs::write(&file, "x")?;
        fs::remove_file(file)
    }),
    ("change mode", |t| {
        use std::os::unix::fs::PermissionsExt;
        let file = t.folder.join("compiled/mode");
        fs::write(&file, "x")?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o4755))?;
        // Such calls answer that they were made.
        match fs::metadata(&file)?.permissions().mode() & 0o7777 {
            0o4755 => Ok(()),
            _ => Err(Errno::EPERM.into()),
        }
    }),
    ("connect TCP", |t| {
        TcpStream::connect(("127.0.0.1", t.port)).map(drop)
    }),
    ("open UDP", |_| {
        std::net::UdpSocket::bind("127.0.0.1:0").map(drop)
    }),
    ("connect service", |t| {
        UnixStream::connect(t.folder.join("socket")).map(drop)
    }),
    ("open netlink", |_| {
        let (family, kind) = (libc::AF_NETLINK, libc::SOCK_RAW);
        call(libc::SYS_socket, &[family.into(), kind.into(), 0])
    }),
    ("run program", |_| {
        std::process::Command::new("/bin/true").status().map(drop)
    }),
    ("replace program", |_| {
        let (program, none) = (c"/bin/true".as_ptr() as i64, [0i64]);
        // The process would be gone if this worked: a child that shares nothing tries it.
        in_child(|| {
            call(
                libc::SYS_execve,
                &[program, none.as_ptr() as i64, none.as_ptr() as i64],
            )
        })
    }),
    ("fork", |_| in_child(|| Ok(()))),
    ("signal another", |t| {
        call(libc::SYS_kill, &[t.victim.into(), 0])
    }),
    ("signal a thread of another", |t| {
        call(libc::SYS_tgkill, &[t.victim.into(), t.victim.into(), 0])
    }),
    ("raise a limit", |_| {
        let limit = libc::rlimit64 {
            rlim_cur: 0,
            rlim_max: 0,
        };
        let (resource, new) = (libc::RLIMIT_MSGQUEUE as i64, &raw const limit as i64);
        call(libc::SYS_prlimit64, &[0, resource, new, 0])
    }),
    ("dump core", |_| {
        call(libc::SYS_prctl, &[libc::PR_SET_DUMPABLE.into(), 1, 0, 0, 0])
    }),
    ("change personality", |_| {
        call(libc::SYS_personality, &[0xffff_ffff])
    }),
    ("make user namespace", |_| {
        in_child(|| call(libc::SYS_unshare, &[libc::CLONE_NEWUSER.into()]))
    }),
    ("make pipe in file system", |t| {
        let path = path(&t.folder.join("compiled/pipe"))?;
        call(
            libc::SYS_mknodat,
            &[at_cwd(), path, i64::from(libc::S_IFIFO) | 0o600, 0],
        )
    }),
    ("watch files", |_| call(libc::SYS_inotify_init1, &[0])),
    ("open handle of another", |t| {
        call(libc::SYS_pidfd_open, &[t.victim.into(), 0])
    }),
];

/// What takes rights that tests may not have: refused all the same.
const PRIVILEGED: &[(&str, Attempt)] = &[
    ("read memory of another", |t| {
        read(&PathBuf::from(format!("/proc/{}/maps", t.victim)))
    }),
    ("trace another", |t| {
        call(
            libc::SYS_ptrace,
            &[libc::PTRACE_SEIZE.into(), t.victim.into(), 0, 0],
        )
    }),
    ("copy memory of another", |t| {
        call(
            libc::SYS_process_vm_readv,
            &[t.victim.into(), 0, 0, 0, 0, 0],
        )
    }),
    ("mount", |t| {
        let (kind, place) = (c"tmpfs".as_ptr() as i64, path(&t.folder.join("compiled"))?);
        call(libc::SYS_mount, &[kind, place, kind, 0, 0])
    }),
    ("make network namespace", |_| {
        call(libc::SYS_unshare, &[libc::CLONE_NEWNET.into()])
    }),
    ("join namespace", |_| call(libc::SYS_setns, &[0, 0])),
    ("change root", |t| {
        call(libc::SYS_chroot, &[path(&t.folder)?])
    }),
    ("become root", |_| call(libc::SYS_setuid, &[0])),
    ("become nobody", |_| {
        call(libc::SYS_setresuid, &[65_534, 65_534, 65_534])
    }),
    ("load kernel program", |_| call(libc::SYS_bpf, &[0, 0, 0])),
    ("count events", |_| {
        call(libc::SYS_perf_event_open, &[0, 0, -1, -1, 0])
    }),
    ("handle faults", |_| call(libc::SYS_userfaultfd, &[1])),
    ("set up io_uring", |_| {
        let parameters = [0u64; 16];
        call(libc::SYS_io_uring_setup, &[4, parameters.as_ptr() as i64])
    }),
    ("read keys", |_| call(libc::SYS_keyctl, &[0, -3, 0, 0, 0])),
    ("request key", |_| {
        let kind = c"user".as_ptr() as i64;
        call(libc::SYS_request_key, &[kind, kind, 0, 0])
    }),
    ("load module", |_| call(libc::SYS_init_module, &[0, 0, 0])),
    ("reboot", |_| call(libc::SYS_reboot, &[0, 0, 0, 0])),
    ("set clock", |_| call(libc::SYS_settimeofday, &[0, 0])),
    ("name machine", |_| call(libc::SYS_sethostname, &[0, -1])),
    ("swap", |t| call(libc::SYS_swapon, &[path(&t.folder)?, 0])),
    ("open by handle", |_| {
        call(libc::SYS_open_by_handle_at, &[0, 0, 0])
    }),
    ("watch all files", |_| {
        call(libc::SYS_fanotify_init, &[0, 0])
    }),
    ("read kernel log", |_| call(libc::SYS_syslog, &[9, 0, 0])),
    ("raise priority", |_| {
        call(libc::SYS_setpriority, &[0, 0, -20])
    }),
    ("become real-time", |_| {
        let parameter = libc::sched_param { sched_priority: 50 };
        let parameter = &raw const parameter as i64;
        call(
            libc::SYS_sched_setscheduler,
            &[0, libc::SCHED_FIFO.into(), parameter],
        )
    }),
];

fn read(path: &Path) -> io::Result<()> {
    let mut byte = [0];
    File::open(path)?.read(&mut byte).map(drop)
}

const fn at_cwd() -> i64 {
    libc::AT_FDCWD as i64
}

/// The address of a C string that is never freed.
fn path(path: &Path) -> io::Result<i64> {
    Ok(CString::new(path.as_os_str().as_encoded_bytes())?.into_raw() as i64)
}

#[allow(
    clippy::unnecessary_cast,
    reason = "words are 32 bits wide on some targets"
)]
fn call(number: libc::c_long, arguments: &[i64]) -> io::Result<()> {
    let argument = |index: usize| arguments.get(index).copied().unwrap_or(0) as libc::c_long;
    let (a, b, c) = (argument(0), argument(1), argument(2));
    let (d, e, f) = (argument(3), argument(4), argument(5));
    // SAFETY: arguments are numbers, null, or addresses of values that outlive the call; calls that
    // would change this process where they succeed are made in a child, or change nothing here.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    Ok(Errno::result(result).map(drop)?)
}

/// Tries something in a process of its own; its error is this one's.
fn in_child(attempt: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    // SAFETY: no other thread runs, so the child may do anything.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => {
            let result = attempt();
            let code = result.map_or_else(|error| error.raw_os_error().unwrap_or(255), |()| 0);
            std::process::exit(code)
        }
        nix::unistd::ForkResult::Parent { child } => match nix::sys::wait::waitpid(child, None)? {
            nix::sys::wait::WaitStatus::Exited(_, 0) => Ok(()),
            nix::sys::wait::WaitStatus::Exited(_, code) => Err(io::Error::from_raw_os_error(code)),
            _ => Err(io::ErrorKind::Other.into()),
        },
    }
}

/// A call by the numbers of 32-bit x86, which a filter of 64-bit numbers would read as another.
#[cfg(target_arch = "x86_64")]
fn foreign_call() -> i32 {
    const GETPID: i32 = 20;
    let result: i32;
    // SAFETY: getpid takes no arguments and touches no memory.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("eax") GETPID => result, out("r8") _, out("r9") _, out("r10") _, out("r11") _)
    };
    result
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mode, folder, port] = arguments.as_slice() else {
        anyhow::bail!("mote-sandbox-test on|off FOLDER PORT");
    };
    let target = Target {
        folder: PathBuf::from(folder),
        port: port.parse().context("the port is no number")?,
        victim: nix::unistd::getppid().as_raw(),
    };
    let on = mode == "on";
    let mut scope = Scope::default();
    scope.add(target.folder.join("model"), Access::Read);
    scope.add(target.folder.join("compiled"), Access::Write);
    sandbox::enter(if on { Mode::On } else { Mode::Off }, &scope);
    let mut out = io::stdout().lock();
    #[cfg(target_arch = "x86_64")]
    if port == "0" {
        writeln!(out, "foreign {}", foreign_call())?;
        return Ok(());
    }
    // Whoever may do these without a sandbox would do harm: they are tried in it alone.
    let privileged = if on { PRIVILEGED } else { &[] };
    for (name, attempt) in WORK.iter().chain(ATTACKS).chain(privileged) {
        match attempt(&target) {
            Ok(()) => writeln!(out, "{name}=ok")?,
            Err(error) => match error.raw_os_error() {
                Some(errno) => writeln!(out, "{name}={errno}")?,
                None => writeln!(out, "{name}={:?}", error.kind())?,
            },
        }
    }
    Ok(out.flush()?)
}
