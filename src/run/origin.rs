//! The machine of a run: a clone of a saved one, or one that boots for this run alone.

use crate::agent::{Console, Session, Shared};
use crate::cache;
use crate::image::store;
use crate::run::{Path, Request};
use crate::template::builder::{self, Listener, Original};
use crate::vm::mode::Mode;
use crate::vm::{BootImages, Config, Vm};
use anyhow::Result;
use kvm_ioctls::Kvm;
use std::fs::File;
use std::io::{Write, stderr};
use std::sync::Arc;

/// Returns the saved machine to clone, unless the machine is to boot: because that was asked for, or
/// because nothing can be kept here.
pub fn original(
    kvm: &Kvm,
    mode: Mode,
    request: &Request,
    path: Path,
    listener: &mut dyn Listener,
) -> Result<Option<Original>> {
    if path == Path::Cold {
        return Ok(None);
    }
    let (device, spec) = (&request.kvm, request.template());
    let found = builder::find_or_build(kvm, mode, device, &spec, request.verify, listener);
    or_without_cache(found.map(Some), |why| {
        listener.unsaved(why);
        Ok(None)
    })
}

/// Boots a machine for this request alone.
pub fn boot(
    kvm: &Kvm,
    mode: Mode,
    request: &Request,
    session: Session,
    shared: &Arc<Shared>,
) -> Result<Vm<Session>> {
    let console: Option<Box<dyn Write + Send>> = match request.show_console {
        true => Some(Box::new(Console::new(stderr(), Arc::clone(shared))?)),
        false => None,
    };
    let config = Config {
        memory: request.limits.memory,
        runtime: runtime()?,
        images: BootImages {
            kernel: &store::kernel()?,
            agent: store::AGENT,
        },
        console,
    };
    Vm::boot(kvm, mode, config, session)
}

fn runtime() -> Result<File> {
    or_without_cache(store::runtime(), |_| store::runtime_in_memory())
}

/// Replaces a result that failed because nothing can be kept in the cache.
fn or_without_cache<T>(
    result: Result<T>,
    without: impl FnOnce(&crate::error::Error) -> Result<T>,
) -> Result<T> {
    match &result {
        Err(error) => match cache::why_unusable(error) {
            Some(why) => without(why),
            None => result,
        },
        Ok(_) => result,
    }
}
