//! `sandbox image`: the images that there are beside the one that is built in.

use crate::error::{Error, Kind};
use crate::image::{self, Image, Imported};
use crate::oci;
use crate::text::{escape_line, escape_path};
use anyhow::Result;
use clap::Subcommand;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub enum Verb {
    /// Take in the image in this file, in place of one with the same name
    Import {
        /// What scripts/build-image made, or an archive of an OCI image: what docker save, podman save or
        /// skopeo writes
        file: PathBuf,
        /// The name here of an image that others made, in place of the one in its archive
        #[arg(long)]
        name: Option<String>,
    },
    /// Show the names of all, and which Python each has
    List,
    /// Show the description of one, as TOML
    Show { name: String },
    /// Write one that was imported to a file, which image import takes on another machine
    Export {
        name: String,
        /// Where to write it; what is there is replaced
        file: PathBuf,
    },
    /// Remove one that was imported
    Remove { name: String },
}

pub fn image_verb(verb: Verb) -> Result<u8> {
    match verb {
        Verb::Import { file, name } => print(&import(&file, name)?)?,
        Verb::List => list()?,
        Verb::Show { name } => {
            let text = toml::to_string_pretty(&image::named(&name)?)?;
            stdout().write_all(text.as_bytes())?;
        }
        Verb::Export { name, file } => export(&name, &file)?,
        Verb::Remove { name } => {
            if !Imported::open()?.remove(&name)? {
                return Err(Error::new(
                    Kind::Request,
                    format!("there is no image {} that was imported", escape_line(&name)),
                    "sandbox image list shows all that there are",
                )
                .into());
            }
        }
    }
    Ok(0)
}

fn import(file: &Path, name: Option<String>) -> Result<Image> {
    let is_ours = image::is_ours(file)?;
    match name {
        Some(name) if is_ours => Err(Error::new(
            Kind::Request,
            format!(
                "{} says itself what it is called, and cannot be called {}",
                escape_path(file),
                escape_line(&name)
            ),
            "leave --name out",
        )
        .into()),
        None if is_ours => Imported::open()?.import(file),
        name => oci::import(file, name),
    }
}

fn export(name: &str, file: &Path) -> Result<()> {
    let image = image::named(name)?;
    if image == *Image::built_in() {
        return Err(Error::new(
            Kind::Request,
            format!("the image {name} is in the binary, and in no file"),
            "take the binary to where you want it",
        )
        .into());
    }
    Imported::open()?.export(&image, file)
}

fn list() -> Result<()> {
    print(Image::built_in())?;
    let imported = Imported::open()?;
    for name in imported.names()? {
        match imported.find(&name) {
            Ok(image) => image.iter().try_for_each(print)?,
            Err(error) => writeln!(stdout(), "{name}, refused: {error}")?,
        }
    }
    Ok(())
}

fn print(image: &Image) -> Result<()> {
    let python = image.python().map(|version| format!("  Python {version}"));
    let place = match &image.files {
        Some(files) => format!("{} MiB", files.size >> 20),
        None => "built in".into(),
    };
    let languages: Vec<_> = image.languages.iter().map(|its| &*its.title).collect();
    writeln!(
        stdout(),
        "{}{}, {place}: {}",
        image.name,
        python.unwrap_or_default(),
        languages.join(", ")
    )?;
    Ok(())
}
