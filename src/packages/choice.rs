//! The choice of packages: from what is asked for to a lock.

use crate::cache::Share;
use crate::error::{Error, Kind, Packages as Way, Remedy};
use crate::image::Packages;
use crate::key::Key;
use crate::limits::ConfineLevel;
use crate::packages::environment::Environment;
use crate::packages::lock::{self, Lock, refused};
use crate::packages::request::Asked;
use crate::packages::setup;
use crate::packages::staging::Stage;
use crate::packages::store::Store;
use crate::packages::uv::{self, Uv};
use crate::policy::{LimitExceeded, Packages as Policy};
use anyhow::{Context, Result};
use std::fs;

/// How packages are chosen.
#[derive(Debug, Clone)]
pub struct How {
    /// The interpreter that they are for.
    pub packages: Packages,
    pub environment: Environment,
    /// Choose nothing that was not chosen before.
    pub known: bool,
    /// Take nothing from a network.
    pub offline: bool,
    pub confine: ConfineLevel,
    /// The client of a server that they are for.
    pub share: Option<Share>,
}

/// Packages that were chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    pub lock: Lock,
    /// The warnings of uv, if it was asked now.
    pub warnings: Vec<String>,
}

impl How {
    /// Returns the key of this request, which is in a lock of it. Where packages come from is no part of
    /// it, since a lock is right wherever its hashes are.
    pub fn key(&self, asked: &Asked) -> Key {
        asked.key(&self.packages)
    }
}

impl How {
    /// Holds what is asked for against a policy, and has it chosen as that says.
    pub fn keep_to(&mut self, policy: &Policy, asked: &mut Asked) -> Result<(), LimitExceeded> {
        policy.check(&asked.names())?;
        self.known = !policy.may_choose();
        if let Some(index) = &policy.index {
            self.environment = std::mem::take(&mut self.environment).with_index(index);
        }
        if let Some(most) = &policy.exclude_newer {
            // Dates and times of this form are in the order of their letters.
            let own = asked.exclude_newer.take().filter(|own| own < most);
            asked.exclude_newer = Some(own.unwrap_or_else(|| most.clone()));
        }
        Ok(())
    }
}

/// Returns the lock for what is asked for: the one that is asked for, or one of the cache, or else one
/// that is chosen now. `choosing` is called before that.
pub fn choose(store: &Store, asked: &Asked, how: &How, choosing: impl FnOnce()) -> Result<Chosen> {
    asked.check()?;
    let known = match &asked.locked {
        Some(text) => Some(Lock::parse(text).map_err(|why| refused("of that file", &why))?),
        None => store.find(&how.key(asked), &how.environment.index())?,
    };
    match known {
        Some(lock) => Ok(Chosen {
            lock,
            warnings: Vec::new(),
        }),
        None if how.known => Err(Error::new(
            Kind::Policy,
            format!("nobody has chosen these packages yet: {}", asked.summary()),
            "have whoever may do so build them first, or ask for others",
        )
        .into()),
        None => {
            choosing();
            choose_anew(store, asked, how)
        }
    }
}

/// Chooses packages now, and keeps the lock.
pub fn choose_anew(store: &Store, asked: &Asked, how: &How) -> Result<Chosen> {
    let request = how.key(asked);
    let stage = store.stage()?;
    put_wheels(&stage, asked)?;
    let wheels = asked
        .wheels
        .iter()
        .map(|wheel| format!("./{}/{}", lock::WHEELS, wheel.name));
    let lines: Vec<_> = asked.requirements.iter().cloned().chain(wheels).collect();
    fs::write(stage.path("asked"), lines.join("\n") + "\n").context("writing what is asked for")?;
    let uv = uv(store, how)?;
    let (text, said) = uv.choose(&stage, "asked", asked.exclude_newer.as_deref())?;
    let packages = &how.packages;
    let text = Lock::made(
        &text,
        &request,
        packages.python_release(),
        &packages.platform,
    );
    let lock = Lock::parse(&text).map_err(|why| {
        let message = format!("what uv chose cannot be used: {why}");
        Error::new(Kind::Packages, message, Remedy::GetPackages(Way::SetUp))
    })?;
    store.keep(&stage, &how.environment.index(), &request, &lock)?;
    let warnings = said.warnings().into_iter().map(str::to_owned).collect();
    Ok(Chosen { lock, warnings })
}

pub fn uv<'a>(store: &Store, how: &'a How) -> Result<Uv<'a>> {
    Ok(Uv {
        program: uv::find(setup::brought())?,
        downloads: store.downloads()?,
        environment: &how.environment,
        packages: &how.packages,
        offline: how.offline,
        level: how.confine,
    })
}

/// Puts the user's own wheels into the stage, where uv may read them.
pub fn put_wheels(stage: &Stage, asked: &Asked) -> Result<()> {
    let directory = stage.path(lock::WHEELS);
    fs::create_dir(&directory).context("making a directory for wheels")?;
    for wheel in &asked.wheels {
        wheel.copy_into(&directory)?;
    }
    Ok(())
}
