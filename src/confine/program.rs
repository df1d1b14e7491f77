//! Confinement of a program of somebody else's that works for us outside of any guest, such as the one
//! that chooses and unpacks packages: it may use a network, and a few files.

use crate::confine::{Missing, keep_capabilities, lower};
use crate::limits::ConfineLevel;
use anyhow::{Context, Result, bail};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, Scope,
};
use nix::errno::Errno;
use nix::sys::prctl::{set_dumpable, set_no_new_privs};
use nix::sys::resource::Resource;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// The files that a program may use, and directories with all below them. Those that do not exist are
/// left out.
#[derive(Debug, Default)]
pub struct Rights {
    pub execute: Vec<PathBuf>,
    pub read: Vec<PathBuf>,
    pub write: Vec<PathBuf>,
}

/// Bytes of the largest file that it may write.
const FILE_MAX: u64 = 8 << 30;
/// Bytes of its address space: allocators reserve much that they never use.
const MEMORY_MAX: u64 = 64 << 30;
const DESCRIPTORS_MAX: u64 = 4096;
/// Seconds of processor time.
const TIME_MAX: u64 = 1800;

/// Makes a command confine its process before that executes the program. Its own processes are as
/// confined as it is.
pub fn confine_program(command: &mut Command, level: ConfineLevel, rights: &Rights) -> Result<()> {
    if level == ConfineLevel::Off {
        return Ok(());
    }
    let mut rules = Some(rules(level, rights).context("confining a program with Landlock")?);
    let confine = move || {
        // Nothing is done twice: the closure is called in the new process alone.
        let confined = rules.take().map_or(Ok(()), give_up);
        confined.map_err(|error| match error.downcast_ref::<Errno>() {
            Some(errno) => io::Error::from(*errno),
            None => io::Error::from(io::ErrorKind::PermissionDenied),
        })
    };
    // SAFETY: between fork and exec, the closure makes system calls, and allocates at most what the C
    // library lets a new process allocate.
    unsafe { command.pre_exec(confine) };
    Ok(())
}

fn give_up(rules: RulesetCreated) -> Result<()> {
    lower(Resource::RLIMIT_CORE, 0)?;
    lower(Resource::RLIMIT_FSIZE, FILE_MAX)?;
    lower(Resource::RLIMIT_AS, MEMORY_MAX)?;
    lower(Resource::RLIMIT_NOFILE, DESCRIPTORS_MAX)?;
    lower(Resource::RLIMIT_CPU, TIME_MAX)?;
    set_dumpable(false)?;
    set_no_new_privs()?;
    keep_capabilities(&[])?;
    rules.restrict_self()?;
    Ok(())
}

fn rules(level: ConfineLevel, rights: &Rights) -> Result<RulesetCreated> {
    const NEWEST: ABI = ABI::V6;
    let reading = AccessFs::ReadFile | AccessFs::ReadDir;
    let writing = reading
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSym
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    if level == ConfineLevel::Require && !is_there()? {
        bail!(Missing("Landlock"));
    }
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        // It may connect, but serves nobody.
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    for (paths, access) in [
        (&rights.execute, AccessFs::Execute | AccessFs::ReadFile),
        (&rights.read, reading),
        (&rights.write, writing),
    ] {
        for path in paths {
            rules = add(rules, path, access)?;
        }
    }
    Ok(rules)
}

/// Allows access to a file, or to all in a directory, if it is there.
fn add(
    rules: RulesetCreated,
    path: &PathBuf,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(rules),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(rules),
        Err(error) => return Err(error).with_context(|| format!("opening {}", path.display())),
    };
    let access = match file.metadata()?.is_dir() {
        true => access,
        false => access & AccessFs::from_file(ABI::V6),
    };
    Ok(rules.add_rule(PathBeneath::new(file, access))?)
}

/// Returns whether the kernel has Landlock.
fn is_there() -> Result<bool> {
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::Execute);
    Ok(rules.is_ok_and(|rules| rules.create().is_ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::net::TcpListener;
    use std::path::Path;
    use std::process::Output;

    /// Runs a program of a shell's in a process that may write into this directory.
    fn shell(directory: &Path, code: &str) -> Output {
        let system = [
            "/lib",
            "/lib64",
            "/usr/lib",
            "/etc/ld.so.cache",
            "/usr/bin/python3",
        ];
        let rights = Rights {
            execute: ["/bin/bash", "/bin/cat", "/lib64/ld-linux-x86-64.so.2"]
                .map(Into::into)
                .into(),
            read: system.map(Into::into).into(),
            write: vec![directory.into()],
        };
        let mut command = Command::new("/bin/bash");
        command
            .args(["-c", code])
            .env_clear()
            .current_dir(directory);
        confine_program(&mut command, ConfineLevel::Require, &rights).unwrap();
        command.output().unwrap()
    }

    #[test]
    fn a_confined_program_uses_its_own_files_and_no_others() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let secret = outside.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        let secret = secret.display();
        let there = outside.path().display();
        for (code, works) in [
            (
                "echo text > file && [ \"$(< file)\" = text ]".to_owned(),
                true,
            ),
            ("/bin/cat file".into(), true),
            (format!("read word < {secret}"), false),
            (format!("echo text > {secret}"), false),
            (format!("echo text > {there}/new"), false),
            ("/bin/ls".into(), false),
            ("kill -0 $PPID".into(), false),
            ("ulimit -f unlimited".into(), false),
        ] {
            let output = shell(inside.path(), &code);
            assert_eq!(output.status.success(), works, "{code}: {output:?}");
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_confined_program_connects_where_it_wants() {
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let output = shell(
            directory.path(),
            &format!("echo > /dev/tcp/127.0.0.1/{port}"),
        );
        assert!(output.status.success(), "{output:?}");
    }
}
