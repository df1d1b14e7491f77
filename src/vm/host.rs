//! The state of /dev/kvm on this host: absent, forbidden, too old, or of one of two families.
//!
//! `doctor` and `run` share the sentences and remedies here.

use crate::error::Remedy;
use crate::process::require_proc;
use anyhow::Context;
use kvm_ioctls::{Cap, Kvm, VmFd};
use nix::errno::Errno;
use std::ffi::CString;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The way in which the host runs a guest's kernel mode. User mode is native in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Kernel mode is native, on VT-x or AMD-V, nested or not.
    Hardware,
    /// The processor lacks that feature, so kernel mode is emulated, one instruction at a time.
    Software,
}

impl Family {
    /// Guesses the family from the host's modules, for a host where KVM cannot be tried: a software
    /// KVM registers as a module of its own.
    pub fn detect() -> Self {
        if Path::new("/sys/module/kvm_pvm").exists() {
            Self::Software
        } else {
            Self::Hardware
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Hardware => "hardware",
            Self::Software => "software",
        }
    }
}

/// The version that KVM_GET_API_VERSION has returned since Linux 2.6.22.
const API_VERSION: i32 = 12;

/// Capabilities that a machine needs, and the Linux version that introduced each.
pub const NEEDED: [(&str, Cap, &str); 8] = [
    ("KVM_CAP_USER_MEMORY", Cap::UserMemory, "2.6.25"),
    ("KVM_CAP_EXT_CPUID", Cap::ExtCpuid, "2.6.26"),
    ("KVM_CAP_READONLY_MEM", Cap::ReadonlyMem, "3.7"),
    ("KVM_CAP_SIGNAL_MSI", Cap::SignalMsi, "3.5"),
    ("KVM_CAP_SPLIT_IRQCHIP", Cap::SplitIrqchip, "4.5"),
    ("KVM_CAP_IMMEDIATE_EXIT", Cap::ImmediateExit, "4.13"),
    ("KVM_CAP_ADJUST_CLOCK", Cap::AdjustClock, "2.6.33"),
    ("KVM_CAP_XSAVE", Cap::Xsave, "2.6.36"),
];

/// The reason why KVM cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    Absent(PathBuf),
    Forbidden {
        path: PathBuf,
        way: Way,
    },
    NotKvm(PathBuf),
    Unopenable {
        path: PathBuf,
        errno: i32,
    },
    WrongVersion(i32),
    Lacks {
        capability: &'static str,
        since: &'static str,
    },
    Busy,
    NoVm(i32),
}

/// The way for the user to get access to the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// Join the group of this name, which has access to the device.
    Join(String),
    /// Log in again: /etc/group has the user in this group, but the login session began before.
    LogIn(String),
    /// Change the device's permissions: no group that the user could join has access.
    Permit,
}

/// Opens KVM and checks that it has the needed capabilities.
pub fn open(path: &Path) -> Result<Kvm, Problem> {
    let kvm = open_device(path)?;
    match kvm.get_api_version() {
        API_VERSION => {}
        -1 => return Err(Problem::NotKvm(path.into())),
        version => return Err(Problem::WrongVersion(version)),
    }
    match NEEDED
        .iter()
        .find(|(_, capability, _)| !kvm.check_extension(*capability))
    {
        Some(&(capability, _, since)) => Err(Problem::Lacks { capability, since }),
        None => Ok(kvm),
    }
}

/// Returns a fingerprint of what a saved machine depends on besides our own build: the host's
/// processor and kernel.
pub fn fingerprint() -> anyhow::Result<&'static [u8]> {
    static FINGERPRINT: OnceLock<Vec<u8>> = OnceLock::new();
    match FINGERPRINT.get() {
        Some(known) => Ok(known),
        None => read_fingerprint().map(|bytes| &**FINGERPRINT.get_or_init(|| bytes)),
    }
}

fn read_fingerprint() -> anyhow::Result<Vec<u8>> {
    let kernel = nix::sys::utsname::uname().context("asking for the kernel's name")?;
    let mut bytes = kernel.release().as_bytes().to_vec();
    bytes.extend(kernel.version().as_bytes());
    // The CPUID instruction itself is slow where the host is itself a guest. The first processor
    // stands for all.
    const ENOUGH: u64 = 8192;
    let mut processor = Vec::with_capacity(ENOUGH as usize);
    let read =
        File::open("/proc/cpuinfo").and_then(|file| file.take(ENOUGH).read_to_end(&mut processor));
    if let Err(error) = read {
        require_proc()?;
        return Err(error).context("reading /proc/cpuinfo");
    }
    for line in processor.split(|&byte| byte == b'\n') {
        const WHAT_IT_IS: [&[u8]; 8] = [
            b"vendor_id",
            b"cpu family",
            b"model",
            b"model name",
            b"stepping",
            b"microcode",
            b"flags",
            b"bugs",
        ];
        let name = line.split(|&byte| byte == b'\t').next();
        match name {
            // The entry of the next processor begins.
            Some(b"") => break,
            Some(name) if WHAT_IT_IS.contains(&name) => bytes.extend(line),
            _ => {}
        }
    }
    Ok(bytes)
}

/// Creates a VM. This fails if another hypervisor holds the processor.
pub fn create_vm(kvm: &Kvm) -> Result<VmFd, Problem> {
    loop {
        match kvm.create_vm().map_err(|error| error.errno()) {
            Ok(vm) => return Ok(vm),
            // KVM waits for locks, and any signal ends that wait, even one that only stops and
            // continues us.
            Err(libc::EINTR) => {}
            Err(libc::EBUSY) => return Err(Problem::Busy),
            Err(errno) => return Err(Problem::NoVm(errno)),
        }
    }
}

/// Returns the remedy if the error is that the host has too little of something.
pub fn shortage(error: &anyhow::Error) -> Option<&'static str> {
    let errno = |cause: &(dyn std::error::Error + 'static)| {
        let io = cause.downcast_ref::<io::Error>();
        let nix = cause.downcast_ref::<Errno>();
        let kvm = cause.downcast_ref::<kvm_ioctls::Error>();
        io.and_then(io::Error::raw_os_error)
            .or(nix.map(|&errno| errno as i32))
            .or(kvm.map(|error| error.errno()))
    };
    error.chain().find_map(errno).and_then(remedy)
}

fn remedy(errno: i32) -> Option<&'static str> {
    match errno {
        libc::ENOMEM => Some("free memory, or let it have more: ulimit -v"),
        libc::EAGAIN => Some("let it have more threads, or memory: ulimit -u, ulimit -v"),
        libc::EMFILE => Some("let it have more open files: ulimit -n"),
        libc::ENFILE => Some("close files of other programs: the host has too many open"),
        libc::ENOSPC => Some("free space there, or keep the cache elsewhere with XDG_CACHE_HOME"),
        _ => None,
    }
}

fn open_device(path: &Path) -> Result<Kvm, Problem> {
    let unopenable = |errno| Problem::Unopenable {
        path: path.into(),
        errno,
    };
    // A path cannot contain a NUL.
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| unopenable(libc::EINVAL))?;
    Kvm::new_with_path(name).map_err(|error| {
        let errno = error.errno();
        let error = io::Error::from(error);
        match (error.kind(), error.raw_os_error()) {
            (ErrorKind::NotFound, _) | (_, Some(libc::ENODEV | libc::ENXIO)) => {
                Problem::Absent(path.into())
            }
            (ErrorKind::PermissionDenied, _) => Problem::Forbidden {
                path: path.into(),
                way: way(path),
            },
            (ErrorKind::IsADirectory, _) => Problem::NotKvm(path.into()),
            _ => unopenable(errno),
        }
    })
}

/// Looks the user up in the group database. It does not use libc, whose look-ups load libraries
/// into a process that has none. A user whom only a directory service knows counts as no member.
fn way(path: &Path) -> Way {
    const ROOT: u32 = 0;
    const READ_AND_WRITE: u32 = 0o060;
    let group = path.metadata().ok().and_then(|device| {
        let lets_in = device.mode() & READ_AND_WRITE == READ_AND_WRITE && device.gid() != ROOT;
        lets_in.then(|| device.gid())
    });
    let field = |wanted| field_where("/etc/group", 2, group?, wanted);
    let Some(name) = field(0) else {
        return Way::Permit;
    };
    let user = field_where("/etc/passwd", 2, nix::unistd::geteuid().as_raw(), 0);
    let members = field(3).unwrap_or_default();
    match user.is_some_and(|user| members.split(',').any(|member| member == user)) {
        true => Way::LogIn(name),
        false => Way::Join(name),
    }
}

/// Returns a field of the line whose field `key` is this number (passwd(5), group(5)).
fn field_where(file: &str, key: usize, number: u32, wanted: usize) -> Option<String> {
    let lines = std::fs::read_to_string(file).ok()?;
    lines
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(key) == Some(&number.to_string().as_str()))
        .and_then(|fields| fields.get(wanted).map(|field| field.to_string()))
}

impl Problem {
    /// Returns the remedy, as a sentence.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Absent(_) => "enable virtualisation: in the firmware (VT-x or AMD-V), or nested \
                 virtualisation if this is a virtual machine; in a container, pass the device in \
                 (--device /dev/kvm); then load the module (modprobe kvm_intel or kvm_amd)"
                .into(),
            Self::Forbidden { path, way } => {
                let path = path.display();
                Remedy::Do(match way {
                    Way::Join(group) => format!(
                        "join its group and log in again: sudo usermod -aG {group} $USER (ls -l {path})"
                    ),
                    Way::LogIn(group) => format!(
                        "you are in its group, but this login session began before: log in again, \
                         or run newgrp {group}"
                    ),
                    Way::Permit => format!(
                        "no group lets you in (ls -l {path}): sudo setfacl -m u:$USER:rw {path}, and \
                         for good a udev rule: KERNEL==\"kvm\", GROUP=\"kvm\", MODE=\"0660\""
                    ),
                })
            }
            Self::NotKvm(_) => "name the real device, usually /dev/kvm".into(),
            Self::Unopenable { errno, .. } | Self::NoVm(errno) => {
                remedy(*errno).map_or(Remedy::Report, Remedy::from)
            }
            Self::WrongVersion(_) => Remedy::Report,
            Self::Lacks { since, .. } => format!("use Linux {since} or newer on the host").into(),
            Self::Busy => "stop the other hypervisor (VirtualBox, VMware), or try again".into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(path) => write!(f, "this host has no {}", path.display()),
            Self::Forbidden { path, .. } => write!(f, "you may not open {}", path.display()),
            Self::NotKvm(path) => write!(f, "{} is not a KVM device", path.display()),
            Self::Unopenable { path, errno } => {
                let reason = io::Error::from_raw_os_error(*errno);
                write!(f, "{} cannot be opened: {reason}", path.display())
            }
            Self::WrongVersion(version) => {
                write!(f, "KVM has API version {version}, not {API_VERSION}")
            }
            Self::Lacks { capability, .. } => write!(f, "KVM lacks {capability}"),
            Self::Busy => write!(f, "KVM is busy"),
            Self::NoVm(errno) => {
                let reason = io::Error::from_raw_os_error(*errno);
                write!(f, "KVM could not create a virtual machine: {reason}")
            }
        }
    }
}

impl std::error::Error for Problem {}
