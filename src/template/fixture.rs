//! A template store for one test.

use crate::template::store::TEMPLATE;
use crate::template::{Found, Key, Store, Template};
use crate::units::PAGE;
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

pub const STATE: &[u8] = b"the state of a machine";
pub const DESCRIPTION: &str = "a machine for tests";
/// The pages that are not zero, of eight: the index and the value of every byte.
pub const PAGES: [(u64, u8); 3] = [(0, 0x11), (3, 0x22), (7, 0x33)];

pub struct Fixture {
    pub directory: TempDir,
    pub store: Store,
    pub key: Key,
}

impl Fixture {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            store: Store::at(directory.path()),
            directory,
            key: Key::of(&[b"test"]),
        }
    }

    pub fn published() -> Self {
        let fixture = Self::new();
        fixture.publish();
        fixture
    }

    pub fn publish(&self) {
        let lock = self.store.lock(&self.key, || ()).unwrap();
        let mut writer = self.store.writer(&lock, 8 * PAGE as u64).unwrap();
        for (index, byte) in PAGES {
            writer.write_page(index, &[byte; PAGE]).unwrap();
        }
        writer
            .publish(STATE, DESCRIPTION, Duration::from_micros(1_234_567))
            .unwrap();
    }

    pub fn find(&self) -> Found {
        self.store.find(&self.key).unwrap()
    }

    #[track_caller]
    pub fn template(&self) -> Template {
        match self.find() {
            Found::Ready(template) => template,
            other => panic!("{other:?}"),
        }
    }

    pub fn path(&self, role: &str) -> PathBuf {
        self.store.path(&self.key, role)
    }

    pub fn names(&self) -> Vec<String> {
        fs::read_dir(self.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    pub fn set_mode(&self, mode: u32) {
        fs::set_permissions(self.path(TEMPLATE), Permissions::from_mode(mode)).unwrap();
    }

    /// Changes the template behind the store's back.
    pub fn change(&self, how: impl FnOnce(&File)) {
        self.set_mode(0o600);
        let mut options = OpenOptions::new();
        how(&options
            .read(true)
            .write(true)
            .open(self.path(TEMPLATE))
            .unwrap());
        self.set_mode(0o400);
    }

    pub fn flip(&self, bit: u64) {
        self.change(|file| {
            let mut byte = [0];
            file.read_exact_at(&mut byte, bit / 8).unwrap();
            byte[0] ^= 1 << (bit % 8);
            file.write_all_at(&byte, bit / 8).unwrap();
        });
    }
}
