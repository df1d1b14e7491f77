//! What an image says to whoever chooses packages for its interpreter.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The interpreter that packages are for, and where they go, as `image.toml` describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Packages {
    /// The version of Python, with all its numbers.
    pub python: String,
    /// The newest platform whose wheels run there, as uv names it: `x86_64-manylinux_2_36` is of
    /// glibc 2.36.
    pub platform: String,
    /// The directory in which the interpreter looks for packages.
    pub site: String,
    /// The code that programs run first with a package, by the name of its module. It is done before the
    /// interpreter is saved.
    #[serde(default)]
    pub first_uses: BTreeMap<String, String>,
    /// The code that most programs run with a package. A clone runs it, to see which pages they write to.
    #[serde(default)]
    pub rehearsals: BTreeMap<String, String>,
}

impl Packages {
    /// Returns the first two numbers of the version of Python, which is what packages depend on.
    pub fn python_release(&self) -> &str {
        let ends = self.python.match_indices('.').map(|(end, _)| end);
        let end = ends.take(2).nth(1).unwrap_or(self.python.len());
        &self.python[..end]
    }

    /// Returns the numbers of the C library's version. [`Packages::check`] knows that there are two.
    pub fn glibc(&self) -> [u64; 2] {
        self.parse_glibc().unwrap_or_default()
    }

    fn parse_glibc(&self) -> Option<[u64; 2]> {
        let numbers = self.platform.strip_prefix("x86_64-manylinux_")?;
        let (major, minor) = numbers.split_once('_')?;
        Some([major.parse().ok()?, minor.parse().ok()?])
    }

    /// Checks what the types of the fields do not.
    pub fn check(&self) -> Result<(), String> {
        let is_number = |part: &str| part.parse::<u64>().is_ok();
        let numbers: Vec<_> = self.python.split('.').collect();
        if numbers.len() != 3 || !numbers.into_iter().all(is_number) {
            return Err(format!(
                "python = {:?} is not of three numbers",
                self.python
            ));
        }
        if self.parse_glibc().is_none() {
            let platform = &self.platform;
            return Err(format!(
                "platform = {platform:?} is none of x86-64 and glibc"
            ));
        }
        if !self.site.starts_with('/') {
            return Err(format!("site = {:?} is not absolute", self.site));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages() -> Packages {
        Packages {
            python: "3.13.5".into(),
            platform: "x86_64-manylinux_2_40".into(),
            site: "/site".into(),
            first_uses: BTreeMap::new(),
            rehearsals: BTreeMap::new(),
        }
    }

    #[test]
    fn an_interpreter_has_a_release_and_a_c_library() {
        assert_eq!(packages().check(), Ok(()));
        assert_eq!(packages().python_release(), "3.13");
        assert_eq!(packages().glibc(), [2, 40]);
    }

    #[test]
    fn what_no_package_can_be_chosen_for_is_refused() {
        let change = |how: &dyn Fn(&mut Packages)| {
            let mut packages = packages();
            how(&mut packages);
            packages.check().is_err()
        };
        for python in ["3.13", "3.x.1", "", "3.13.5.1"] {
            assert!(change(&|it| it.python = python.into()), "{python}");
        }
        for platform in ["linux", "aarch64-manylinux_2_40", "x86_64-manylinux2014"] {
            assert!(change(&|it| it.platform = platform.into()), "{platform}");
        }
        assert!(change(&|it| it.site = "site".into()));
    }
}
