//! The set-up of the machine: file systems, devices, loopback, and the limit on processes.

use anyhow::{Context, Result};
use guest::{JobFrame, WINDOWS, WORKDIR};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, chdir, chown, chroot, mkdir, sethostname};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

/// The cgroup whose processes are counted: those of the program, and of commands beside it.
pub const CGROUP: &str = "/sys/fs/cgroup/program";
/// The cgroup of each, by which they are told apart.
pub const JOB_CGROUP: &str = "/sys/fs/cgroup/program/job";
pub const COMMANDS_CGROUP: &str = "/sys/fs/cgroup/program/commands";

const RUNTIME: &str = "/dev/pmem0";

/// Prepares everything that a program needs before it can start.
pub fn prepare() -> Result<()> {
    make_directory("/dev")?;
    make_mount("devtmpfs", "/dev", "devtmpfs", MsFlags::MS_NOSUID, "")?;
    enter_runtime()?;
    for window in 1..=WINDOWS {
        wait_for(&format!("/dev/pmem{window}"))?;
    }
    mount_file_systems()?;
    make_device_links()?;
    // No kernel thread wakes twice a second to move pages, of which a clone would then have its own.
    fs::write("/proc/sys/vm/compaction_proactiveness", "0").context("turning compaction off")?;
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+pids").context("counting processes")?;
    for cgroup in [CGROUP, JOB_CGROUP, COMMANDS_CGROUP] {
        fs::create_dir(cgroup).context("making a cgroup")?;
    }
    sethostname("sandbox").context("setting the host name")?;
    raise_loopback()
}

/// Makes the runtime image the root. The initramfs cannot be unmounted, so this does what
/// switch_root(8) does, except for deleting the agent from memory.
fn enter_runtime() -> Result<()> {
    make_directory("/runtime")?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    wait_for(RUNTIME)?;
    make_mount(RUNTIME, "/runtime", "erofs", flags, "dax")?;
    move_mount("/dev", "/runtime/dev")?;
    switch_root("/runtime")
}

/// Makes the file system that is mounted on a directory the root.
fn switch_root(directory: &str) -> Result<()> {
    chdir(directory).with_context(|| format!("entering {directory}"))?;
    move_mount(".", "/")?;
    chroot(".").with_context(|| format!("making {directory} the root"))?;
    chdir("/").context("entering the root")
}

/// Waits until a device can be opened. The kernel probes persistent memory in the background, and makes
/// a disk's node before the disk itself.
fn wait_for(device: &str) -> Result<()> {
    const TRIES: u32 = 10_000;
    let mut opened = File::open(device);
    for _ in 0..TRIES {
        if opened.is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
        opened = File::open(device);
    }
    opened
        .with_context(|| format!("opening {device}"))
        .map(drop)
}

fn mount_file_systems() -> Result<()> {
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let inert = safe | MsFlags::MS_NOEXEC;
    make_mount("proc", "/proc", "proc", inert, "")?;
    make_mount("sysfs", "/sys", "sysfs", inert, "")?;
    make_mount("cgroup2", "/sys/fs/cgroup", "cgroup2", inert, "")?;
    make_directory("/dev/pts")?;
    let no_exec = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    make_mount(
        "devpts",
        "/dev/pts",
        "devpts",
        no_exec,
        "mode=620,ptmxmode=666",
    )?;
    make_directory("/dev/shm")?;
    make_mount("tmpfs", "/dev/shm", "tmpfs", safe, "mode=1777")?;
    // Large pages for large files: the work for each page costs most where kernel mode is emulated.
    make_mount("tmpfs", "/tmp", "tmpfs", safe, "huge=within_size,mode=1777")?;
    make_mount("tmpfs", "/run", "tmpfs", safe, "mode=755")?;
    make_mount(
        "tmpfs",
        WORKDIR,
        "tmpfs",
        safe,
        "huge=within_size,mode=755,uid=1000,gid=1000",
    )
}

/// Makes the file system in the first window the root of this process and of all that it starts, with what the
/// machine has beside it.
pub fn enter_own_root(job: &JobFrame) -> Result<()> {
    /// The runtime image has this directory, which is empty.
    const PLACE: &str = "/usr/lib/sandbox/layer";
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    make_mount("/dev/pmem1", PLACE, "erofs", flags, "dax")?;
    for (own, name) in [
        ("/dev", "dev"),
        ("/proc", "proc"),
        ("/sys", "sys"),
        ("/tmp", "tmp"),
        ("/run", "run"),
        (WORKDIR, "work"),
        ("/usr/lib/sandbox/alone", ".sandbox"),
    ] {
        bind(own, &format!("{PLACE}/{name}"))?;
    }
    let (user, group) = (Uid::from_raw(job.user), Gid::from_raw(job.group));
    chown(WORKDIR, Some(user), Some(group)).context("giving the working directory to the user")?;
    switch_root(PLACE)
}

/// Lets root write where the image has what a system keeps of its own: users, settings, homes. What is
/// written is in memory, above what the image has. What is no directory there, but a link or a file of an image that
/// others made, stays as it is.
pub fn open_to_root() -> Result<()> {
    const ABOVE: &str = "/run/above";
    make_directory(ABOVE)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    make_mount("tmpfs", ABOVE, "tmpfs", flags, "mode=700")?;
    let is_directory = |name: &&str| {
        let metadata = fs::symlink_metadata(format!("/{name}"));
        metadata.is_ok_and(|metadata| metadata.is_dir())
    };
    for directory in ["etc", "home", "root", "var"]
        .into_iter()
        .filter(|name| is_directory(name))
    {
        let own = format!("{ABOVE}/{directory}");
        let [upper, work] = ["upper", "work"].map(|name| format!("{own}/{name}"));
        for path in [&own, &upper, &work] {
            make_directory(path)?;
        }
        let target = format!("/{directory}");
        // The directory itself has the mode of the one above.
        fs::metadata(&target)
            .and_then(|metadata| fs::set_permissions(&upper, metadata.permissions()))
            .with_context(|| format!("giving {upper} the mode of {target}"))?;
        let options = format!("lowerdir={target},upperdir={upper},workdir={work},redirect_dir=on");
        make_mount("overlay", &target, "overlay", flags, &options)?;
    }
    Ok(())
}

fn make_device_links() -> Result<()> {
    // devtmpfs made /dev/ptmx, which belongs to no instance of devpts.
    fs::remove_file("/dev/ptmx").context("removing /dev/ptmx")?;
    for (target, link) in [
        ("pts/ptmx", "/dev/ptmx"),
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
    ] {
        symlink(target, link).with_context(|| format!("linking {link}"))?;
    }
    Ok(())
}

/// Raises the loopback interface. 127.0.0.1 gets its address with it (devinet.c: inetdev_event).
fn raise_loopback() -> Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    use std::os::fd::AsRawFd;
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .context("making a socket")?;
    // SAFETY: ifreq is plain old data; all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) };
    nix::errno::Errno::result(result).context("raising the loopback interface")?;
    Ok(())
}

fn make_directory(path: &str) -> Result<()> {
    match mkdir(path, Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("making {path}")),
    }
}

fn make_mount(source: &str, target: &str, kind: &str, flags: MsFlags, data: &str) -> Result<()> {
    mount(Some(source), target, Some(kind), flags, Some(data))
        .with_context(|| format!("mounting {kind} on {target}"))
}

/// Shows a directory, with all that is mounted below it, at another path too.
fn bind(directory: &str, path: &str) -> Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(directory), path, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("showing {directory} at {path}"))
}

fn move_mount(source: &str, target: &str) -> Result<()> {
    mount(
        Some(source),
        Path::new(target),
        None::<&str>,
        MsFlags::MS_MOVE,
        None::<&str>,
    )
    .with_context(|| format!("moving {source} to {target}"))
}
