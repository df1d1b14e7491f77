//! The languages that an agent may name where images were imported.

use super::agent::*;
use super::common::*;
use super::foreign_images::Maker;
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

/// An image that has an interpreter by this name, which prints its words.
fn image_with(interpreter: &str) -> Maker {
    let maker = Maker::new();
    maker.put_busybox("layer");
    let path = format!("layer/bin/{interpreter}");
    maker.write(&path, b"#!/bin/sh\necho in an image: \"$@\"\n");
    maker.make_executable(&path);
    maker
}

#[test]
fn languages_of_images_are_offered_to_agents_and_run() {
    let (cache, maker) = (Cache::copied(), image_with("lua"));
    let mut agent = agent_of(&cache, &[]);
    assert_eq!(offered(&mut agent), ["python", "bash"]);
    let code = json!({"code": "print(1)", "language": "lua"});
    let refused = text_of(&agent.call(code.clone()));
    assert!(
        refused.contains("unknown language \"lua\", expected one of python, bash"),
        "{refused}"
    );
    // A server that runs notices an image that comes.
    let mut command = cache.sandbox(&["image", "import"]);
    let output = finish(command.arg(maker.archive(&["layer"], json!({}))), b"");
    assert_eq!(exit_code(output.status), 0, "{}", text(&output.stderr));
    assert_eq!(offered(&mut agent), ["python", "bash", "lua", "sh"]);
    let result = agent.call(code);
    let record = &result["structuredContent"];
    assert_eq!(
        record["stdout"], "in an image: -e print(1) /dev/null\n",
        "{result}"
    );
    let python = agent.call(json!({"code": "6 * 7"}));
    let value = &python["structuredContent"]["result"]["text/plain"];
    assert_eq!(value, "42");
    for (argument, value) in [("session", json!("s")), ("packages", json!(["numpy"]))] {
        let refused = agent.call(json!({"code": "", "language": "lua", argument: value}));
        assert_eq!(refused["isError"], true, "{argument}: {refused}");
        assert!(
            refused["structuredContent"].is_null() || text_of(&refused).contains("lua"),
            "{refused}"
        );
    }
}

#[test]
fn a_policy_and_a_log_keep_agents_to_the_built_in_languages() {
    let (cache, maker) = (Cache::copied(), image_with("lua"));
    let mut command = cache.sandbox(&["image", "import"]);
    let output = finish(command.arg(maker.archive(&["layer"], json!({}))), b"");
    assert_eq!(exit_code(output.status), 0, "{}", text(&output.stderr));
    maker.write("policy.toml", b"[run]\ntimeout = 5\n");
    let (policy, log) = (maker.path("policy.toml"), maker.path("log"));
    for (option, path) in [("--policy", policy), ("--audit", log)] {
        let mut agent = agent_of(&cache, &[option, path.to_str().unwrap()]);
        assert_eq!(offered(&mut agent), ["python", "bash"], "{option}");
    }
}
