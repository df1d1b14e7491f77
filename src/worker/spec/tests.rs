//! Tests of the messages between a worker and whoever started it.

use super::*;
use crate::agent::GuestReport;
use crate::cache::Share;
use crate::files::{Fetched, Gathered, Get, Put, PutContent, Siblings};
use crate::image::{Image, LayerFile};
use crate::job::Source;
use crate::kvm_mode::{Choice, Device};
use crate::limits::{ConfineLevel, Limits};
use crate::outcome::Outcome;
use crate::run::Timings;
use crate::template::Preload;
use crate::vm::Counters;
use crate::vm::bus::Unknown;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

fn spec() -> Spec {
    Spec {
        request: Request {
            source: Source::Code("print(1)".into()),
            image: Image::built_in().clone(),
            layers: vec![LayerFile {
                path: "/cache/layer.erofs".into(),
                size: 2 << 20,
                digest: "0".into(),
                mount: "/opt".into(),
                modules: vec!["numpy".into()],
            }],
            preload: Preload::Modules(vec!["json".into()]),
            script_chooses: true,
            usual_memory: true,
            language: None,
            arguments: vec!["a".into(), OsString::from_vec(b"\xff".into())],
            env: vec![b"A=b".into()],
            puts: vec![Put {
                content: PutContent::Given(b"\x00\xff".into()),
                guest: Some("a.bin".into()),
            }],
            excluded: vec!["*.csv".into()],
            siblings: Some(Siblings::MOST),
            gets: vec![Get {
                guest: "out".into(),
                host: Some("/tmp/out".into()),
            }],
            force: false,
            workdir: b"/work".into(),
            limits: Limits {
                memory: 256 << 20,
                machine_memory: 384 << 20,
                boot: Duration::from_secs(1),
                timeout: Some(Duration::from_millis(1500)),
                grace: Duration::from_secs(1),
                max_output: u64::MAX,
                input: 0,
                fetch_count: 1,
                fetch_size: 1,
                pids: 1,
            },
            root: false,
            kvm: Device {
                path: "/dev/kvm".into(),
                choice: Choice::Auto,
            },
            show_console: false,
            fresh: false,
            verify: false,
            confine: ConfineLevel::Require,
            capture: true,
            events: false,
            terminal: false,
            prompt: false,
            shows: false,
            record: None,
            tells: true,
            share: Some(Share {
                client: "one".into(),
                most: 1,
            }),
        },
        inspect: Some(Inspect {
            code: false,
            code_max: Some(1),
        }),
    }
}

/// Returns the schema of a [`Spec`] (JSON Schema 2020-12).
fn schema() -> schemars::Schema {
    schemars::generate::SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<Spec>()
}

#[test]
fn a_spec_is_as_its_schema_says_and_comes_back_whole() {
    let value = serde_json::to_value(spec()).unwrap();
    let schema = jsonschema::validator_for(&schema().to_value()).unwrap();
    schema.validate(&value).unwrap();
    let back: Spec = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(back.request.arguments, spec().request.arguments);
    assert_eq!(serde_json::to_value(back).unwrap(), value);
}

#[test]
fn a_spec_with_anything_else_is_refused_by_its_schema_and_by_its_reader() {
    let schema = jsonschema::validator_for(&schema().to_value()).unwrap();
    for (pointer, name, wrong) in [
        ("", "more", json!(1)),
        ("/request", "more", json!(1)),
        ("/request", "memory", json!(1)),
        ("/request/limits", "pids", json!("many")),
        ("/request", "source", json!({"guess": "x"})),
        ("/request/image", "more", json!(1)),
        ("/request/kvm", "choice", json!("fastest")),
    ] {
        let mut value = serde_json::to_value(spec()).unwrap();
        value.pointer_mut(pointer).unwrap()[name] = wrong;
        assert!(!schema.is_valid(&value), "{pointer} {name}");
        let read: Result<Spec, _> = serde_json::from_value(value);
        assert!(read.is_err(), "{pointer} {name}");
    }
    let missing: Value = json!({"request": {}, "inspect": null});
    assert!(serde_json::from_value::<Spec>(missing).is_err());
}

fn report() -> Report {
    serde_json::from_value(json!({
        "path": "Warm", "template": null, "outcome": {"Exited": 0},
        "limits": serde_json::to_value(spec().request.limits).unwrap(),
        "output": [{"delivered": 2, "total": 3}, {"delivered": 0, "total": 0}],
        "kept": ["ab", ""], "told": GuestReport::default(), "gathered": Gathered::default(),
        "fetched": Fetched::default(),
        "timings": Timings::default(), "counters": Counters::default(),
        "unknown": Unknown::default(), "peak": null, "mode": "Native", "confinement": [],
        "last_words": [], "missing_module": null,
    }))
    .unwrap()
}

#[test]
fn an_end_that_no_worker_of_ours_tells_is_not_sound() {
    let ended = |change: &dyn Fn(&mut Report)| {
        let mut report = report();
        change(&mut report);
        Ended::Report(Box::new(report))
    };
    assert!(ended(&|_| {}).is_sound());
    let unsound: [&dyn Fn(&mut Report); 5] = [
        &|report| report.outcome = Outcome::Interrupted(200),
        &|report| {
            report.outcome = Outcome::Signaled {
                signal: 0,
                out_of_memory: false,
            }
        },
        &|report| report.output[1].delivered = 1,
        &|report| report.kept[0] = Some(b"abc".into()),
        &|report| {
            report
                .fetched
                .missing
                .first
                .push("more than were counted".into())
        },
    ];
    for change in unsound {
        assert!(!ended(change).is_sound());
    }
    assert!(Ended::Interrupted(15).is_sound());
    assert!(!Ended::Interrupted(200).is_sound());
}

#[test]
fn the_end_of_a_program_is_told_in_words() {
    let signaled = |signal, out_of_memory| Outcome::Signaled {
        signal,
        out_of_memory,
    };
    for (outcome, words) in [
        (Outcome::Exited(1), "the program exited with 1"),
        (signaled(11, false), "signal 11 ended the program"),
        (signaled(9, true), "the program ran out of"),
        (Outcome::Interrupted(15), "signal 15 stopped the run"),
        (
            Outcome::TimedOut,
            "the program was stopped at its time limit",
        ),
        (Outcome::OutputClosed, "nobody read the output any more"),
    ] {
        let report = Report {
            outcome,
            ..report()
        };
        assert!(report.ended().starts_with(words), "{}", report.ended());
    }
}
