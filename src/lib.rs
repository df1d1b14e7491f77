//! `sandbox run script.py`: one snippet of untrusted code in a virtual machine of its own.
//!
//! Floors, from the ground up; a module uses lower floors and siblings, never higher ones:
//!
//! | floor | modules | knows |
//! |---|---|---|
//! | 0 words | [`job`], [`complaint`], [`limits`], [`outcome`], [`record`], [`layout`], [`own`], [`units`], [`clock`], [`fs`], [`log`] | plain data |
//! | 1 devices | [`devices`] | an interrupt line and a byte sink each; never KVM |
//! | 2 vm | [`vm`] | KVM; the only place that does |
//! | 3 session | [`session`] | the conversation with the agent |
//! | 4 assets | [`assets`], [`cache`] | files: kernel, agent, runtime image |
//! | 4 files | [`files`] | the user's files, in and out |
//! | 4 template | [`template`] | files; never an ioctl |
//! | 4 confine | [`confine`] | what this process gives up before the guest runs |
//! | 4 policy | [`policy`], [`audit`] | what callers may ask for, and what became of it |
//! | 5 story | [`run`], [`warm`], [`watchdog`], [`doctor`], [`kvm_mode`] | one run on one screen |
//! | 5 other doors | [`mcp`] | agents; each run in a process of its own |
//! | 6 door | [`cli`] | arguments in, exit code out |

pub mod assets;
pub mod audit;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod complaint;
pub mod confine;
pub mod devices;
pub mod doctor;
pub mod files;
pub mod fs;
pub mod job;
pub mod kvm_mode;
pub mod layout;
pub mod limits;
pub mod log;
pub mod mcp;
pub mod outcome;
pub mod own;
pub mod policy;
pub mod record;
pub mod run;
pub mod session;
pub mod template;
pub mod units;
pub mod vm;
pub mod warm;
pub mod watchdog;
