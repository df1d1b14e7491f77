//! The image with the Python that a script asks for, by its header or its first line.

use crate::error::{Error, Kind};
use crate::image::{Image, newest, no_python, python_version::fits};
use anyhow::Result;

/// The versions of Python that a script runs with.
#[derive(Debug, Clone, Copy)]
pub struct Pythons<'a> {
    /// Those of `requires-python`.
    pub required: Option<&'a str>,
    /// That of the first line.
    pub named: Option<&'a str>,
}

impl Pythons<'_> {
    /// Returns the image to take in place of this one, if it does not fit. Unless the script may choose,
    /// that is an error.
    pub fn image(self, usual: &Image, may_choose: bool) -> Result<Option<Image>> {
        let own = usual.python().unwrap_or_default();
        if let Some(required) = self.required.filter(|it| fits(own, it).is_none()) {
            return Err(unreadable(required).into());
        }
        let is_fitting = |image: &Image| {
            let version = image.python().unwrap_or_default();
            let is_required = |required| fits(version, required) == Some(true);
            self.required.is_none_or(is_required)
                && self.named.is_none_or(|it| image.has_python(it))
        };
        match may_choose {
            _ if is_fitting(usual) => Ok(None),
            true => match newest(&is_fitting)? {
                Some(image) => Ok(Some(image)),
                None => Err(no_python(&self.wanted()).into()),
            },
            // Whoever chose the image knows more than a first line does.
            false if self.required.is_none_or(|it| fits(own, it) == Some(true)) => Ok(None),
            false => Err(Error::new(
                Kind::BadProgram,
                format!("the script wants {}, and this image has {own}", self.wanted()),
                "choose an image with such a Python, or correct requires-python in the script's header",
            )
            .into()),
        }
    }

    fn wanted(self) -> String {
        match (self.required, self.named) {
            (Some(required), Some(named)) => format!("Python {required} that is {named} too"),
            (required, named) => format!("Python {}", required.or(named).unwrap_or_default()),
        }
    }
}

fn unreadable(required: &str) -> Error {
    Error::new(
        Kind::BadProgram,
        format!("requires-python = {required:?} in the script's header is not a list of versions"),
        "give it as in \">=3.11\" or \">=3.11,<3.14\" (PEP 440)",
    )
}
