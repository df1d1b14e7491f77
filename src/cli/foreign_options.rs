//! Options of other programs, such as docker(1), that people try here, and what does the same.

/// Options that `sandbox run` does not have, with what to do instead.
const FOREIGN: &[(&[&str], &str)] = &[
    (
        &[
            "--network",
            "--net",
            "--publish",
            "-p",
            "--expose",
            "--dns",
            "--add-host",
            "--hostname",
            "--link",
        ],
        "leave it out: there is no network in the guest",
    ),
    (
        &["--no-network", "--no-net", "--isolated"],
        "leave it out: there never is a network in the guest",
    ),
    (
        &[
            "-v",
            "--volume",
            "--mount",
            "--bind",
            "--tmpfs",
            "--volumes-from",
        ],
        "nothing of this machine is mounted: files go in with --put HOST:GUEST and come out with --get GUEST:HOST",
    ),
    (
        &["--tty", "-a", "--attach"],
        "leave it out: the program has a terminal where this is one",
    ),
    (
        &[
            "--rm",
            "--name",
            "--restart",
            "--pull",
            "--platform",
            "--label",
            "--init",
        ],
        "leave it out: a machine is made for one run and ends with it",
    ),
    (
        &["-d", "--detach"],
        "let the shell do it: sandbox run SCRIPT &",
    ),
    (
        &[
            "--cpus",
            "--cpu",
            "--cores",
            "--cpuset-cpus",
            "--cpu-shares",
            "--vcpus",
        ],
        "leave it out: a guest has one processor",
    ),
    (
        &["-u", "--user", "--uid", "--group-add", "--userns"],
        "leave it out: the program is an ordinary user, or the guest's root with --root",
    ),
    (
        &["--privileged", "--cap-add", "--cap-drop", "--security-opt"],
        "leave it out: --root makes the program the guest's root, and nothing gives it rights on this machine",
    ),
    (
        &["--gpus", "--device"],
        "leave it out: the guest has no devices of this machine",
    ),
    (
        &["--read-only"],
        "leave it out: all but /work, /tmp and /dev/shm is read-only",
    ),
    (
        &[
            "--entrypoint",
            "--command",
            "--cmd",
            "--eval",
            "-C",
            "--exec",
        ],
        "give code after -c, or name a script",
    ),
    (
        &[
            "--mem",
            "--ram",
            "--memory-limit",
            "--memory-swap",
            "--mem-limit",
            "--max-memory",
        ],
        "the option is --memory SIZE",
    ),
    (
        &[
            "--time",
            "--time-limit",
            "--timelimit",
            "--deadline",
            "--max-time",
            "--wall-time",
        ],
        "the option is --timeout DURATION",
    ),
    (
        &["--cwd", "--chdir", "--directory", "--dir", "--working-dir"],
        "the option is --workdir DIR, which is a directory in the guest",
    ),
    (
        &["--language", "--interpreter", "--runtime"],
        "the option is --lang python or --lang bash",
    ),
    (
        &["-f", "--file", "--script"],
        "name the script without an option: sandbox run SCRIPT",
    ),
    (
        &["-o", "--output", "--out", "--download", "--fetch"],
        "output is written to standard output: > FILE; files that the program leaves come with --get GUEST:HOST",
    ),
    (
        &[
            "--input", "--stdin", "--upload", "--copy", "--add", "--files",
        ],
        "standard input is passed on: < FILE; files go in with --put HOST:GUEST",
    ),
    (
        &["--debug", "--trace", "-x"],
        "the options are --verbose and --console",
    ),
    (&["--silent", "-s"], "the option is --quiet"),
    (
        &["--pids", "--ulimit", "--processes"],
        "the option is --pids-limit N",
    ),
    (
        &[
            "--pip",
            "--packages",
            "--package",
            "--requirement",
            "-r",
            "--install",
        ],
        "the options are --with PACKAGE and --requirements FILE",
    ),
    (
        &["--arg", "--args"],
        "the program's arguments come after the script: sandbox run SCRIPT ARGS",
    ),
];

/// Returns what to do instead of giving this option.
pub fn remedy(option: &str) -> Option<&'static str> {
    let entry = FOREIGN.iter().find(|(names, _)| names.contains(&option));
    entry.map(|(_, remedy)| *remedy)
}
