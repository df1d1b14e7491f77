//! The names of images, each of which is to be that of a file, and a word of the command line.

use crate::image::Image;

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

/// Returns what is wrong with a name for an image that is imported, if anything is.
pub fn fault(name: &str) -> Option<String> {
    if !is_name(name) {
        return Some(format!(
            "is none that an image can have: that has 1 to {NAME_MAX} of the characters A to Z, digits, ., - and _, no . or - \
             at its beginning, and no .toml at its end"
        ));
    }
    let is_built_in = name == Image::built_in().name;
    is_built_in.then(|| "is that of the image that is built in".into())
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

    #[test]
    fn an_image_that_is_imported_is_not_called_as_the_one_that_is_built_in() {
        assert_eq!(fault("python3.11"), None);
        assert!(fault("python").unwrap().contains("built in"));
        assert!(
            fault("../x")
                .unwrap()
                .contains("none that an image can have")
        );
    }
}
