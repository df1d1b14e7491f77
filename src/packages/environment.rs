//! What the resolver is told of the world: where packages come from and how to get there, by the variables
//! that uv itself reads. It gets nothing else of the user's environment.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// Variables that say where packages come from; what is chosen depends on them.
const INDEX: [&str; 6] = [
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_INDEX_STRATEGY",
];

/// Variables that say how to get there.
const WAY: [&str; 17] = [
    "ALL_PROXY",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "SSL_CLIENT_CERT",
    "UV_HTTP_RETRIES",
    "UV_HTTP_TIMEOUT",
    "UV_INSECURE_HOST",
    "UV_NATIVE_TLS",
    "UV_REQUEST_TIMEOUT",
    "UV_SYSTEM_CERTS",
];

/// Variables among them that name files.
const FILES: [&str; 3] = ["SSL_CERT_DIR", "SSL_CERT_FILE", "SSL_CLIENT_CERT"];

/// The variables that the resolver gets of ours.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// Takes what matters from this process's environment.
    pub fn of_this_process() -> Self {
        Self::of(std::env::vars_os())
    }

    pub fn of(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let known = variables.into_iter().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            let is_known = INDEX.contains(&&*name) || WAY.contains(&&*name) || is_credential(&name);
            (is_known && !value.is_empty()).then_some((name, value))
        });
        Self(known.collect())
    }

    /// Takes packages from this index and no other.
    pub fn with_index(mut self, index: &str) -> Self {
        self.0.retain(|name, _| !INDEX.contains(&name.as_str()));
        self.0.insert("UV_DEFAULT_INDEX".into(), index.into());
        self
    }

    pub fn variables(&self) -> impl Iterator<Item = (&str, &OsStr)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_os_str()))
    }

    /// Says where packages come from, without any password.
    pub fn index(&self) -> String {
        let parts = INDEX.iter().filter_map(|name| {
            let value = self.0.get(*name)?.to_string_lossy();
            Some(format!("{name}={}", without_users(&value)))
        });
        parts.collect::<Vec<_>>().join("\n")
    }

    /// Returns the files and directories that the variables name.
    pub fn files(&self) -> Vec<PathBuf> {
        let values = FILES.iter().filter_map(|name| self.0.get(*name));
        let mut paths: Vec<_> = values.flat_map(std::env::split_paths).collect();
        // An index may be a directory: /srv/index, file:///srv/index, mine=file:///srv/index.
        for value in INDEX.iter().filter_map(|name| self.0.get(*name)) {
            let value = value.to_string_lossy();
            for word in value.split([' ', ',']) {
                let address = word
                    .find("file://")
                    .map_or(word, |start| &word[start + 7..]);
                paths.push(address.into());
            }
        }
        paths.retain(|path| path.is_absolute());
        paths
    }

    /// Takes all that is secret out of a text.
    pub fn redacted(&self, text: &str) -> String {
        let mut text = without_users(text);
        for secret in self.secrets() {
            text = text.replace(&secret, "****");
        }
        text
    }

    fn secrets(&self) -> Vec<String> {
        /// A shorter word would be found everywhere, and be no secret.
        const LENGTH_MIN: usize = 4;
        let mut secrets = Vec::new();
        for (name, value) in &self.0 {
            let value = value.to_string_lossy();
            if name.ends_with("_PASSWORD") {
                secrets.push(value.to_string());
            }
            let users = users(&value).into_iter();
            secrets.extend(users.filter_map(|user| Some(user.split_once(':')?.1.to_owned())));
        }
        secrets.retain(|secret| secret.len() >= LENGTH_MIN);
        secrets
    }
}

/// Checks whether the variable has a name or password for an index.
fn is_credential(name: &str) -> bool {
    let rest = name.strip_prefix("UV_INDEX_");
    rest.is_some_and(|rest| rest.ends_with("_USERNAME") || rest.ends_with("_PASSWORD"))
}

/// Returns what is before the @ in each address of a text.
fn users(text: &str) -> Vec<&str> {
    let addresses = text.split("://").skip(1);
    let users = addresses.filter_map(|address| {
        let host = address
            .split(['/', '?', '#', ' ', '\n', ',', '`', '"', '\''])
            .next()?;
        Some(host.rsplit_once('@')?.0)
    });
    users.collect()
}

/// Takes names and passwords out of the addresses in a text.
fn without_users(text: &str) -> String {
    let mut clean = text.to_owned();
    for user in users(text) {
        clean = clean.replace(&format!("://{user}@"), "://");
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::of(
            variables
                .iter()
                .map(|(name, value)| (name.into(), value.into())),
        )
    }

    #[test]
    fn only_what_says_where_packages_are_is_passed_on() {
        let environment = environment(&[
            ("UV_INDEX", "https://example.com/simple"),
            ("UV_INDEX_MINE_PASSWORD", "word"),
            ("HTTPS_PROXY", "http://proxy.example.com"),
            ("SSL_CERT_FILE", "/etc/ca.pem"),
            ("SSL_CERT_DIR", "/etc/a:/etc/b"),
            ("UV_FIND_LINKS", "/srv/a,https://example.com/b"),
            ("UV_EXTRA_INDEX_URL", "mine=file:///srv/c"),
            ("UV_CONSTRAINT", "/home/a/file"),
            ("UV_KEYRING_PROVIDER", "subprocess"),
            ("UV_INDEX_STRATEGY", ""),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("PATH", "/bin"),
            ("HOME", "/home/a"),
        ]);
        let names: Vec<_> = environment.variables().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            [
                "HTTPS_PROXY",
                "SSL_CERT_DIR",
                "SSL_CERT_FILE",
                "UV_EXTRA_INDEX_URL",
                "UV_FIND_LINKS",
                "UV_INDEX",
                "UV_INDEX_MINE_PASSWORD"
            ]
        );
        let files: Vec<PathBuf> = ["/etc/a", "/etc/b", "/etc/ca.pem", "/srv/c", "/srv/a"]
            .map(Into::into)
            .into();
        assert_eq!(environment.files(), files);
    }

    #[test]
    fn no_password_is_in_what_is_told_or_kept() {
        let environment = environment(&[
            (
                "UV_DEFAULT_INDEX",
                "https://joe:password@example.com/simple",
            ),
            (
                "UV_INDEX",
                "https://a:secret1@one.example https://two.example",
            ),
            ("UV_INDEX_MINE_PASSWORD", "secret2"),
            ("HTTP_PROXY", "http://b:secret3@proxy.example"),
        ]);
        let told = environment.index();
        assert!(
            told.contains("https://one.example https://two.example"),
            "{told}"
        );
        for secret in ["secret1", "secret2", "secret3"] {
            assert!(!told.contains(secret), "{told}");
            let said = format!("failed with {secret} at https://x:{secret}@example.com/a");
            assert!(!environment.redacted(&said).contains(secret));
        }
        assert_eq!(
            environment.redacted("see `https://u:v@example.com/a`, or b@c"),
            "see `https://example.com/a`, or b@c"
        );
    }

    #[test]
    fn one_index_takes_the_place_of_all_others() {
        let environment =
            environment(&[("UV_INDEX", "a"), ("UV_FIND_LINKS", "b"), ("NO_PROXY", "c")]);
        let environment = environment.with_index("https://example.com/simple");
        assert_eq!(
            environment.index(),
            "UV_DEFAULT_INDEX=https://example.com/simple"
        );
        assert_eq!(environment.variables().count(), 2);
    }
}
