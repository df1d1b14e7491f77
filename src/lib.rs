//! Runs one snippet of untrusted code in a virtual machine of its own.
//!
//! The command line is `sandbox run script.py`. Other programs use [`Sandbox`]; all other modules are
//! parts of the binary, public for its tests alone, and change without notice.
//!
//! # Inside
//! Floors, from the ground up; a module uses lower floors and siblings, never higher ones:
//!
//! | floor | modules | knows |
//! |---|---|---|
//! | 0 words | [`error`], [`outcome`], [`record`], [`limits`], [`units`], [`clock`], [`cache`], [`fs`], [`log`], [`text`], [`random`], [`process`], [`signals`], [`key`], [`wire`] | plain data and plain helpers |
//! | 1 image | [`image`] | what is in a guest |
//! | 2 requests | [`job`], [`policy`], [`audit`] | what is to run, and who may ask for what |
//! | 2 devices | [`devices`] | an interrupt line and a byte sink each; never KVM |
//! | 3 vm | [`vm`] | KVM; the only place that does |
//! | 4 host | [`confine`], [`kvm_mode`], [`doctor`] | what this process gives up before the guest runs, and what the host can do |
//! | 5 agent | [`agent`], [`files`], [`watchdog`] | the conversation with the guest's first process, and the files that it sends |
//! | 6 template | [`template`] | saved machines |
//! | 7 run | [`run`] | one run on one screen |
//! | 8 worker | [`worker`] | a run as typed data in a process of its own |
//! | 9 doors | [`library`], [`mcp`] | other programs, and agents; each run in a process of its own |
//! | 10 command line | [`cli`] | arguments in, exit code out |

#[doc(hidden)]
pub mod agent;
#[doc(hidden)]
pub mod audit;
#[doc(hidden)]
pub mod cache;
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod clock;
#[doc(hidden)]
pub mod confine;
#[doc(hidden)]
pub mod devices;
#[doc(hidden)]
pub mod doctor;
#[doc(hidden)]
pub mod error;
#[doc(hidden)]
pub mod files;
#[doc(hidden)]
pub mod fs;
#[doc(hidden)]
pub mod image;
#[doc(hidden)]
pub mod job;
#[doc(hidden)]
pub mod key;
#[doc(hidden)]
pub mod kvm_mode;
#[doc(hidden)]
pub mod library;
#[doc(hidden)]
pub mod limits;
#[doc(hidden)]
pub mod log;
#[doc(hidden)]
pub mod mcp;
#[doc(hidden)]
pub mod outcome;
#[doc(hidden)]
pub mod policy;
#[doc(hidden)]
pub mod process;
#[doc(hidden)]
pub mod random;
#[doc(hidden)]
pub mod record;
#[doc(hidden)]
pub mod run;
#[doc(hidden)]
pub mod signals;
#[doc(hidden)]
pub mod template;
#[doc(hidden)]
pub mod text;
#[doc(hidden)]
pub mod units;
#[doc(hidden)]
pub mod vm;
#[doc(hidden)]
pub mod watchdog;
#[doc(hidden)]
pub mod wire;
#[doc(hidden)]
pub mod worker;

pub use library::{Builder, End, Error, Output, Sandbox};
