//! The compilation of packages' modules, in a guest: by the interpreter that will load them, and where
//! packages can do no harm.

use crate::error::{Error, Kind, Remedy};
use crate::files::Get;
use crate::image::LayerFile;
use crate::job::Source;
use crate::kvm_mode::Device;
use crate::limits::Limits;
use crate::outcome::Outcome;
use crate::process::OURS;
use crate::run::{Report, Request};
use crate::worker::client::follow;
use crate::worker::{Ended, Spec};
use anyhow::Result;
use std::path::Path;
use std::time::Duration;

const CODE: &str = include_str!("../../guest/images/python/compile.py");
/// Bytes of memory: half is for files, of which there may be many.
const MEMORY: u64 = 2 << 30;
/// The longest that it may take, where the guest's kernel is emulated.
const TIME: Duration = Duration::from_secs(1800);

/// Compiles the modules of a layer. The files are put into a directory, which is made, each under the path
/// that the guest has for it.
pub fn compile(layer: &LayerFile, directory: &Path, kvm: &Device) -> Result<()> {
    let spec = Spec {
        request: Request {
            layers: vec![layer.clone()],
            arguments: vec![layer.mount.clone().into()],
            gets: vec![Get {
                guest: "/work/compiled".into(),
                host: Some(directory.into()),
            }],
            limits: Limits {
                memory: MEMORY,
                machine_memory: MEMORY,
                timeout: Some(TIME),
                fetch_count: u64::MAX,
                fetch_size: u64::MAX,
                ..Limits::default()
            },
            kvm: kvm.clone(),
            // No other run has this layer.
            fresh: true,
            ..Request::of(Source::Code(CODE.into()))
        },
        inspect: None,
    };
    match follow(Path::new(OURS), &spec)? {
        Ended::Report(report) => check(&report).map_err(Into::into),
        Ended::Failed(error) => Err(error.into()),
        Ended::Interrupted(signal) => Err(failed(format!("signal {signal} ended it")).into()),
    }
}

fn check(report: &Report) -> Result<(), Error> {
    if let Some(failure) = report.undelivered() {
        return Err(failure);
    }
    match report.outcome {
        Outcome::Exited(0) => Ok(()),
        _ => Err(failed(report.ended())),
    }
}

fn failed(why: String) -> Error {
    Error::new(
        Kind::Packages,
        format!("the packages' modules could not be compiled in a guest: {why}"),
        Remedy::Report,
    )
}
