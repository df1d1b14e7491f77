//! `sandbox run script.py`: one snippet of untrusted code in a virtual machine of its own.
//!
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
//! | 9 servers | [`mcp`] | agents; each run in a process of its own |
//! | 10 command line | [`cli`] | arguments in, exit code out |

pub mod agent;
pub mod audit;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod confine;
pub mod devices;
pub mod doctor;
pub mod error;
pub mod files;
pub mod fs;
pub mod image;
pub mod job;
pub mod key;
pub mod kvm_mode;
pub mod limits;
pub mod log;
pub mod mcp;
pub mod outcome;
pub mod policy;
pub mod process;
pub mod random;
pub mod record;
pub mod run;
pub mod signals;
pub mod template;
pub mod text;
pub mod units;
pub mod vm;
pub mod watchdog;
pub mod wire;
pub mod worker;
