//! The languages that an agent may name where images were imported.

use super::agent::*;
use super::common::*;
use super::foreign_images::Maker;
use super::images::import_layer;
use serde_json::{Value, json};

/// Returns the names of languages in the schema of the tool.
pub fn offered(agent: &mut Agent) -> Vec<Value> {
    let tools = agent.ask("tools/list", json!({}))["result"]["tools"].clone();
    let language = &tools[0]["inputSchema"]["properties"]["language"];
    assert_eq!(language["default"], "python");
    language["enum"].as_array().unwrap().clone()
}

/// Starts a client of a server with these arguments.
fn agent_of(cache: &Cache, arguments: &[&str]) -> Agent {
    let mut command = cache.sandbox(&["mcp"]);
    command.args(arguments);
    let mut agent = Agent::connect(Server::of(command, tempfile::tempdir().unwrap()));
    agent.initialize();
    agent
}

/// Imports an image that others made, with an interpreter by this name, which prints its words.
fn import_foreign(cache: &Cache, interpreter: &str) {
    let maker = Maker::new();
    maker.put_busybox("layer");
    let path = format!("layer/bin/{interpreter}");
    maker.write(&path, b"#!/bin/sh\necho of others: \"$@\"\n");
    maker.make_executable(&path);
    let archive = maker.archive(&["layer"], json!({}));
    // Its name is before that of ours in any order.
    let mut command = cache.sandbox(&["image", "import", "--name", "a"]);
    let output = finish(command.arg(archive), b"");
    assert_eq!(exit_code(output.status), 0, "{}", text(&output.stderr));
}

#[test]
fn languages_of_images_are_offered_to_agents_and_run() {
    let cache = Cache::copied();
    let mut agent = agent_of(&cache, &[]);
    assert_eq!(offered(&mut agent), ["python", "bash"]);
    let code = json!({"code": "print(1)", "language": "lua"});
    let refuses = |agent: &mut Agent| {
        let refused = text_of(&agent.call(code.clone()));
        assert!(
            refused.contains("unknown language \"lua\", expected one of python, bash"),
            "{refused}"
        );
    };
    refuses(&mut agent);
    // What others made is chosen by its name alone, and a call names none.
    import_foreign(&cache, "lua");
    assert_eq!(offered(&mut agent), ["python", "bash"]);
    refuses(&mut agent);
    // A server that runs notices an image that comes.
    import_layer(&cache, "lua");
    assert_eq!(offered(&mut agent), ["python", "bash", "lua"]);
    let result = agent.call(code);
    let record = &result["structuredContent"];
    assert_eq!(record["stdout"], "in an image: -e print(1)\n", "{result}");
    let python = agent.call(json!({"code": "6 * 7"}));
    let value = &python["structuredContent"]["result"]["text/plain"];
    assert_eq!(value, "42");
    for (argument, value) in [("session", json!("s")), ("packages", json!(["numpy"]))] {
        let refused = agent.call(json!({"code": "", "language": "lua", argument: value}));
        assert_eq!(refused["isError"], true, "{argument}: {refused}");
        assert!(text_of(&refused).contains(argument), "{refused}");
    }
}

#[test]
fn a_policy_and_a_log_keep_agents_to_the_built_in_languages() {
    let (cache, maker) = (Cache::copied(), Maker::new());
    import_layer(&cache, "lua");
    maker.write("policy.toml", b"[run]\ntimeout = 5\n");
    let (policy, log) = (maker.path("policy.toml"), maker.path("log"));
    for (option, path) in [("--policy", policy), ("--audit", log)] {
        let mut agent = agent_of(&cache, &[option, path.to_str().unwrap()]);
        assert_eq!(offered(&mut agent), ["python", "bash"], "{option}");
    }
}
