//! The choice of an image: by its name, or by the Python that it has.

use crate::error::{Error, Image as Way, Kind, Remedy};
use crate::image::Image;
use crate::image::imported::Imported;
use crate::image::python_version::{compare, fits};
use crate::text::escape_line;
use anyhow::Result;

const IMPORT: Remedy = Remedy::GetImage(Way::Import);

/// Returns all images: the one that is built in, and those that were imported.
fn all() -> Result<Vec<Image>> {
    let mut images = vec![Image::built_in().clone()];
    images.extend(Imported::open()?.all()?);
    Ok(images)
}

/// Returns the image with this name.
pub fn named(name: &str) -> Result<Image> {
    if name == Image::built_in().name {
        return Ok(Image::built_in().clone());
    }
    if let Some(image) = Imported::open()?.find(name)? {
        return Ok(image);
    }
    let names: Vec<_> = all()?.into_iter().map(|image| image.name).collect();
    let (name, names) = (escape_line(name), names.join(", "));
    let message = format!("there is no image {name} here, only {names}");
    Err(Error::new(Kind::Request, message, IMPORT).into())
}

/// Returns an image with this version of Python, such as 3.13 or 3.13.5, or one that fits clauses such as
/// `>=3.11,<3.13`: the one that is built in, if it does, else the newest.
pub fn with_python(wanted: &str) -> Result<Image> {
    let is_version = wanted.starts_with(|c: char| c.is_ascii_digit());
    let fits = |image: &Image| match is_version {
        true => image.has_python(wanted),
        false => image.python().and_then(|its| fits(its, wanted)) == Some(true),
    };
    let found = newest(&fits)?;
    found.ok_or_else(|| no_python(&format!("Python {wanted}")).into())
}

/// Returns the image that is built in, if it fits, or else the newest that does. An image that is
/// imported changes nothing for scripts that ran before.
pub fn newest(fits: &dyn Fn(&Image) -> bool) -> Result<Option<Image>> {
    if fits(Image::built_in()) {
        return Ok(Some(Image::built_in().clone()));
    }
    let images = all()?.into_iter().filter(|image| fits(image));
    let version = |image: &Image| image.python().unwrap_or_default().to_owned();
    Ok(images.max_by(|one, other| compare(&version(one), &version(other))))
}

/// Says that no image has a Python that is wanted, and which there are.
pub fn no_python(wanted: &str) -> Error {
    // What cannot be listed is not there.
    let images = all().unwrap_or_else(|_| vec![Image::built_in().clone()]);
    let versions: Vec<_> = images.iter().filter_map(Image::python).collect();
    let message = format!(
        "there is no image with {wanted} here, only with {}",
        versions.join(", ")
    );
    Error::new(Kind::Request, message, IMPORT)
}
