//! Tests of the limits that a policy sets on what a run may ask for.

use super::*;
use proptest::prelude::*;

fn wish<'a>() -> ResourceRequest<'a> {
    ResourceRequest {
        memory: Requested::Default(256 << 20),
        timeout: Requested::Default(Some(Duration::from_secs(60))),
        output: Requested::Default(1 << 30),
        pids: Requested::Default(256),
        confine: Requested::Default(ConfineLevel::Auto),
        root: false,
        language: Some("python"),
        stdin: None,
        environment: Vec::new(),
    }
}

fn ceiling(text: &str) -> Ceiling {
    toml::from_str(text).unwrap()
}

/// Returns the key that is refused.
fn refused(ceiling_text: &str, wish: &ResourceRequest) -> &'static str {
    ceiling(ceiling_text).grant(wish).unwrap_err().what
}

#[test]
fn a_policy_without_keys_grants_what_is_asked() {
    let grant = Ceiling::default().grant(&wish()).unwrap();
    assert_eq!(
        grant,
        Grant {
            memory: 256 << 20,
            machine_memory: 256 << 20,
            timeout: Some(Duration::from_secs(60)),
            output: 1 << 30,
            pids: 256,
            confine: ConfineLevel::Auto,
            files: Files::default(),
            stdin: u64::MAX,
            share: None,
        }
    );
}

#[test]
fn who_says_nothing_gets_what_is_allowed() {
    let policy =
        "memory = '128M'\ntimeout = 10\noutput = '1M'\npids = 16\nstdin = 5\nconfine = 'require'";
    assert_eq!(
        ceiling(policy).grant(&wish()).unwrap(),
        Grant {
            memory: 128 << 20,
            machine_memory: 128 << 20,
            timeout: Some(Duration::from_secs(10)),
            output: 1 << 20,
            pids: 16,
            confine: ConfineLevel::Require,
            files: Files::default(),
            stdin: 5,
            share: None,
        }
    );
}

#[test]
fn a_saved_machine_has_no_more_memory_than_is_allowed() {
    let mut wish = wish();
    wish.memory = Requested::Given(300 << 20);
    for (policy, machine) in [("", 384), ("memory = '1G'", 384), ("memory = '350M'", 350)] {
        let grant = ceiling(policy).grant(&wish).unwrap();
        assert_eq!(grant.memory, 300 << 20, "{policy}");
        assert_eq!(grant.machine_memory, machine << 20, "{policy}");
    }
}

#[test]
fn who_asks_for_more_is_told_what_is_allowed() {
    let mut more = wish();
    more.memory = Requested::Given(1 << 30);
    let excess = ceiling("memory = '512M'").grant(&more).unwrap_err();
    assert_eq!(
        excess.to_string(),
        "the policy's run.memory allows at most 512 MiB, and 1024 MiB is asked for"
    );
    assert!(excess.remedy().contains("run.memory"));
}

#[test]
fn no_time_limit_is_more_than_any() {
    let mut endless = wish();
    endless.timeout = Requested::Given(None);
    assert_eq!(refused("timeout = '1d'", &endless), "timeout");
    assert_eq!(Ceiling::default().grant(&endless).unwrap().timeout, None);
}

#[test]
fn confinement_can_only_be_raised() {
    let mut asked = wish();
    for (least, level, granted) in [
        ("auto", ConfineLevel::Auto, true),
        ("auto", ConfineLevel::Require, true),
        ("auto", ConfineLevel::Off, false),
        ("require", ConfineLevel::Auto, false),
        ("require", ConfineLevel::Require, true),
        ("require", ConfineLevel::Off, false),
    ] {
        asked.confine = Requested::Given(level);
        let grant = ceiling(&format!("confine = '{least}'")).grant(&asked);
        assert_eq!(grant.is_ok(), granted, "{least} {level:?}");
    }
}

#[test]
fn names_of_variables_are_allowed_one_by_one_or_by_their_beginning() {
    let policy = ceiling("environment = ['LANG', 'APP_*']");
    for (name, allowed) in [
        ("LANG", true),
        ("LANGUAGE", false),
        ("APP_", true),
        ("APP_KEY", true),
        ("app_key", false),
        ("LD_PRELOAD", false),
    ] {
        let mut asked = wish();
        asked.environment = vec![name.as_bytes()];
        assert_eq!(policy.grant(&asked).is_ok(), allowed, "{name}");
    }
    let mut asked = wish();
    asked.environment = vec![b"A"];
    assert_eq!(refused("environment = []", &asked), "environment");
}

#[test]
fn what_has_no_size_is_allowed_or_not() {
    let mut asked = wish();
    asked.language = Some("bash");
    assert_eq!(refused("languages = ['python']", &asked), "languages");
    asked = wish();
    asked.root = true;
    assert_eq!(refused("root = false", &asked), "root");
    asked = wish();
    asked.stdin = Some(11);
    assert_eq!(refused("stdin = 10", &asked), "stdin");
    let policy = ceiling("code = 10\nfiles = { count = 2, size = 100 }");
    assert!(policy.check_code(10).is_ok() && policy.check_code(11).is_err());
    assert!(policy.check_files(2, 100).is_ok());
    assert!(policy.check_files(3, 0).is_err() && policy.check_files(0, 101).is_err());
}

#[test]
fn arguments_and_variables_count_with_the_code() {
    let policy = ceiling("code = 10");
    let word = |text: &'static str| [text.as_bytes()];
    assert!(policy.check_program(3, word("aa"), word("A=1")).is_ok());
    for (code, argument, variable, asked) in [
        (11, "", "", "11 bytes"),
        (
            4,
            "aa",
            "A=1",
            "11 bytes (code 4, arguments 3, variables 4)",
        ),
        (
            1,
            "aaaaaaaa",
            "",
            "11 bytes (code 1, arguments 9, variables 1)",
        ),
    ] {
        let excess = policy.check_program(code, word(argument), word(variable));
        assert_eq!(
            excess,
            Err(LimitExceeded::new("code", asked, "at most 10 bytes"))
        );
    }
    assert!(policy.check_program(0, [b"".as_slice(); 11], []).is_err());
    assert!(Ceiling::default().check_program(1 << 40, [], []).is_ok());
}

proptest! {
    #[test]
    fn nothing_granted_is_ever_over_the_ceiling(
        most in MEMORY_PIECE..1 << 30, asked in 0u64..2 << 30, is_given: bool
    ) {
        let ask = |value| if is_given { Requested::Given(value) } else { Requested::Default(value) };
        let mut wish = wish();
        wish.memory = ask(asked);
        let policy = Ceiling { memory: Some(Size(most)), ..Ceiling::default() };
        match policy.grant(&wish) {
            Ok(grant) => prop_assert!(grant.memory <= most && grant.memory <= asked),
            // A machine's memory comes in pieces of this size.
            Err(_) => prop_assert!(is_given && asked > most - MEMORY_PIECE),
        }
    }
}
