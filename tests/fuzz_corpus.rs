//! What fuzzers found worth keeping, once more: `tests/fuzz/corpus` through the targets that
//! `scripts/fuzz` runs.

#[path = "fuzz/targets/mod.rs"]
mod targets;

use std::fs;
use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(target);
    let mut count = 0;
    for entry in fs::read_dir(directory).expect("a corpus") {
        let path = entry.unwrap().path();
        // If it fails, the last name printed is the input's.
        println!("{}", path.display());
        run(&fs::read(path).unwrap());
        count += 1;
    }
    assert!(count > 0, "the corpus is empty");
}

macro_rules! replay {
    ($($target:ident),*) => {
        $(
            #[test]
            fn $target() {
                replay(stringify!($target), targets::$target);
            }
        )*
    };
}

/// What overflows in a target, or in a property test, is seen there, in a release build as well.
#[test]
#[should_panic(expected = "overflow")]
fn an_overflow_is_a_panic() {
    let greatest = std::hint::black_box(u8::MAX);
    std::hint::black_box(greatest + 1);
}

replay!(frames, services, session, template, virtio, vsock);
