//! The names of images, each of which is to be that of a file, and a word of the command line.

/// Upper bound on the bytes of a name.
pub const NAME_MAX: usize = 64;

/// Returns whether an image can have this name. One that ends in .toml would be taken for a description's path.
pub fn is_name(name: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    (1..=NAME_MAX).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && !name.ends_with(".toml")
        && name.bytes().all(is_good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_be_that_of_a_file_and_no_description() {
        let long = "x".repeat(NAME_MAX);
        for name in ["a", "python3.11", "my_tool-1.x", "toml", &long] {
            assert!(is_name(name), "{name}");
        }
        let longer = "x".repeat(NAME_MAX + 1);
        for name in [
            "", ".", "..", ".x", "-x", "a/b", "../x", "a b", "é", "a\n", "x.toml", &longer,
        ] {
            assert!(!is_name(name), "{name}");
        }
    }
}
