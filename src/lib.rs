//! Runs one snippet of untrusted code in a virtual machine of its own.
//!
//! The command line is `sandbox run script.py`. Other programs use [`Sandbox`]; all other modules are
//! parts of the binary and private; its tests outside of `src/` see them through the feature `internals`.

// Floors, from the ground up; a module uses lower floors and siblings, never higher ones. docs/architecture.md says
// why some are where they are:
//
// | floor | modules | knows |
// |---|---|---|
// | 0 words | `error`, `outcome`, `record`, `limits`, `units`, `clock`, `cache`, `fs`, `log`, `text`, `random`, `process`, `signals`, `key`, `wire`, `json` | plain data and plain helpers |
// | 1 image | `image`, `layer` | what is in a guest, and trees of files for it |
// | 2 requests | `job`, `policy`, `audit` | what is to run, and who may ask for what |
// | 2 devices | `devices` | an interrupt line and a byte sink each; never KVM |
// | 3 vm | `vm` | KVM; the only place that does |
// | 4 host | `confine`, `kvm_mode`, `doctor`, `terminal` | what this process gives up before the guest runs, what the host can do, and the terminal |
// | 5 agent | `agent`, `files`, `watchdog` | the conversation with the guest's first process, and the files that it sends |
// | 5 packages | `packages` | what programs ask for, how it is chosen and kept |
// | 5 images of others | `oci` | archives of images that other tools made, and how they are unpacked |
// | 6 template | `template`, `checkpoint` | saved machines, and those of sessions |
// | 7 run | `run` | one run on one screen |
// | 8 worker | `worker`, `session` | a run as typed data in a process of its own, and one that is kept |
// | 9 doors | `library`, `mcp` | other programs, and agents; each run in a process of its own |
// | 10 command line | `cli`, `internals` | arguments in, exit code out; what tests see |

mod agent;
mod audit;
mod cache;
mod checkpoint;
mod cli;
mod clock;
mod confine;
mod devices;
mod doctor;
mod error;
mod files;
mod fs;
mod image;
#[cfg(feature = "internals")]
pub mod internals;
mod job;
mod json;
mod key;
mod kvm_mode;
mod layer;
mod library;
mod limits;
mod log;
mod mcp;
// The command that takes archives in is yet to come.
#[cfg_attr(not(test), allow(dead_code))]
mod oci;
mod outcome;
mod packages;
mod policy;
mod process;
mod random;
mod record;
mod run;
mod session;
mod signals;
mod template;
mod terminal;
mod text;
mod units;
mod vm;
mod watchdog;
mod wire;
mod worker;

// The binary is a crate of its own, and has only this; it is nothing for other programs.
#[doc(hidden)]
pub use cli::main;
pub use library::{Builder, End, Error, Output, Sandbox};
