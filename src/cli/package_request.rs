//! The packages that a script's header and the options ask for, and how they are brought.

use crate::cli::package_options::PackageArgs;
use crate::cli::script_image::Pythons;
use crate::error::{Error, Kind, Remedy};
use crate::image::{Image, LayerFile};
use crate::job::{Source, python_named, read_script};
use crate::kvm_mode::Device;
use crate::limits::ConfineLevel;
use crate::packages::{
    Asked, Chosen, Environment, Header, How, Lock, Maker, Store, choose, script_lock,
};
use crate::policy::{LimitExceeded, Packages};
use crate::template::eviction::keep_bound;
use crate::worker::compile;
use anyhow::Result;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The packages that are asked for, and the way in which they are chosen.
pub struct PackageRequest {
    pub asked: Asked,
    pub how: How,
    /// The script, beside which its lock may be.
    script: Option<PathBuf>,
    /// Whether there must be a lock.
    pub locked: bool,
    policy: Option<Packages>,
    /// The image that the script asks for, in place of the usual one.
    pub image: Option<Image>,
}

/// Takes from an error what else could be run: packages are a script's.
fn without_other_ways(error: Error) -> Error {
    match error.remedy {
        Remedy::CheckProgramPath => Error {
            remedy: "check the path".into(),
            ..error
        },
        _ => error,
    }
}

/// Packages that are there.
pub struct Brought {
    pub lock: Lock,
    pub layer: LayerFile,
}

impl PackageRequest {
    /// Returns what a program and the options ask for, if that can be anything. `may_choose` says whether
    /// the script may ask for another image.
    pub fn of_program(
        source: &Source,
        wanted: &PackageArgs,
        (image, may_choose): (&Image, bool),
    ) -> Result<Option<Self>> {
        if image.packages.is_none() {
            let is_plain = wanted.with.is_empty() && wanted.requirements.is_empty();
            return match is_plain && !has_dependencies(image, source) {
                true => Ok(None),
                false => Err(no_packages(image).into()),
            };
        }
        let request = match source {
            // A script that cannot be read is told by whoever runs it, and a pipe can be read once.
            Source::File(path) if path.is_file() || path.is_dir() => {
                Self::of_script(Some(path), wanted, (image, may_choose))?
            }
            Source::Code(code) => {
                let header = Header::of(code.as_bytes())?;
                Self::new(header, None, wanted, (image, may_choose))?
            }
            _ => Self::new(None, None, wanted, (image, false))?,
        };
        Ok(Some(request))
    }

    /// Returns what a script, if there is one, and the options ask for.
    pub fn of_script(
        script: Option<&Path>,
        wanted: &PackageArgs,
        (image, may_choose): (&Image, bool),
    ) -> Result<Self> {
        let text = script
            .map(|script| read_script(image, script).map_err(without_other_ways))
            .transpose()?;
        let text = text.unwrap_or_default();
        let header = Header::of(&text)?;
        let named = header.as_ref().and_then(|_| python_named(&text));
        Self::new(
            header,
            script.map(|it| (it, named)),
            wanted,
            (image, may_choose),
        )
    }

    fn new(
        header: Option<Header>,
        script: Option<(&Path, Option<&str>)>,
        wanted: &PackageArgs,
        (usual, may_choose): (&Image, bool),
    ) -> Result<Self> {
        let pythons = Pythons {
            required: header.as_ref().and_then(|it| it.requires_python.as_deref()),
            named: script.and_then(|(_, named)| named),
        };
        let image = match &header {
            Some(_) => pythons.image(usual, may_choose)?,
            None => None,
        };
        let asked = asked(header, wanted)?;
        let Some(packages) = image.as_ref().unwrap_or(usual).packages.clone() else {
            return Err(no_packages(usual).into());
        };
        Ok(Self {
            asked,
            how: How {
                packages,
                environment: Environment::of_this_process(),
                known: false,
                offline: wanted.offline,
                confine: ConfineLevel::Auto,
                share: None,
            },
            script: script.map(|(path, _)| path.to_path_buf()),
            locked: false,
            policy: None,
            image,
        })
    }

    /// Returns it if anything is asked for.
    pub fn if_any(self) -> Option<Self> {
        (!self.asked.is_empty()).then_some(self)
    }

    /// Returns it, or an error if nothing is asked for.
    pub fn some(self) -> Result<Self, Error> {
        let what = match &self.script {
            Some(script) => format!("the script {} asks", script.display()),
            None => "this asks".into(),
        };
        self.if_any().ok_or_else(|| {
            Error::new(
                Kind::Request,
                format!("{what} for no packages"),
                "name them in the script's header, or with --with or --requirements",
            )
        })
    }

    /// Holds what is asked for against a policy, and has it chosen as that says.
    pub fn keep_to(&mut self, policy: &Packages) -> Result<(), LimitExceeded> {
        self.how.keep_to(policy, &mut self.asked)?;
        self.policy = Some(policy.clone());
        Ok(())
    }

    /// Brings the packages: chooses and unpacks what is not there yet.
    pub fn bring(&self, kvm: &Device, say: &dyn Fn(&str)) -> Result<Brought> {
        let store = Store::open()?;
        let beside = match &self.script {
            Some(script) => script_lock::find(script, &self.how.key(&self.asked), self.locked)?,
            None => None,
        };
        let lock = match beside {
            Some(lock) => lock,
            None => {
                let choosing = || say(&format!("choosing packages: {}", self.asked.summary()));
                let Chosen { lock, warnings } = choose(&store, &self.asked, &self.how, choosing)?;
                warnings.iter().for_each(|line| say(line));
                lock
            }
        };
        let mut maker = ReportingMaker {
            lock: &lock,
            kvm,
            say,
            has_made: false,
        };
        let layer = store.layer(&lock, &self.asked, &self.how, &mut maker)?;
        if maker.has_made {
            // What is too much is removed another time, if it cannot be now.
            keep_bound(None).unwrap_or_default();
        }
        let policy = self.policy.as_ref();
        let check = policy.map_or(Ok(()), |policy| policy.check_size(layer.size));
        check.map_err(Error::from)?;
        Ok(Brought { lock, layer })
    }
}

fn no_packages(image: &Image) -> Error {
    Error::new(
        Kind::Request,
        format!("the image {} takes no packages", image.name),
        "run without packages, or with another image",
    )
}

/// Returns whether a program's header asks for packages. One that cannot be read is told by whoever runs it.
fn has_dependencies(image: &Image, source: &Source) -> bool {
    let text = match source {
        Source::File(path) if path.is_file() || path.is_dir() => read_script(image, path).ok(),
        Source::Code(code) => Some(code.as_bytes().to_vec()),
        _ => None,
    };
    let header = text.and_then(|text| Header::of(&text).ok().flatten());
    header.is_some_and(|header| !header.dependencies.is_empty())
}

/// Returns all that is asked for, by a script's header and the options.
fn asked(header: Option<Header>, wanted: &PackageArgs) -> Result<Asked, Error> {
    let mut asked = Asked::default();
    header.map_or(Ok(()), |header| asked.add_header(header))?;
    for word in &wanted.with {
        asked.add_word(word)?;
    }
    for file in &wanted.requirements {
        asked.add_file(file)?;
    }
    asked.check()?;
    Ok(asked)
}

/// A maker of a layer that tells the user.
struct ReportingMaker<'a> {
    lock: &'a Lock,
    kvm: &'a Device,
    say: &'a dyn Fn(&str),
    has_made: bool,
}

impl Maker for ReportingMaker<'_> {
    fn waiting(&mut self) {
        (self.say)("waiting for another process that unpacks the same packages");
    }

    fn making(&mut self) {
        (self.say)(&format!("unpacking {}, once", counted(self.lock)));
        self.has_made = true;
    }

    fn compile(&mut self, layer: &LayerFile, directory: &Path) -> Result<()> {
        compile(layer, directory, self.kvm)
    }
}

/// Says how many packages a lock names.
pub fn counted(lock: &Lock) -> String {
    match lock.packages.len() {
        1 => "1 package".into(),
        count => format!("{count} packages"),
    }
}
