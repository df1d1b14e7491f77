//! Packages that are chosen by the real uv, from an index on this host.

use super::fixture::{Fixture, Index, Published, refusal, wheel};
use super::*;
use crate::cache::{Holders, Share, Shelf, prune, wait_until};
use crate::error::{Kind, Packages as Way, Remedy};
use crate::image::LayerFile;
use anyhow::Result;
use nix::unistd::geteuid;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

fn demo() -> Published {
    wheel(
        "demo",
        "1.0",
        &[("demo.py", "answer = 42\n")],
        &["helper>=2"],
    )
}

fn helper(version: &str) -> Published {
    wheel("helper", version, &[("helper.py", "")], &[])
}

fn index() -> Index {
    Index::serve(
        vec![demo(), helper("1.0"), helper("2.0"), helper("2.1")],
        &[],
    )
}

fn names(chosen: &Chosen) -> Vec<String> {
    let packages = chosen.lock.packages.iter();
    packages
        .map(|it| format!("{}=={}", it.name, it.version))
        .collect()
}

#[test]
fn what_is_chosen_once_is_not_chosen_again_and_needs_no_network() {
    let index = index();
    let mut fixture = Fixture::new(&index.url);
    let first = fixture.choose(&["demo"]).unwrap();
    assert_eq!(names(&first), ["demo==1.0", "helper==2.1"]);
    assert!(first.lock.text.matches("--hash=sha256:").count() >= 2);
    let asked = index.asked();
    assert!(asked > 0);
    assert_eq!(fixture.choose(&["demo"]).unwrap(), first);
    assert_eq!(index.asked(), asked);
    fixture.offline = true;
    let began = Instant::now();
    assert_eq!(fixture.choose(&["demo"]).unwrap(), first);
    assert!(began.elapsed().as_secs() < 1);
    assert_eq!(fixture.left().len(), 1, "{:?}", fixture.left());
    let error = fixture.refuses(&["demo", "helper<2.1"]);
    assert_eq!(error.remedy, Remedy::GetPackages(Way::GoOnline), "{error}");
}

#[test]
fn a_name_that_nobody_has_and_versions_that_do_not_fit_are_told_apart() {
    let fixture = Fixture::new(&index().url);
    for (words, message) in [
        (&["nonesuch"][..], "there is no such package: "),
        (&["helper==9"], "no versions fit together: "),
        (&["helper<2", "demo"], "no versions fit together: "),
        (&["demo;os_name=='x'&"], "could not be fetched: "),
    ] {
        let error = fixture.refuses(words);
        assert_eq!(error.kind, Kind::Packages);
        assert!(error.message.contains(message), "{error}");
        assert!(fixture.left().is_empty(), "{:?}", fixture.left());
    }
}

#[test]
fn a_source_is_not_built_here() {
    let source = Published {
        file: "demo-1.0.tar.gz".into(),
        content: b"not even an archive".into(),
    };
    let fixture = Fixture::new(&Index::serve(vec![source], &[]).url);
    let error = fixture.refuses(&["demo"]);
    assert!(error.message.contains("as source alone"), "{error}");
}

#[test]
fn an_index_that_is_not_there_is_told_without_its_password() {
    let mut fixture = Fixture::new("http://joe:password@127.0.0.1:1/simple");
    let error = fixture.refuses(&["demo"]);
    assert!(
        error
            .message
            .starts_with("the index of packages cannot be reached"),
        "{error}"
    );
    assert!(error.message.contains("127.0.0.1:1"), "{error}");
    assert!(!error.message.contains("password"), "{error}");
    fixture.offline = true;
    assert_eq!(
        fixture.refuses(&["demo"]).remedy,
        Remedy::GetPackages(Way::GoOnline)
    );
}

#[test]
fn a_wheel_of_the_users_own_is_chosen_by_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let demo = demo();
    let path = directory.path().join(&demo.file);
    std::fs::write(&path, &demo.content).unwrap();
    let fixture = Fixture::new(&index().url);
    let chosen = fixture.choose(&[path.to_str().unwrap()]).unwrap();
    assert_eq!(names(&chosen), ["demo==1.0", "helper==2.1"]);
    assert!(
        chosen
            .lock
            .text
            .contains("./wheels/demo-1.0-py3-none-any.whl")
    );
    assert!(
        !chosen
            .lock
            .text
            .contains(directory.path().to_str().unwrap())
    );
}

#[test]
fn a_package_cannot_have_files_of_this_host_read() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret-1.0-py3-none-any.whl");
    std::fs::write(&secret, wheel("secret", "1.0", &[], &[]).content).unwrap();
    // A package of an index may name anything as what it needs.
    let address = format!("secret @ file://{}", secret.display());
    let trap = wheel("trap", "1.0", &[], &[&address]);
    let fixture = Fixture::new(&Index::serve(vec![trap], &[]).url);
    let error = fixture.refuses(&["trap"]);
    assert!(error.message.contains("secret"), "{error}");
}

#[test]
fn a_lock_of_the_users_own_is_taken_as_it_is() {
    let fixture = Fixture::new("http://127.0.0.1:1/simple");
    let mut asked = Asked {
        locked: Some(format!("demo==1.0 --hash=sha256:{}\n", "0".repeat(64))),
        ..Asked::default()
    };
    let choose = |asked: &Asked| choose(&fixture.store, asked, &fixture.how(), || panic!());
    assert_eq!(names(&choose(&asked).unwrap()), ["demo==1.0"]);
    asked.locked = Some("demo>=1.0 --hash=sha256:0\n".into());
    assert_eq!(
        refusal(choose(&asked)).remedy,
        Remedy::GetPackages(Way::RenewLock)
    );
}

#[test]
fn an_extra_that_there_is_not_is_told() {
    let fixture = Fixture::new(&index().url);
    let chosen = fixture.choose(&["demo[fast]"]).unwrap();
    assert!(
        chosen.warnings.iter().any(|line| line.contains("fast")),
        "{chosen:?}"
    );
}

/// A maker that compiles nothing, and counts what it hears.
#[derive(Default)]
struct Counting {
    waited: usize,
    made: usize,
}

impl Maker for Counting {
    fn waiting(&mut self) {
        self.waited += 1;
    }

    fn making(&mut self) {
        self.made += 1;
    }

    fn compile(&mut self, layer: &LayerFile, directory: &Path) -> Result<()> {
        layer.open()?;
        let module = "demo.cpython-311.pyc";
        let place = directory.join(layer.mount.trim_start_matches('/'));
        fs::create_dir_all(&place)?;
        fs::write(place.join(module), "compiled")?;
        Ok(())
    }
}

fn layer(fixture: &Fixture, words: &[&str], maker: &mut dyn Maker) -> Result<LayerFile> {
    let mut asked = Asked::default();
    words.iter().try_for_each(|word| asked.add_word(word))?;
    let how = fixture.how();
    let chosen = choose(&fixture.store, &asked, &how, || ())?;
    fixture.store.layer(&chosen.lock, &asked, &how, maker)
}

#[test]
fn a_layer_is_made_once_and_is_the_same_wherever_it_is_made() {
    let index = index();
    let mut digests = Vec::new();
    for _ in 0..2 {
        let mut fixture = Fixture::new(&index.url);
        let mut maker = Counting::default();
        let first = layer(&fixture, &["demo"], &mut maker).unwrap();
        first.open().unwrap();
        assert!(first.path.starts_with(fixture.store.layers()));
        fixture.offline = true;
        assert_eq!(layer(&fixture, &["demo"], &mut maker).unwrap(), first);
        assert_eq!(maker.made, 1);
        assert!(!fixture.left().iter().any(|name| name.starts_with("stage")));
        digests.push(first.digest);
    }
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn a_layer_that_somebody_touched_is_made_again() {
    let fixture = Fixture::new(&index().url);
    let mut maker = Counting::default();
    let first = layer(&fixture, &["demo"], &mut maker).unwrap();
    fs::set_permissions(&first.path, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(layer(&fixture, &["demo"], &mut maker).unwrap(), first);
    fs::remove_file(&first.path).unwrap();
    assert_eq!(layer(&fixture, &["demo"], &mut maker).unwrap(), first);
    assert_eq!(maker.made, 3);
}

#[test]
fn a_wheel_that_is_not_the_one_of_the_lock_is_refused() {
    let served = vec![wheel("helper", "1.0", &[("helper.py", "import os\n")], &[])];
    let wrong = "0".repeat(64);
    let fixture =
        Fixture::new(&Index::serve(served, &[("helper-1.0-py3-none-any.whl", &wrong)]).url);
    let error = refusal(layer(&fixture, &["helper"], &mut Counting::default()));
    assert!(
        error
            .message
            .starts_with("a package is not the one that the lock names"),
        "{error}"
    );
    assert!(error.message.contains(&wrong), "{error}");
    assert_eq!(error.remedy, Remedy::GetPackages(Way::RenewLock));
    assert_eq!(fs::read_dir(fixture.store.layers()).unwrap().count(), 0);
}

#[test]
fn a_wheel_with_a_file_outside_of_its_place_is_refused_each_time() {
    let outside = tempfile::tempdir().unwrap();
    let up = format!(
        "{}{}",
        "../".repeat(20),
        outside
            .path()
            .join("out.py")
            .display()
            .to_string()
            .trim_start_matches('/')
    );
    let absolute = outside.path().join("absolute.py").display().to_string();
    for path in [up, absolute, "../beside.py".into()] {
        let trap = wheel(
            "trap",
            "1.0",
            &[(&path, "import os\n"), ("trap.py", "")],
            &[],
        );
        let fixture = Fixture::new(&Index::serve(vec![trap], &[]).url);
        for _ in 0..2 {
            let error = refusal(layer(&fixture, &["trap"], &mut Counting::default()));
            assert!(error.message.contains("outside of the package"), "{error}");
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}

#[test]
fn two_that_need_the_same_layer_make_it_once() {
    let fixture = &Fixture::new(&index().url);
    let makers = std::thread::scope(|scope| {
        let make = || {
            let mut maker = Counting::default();
            layer(fixture, &["demo"], &mut maker).unwrap();
            maker
        };
        let makers = [scope.spawn(make), scope.spawn(make), scope.spawn(make)];
        makers.map(|maker| maker.join().unwrap())
    });
    assert_eq!(makers.iter().map(|maker| maker.made).sum::<usize>(), 1);
    assert_eq!(fs::read_dir(fixture.store.layers()).unwrap().count(), 1);
}

#[test]
fn what_is_kept_is_listed_pruned_and_swept() {
    let fixture = Fixture::new(&index().url);
    let made = layer(&fixture, &["demo"], &mut Counting::default()).unwrap();
    let items = fixture.store.items().unwrap();
    let about: Vec<_> = items
        .iter()
        .map(|item| item.about.clone().unwrap())
        .collect();
    assert!(
        about.contains(&"packages: demo 1.0, helper 2.1".into()),
        "{about:?}"
    );
    assert_eq!(items.len(), 3, "{items:?}");
    let spare = items.iter().filter(|item| item.is_spare);
    let spare: Vec<_> = spare.map(|item| item.name.as_str()).collect();
    assert_eq!(spare, ["packages/downloads"]);
    assert!(
        items
            .iter()
            .all(|item| fixture.store.verify(&item.name).unwrap())
    );
    let held = made.open().unwrap();
    prune(&[&fixture.store], 0).unwrap();
    assert!(made.path.exists());
    drop(held);
    wait_until(|| {
        prune(&[&fixture.store], 0).unwrap();
        !made.path.exists()
    });
    prune(&[&fixture.store], 0).unwrap();
    assert!(fixture.left().is_empty(), "{:?}", fixture.left());
    assert_eq!(
        layer(&fixture, &["demo"], &mut Counting::default()).unwrap(),
        made
    );
}

#[test]
fn a_layer_is_held_by_the_client_that_it_is_made_for_alone() {
    let mut fixture = Fixture::new(&index().url);
    let one = Share {
        client: "one".into(),
        most: 0,
    };
    let maker = &mut Counting::default();
    let users = layer(&fixture, &["helper"], maker).unwrap();
    // Without its label, it is made again and found to be there.
    for name in fixture.left() {
        if name.ends_with(".layer") {
            fs::remove_file(fixture.store.directory().join(name)).unwrap();
        }
    }
    fixture.share = Some(one.clone());
    assert_eq!(layer(&fixture, &["helper"], maker).unwrap(), users);
    let shared = layer(&fixture, &["helper<2.1"], maker).unwrap();
    let own = layer(&fixture, &["demo"], maker).unwrap();
    fixture.share = None;
    assert_eq!(layer(&fixture, &["helper<2.1"], maker).unwrap(), shared);
    assert_eq!(maker.made, 4);
    let holders = Holders::beside(fixture.store.layers());
    wait_until(|| {
        holders.keep_share(&[&fixture.store], &one).unwrap();
        !own.path.exists()
    });
    assert!(users.path.exists() && shared.path.exists());
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    if !geteuid().is_root() {
        return; // nobody else may mount a small file system
    }
    let mut fixture = Fixture::new(&index().url);
    let small = tempfile::tempdir().unwrap();
    let does = |command: &mut Command| assert!(command.status().unwrap().success());
    does(
        Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=48k", "none"])
            .arg(small.path()),
    );
    fixture.store = Store::at(small.path());
    let error = refusal(layer(&fixture, &["demo"], &mut Counting::default()));
    let left = fixture.left();
    does(Command::new("umount").arg(small.path()));
    assert!(error.message.contains("no space"), "{error}");
    assert!(
        !left.iter().any(|name| name.starts_with("stage")),
        "{left:?}"
    );
}
