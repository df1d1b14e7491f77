//! What a server keeps for each client in the user's cache.

use crate::agent::{Agent, Server, call};
use crate::common::{Cache, exit_code};
use crate::packages::Place;
use crate::web::{Web, tokens};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::time::UNIX_EPOCH;

#[test]
fn a_client_that_has_many_machines_saved_pushes_out_its_own() {
    let cache = Cache::copied();
    let size = cache.template().metadata().unwrap().blocks() * 512;
    let policy = tempfile::NamedTempFile::new().unwrap();
    // Room for two, and not for three, of any size below.
    let text = format!("[server.client]\ncache = {}\n", size * 13 / 5);
    fs::write(policy.path(), text).unwrap();
    let (file, tokens) = tokens(&["one", "two"]);
    let [tokens_file, policy] = [&file, &policy].map(|file| file.path().to_str().unwrap());
    let web = Web::start_with(&cache, &["--tokens", tokens_file, "--policy", policy]);
    let ask = |client: usize, mut arguments: serde_json::Value| {
        arguments["code"] = json!("pass");
        let answer = web.ask(&tokens[client], "tools/call", call(arguments));
        let message = answer.message();
        let record = &message["result"]["structuredContent"];
        assert_eq!(record["status"], "exited", "{message}");
    };
    let kept = || {
        let lines = cache.list(&[]);
        let has = |mib: &u64| {
            let words = format!("  Python, {mib} MiB, ");
            lines.iter().any(|line| line.contains(&words))
        };
        let sizes = [128, 192, 256, 384, 512, 768, 1024];
        sizes.into_iter().filter(has).collect::<Vec<_>>()
    };
    ask(0, json!({"memory_mib": 192}));
    ask(1, json!({"memory_mib": 192}));
    ask(1, json!({"memory_mib": 128}));
    ask(0, json!({"memory_mib": 1024}));
    let output = cache.run(&["-m", "1G"], "pass");
    assert_eq!(exit_code(output.status), 0, "{output:?}");
    // From here on it is in use, and so are all that are made for a run until that ends.
    ask(0, json!({"memory_mib": 384, "session": "stays"}));
    ask(0, json!({"memory_mib": 512}));
    assert_eq!(kept(), [128, 192, 256, 384, 512, 1024]);
    ask(0, json!({"memory_mib": 768}));
    assert_eq!(kept(), [128, 192, 256, 384, 768, 1024], "its own has gone");
    // Though others used it long ago, it is what this client has used last.
    let lines = cache.list(&[]);
    let line = lines.iter().find(|line| line.contains(", 768 MiB, "));
    let key = line.unwrap().split(' ').next().unwrap();
    let file = File::open(cache.templates().join(format!("{key}.template"))).unwrap();
    file.set_modified(UNIX_EPOCH).unwrap();
    ask(1, json!({"memory_mib": 768}));
    let kept = kept();
    assert_eq!(kept.len(), 5, "one of the other's has gone: {kept:?}");
    assert!(kept.ends_with(&[256, 384, 768, 1024]), "{kept:?}");
}

#[test]
fn a_client_that_has_many_packages_unpacked_pushes_out_its_own() {
    let place = Place::new();
    place.does(&["packages", "setup"]);
    place.does(&["packages", "build", "--with", "helper<2"]);
    let kept = |what: &str| {
        let entries = fs::read_dir(place.cache_path(what)).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let files = names.filter(|name| name.ends_with(".erofs") || name.ends_with(".template"));
        files.collect::<BTreeSet<_>>()
    };
    let users = kept("layers");
    let mut before = users.clone();
    // What is too large for the policy is unpacked, and then refused.
    for (size, status, machines) in [("1", "error", 0), ("1G", "exited", 1)] {
        let policy =
            format!("[run.packages]\nallow = 'any'\nsize = '{size}'\n[server.client]\ncache = 1\n");
        place.script("policy.toml", &policy);
        let command = place.command(&["mcp", "--policy", "policy.toml"]);
        let mut agent = Agent::connect(Server::of(command, tempfile::tempdir().unwrap()));
        agent.initialize();
        for packages in ["demo", "helper"] {
            let result = agent.call(json!({"code": "import helper", "packages": [packages]}));
            assert_eq!(result["structuredContent"]["status"], status, "{result}");
            let layers = kept("layers");
            assert!(layers.is_superset(&users), "{layers:?}");
            assert_eq!(layers.difference(&before).count(), 1, "{layers:?}");
            assert_eq!((layers.len(), kept("templates").len()), (2, machines));
            before = layers;
        }
    }
}
