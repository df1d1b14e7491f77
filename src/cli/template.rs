//! `sandbox template`: the saved machines.

use crate::cli::cache;
use crate::cli::progress::Progress;
use crate::cli::values::Languages;
use crate::image::{Image, store};
use crate::job;
use crate::kvm_mode::{self, Device};
use crate::limits::ConfineLevel;
use crate::template::builder;
use crate::template::eviction::with_templates;
use crate::template::{Preload, Store, TemplateSpec};
use crate::units::{memory_step, parse_memory};
use crate::vm::allow_kicks;
use crate::vm::host;
use anyhow::Result;
use clap::Subcommand;

#[derive(Subcommand)]
pub enum Verb {
    /// Save a machine now that runs will start from, unless there is one
    Build {
        /// Guest memory, as for run: each size between steps starts from the next step's machine
        #[arg(short, long, env = "SANDBOX_MEMORY", value_name = "SIZE", default_value = "256M", value_parser = parse_memory, allow_negative_numbers = true)]
        memory: u64,
        /// For programs that run as the guest's root
        #[arg(long)]
        root: bool,
        /// For programs in this language, as for run
        #[arg(short, long, value_name = "LANGUAGE", value_parser = Languages::OfPrograms, hide_possible_values = true)]
        lang: Option<String>,
    },
    /// Show them: size on disk, age, what each is for
    List {
        /// Check all of their memory too
        #[arg(long)]
        verify: bool,
    },
    /// Remove those that no run uses now; runs build those that they need
    Prune,
}

pub fn template_verb(verb: Verb, device: &Device) -> Result<u8> {
    match verb {
        Verb::Build { memory, root, lang } => {
            store::require_guest()?;
            let kvm = host::open(&device.path)?;
            allow_kicks()?;
            let mode = kvm_mode::choose(&kvm, device)?;
            let image = Image::built_in();
            let meant = lang.map(|name| job::known(image, &name)).transpose()?;
            let language = image.started_for(meant.unwrap_or(image.default_language()));
            let spec = TemplateSpec {
                memory: memory_step(memory),
                root,
                image: image.clone(),
                language: language.clone(),
                layers: Vec::new(),
                preload: Preload::of(language),
                imports: Vec::new(),
                confine: ConfineLevel::Auto,
                share: None,
            };
            let mut progress = Progress::new(false);
            builder::find_or_build(&kvm, mode, device, &spec, true, &mut progress)?;
        }
        Verb::List { verify } => return Ok(cache::list(&[&Store::open()?], verify)?.exit_code()),
        Verb::Prune => return with_templates(|shelves| cache::remove(shelves, 0)),
    }
    Ok(0)
}
