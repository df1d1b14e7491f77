//! uv, the program that chooses packages and unpacks them: where it is, and how it is run. It runs
//! confined, with nothing of the user's configuration, and executes nothing: no build of a package, no
//! interpreter but our stand-in.

use crate::confine::{Rights, confine_program};
use crate::error::{Error, Kind, Packages as Way, Remedy};
use crate::image::Packages;
use crate::limits::ConfineLevel;
use crate::packages::environment::Environment;
use crate::packages::interpreter;
use crate::packages::staging::Stage;
use crate::packages::uv_error::{self, Said};
use crate::process;
use anyhow::{Context, Result, anyhow};
use nix::unistd::Pid;
use std::env;
use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The longest that it may take for one of its two tasks.
const TIME: Duration = Duration::from_secs(900);
/// The most bytes of what it says that are looked at.
const SAID_MAX: u64 = 1 << 20;

/// Files that a program needs where it is not linked statically, and to find hosts and trust them.
const SYSTEM: [&str; 18] = [
    "/dev/null",
    "/dev/urandom",
    "/etc/ca-certificates",
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/nsswitch.conf",
    "/etc/pki",
    "/etc/resolv.conf",
    "/etc/ssl",
    "/lib",
    "/lib64",
    "/proc/self",
    "/sys/fs/cgroup",
    "/usr/lib",
    "/usr/local/share/ca-certificates",
    "/usr/share/ca-certificates",
];

/// The dynamic linkers of programs that are not linked statically.
const LINKERS: [&str; 2] = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-musl-x86_64.so.1"];

/// A uv that was found, and all that each run of it needs.
pub struct Uv<'a> {
    pub program: PathBuf,
    /// The directory of earlier downloads.
    pub downloads: PathBuf,
    pub environment: &'a Environment,
    pub packages: &'a Packages,
    pub offline: bool,
    pub level: ConfineLevel,
}

/// Finds the program: on the path of commands, or else where `sandbox packages setup` puts it.
pub fn find(own: Option<PathBuf>) -> Result<PathBuf, Error> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).filter(|path| path.is_absolute());
    let candidates = directories.map(|directory| directory.join("uv"));
    candidates
        .chain(own)
        .find_map(|path| program(&path))
        .ok_or_else(|| {
            Error::new(
                Kind::Packages,
                "packages are chosen by uv, which is not on this host",
                Remedy::GetPackages(Way::SetUp),
            )
        })
}

/// Returns where a program really is, if it is one of x86-64: what only starts another, as a version
/// manager's does, could not do so here.
fn program(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    let mut magic = [0; 4];
    File::open(&path)
        .and_then(|mut file| file.read_exact(&mut magic))
        .ok()?;
    let is_executable = path
        .metadata()
        .is_ok_and(|it| it.permissions().mode() & 0o111 != 0);
    (magic == *b"\x7fELF" && is_executable).then_some(path)
}

impl Uv<'_> {
    /// Chooses packages for the requirements in a file of the stage; returns the lines of a lock.
    pub fn choose(&self, stage: &Stage, file: &str, newer: Option<&str>) -> Result<(String, Said)> {
        let mut arguments = vec!["pip", "compile", file, "--output-file", "chosen"];
        arguments.extend(["--generate-hashes", "--no-header", "--no-annotate"]);
        arguments.extend(["--python-version", self.packages.python_release()]);
        arguments.extend(["--python-platform", &self.packages.platform]);
        arguments.extend(newer.into_iter().flat_map(|time| ["--exclude-newer", time]));
        let said = self.run(stage, &arguments)?;
        let chosen = fs::read_to_string(stage.path("chosen")).context("reading what uv chose")?;
        Ok((chosen, said))
    }

    /// Unpacks the packages of a lock, which is a file of the stage, into a directory of the stage.
    pub fn unpack(&self, stage: &Stage, file: &str, directory: &str) -> Result<Said> {
        let mut arguments = vec![
            "pip",
            "install",
            "--requirements",
            file,
            "--target",
            directory,
        ];
        arguments.extend(["--no-deps", "--require-hashes", "--link-mode", "copy"]);
        self.run(stage, &arguments)
    }

    /// Runs it with these arguments in the stage. It has failed if it left out a file of a package.
    fn run(&self, stage: &Stage, arguments: &[&str]) -> Result<Said> {
        let stand_in = stage.path("python3");
        if !stand_in.exists() {
            let facts = interpreter::facts(self.packages).to_string();
            fs::write(&stand_in, interpreter::printing(&facts)).context("making an interpreter")?;
            fs::set_permissions(&stand_in, Permissions::from_mode(0o500))?;
        }
        let said = File::create(stage.path("said")).context("making a file")?;
        let mut command = process::command(&self.program);
        command
            .arg0("uv")
            .args(arguments)
            .args([
                "--no-config",
                "--no-build",
                "--no-progress",
                "--color",
                "never",
            ])
            .arg("--python")
            .arg(&stand_in)
            .arg("--cache-dir")
            .arg(&self.downloads)
            .args(self.offline.then_some("--offline"))
            .current_dir(stage.root())
            .env_clear()
            .envs(self.environment.variables())
            .envs(self.fixed(stage))
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said);
        confine_program(&mut command, self.level, &self.rights(stage, &stand_in))?;
        let result = self.wait(&mut command);
        let said = Said::new(&self.environment.redacted(&read(&stage.path("said"))?));
        match result? {
            true if !said.left_out() => Ok(said),
            _ => Err(uv_error::error(&said, self.packages.python_release()).into()),
        }
    }

    /// Returns the variables that are the same for everybody.
    fn fixed(&self, stage: &Stage) -> Vec<(&'static str, PathBuf)> {
        let home = stage.root();
        let mut variables: Vec<_> = ["HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME"]
            .map(|name| (name, home.to_path_buf()))
            .into();
        for (name, value) in [
            // It says at this level that it leaves out a file.
            ("RUST_LOG", "warn"),
            ("UV_NO_CONFIG", "1"),
            ("UV_NO_ENV_FILE", "1"),
            ("UV_PYTHON_DOWNLOADS", "never"),
            ("UV_KEYRING_PROVIDER", "disabled"),
        ] {
            variables.push((name, value.into()));
        }
        variables
    }

    fn rights(&self, stage: &Stage, stand_in: &Path) -> Rights {
        let mut execute = vec![self.program.clone(), stand_in.to_path_buf()];
        execute.extend(LINKERS.map(PathBuf::from));
        let mut read: Vec<_> = SYSTEM.map(PathBuf::from).into();
        read.extend(self.environment.files());
        Rights {
            execute,
            read,
            write: vec![stage.root().into(), self.downloads.clone()],
        }
    }

    /// Waits for its end; returns whether it succeeded.
    fn wait(&self, command: &mut Command) -> Result<bool> {
        let mut child = command.spawn().map_err(|error| self.not_started(&error))?;
        let process = Pid::from_raw(child.id() as i32);
        let ended = process::ends_within(process, TIME);
        if !matches!(ended, Ok(true)) {
            child.kill().context("ending uv")?;
        }
        let status = child.wait().context("waiting for uv")?;
        match ended? {
            true => Ok(status.success()),
            false => Err(uv_error::slow(TIME).into()),
        }
    }

    fn not_started(&self, error: &std::io::Error) -> anyhow::Error {
        let shown = self.program.display();
        match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::NotFound => Error::new(
                Kind::Packages,
                format!("uv, which is {shown}, cannot be run: {error}"),
                Remedy::GetPackages(Way::SetUp),
            )
            .into(),
            _ => anyhow!("starting {shown}: {error}"),
        }
    }
}

fn read(path: &Path) -> Result<String> {
    let mut said = Vec::new();
    let file = File::open(path).context("reading what uv says")?;
    file.take(SAID_MAX)
        .read_to_end(&mut said)
        .context("reading what uv says")?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}
