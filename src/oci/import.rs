//! Taking in an image that others made.

use crate::error::{Error, Image as Way, Kind, Remedy};
use crate::image::{self, Foreign, Image, Imported, System};
use crate::limits::ConfineLevel;
use crate::oci::process::unpack;
use crate::oci::refusal::{shown, within};
use crate::oci::unpacked::Unpacked;
use crate::text::escape_path;
use anyhow::Result;
use std::path::Path;

/// Takes in the image in an archive under a name: this one, or the one in the archive, or the archive's own.
pub fn import(archive: &Path, name: Option<String>) -> Result<Image> {
    if let Some(name) = &name {
        check_wanted(name)?;
    }
    Imported::open()?.import_foreign(archive, |file, image| {
        let unpacked = unpack(file, image, ConfineLevel::Auto);
        let unpacked = unpacked.map_err(|error| in_archive(archive, error))?;
        let name = match name {
            Some(name) => name,
            None => found_name(archive, unpacked.name.as_deref())?,
        };
        Ok(Foreign {
            name,
            system: system(&unpacked),
            programs: unpacked.programs,
        })
    })
}

/// Checks a name that was asked for.
fn check_wanted(name: &str) -> Result<(), Error> {
    let fault = image::name_fault(name).map(|fault| format!("the name {} {fault}", shown(name)));
    fault.map_or(Ok(()), |fault| Err(unnamed(Kind::Request, fault)))
}

/// Returns the name in an archive, or that of its file.
fn found_name(archive: &Path, told: Option<&str>) -> Result<String, Error> {
    let (name, origin) = match told {
        Some(told) => (told.to_owned(), "in the archive"),
        None => (name_of(archive), "which is that of the file,"),
    };
    let Some(fault) = image::name_fault(&name) else {
        return Ok(name);
    };
    let (path, name) = (escape_path(archive), shown(name));
    Err(unnamed(
        Kind::File,
        format!("the image {path} is refused: its name {name} {origin} {fault}"),
    ))
}

fn unnamed(kind: Kind, what: String) -> Error {
    Error::new(kind, what, Remedy::GetImage(Way::Rename))
}

fn in_archive(archive: &Path, error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Error>() {
        Ok(error) if error.kind == Kind::File => {
            let place = format!("the image {} is refused", escape_path(archive));
            within(place, error).into()
        }
        Ok(error) => error.into(),
        Err(error) => error,
    }
}

fn system(unpacked: &Unpacked) -> System {
    let (user, group) = unpacked.user.unzip();
    System {
        env: unpacked.env.clone(),
        command: unpacked.command.clone(),
        workdir: unpacked.workdir.clone(),
        user,
        group,
    }
}

/// Returns the name of an archive up to its first dot.
fn name_of(archive: &Path) -> String {
    let name = archive.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').next().unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_cannot_be_is_told_with_where_it_is_from() {
        let long = "x".repeat(300);
        for name in ["-x", "", "../x", "x.toml", "python", "a\u{1b}", &long] {
            let error = check_wanted(name).unwrap_err();
            assert_eq!(error.remedy, Remedy::GetImage(Way::Rename), "{name}");
            assert!(error.message.starts_with("the name \""), "{error}");
            assert!(!error.message.contains('\u{1b}'), "{error}");
        }
        check_wanted("x").unwrap();
        for (file, told, words) in [
            (
                "a.tar",
                Some("python"),
                "\"python\" in the archive is that of the image",
            ),
            (
                "python.tar",
                None,
                "\"python\" which is that of the file, is that of the",
            ),
            ("-x.tar", None, "\"-x\" which is that of the file, is none"),
            (".tar", None, "\"\" which is that of the file, is none"),
        ] {
            let error = found_name(Path::new(file), told).unwrap_err();
            assert!(error.message.contains(words), "{error}");
            assert_eq!(error.remedy, Remedy::GetImage(Way::Rename), "{file}");
        }
        let sound = found_name(Path::new("d/a.b.tar"), None);
        assert_eq!(sound.unwrap(), "a");
    }
}
