//! The languages of images that others made: those of ours whose interpreters are there.

use crate::image::{Image, Language};
use std::sync::LazyLock;

/// All that there are, in the order in which one is the default. The last runs commands.
static ALL: LazyLock<Vec<Language>> = LazyLock::new(|| {
    let descriptions = [
        include_str!("../../guest/images/python/image.toml"),
        include_str!("../../guest/images/node/image.toml"),
        include_str!("../../guest/images/ruby/image.toml"),
        include_str!("../../guest/images/php/image.toml"),
        include_str!("../../guest/images/perl/image.toml"),
        include_str!("../../guest/images/lua/image.toml"),
        include_str!("../../guest/images/r/image.toml"),
        include_str!("others.toml"),
    ];
    let images = descriptions.map(|text| Image::parse(text).expect("a test reads it"));
    let (others, ours): (Vec<_>, Vec<_>) = images
        .into_iter()
        .flat_map(|image| image.languages)
        .partition(Language::has_commands_alone);
    let mut all: Vec<Language> = Vec::new();
    for language in ours.into_iter().map(bare) {
        if !all.iter().any(|its| its.name == language.name) {
            all.push(language);
        }
    }
    all.extend(others);
    all
});

/// Returns the languages of an image in which there are these programs.
pub fn of_programs(programs: &[String]) -> Vec<Language> {
    let is_there = |language: &&Language| {
        let word = language.file.first();
        word.is_none_or(|word| programs.contains(word))
    };
    ALL.iter().filter(is_there).cloned().collect()
}

/// Returns a language without what only our own images have for it.
fn bare(language: Language) -> Language {
    Language {
        about: None,
        command: None,
        warm: None,
        context: None,
        ..language
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_the_languages_of_its_interpreters_and_commands() {
        for (programs, names) in [
            (&[][..], &["command"][..]),
            (&["busybox", "sh"], &["sh", "command"]),
            (
                &["bash", "node", "perl", "sh"],
                &["javascript", "bash", "perl", "sh", "command"],
            ),
            (&["python3", "sh"], &["python", "sh", "command"]),
        ] {
            let programs: Vec<_> = programs.iter().map(|name| name.to_string()).collect();
            let mut found = of_programs(&programs);
            found.sort_by_key(|its| names.iter().position(|name| *name == its.name));
            let found: Vec<_> = found.iter().map(|its| &*its.name).collect();
            assert_eq!(found, names);
        }
    }

    #[test]
    fn what_our_images_have_for_a_language_others_lack() {
        let all = of_programs(
            &ALL.iter()
                .flat_map(|its| its.file.clone())
                .collect::<Vec<_>>(),
        );
        assert!(all.len() >= 10, "{all:?}");
        for language in all {
            language.check().unwrap();
            let is_command = language.name == "command";
            assert_eq!(language.warm.is_some(), is_command, "{language:?}");
            assert_eq!(language.command.is_some(), is_command, "{language:?}");
            let words = [&language.file, &language.code, &language.stdin];
            assert!(
                !words
                    .into_iter()
                    .flatten()
                    .any(|word| word.starts_with("/usr/bin/"))
            );
        }
    }
}
