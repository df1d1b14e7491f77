//! `sandbox packages`: the packages of scripts, which are chosen, locked and kept.

use crate::cache::Shelf;
use crate::cli::cache;
use crate::cli::package_options::PackageArgs;
use crate::cli::package_request::{PackageRequest, counted};
use crate::cli::progress::Progress;
use crate::cli::values::parse_module;
use crate::image::{Image, LayerFile};
use crate::kvm_mode::{self, Device};
use crate::limits::{ConfineLevel, PACKAGES_MEMORY};
use crate::log::say;
use crate::packages::{Store, UV_VERSION, bring, choose_anew, script_lock};
use crate::template::{self as templates, Preload, TemplateSpec, builder};
use crate::units::memory_step;
use crate::vm::{allow_kicks, host};
use anyhow::Result;
use clap::Subcommand;
use std::path::PathBuf;

#[derive(Subcommand)]
pub enum Verb {
    /// Bring uv, which chooses packages and unpacks them, by the pip that is there
    Setup,
    /// Choose what a script needs, and write it down beside it, in SCRIPT.lock
    Lock {
        /// The script
        script: PathBuf,
        #[command(flatten)]
        wanted: PackageArgs,
        /// Write it to this file instead
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Get ready now what a script needs, or what the options name
    Build {
        /// The script
        script: Option<PathBuf>,
        #[command(flatten)]
        wanted: PackageArgs,
        /// Take what SCRIPT.lock names, and nothing else
        #[arg(long, requires = "script")]
        locked: bool,
        /// Save a machine too that has imported these modules, in place of what the first program imports:
        /// pandas,matplotlib.pyplot
        #[arg(long, value_name = "MODULES", value_delimiter = ',', value_parser = parse_module)]
        preload: Vec<String>,
    },
    /// Show what is kept: size on disk, what each is for, when it was last used
    List {
        /// Check all of their content too
        #[arg(long)]
        verify: bool,
    },
}

pub fn packages_verb(verb: Verb, kvm: &Device) -> Result<u8> {
    match verb {
        Verb::Setup => {
            let store = Store::open()?;
            let place = bring(&store.stage()?)?;
            say(&format!("uv {UV_VERSION} is {}", place.display()));
        }
        Verb::Lock {
            script,
            wanted,
            output,
        } => {
            let request =
                PackageRequest::of_script(Some(&script), &wanted, (Image::built_in(), true))?
                    .some()?;
            let path = output.unwrap_or_else(|| script_lock::path(&script));
            let chosen = choose_anew(&Store::open()?, &request.asked, &request.how)?;
            chosen.warnings.iter().for_each(|line| say(line));
            script_lock::write(&path, &chosen.lock)?;
            let shown = path.display();
            say(&format!("{shown} has {}", counted(&chosen.lock)));
        }
        Verb::Build {
            script,
            wanted,
            locked,
            preload,
        } => {
            let mut request =
                PackageRequest::of_script(script.as_deref(), &wanted, (Image::built_in(), true))?
                    .some()?;
            request.locked = locked;
            let image = request.image.take();
            let brought = request.bring(kvm, &say)?;
            if !preload.is_empty() {
                let image = image.unwrap_or_else(|| Image::built_in().clone());
                save(image, brought.layer.clone(), preload, kvm)?;
            }
            let (count, size) = (counted(&brought.lock), brought.layer.size >> 20);
            say(&format!("{count} are ready, {size} MiB"));
        }
        Verb::List { verify } => {
            return Ok(cache::list(&[&Store::open()?], verify)?.exit_code());
        }
    }
    Ok(0)
}

/// Saves a machine that has imported these modules of a layer, for programs without options. It takes the
/// place of one that there is.
fn save(image: Image, layer: LayerFile, modules: Vec<String>, device: &Device) -> Result<()> {
    let kvm = host::open(&device.path)?;
    allow_kicks()?;
    let mode = kvm_mode::choose(&kvm, device)?;
    let spec = TemplateSpec {
        memory: memory_step(PACKAGES_MEMORY),
        root: false,
        language: image.default_language().clone(),
        image,
        layers: vec![layer],
        preload: Preload::OfProgram,
        imports: modules,
        confine: ConfineLevel::Auto,
        share: None,
    };
    Shelf::remove(&templates::Store::open()?, spec.key(mode)?.as_str())?;
    let mut progress = Progress::new(false);
    builder::find_or_build(&kvm, mode, device, &spec, false, &mut progress)?;
    Ok(())
}
