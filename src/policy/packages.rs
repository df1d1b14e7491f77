//! What a policy says of packages: which ones runs may have, and from where.

use crate::policy::limit_exceeded::LimitExceeded;
use crate::policy::values::Size;
use schemars::JsonSchema;
use serde::Deserialize;

/// The packages that runs may have.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Packages {
    /// The packages that are allowed.
    pub allow: Allow,
    /// The index that they come from, in place of any other.
    pub index: Option<String>,
    /// The date or time after which nothing that was published is taken.
    pub exclude_newer: Option<String>,
    /// Bytes of all of them, unpacked.
    pub size: Option<Size>,
}

/// Which packages runs may have.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Allow {
    Known(Known),
    /// Those that are asked for by one of these names, and what these need.
    Names(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Known {
    /// None.
    Off,
    /// Those that were chosen before, or that a lock names: nothing is chosen, so nothing is told to an
    /// index.
    Locked,
    /// All that the index has.
    Any,
}

impl Packages {
    /// Returns whether runs may have any.
    pub fn is_on(&self) -> bool {
        self.allow != Allow::Known(Known::Off)
    }

    /// Returns whether packages may be chosen that nobody chose before.
    pub fn may_choose(&self) -> bool {
        self.allow != Allow::Known(Known::Locked)
    }

    /// Checks the distributions that are asked for, by their names as names are compared; `None` is
    /// one that is no name.
    pub fn check(&self, names: &[Option<String>]) -> Result<(), LimitExceeded> {
        let excess = |asked: &str, allowed: String| LimitExceeded::new("packages", asked, allowed);
        match &self.allow {
            Allow::Known(Known::Off) => {
                let asked = names.iter().flatten().next();
                Err(excess(
                    asked.map_or("a package", String::as_str),
                    "none".into(),
                ))
            }
            Allow::Known(Known::Locked | Known::Any) => Ok(()),
            Allow::Names(allowed) => {
                let is_allowed = |name: &&Option<String>| {
                    let name = name.as_deref();
                    allowed.iter().any(|allowed| Some(allowed.as_str()) == name)
                };
                match names.iter().find(|name| !is_allowed(name)) {
                    None => Ok(()),
                    Some(name) => {
                        let asked = name.as_deref().unwrap_or("a file or an address");
                        Err(excess(asked, allowed.join(", ")))
                    }
                }
            }
        }
    }

    /// Checks the bytes of the packages, unpacked.
    pub fn check_size(&self, bytes: u64) -> Result<(), LimitExceeded> {
        match self.size {
            Some(most) if bytes > most.0 => Err(LimitExceeded::new(
                "packages.size",
                bytes,
                format!("at most {}", most.0),
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages(text: &str) -> Packages {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_policy_allows_no_packages_those_of_a_list_or_all() {
        let names = |names: &[&str]| -> Vec<_> {
            names.iter().map(|name| Some(name.to_string())).collect()
        };
        for (text, asked, holds) in [
            ("allow = 'off'", &["numpy"][..], false),
            ("allow = 'locked'", &["numpy"], true),
            ("allow = 'any'", &["numpy"], true),
            ("allow = ['numpy', 'pandas']", &["pandas", "numpy"], true),
            ("allow = ['numpy']", &["numpy", "requests"], false),
            ("allow = []", &["numpy"], false),
        ] {
            let packages = packages(text);
            assert_eq!(packages.check(&names(asked)).is_ok(), holds, "{text}");
        }
        assert!(packages("allow = ['numpy']").check(&[None]).is_err());
        assert!(!packages("allow = 'off'").is_on());
        assert!(!packages("allow = 'locked'").may_choose());
        let small = packages("allow = 'any'\nsize = '1M'");
        assert!(small.check_size(1 << 20).is_ok() && small.check_size(2 << 20).is_err());
    }
}
