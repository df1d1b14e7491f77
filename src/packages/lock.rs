//! Locks: which packages were chosen, in exact versions and with the hashes of their wheels, as a file of
//! requirements that pip and uv read too.

use crate::error::{Error, Kind, Packages as Way, Remedy};
use crate::key::Key;
use crate::packages::requirement::{self, shortened};
use crate::packages::wheel;
use crate::record::{Package, Record};

/// A lock, all of whose lines were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// The requirements with their hashes.
    pub text: String,
    /// Sorted by name.
    pub packages: Vec<Package>,
    /// The request that it was made for, if it says so.
    pub request: Option<Key>,
}

/// The beginning of the comment that has the key of the request.
const REQUEST: &str = "# request: ";
/// The directory beside a lock in which its local wheels are.
pub const WHEELS: &str = "wheels";

impl Lock {
    /// Reads a lock. The error says what is wrong with which line.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains("[[package]]") {
            return Err("it is in uv's own format, which is not read here".into());
        }
        let mut packages = Vec::new();
        let mut request = None;
        for (number, line) in joined(text) {
            let comment = line
                .strip_prefix(REQUEST)
                .and_then(|key| Key::parse(key.trim()));
            request = request.or(comment);
            let line = line.split(" #").next().unwrap_or(&line).trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let package = locked(line).map_err(|why| format!("line {number}: {why}"))?;
            packages.push(package);
        }
        packages.sort();
        Ok(Self {
            text: text.into(),
            packages,
            request,
        })
    }

    /// Returns the text of a lock for this request, of what the resolver says.
    pub fn made(resolved: &str, request: &Key, python: &str, platform: &str) -> String {
        format!(
            "# What sandbox takes for Python {python} on {platform}; sandbox packages lock renews it.\n\
             {REQUEST}{request}\n{resolved}"
        )
    }

    /// Says in a record that its program had these packages.
    pub fn tell(&self, record: &mut Record) {
        record.packages = self.packages.clone();
        record.packages_lock = Some(self.key().to_string());
    }

    /// Returns the key of what it names, whatever its comments say.
    pub fn key(&self) -> Key {
        let lines = joined(&self.text).map(|(_, line)| line);
        let lines: Vec<_> = lines.filter(|line| !line.starts_with('#')).collect();
        Key::of(&[b"lock", lines.join("\n").as_bytes()])
    }
}

/// Returns why a lock in a file cannot be used.
pub fn refused(name: &str, why: &str) -> Error {
    Error::new(
        Kind::File,
        format!("the lock {name} is refused: {why}"),
        Remedy::GetPackages(Way::RenewLock),
    )
}

/// Joins lines that a backslash continues; gives each with the number of its first line.
fn joined(text: &str) -> impl Iterator<Item = (usize, String)> {
    let mut lines = text.lines().enumerate();
    std::iter::from_fn(move || {
        let (number, first) = lines.next()?;
        let mut line = first.trim_end().to_owned();
        while let Some(open) = line.strip_suffix('\\') {
            let next = lines.next().map_or("", |(_, next)| next.trim());
            line = format!("{} {next}", open.trim_end());
        }
        Some((number + 1, line))
    })
}

/// Reads a requirement with its hashes.
fn locked(line: &str) -> Result<Package, String> {
    let (what, options) = line.split_once(" --").unwrap_or((line, ""));
    let shown = shortened(what);
    let options = format!("--{options}");
    let is_hash = |word: &str| {
        let digits = word.strip_prefix("--hash=sha256:");
        digits.is_some_and(|it| it.len() == 64 && it.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let mut words = options.split_ascii_whitespace();
    if !words.all(is_hash) {
        return Err(format!("{shown:?} has no hash of SHA-256 alone after it"));
    }
    let what = what.trim();
    let (name, version) = match what
        .strip_prefix("./")
        .and_then(|path| path.strip_prefix(WHEELS))
    {
        Some(file) => wheel::split(file.trim_start_matches('/'))
            .ok_or_else(|| format!("{shown:?} is not a wheel"))?,
        None => {
            requirement::check(what)?;
            exact(what).ok_or_else(|| format!("{shown:?} has no exact version"))?
        }
    };
    Ok(Package {
        name: requirement::normalized(name),
        version: version.into(),
    })
}

/// Returns the name and the version that a requirement leaves no choice of.
fn exact(requirement: &str) -> Option<(&str, &str)> {
    let what = requirement.split(';').next()?.trim();
    if let Some((_, address)) = what.split_once('@') {
        let path = address.trim().split(['?', '#']).next()?;
        return wheel::split(path.rsplit('/').next()?);
    }
    let (name, version) = what.split_once("==")?;
    let name = name.split('[').next()?.trim();
    let version = version.trim();
    let is_of_version = |c: char| c.is_ascii_alphanumeric() || "._+!-".contains(c);
    (!version.is_empty() && version.chars().all(is_of_version)).then_some((name, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash() -> String {
        format!("--hash=sha256:{}", "0a".repeat(32))
    }

    fn package(name: &str, version: &str) -> Package {
        Package {
            name: name.into(),
            version: version.into(),
        }
    }

    #[test]
    fn a_lock_names_its_packages_and_its_request() {
        let key = Key::of(&[b"request"]);
        let hash = hash();
        let resolved = format!(
            "Zope.Interface==8.0 \\\n    {hash} \\\n    {hash}\n    # via x\n\
             a[b]==1.0+c ; os_name == 'posix' {hash}\n./wheels/d_e-2-py3-none-any.whl \\\n    {hash}\n\
             f @ https://example.com/f-3-py3-none-any.whl \\\n    {hash}\n"
        );
        let text = Lock::made(&resolved, &key, "3.13", "linux");
        let lock = Lock::parse(&text).unwrap();
        let packages = [
            ("a", "1.0+c"),
            ("d-e", "2"),
            ("f", "3"),
            ("zope-interface", "8.0"),
        ];
        assert_eq!(
            lock.packages,
            packages.map(|(name, version)| package(name, version))
        );
        assert_eq!(lock.request, Some(key));
        assert_eq!(Lock::parse(&resolved).unwrap().key(), lock.key());
    }

    #[test]
    fn what_leaves_a_choice_or_has_no_hash_is_refused() {
        let hash = hash();
        for (line, why) in [
            ("a==1".to_owned(), "no hash"),
            ("a==1 --hash=sha256:00".into(), "no hash"),
            (
                format!("a==1 {hash} --index-url=x"),
                "no hash of SHA-256 alone",
            ),
            ("a==1 --hash=md5:00".into(), "no hash"),
            (format!("a>=1 {hash}"), "no exact version"),
            (format!("a==1.* {hash}"), "no exact version"),
            (format!("a {hash}"), "no exact version"),
            (format!("-r other.txt {hash}"), "name of a distribution"),
            (
                format!("./wheels/../a-1-py3-none-any.whl {hash}"),
                "not a wheel",
            ),
            (
                format!("/a-1-py3-none-any.whl {hash}"),
                "name of a distribution",
            ),
            ("version = 1\n[[package]]\n".into(), "uv's own format"),
        ] {
            let error = Lock::parse(&line).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
