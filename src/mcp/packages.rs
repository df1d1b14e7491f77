//! The packages that a call asks for, if the server's policy allows any.

use crate::cache::Share;
use crate::error::{Error, Kind};
use crate::image::{Image, LayerFile};
use crate::kvm_mode::Device;
use crate::limits::ConfineLevel;
use crate::log::say;
use crate::packages::{Asked, Environment, How, Lock, Maker, Store, choose};
use crate::policy::{LimitExceeded, Packages};
use crate::template::eviction::keep_bound;
use crate::worker::compile;
use anyhow::Result;
use std::path::Path;

/// Packages that a call asks for and may have.
pub struct Wanted {
    asked: Asked,
    how: How,
    policy: Packages,
}

impl Wanted {
    /// Returns what a client's call asks for by these words, if that is anything.
    pub fn of(
        words: &[String],
        policy: Option<&Packages>,
        share: Share,
    ) -> Result<Option<Self>, Refusal> {
        if words.is_empty() {
            return Ok(None);
        }
        let image = Image::built_in();
        let (Some(policy), Some(packages)) = (policy, &image.packages) else {
            return Err(Refusal::Policy(LimitExceeded::none(
                "packages",
                "a package",
            )));
        };
        let mut asked = Asked::default();
        for word in words {
            asked.add_name(word).map_err(Refusal::Words)?;
        }
        let mut how = How {
            packages: packages.clone(),
            environment: Environment::of_this_process(),
            known: false,
            offline: false,
            confine: ConfineLevel::Auto,
            share: Some(share),
        };
        how.keep_to(policy, &mut asked).map_err(Refusal::Policy)?;
        let policy = policy.clone();
        Ok(Some(Self { asked, how, policy }))
    }

    /// Brings them: chooses and unpacks what is not there yet. It may take minutes.
    pub fn bring(&self, kvm: &Device) -> Result<(Lock, LayerFile)> {
        let store = Store::open()?;
        let choosing = || say(&format!("choosing packages: {}", self.asked.summary()));
        let lock = choose(&store, &self.asked, &self.how, choosing)?.lock;
        let mut compiler = Compiler {
            kvm,
            has_made: false,
        };
        let layer = store.layer(&lock, &self.asked, &self.how, &mut compiler)?;
        if compiler.has_made {
            // What is in use stays. What cannot be removed now is removed another time.
            let _in_use = layer.open();
            keep_bound(self.how.share.as_ref()).unwrap_or_default();
        }
        self.policy.check_size(layer.size).map_err(Error::from)?;
        Ok((lock, layer))
    }
}

/// The reason why a call does not get what it asks for.
pub enum Refusal {
    Policy(LimitExceeded),
    Words(Error),
}

/// A maker of layers that tells nobody.
struct Compiler<'a> {
    kvm: &'a Device,
    has_made: bool,
}

impl Maker for Compiler<'_> {
    fn waiting(&mut self) {}

    fn making(&mut self) {
        self.has_made = true;
    }

    fn compile(&mut self, layer: &LayerFile, directory: &Path) -> Result<()> {
        compile(layer, directory, self.kvm)
    }
}

/// Returns what went wrong where packages were brought, as far as a client may know it.
pub fn failure(error: &anyhow::Error) -> Error {
    error.downcast_ref::<Error>().cloned().unwrap_or_else(|| {
        say(&format!("{error:#}"));
        Error::new(
            Kind::Packages,
            "the server failed to bring the packages",
            "call again; the server's log says why",
        )
    })
}
