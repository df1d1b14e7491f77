//! The packages that a call asks for, if the server's policy allows any.

use crate::error::{Error, Kind, Remedy};
use crate::image::{Image, LayerFile};
use crate::kvm_mode::Device;
use crate::limits::ConfineLevel;
use crate::log::say;
use crate::mcp::tool::remedies::words;
use crate::packages::{Asked, Environment, How, Lock, Maker, Store, choose};
use crate::policy::{LimitExceeded, Packages};
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
    /// Returns what a call asks for by these words, if that is anything.
    pub fn of(words: &[String], policy: Option<&Packages>) -> Result<Option<Self>, Refusal> {
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
        let layer = store.layer(&lock, &self.asked, &self.how, &mut Compiler(kvm))?;
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
struct Compiler<'a>(&'a Device);

impl Maker for Compiler<'_> {
    fn waiting(&mut self) {}

    fn making(&mut self) {}

    fn compile(&mut self, layer: &LayerFile, directory: &Path) -> Result<()> {
        compile(layer, directory, self.0)
    }
}

/// Returns what to do about what a program lacked, where a policy allows these packages.
pub fn advised(remedy: &Remedy, allowed: Option<&Packages>, in_session: bool) -> String {
    let Remedy::BringModule {
        name,
        distribution: Some(package),
    } = remedy
    else {
        return words(remedy);
    };
    match allowed.map(|allowed| allowed.check(&[Some(package.clone())])) {
        Some(Ok(())) => format!(
            "there is no module {name} here; the package {package} brings it: call again with it in packages{}",
            // It has what its first call brought.
            if in_session {
                ", for another session"
            } else {
                ""
            }
        ),
        _ => format!(
            "there is no module {name} here, and the policy of this server forbids the package that brings it, \
             {package}: write it without {name}, or give its source in files"
        ),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_that_is_missing_is_advised_as_the_policy_allows() {
        let policy = |text: &str| toml::from_str::<Packages>(text).unwrap();
        let missing = |name: &str, package: Option<&str>| Remedy::BringModule {
            name: name.into(),
            distribution: package.map(str::to_owned),
        };
        let yaml = missing("yaml", Some("pyyaml"));
        for (allow, words) in [
            (Some("allow = 'any'"), "call again with it in packages"),
            (Some("allow = 'locked'"), "call again with it in packages"),
            (Some("allow = ['pyyaml']"), "call again with it in packages"),
            (
                Some("allow = ['numpy']"),
                "the policy of this server forbids",
            ),
            (Some("allow = 'off'"), "the policy of this server forbids"),
            (None, "the policy of this server forbids"),
        ] {
            let allowed = allow.map(policy);
            let advice = advised(&yaml, allowed.as_ref(), false);
            assert!(advice.contains(words), "{allow:?}: {advice}");
            assert!(advice.contains("pyyaml"), "{advice}");
            let unknown = advised(&missing("strng", None), allowed.as_ref(), false);
            assert!(!unknown.contains("packages"), "{unknown}");
        }
    }
}
