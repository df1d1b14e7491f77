//! Requirements: which distribution is wanted, in which versions (PEP 508). They go to the resolver as
//! they are, but first it is seen that they are nothing else: the resolver would take a line that looks
//! like an option for one, and put its environment's secrets into an address.

/// The most bytes of one.
const LENGTH_MAX: usize = 1000;

/// Checks that a line is a requirement of a distribution from an index, or of a wheel at an address.
/// The error says what is wrong with it.
pub fn check(line: &str) -> Result<(), String> {
    let refused = |why: &str| Err(format!("{:?} {why}", shortened(line)));
    if line.len() > LENGTH_MAX {
        return refused("is longer than a requirement may be");
    }
    if let Some(c) = line
        .chars()
        .find(|&c| c.is_control() || "\\$#{}".contains(c))
    {
        return refused(&format!("has {c:?} in it, which no requirement has"));
    }
    let rest = line.trim_start_matches(is_of_name);
    let name = &line[..line.len() - rest.len()];
    let is_bounded = |c: char| c.is_ascii_alphanumeric();
    if !name.starts_with(is_bounded) || !name.ends_with(is_bounded) {
        return refused("does not begin with the name of a distribution");
    }
    if [".whl", ".zip", ".gz"]
        .iter()
        .any(|end| name.ends_with(end))
    {
        return refused("is a file, which cannot be named here");
    }
    let rest = rest.trim_start();
    if !rest.is_empty() && !rest.starts_with(['[', '(', '<', '>', '=', '!', '~', ';', '@']) {
        return refused("goes on after the name with neither a version nor a condition");
    }
    if rest.contains(" -") {
        return refused("has an option in it");
    }
    match rest.split_once('@') {
        // A version, or an extra, has no such sign; a condition may.
        Some((before, address)) if !before.contains([';', '=', '<', '>']) => {
            check_address(address.trim()).map_or(Ok(()), refused)
        }
        _ => Ok(()),
    }
}

/// Returns why a wheel cannot be had from this address.
fn check_address(address: &str) -> Option<&'static str> {
    let address = address
        .split_once(' ')
        .map_or(address, |(address, _)| address);
    let Some((scheme, rest)) = address.split_once("://") else {
        return Some("has no address of a wheel after the @");
    };
    if !["https", "http"].contains(&scheme) {
        return Some("is at an address that is not of the web");
    }
    let host = rest.split('/').next().unwrap_or(rest);
    if host.contains('@') {
        return Some("has a password in its address; give that by UV_INDEX_…_PASSWORD");
    }
    let path = rest.split(['?', '#']).next().unwrap_or(rest);
    (!path.ends_with(".whl")).then_some("is at an address that is not a wheel's")
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// Returns the name of the distribution in the form in which names are compared (PEP 503).
pub fn name(requirement: &str) -> String {
    let end = requirement.find(|c| !is_of_name(c));
    normalized(&requirement[..end.unwrap_or(requirement.len())])
}

/// Returns a distribution's name in the form in which names are compared (PEP 503).
pub fn normalized(name: &str) -> String {
    let parts = name.split(['-', '_', '.']).filter(|part| !part.is_empty());
    let parts: Vec<_> = parts.map(str::to_ascii_lowercase).collect();
    parts.join("-")
}

/// Returns the beginning of what somebody wrote, to repeat it.
pub fn shortened(text: &str) -> String {
    const SHOWN: usize = 100;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_as_people_write_them_are_taken() {
        for line in [
            "numpy",
            "Numpy",
            "ruamel.yaml",
            "numpy>=2",
            "numpy >= 2, != 2.1.*",
            "numpy (>=2)",
            "requests[socks, security]~=2.8",
            "numpy==2.0.*; python_version < '3.14'",
            "a;extra=='b@c'",
            "numpy===2.0",
            "a @ https://example.com/a-1-py3-none-any.whl",
            "a[b]@https://example.com/@x/a-1-py3-none-any.whl ; os_name == 'posix'",
        ] {
            assert_eq!(check(line), Ok(()), "{line}");
        }
    }

    #[test]
    fn what_the_resolver_would_take_for_something_else_is_refused() {
        for (line, why) in [
            ("", "name of a distribution"),
            ("-r other.txt", "name of a distribution"),
            ("--index-url=https://example.com", "name of a distribution"),
            ("./a-1-py3-none-any.whl", "name of a distribution"),
            ("/etc/passwd", "name of a distribution"),
            ("a/b", "goes on"),
            ("num py", "goes on"),
            ("a-1-py3-none-any.whl", "is a file"),
            ("a==1 --hash=sha256:0", "option"),
            ("a==1 -C x", "option"),
            ("a\n--index-url https://example.com", "'\\n'"),
            ("a \\", "'\\\\'"),
            ("a==1 # why", "'#'"),
            (
                "a @ https://example.com/${UV_INDEX_A_PASSWORD}/a.whl",
                "'$'",
            ),
            ("a @ file:///home/a/a-1-py3-none-any.whl", "not of the web"),
            ("a @ git+https://example.com/a.git", "not of the web"),
            ("a @ a-1-py3-none-any.whl", "no address"),
            (
                "a @ https://joe:word@example.com/a-1-py3-none-any.whl",
                "password",
            ),
            ("a @ https://example.com/a-1.tar.gz", "not a wheel's"),
        ] {
            let error = check(line).expect_err(line);
            assert!(error.contains(why), "{line}: {error}");
        }
        assert!(
            check(&"a".repeat(LENGTH_MAX + 1))
                .unwrap_err()
                .contains('…')
        );
    }

    #[test]
    fn names_are_compared_without_case_and_signs() {
        assert_eq!(name("Ruamel._-Yaml[a]>=1"), "ruamel-yaml");
        assert_eq!(normalized("numpy"), "numpy");
    }
}
