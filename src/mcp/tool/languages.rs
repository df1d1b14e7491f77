//! The languages that a call may name: those of the image that is built in, and of images of ours that were imported.

use crate::image::{Image, Imported, Language};

/// The images that a server runs programs in. What comes first has a language that several have.
pub struct Offer(Vec<Image>);

impl Offer {
    /// Returns what a server offers, which has images that were imported or has not.
    pub fn new(has_imported: bool) -> Self {
        let mut images = vec![Image::built_in().clone()];
        if has_imported {
            let imported = Imported::open().and_then(|its| its.all());
            // What cannot be listed is not there.
            let imported = imported.unwrap_or_default().into_iter();
            // Those that others made are chosen by name alone, and no call names an image.
            images.extend(imported.filter(|image| image.system.is_none()));
        }
        Self(images)
    }

    /// Returns all languages, each with its image.
    pub fn languages(&self) -> Vec<(&Language, &Image)> {
        let mut found: Vec<(&Language, &Image)> = Vec::new();
        for image in &self.0 {
            for language in &image.languages {
                if !found.iter().any(|(its, _)| its.name == language.name) {
                    found.push((language, image));
                }
            }
        }
        found
    }

    /// Returns the language that somebody means by this, with its image.
    pub fn find(&self, word: &str) -> Option<(&Language, &Image)> {
        let meant = |image| Image::meant(image, word).map(|language| (language, image));
        self.0.iter().find_map(meant)
    }

    /// Returns their names.
    pub fn names(&self) -> Vec<&str> {
        let languages = self.languages().into_iter();
        languages.map(|(language, _)| &*language.name).collect()
    }
}
