//! Taking in an image that others made.

use crate::error::{Error, Kind};
use crate::image::{Foreign, Image, Imported, System};
use crate::limits::ConfineLevel;
use crate::oci::process::unpack;
use crate::oci::refusal::within;
use crate::oci::unpacked::Unpacked;
use anyhow::Result;
use std::path::Path;

/// Takes in the image in an archive under a name: this one, or the one in the archive, or the archive's own.
pub fn import(archive: &Path, name: Option<String>) -> Result<Image> {
    Imported::open()?.import_foreign(archive, |file, image| {
        let unpacked = unpack(file, image, ConfineLevel::Auto);
        let unpacked = unpacked.map_err(|error| in_archive(archive, error))?;
        let name = name.or_else(|| unpacked.name.clone());
        Ok(Foreign {
            name: name.unwrap_or_else(|| name_of(archive)),
            system: system(&unpacked),
            programs: unpacked.programs,
        })
    })
}

fn in_archive(archive: &Path, error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Error>() {
        Ok(error) if error.kind == Kind::File => {
            within(format!("the image {} is refused", archive.display()), error).into()
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
