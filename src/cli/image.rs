//! `sandbox image`: the images that there are beside the one that is built in.

use crate::error::{Error, Kind};
use crate::image::{Image, Imported};
use anyhow::Result;
use clap::Subcommand;
use std::io::{Write, stdout};
use std::path::PathBuf;

#[derive(Subcommand)]
pub enum Verb {
    /// Take in the image in this file, in place of one with the same name
    Import {
        /// What scripts/build-image made
        file: PathBuf,
    },
    /// Show the names of all, and which Python each has
    List,
    /// Remove one that was imported
    Remove { name: String },
}

pub fn image_verb(verb: Verb) -> Result<u8> {
    match verb {
        Verb::Import { file } => print(&Imported::open()?.import(&file)?)?,
        Verb::List => list()?,
        Verb::Remove { name } => {
            if !Imported::open()?.remove(&name)? {
                return Err(Error::new(
                    Kind::Request,
                    format!("there is no image {name} that was imported"),
                    "sandbox image list shows all that there are",
                )
                .into());
            }
        }
    }
    Ok(0)
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
