//! Checks that the repository is in order. Each rule reads the sources, and says of each place that
//! breaks it what to do there.

mod abi;
mod circles;
mod files;
mod floors;
mod heads;
mod native;
mod options;
mod reader;
mod rust;
mod sizes;

use files::{File, Finding, all_code, check, code_in, file, kernel_patches, read};
use rust::Crate;

#[test]
fn no_import_runs_up_between_floors() {
    check(floors::findings(&Crate::read("src/lib.rs", &read)));
}

#[test]
fn no_text_names_an_option_or_a_command_below_the_command_line() {
    check(options::findings(
        &Crate::read("src/lib.rs", &read),
        &options::EXCEPTIONS,
    ));
}

#[test]
fn only_the_module_of_machines_knows_kvm() {
    let mut files = code_in("src");
    files.retain(|file| !file.path.starts_with("src/vm/"));
    check(files.iter().filter_map(|file| {
        let mut lines = file.text.lines();
        let line =
            lines.position(|line| line.contains("kvm_ioctls") || line.contains("kvm_bindings"))?;
        let what = "it knows KVM: use what src/vm makes of it";
        Some(Finding::new(&file.path, line + 1, what))
    }));
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let roots = [
        "src/lib.rs",
        "guest/src/lib.rs",
        "guest/src/main.rs",
        "tests/e2e/main.rs",
        "tests/hostile/main.rs",
        "tests/tidy/main.rs",
    ];
    let uses = roots.map(|root| Crate::read(root, &read).uses());
    assert!(uses.iter().all(|uses| !uses.is_empty()));
    check(uses.iter().flat_map(circles::findings));
}

#[test]
fn no_files_of_c_call_each_other_in_a_circle() {
    let places = [
        ("guest/images/python/warm", "warm.h"),
        ("guest/waiting", "waiting.h"),
    ];
    for (directory, header) in places {
        let uses = native::uses(&code_in(directory), &format!("{directory}/{header}"));
        assert!(!uses.is_empty(), "{directory}");
        check(circles::findings(&uses));
    }
}

#[test]
fn no_function_is_longer_than_a_screen() {
    check(all_code().iter().flat_map(sizes::long_functions));
}

#[test]
fn no_file_is_too_long_to_be_read_at_once() {
    check(all_code().iter().filter_map(sizes::long_file));
}

#[test]
fn each_file_says_first_what_it_is() {
    check(all_code().iter().filter_map(heads::finding));
}

#[test]
fn the_hypercall_abi_of_c_is_that_of_rust() {
    let source = file("guest/src/hypercall.rs");
    let mut files = kernel_patches();
    files.extend(code_in("guest").into_iter().filter(File::is_c));
    check(abi::findings(&source, &files));
    check(abi::table_findings(&source, &file("docs/architecture.md")));
}
