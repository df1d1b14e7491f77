//! `sandbox template`: the saved machines.

use crate::cli::messages::{Progress, say};
use crate::image::{Image, store};
use crate::kvm_mode::{self, Device};
use crate::limits::PIDS_MAX;
use crate::template::Store;
use crate::template::TemplateSpec;
use crate::template::builder;
use crate::units::parse_memory;
use crate::vm::allow_kicks;
use crate::vm::host;
use anyhow::Result;
use clap::Subcommand;
use std::io::{self, Write, stdout};

#[derive(Subcommand)]
pub enum Verb {
    /// Save a machine now that runs will start from, unless there is one
    Build {
        /// Guest memory, as for run
        #[arg(short, long, env = "SANDBOX_MEMORY", value_name = "SIZE", default_value = "256M", value_parser = parse_memory)]
        memory: u64,
        /// Most processes and threads at once, as for run
        #[arg(long, env = "SANDBOX_PIDS_LIMIT", value_name = "N", default_value = "256", value_parser = clap::value_parser!(u32).range(1..=PIDS_MAX))]
        pids_limit: u32,
        /// For programs that run as the guest's root
        #[arg(long)]
        root: bool,
    },
    /// Show them: size on disk, age, what each is for
    List {
        /// Check all of their memory too
        #[arg(long)]
        verify: bool,
    },
    /// Remove them all, and the runtime images of other versions; runs build those that they need
    Prune,
}

pub fn template_verb(verb: Verb, device: &Device) -> Result<u8> {
    match verb {
        Verb::Build {
            memory,
            pids_limit,
            root,
        } => {
            store::require_guest()?;
            let kvm = host::open(&device.path)?;
            allow_kicks()?;
            let mode = kvm_mode::choose(&kvm, device)?;
            let spec = TemplateSpec {
                memory,
                pids: pids_limit,
                root,
                image: Image::built_in().clone(),
            };
            let mut progress = Progress { quiet: false };
            builder::find_or_build(&kvm, mode, device, &spec, true, &mut progress)?;
        }
        Verb::List { verify } => list(&Store::open()?, verify)?,
        Verb::Prune => {
            let (templates, in_templates) = Store::open()?.prune(None)?;
            let (images, in_images) = store::prune()?;
            say(&format!(
                "removed {}, {} MiB",
                templates + images,
                (in_templates + in_images) >> 20
            ));
        }
    }
    Ok(0)
}

fn list(store: &Store, verify: bool) -> Result<()> {
    for entry in store.list()? {
        let size = entry.size >> 20;
        let told = match &entry.about {
            Ok(about) if !verify || store.verify(&entry.key)? => format!(
                "{}, {} old, built in {:.1} s",
                about.description,
                rough(about.age.as_secs()),
                about.build_time.as_secs_f64()
            ),
            Ok(_) => "refused: its memory is not what was saved".into(),
            Err(why) => format!("refused: {why}"),
        };
        match writeln!(stdout(), "{}  {size} MiB  {told}", entry.key) {
            // The reader has closed the pipe.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            result => result?,
        }
    }
    Ok(())
}

/// Formats a duration in the largest unit of which it has at least two.
fn rough(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}
