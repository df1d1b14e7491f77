//! What a run asks for: what its script's header, options and files name.

use crate::error::{Error, Kind, Packages as Way, Remedy};
use crate::image::Packages;
use crate::key::Key;
use crate::packages::header::Header;
use crate::packages::requirement::{self, shortened};
use crate::packages::wheel::Wheel;
use crate::text::escape_control;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// Names that stand for several distributions.
const PRESETS: [(&str, &[&str]); 2] = [
    ("@core", &["numpy", "pandas", "matplotlib"]),
    (
        "@data",
        &[
            "numpy",
            "pandas",
            "scipy",
            "scikit-learn",
            "statsmodels",
            "matplotlib",
            "seaborn",
            "pillow",
            "openpyxl",
            "xlsxwriter",
            "xlrd",
            "python-docx",
            "python-pptx",
            "pypdf",
            "pdfplumber",
            "reportlab",
            "sympy",
            "mpmath",
            "requests",
            "beautifulsoup4",
            "lxml",
            "plotly",
            "pyarrow",
            "polars",
            "tqdm",
            "python-dateutil",
            "pytz",
            "joblib",
            "pyyaml",
        ],
    ),
];

/// The most bytes of a file of requirements.
const FILE_MAX: u64 = 4 << 20;
/// The most requirements of one run.
const COUNT_MAX: usize = 1000;

/// The packages that are asked for.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Each as PEP 508 has it; sorted, each once.
    pub requirements: Vec<String>,
    pub wheels: Vec<Wheel>,
    /// The text of a file of requirements that has a hash for each.
    pub locked: Option<String>,
    /// The time after which nothing that was published is taken.
    pub exclude_newer: Option<String>,
}

impl Asked {
    /// Returns whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty() && self.wheels.is_empty() && self.locked.is_none()
    }

    /// Adds what a script's header names.
    pub fn add_header(&mut self, header: Header) -> Result<(), Error> {
        let refused = |why: String| {
            Error::new(
                Kind::BadProgram,
                format!("the script's header is refused: {why}"),
                "correct dependencies there: each is such as \"numpy\" or \"numpy>=2\" (PEP 508)",
            )
        };
        for line in &header.dependencies {
            self.add(line).map_err(refused)?;
        }
        if let Some(time) = header.exclude_newer {
            check_time(&time).map_err(refused)?;
            self.exclude_newer = Some(time);
        }
        Ok(())
    }

    /// Adds a distribution, a set of them, or a wheel, by the word that names it.
    pub fn add_word(&mut self, word: &str) -> Result<(), Error> {
        if word.contains('/') && !word.contains('@')
            || word.ends_with(".whl") && !word.contains("://")
        {
            let wheel = Wheel::read(Path::new(word))?;
            self.wheels.retain(|other| other.name != wheel.name);
            self.wheels.push(wheel);
            self.wheels.sort();
            return Ok(());
        }
        self.add_name(word)
    }

    /// Adds a distribution, or a set of them, and no file of this host.
    pub fn add_name(&mut self, word: &str) -> Result<(), Error> {
        let refused = |why| {
            Error::new(
                Kind::Request,
                why,
                "give a distribution, such as numpy or 'numpy>=2', or a set of them: @core, @data",
            )
        };
        if !word.starts_with('@') {
            return self.add(word).map_err(refused);
        }
        let preset = PRESETS.iter().find(|(name, _)| *name == word);
        let (_, names) = preset.ok_or_else(|| {
            refused(format!(
                "{:?} is not a set of distributions",
                shortened(word)
            ))
        })?;
        names
            .iter()
            .try_for_each(|name| self.add(name))
            .map_err(refused)
    }

    /// Adds what a file of requirements names. One with hashes is a lock, and then nothing else can be
    /// asked for.
    pub fn add_file(&mut self, path: &Path) -> Result<(), Error> {
        let shown = path.display();
        let refused = |why: String| {
            Error::new(
                Kind::File,
                format!("the file of requirements {shown} is refused: {why}"),
                Remedy::GetPackages(Way::ListRequirements),
            )
        };
        let text = read(path)?;
        if text.contains("--hash=") {
            self.locked = Some(text);
            return Ok(());
        }
        for (number, line) in text.lines().enumerate() {
            let line = line.split(" #").next().unwrap_or(line).trim();
            if !line.is_empty() && !line.starts_with('#') {
                let add = self.add(line);
                add.map_err(|why| refused(format!("line {}: {why}", number + 1)))?;
            }
        }
        Ok(())
    }

    fn add(&mut self, line: &str) -> Result<(), String> {
        let line = line.trim();
        requirement::check(line)?;
        if let Err(place) = self
            .requirements
            .binary_search_by(|other| (**other).cmp(line))
        {
            self.requirements.insert(place, line.into());
        }
        match self.requirements.len() > COUNT_MAX {
            true => Err(format!("there are more than {COUNT_MAX} requirements")),
            false => Ok(()),
        }
    }

    /// Checks that what is asked for can be asked for together.
    pub fn check(&self) -> Result<(), Error> {
        let has_others = !self.requirements.is_empty() || !self.wheels.is_empty();
        if self.locked.is_none() || !has_others {
            return Ok(());
        }
        Err(Error::new(
            Kind::Request,
            "a file of requirements with hashes cannot be combined with other packages",
            Remedy::GetPackages(Way::LockTogether),
        ))
    }

    /// Returns the key of the packages that are chosen for this, for this interpreter.
    pub fn key(&self, packages: &Packages) -> Key {
        let wheels: Vec<_> = self
            .wheels
            .iter()
            .map(|wheel| (&wheel.name, &wheel.digest))
            .collect();
        let parts = (
            &self.requirements,
            wheels,
            &self.locked,
            &self.exclude_newer,
        );
        let parts = serde_json::to_vec(&parts).unwrap_or_default();
        Key::of(&[
            b"packages",
            &parts,
            packages.python_release().as_bytes(),
            packages.platform.as_bytes(),
        ])
    }

    /// Returns the names of the distributions that are asked for, as names are compared; `None` for each
    /// that is asked for by a file or an address.
    pub fn names(&self) -> Vec<Option<String>> {
        let named = self.requirements.iter().map(|line| {
            let is_address = line.contains('@');
            (!is_address).then(|| requirement::name(line))
        });
        let files = self.wheels.iter().map(|_| None);
        named
            .chain(files)
            .chain(self.locked.iter().map(|_| None))
            .collect()
    }

    /// Names what is asked for, in a few words.
    pub fn summary(&self) -> String {
        const SHOWN: usize = 5;
        let wheels = self.wheels.iter().map(|wheel| wheel.name.as_str());
        let mut words: Vec<_> = self
            .requirements
            .iter()
            .map(String::as_str)
            .chain(wheels)
            .collect();
        if self.locked.is_some() {
            words.push("what the file of requirements has");
        }
        let more = words.len().saturating_sub(SHOWN);
        let shown = words[..words.len() - more].join(", ");
        match more {
            0 => escape_control(&shown),
            more => format!("{} and {more} more", escape_control(&shown)),
        }
    }
}

/// Reads a text file of the user's that says what is wanted.
pub fn read(path: &Path) -> Result<String, Error> {
    let shown = path.display();
    let unusable =
        |message: String| Error::new(Kind::File, message, "check the path and its permissions");
    let size = path.metadata().map(|metadata| metadata.len());
    let text = size.and_then(|size| match size > FILE_MAX {
        true => Ok(None),
        false => fs::read_to_string(path).map(Some),
    });
    let text = text.map_err(|error| {
        unusable(format!(
            "the file of requirements {shown} cannot be read: {error}"
        ))
    })?;
    text.ok_or_else(|| {
        unusable(format!(
            "the file of requirements {shown} is larger than {} MiB",
            FILE_MAX >> 20
        ))
    })
}

/// Checks that a time is a date, or a date and a time of day: what is relative to now would change what
/// a script gets from day to day.
fn check_time(time: &str) -> Result<(), String> {
    let is_of_time = |c: char| c.is_ascii_digit() || "-:.TZ+".contains(c);
    let is_date =
        time.len() >= 10 && time.len() <= 40 && time.starts_with(|c: char| c.is_ascii_digit());
    match is_date && time.chars().all(is_of_time) {
        true => Ok(()),
        false => Err(format!(
            "{:?} is neither a date, such as 2026-01-31, nor a time, such as 2026-01-31T00:00:00Z",
            shortened(time)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Image;

    fn asked(words: &[&str]) -> Asked {
        let mut asked = Asked::default();
        words.iter().for_each(|word| asked.add_word(word).unwrap());
        asked
    }

    #[test]
    fn a_preset_stands_for_its_distributions() {
        assert_eq!(
            asked(&["@core"]),
            asked(&["matplotlib", "pandas", "numpy", "numpy"])
        );
        assert_eq!(asked(&["@data"]).requirements.len(), PRESETS[1].1.len());
        let error = Asked::default().add_word("@everything").unwrap_err();
        assert!(error.message.contains("@everything"), "{error}");
    }

    #[test]
    fn a_file_of_requirements_has_one_on_each_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("requirements.txt");
        fs::write(&path, "# what it needs\nnumpy>=2  # why\r\n\n  pandas\n").unwrap();
        let mut asked = Asked::default();
        asked.add_file(&path).unwrap();
        assert_eq!(asked.requirements, ["numpy>=2", "pandas"]);
        fs::write(&path, "numpy\n-r other.txt\n").unwrap();
        let error = asked.add_file(&path).unwrap_err();
        assert!(
            error.message.contains("line 2: \"-r other.txt\""),
            "{error}"
        );
        let error = asked
            .add_file(&directory.path().join("nothing"))
            .unwrap_err();
        assert!(error.message.contains("nothing cannot be read"), "{error}");
    }

    #[test]
    fn a_file_with_hashes_is_a_lock_and_stands_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("requirements.txt");
        fs::write(&path, "a==1 --hash=sha256:00\n").unwrap();
        let mut asked = Asked::default();
        asked.add_file(&path).unwrap();
        assert_eq!(asked.check(), Ok(()));
        asked.add_word("numpy").unwrap();
        assert!(asked.check().is_err());
    }

    #[test]
    fn the_key_depends_on_what_is_asked_for_but_not_on_its_order() {
        let image = Image::built_in().packages.clone().unwrap();
        let key = |asked: &Asked| asked.key(&image);
        let one = asked(&["a", "b>1"]);
        assert_eq!(key(&one), key(&asked(&["b>1", "a"])));
        assert_ne!(key(&one), key(&asked(&["a", "b>2"])));
        let platform = Packages {
            platform: "x86_64-manylinux_2_17".into(),
            ..image.clone()
        };
        assert_ne!(key(&one), one.key(&platform));
        let newer = Asked {
            exclude_newer: Some("2026-01-01".into()),
            ..one.clone()
        };
        assert_ne!(key(&one), key(&newer));
    }

    #[test]
    fn a_header_is_refused_with_what_is_wrong_in_it() {
        for (dependency, time, why) in [
            ("-e .", None, "\"-e .\""),
            ("numpy", Some("1 week"), "1 week"),
            ("numpy", Some(""), "neither a date"),
        ] {
            let header = Header {
                dependencies: vec![dependency.into()],
                exclude_newer: time.map(str::to_owned),
                ..Header::default()
            };
            let error = Asked::default().add_header(header).unwrap_err();
            assert!(error.message.contains(why), "{error}");
        }
    }

    #[test]
    fn what_is_asked_for_has_names_or_none() {
        let asked = asked(&["Num_Py>=2", "a @ https://example.com/a-1-py3-none-any.whl"]);
        assert_eq!(asked.names(), [Some("num-py".into()), None]);
        let file = Asked::default().add_name("./a-1-py3-none-any.whl");
        assert!(file.is_err());
    }

    #[test]
    fn what_is_asked_for_is_named_in_a_few_words() {
        assert_eq!(asked(&["b", "a"]).summary(), "a, b");
        let many: Vec<_> = ["a", "b", "c", "d", "e", "f", "g"].into();
        assert_eq!(asked(&many).summary(), "a, b, c, d, e and 2 more");
    }
}
