//! What `sandbox mcp` tells a model before and after it writes code.

use super::agent::*;
use super::common::*;
use super::mcp::failed;
use serde_json::{Value, json};

#[test]
fn the_description_says_what_code_finds_here() {
    let mut agent = Agent::start(&[]);
    let tools = agent.ask("tools/list", json!({}))["result"]["tools"].clone();
    let description = tools[0]["description"].as_str().unwrap();
    let code =
        "import os, sys\nprint(*sys.version_info[:2], sep='.', end=' ')\nprint(os.cpu_count())";
    let python = agent.call(json!({"code": code}))["structuredContent"]["stdout"].clone();
    let (version, processors) = python.as_str().unwrap().trim().split_once(' ').unwrap();
    assert_eq!(processors, "1");
    let code =
        "echo ${BASH_VERSINFO[0]}.${BASH_VERSINFO[1]}; type python3 awk; ! type git gcc curl perl";
    let bash = agent.call(json!({"code": code, "language": "bash"}));
    assert_eq!(bash["isError"], false, "{bash}");
    let bash = bash["structuredContent"]["stdout"].as_str().unwrap();
    let bash = bash.lines().next().unwrap().to_string();
    for words in [
        &format!("Python {version}"),
        &format!("Bash {bash}"),
        "standard library",
        "one processor",
        "no network",
        "/work",
        "last expression",
        "await",
    ] {
        assert!(description.contains(words), "{words}: {description}");
    }
    assert!(!description.contains('{'), "{description}");
}

#[test]
fn a_module_that_is_missing_is_told_with_what_to_do() {
    let mut agent = Agent::start(&[]);
    for code in [
        "import numpy",
        "try: import numpy\nexcept ImportError as e: raise e",
    ] {
        let result = agent.call(json!({"code": code}));
        failed(&result, "exited");
        let text = text_of(&result);
        assert!(
            text.contains(
                "What to do: there is no module numpy here, and the policy of this server forbids the package"
            ),
            "{text}"
        );
        let advice = result["structuredContent"]["advice"].as_array().unwrap();
        assert_eq!(advice.len(), 1);
        assert!(!text.contains("--"), "{text}");
    }
    let file = json!({"path": "helper.py", "content": "x = 5"});
    let result = agent.call(json!({"code": "import helper\nhelper.x", "files": [file]}));
    assert_eq!(text_of(&result), "[result] 5");
    assert_eq!(result["structuredContent"]["advice"], json!([]));
}

#[test]
fn a_network_that_is_missing_is_told_as_that() {
    let mut agent = Agent::start(&[]);
    for (language, code) in [
        (
            "python",
            "import urllib.request\nurllib.request.urlopen('http://example.com/')",
        ),
        (
            "python",
            "import socket\nsocket.create_connection(('10.1.1.1', 80))",
        ),
        (
            "python",
            "import socket\ntry: socket.create_connection(('10.1.1.1', 80))\nexcept OSError: pass",
        ),
        ("bash", "wget http://example.com/"),
    ] {
        let result = agent.call(json!({"code": code, "language": language}));
        let text = text_of(&result);
        assert!(
            text.contains("What to do: there is no network here"),
            "{code}: {text}"
        );
    }
    let local =
        "import socket\ntry: socket.create_connection(('127.0.0.1', 9))\nexcept OSError: pass";
    assert_eq!(text_of(&agent.call(json!({"code": local}))), "[no output]");
    let record =
        crate::interpreter::code("import socket\nsocket.create_connection(('10.1.1.1', 80))");
    let advice = record["advice"][0].as_str().unwrap();
    assert!(
        advice.contains("no network") && advice.contains("--put"),
        "{advice}"
    );
}

#[test]
fn of_what_is_too_long_the_model_sees_the_beginning_and_that_it_is_cut() {
    let mut agent = Agent::start(&[]);
    let result = agent.call(json!({"code": "'x' * 3_000_000"}));
    assert_eq!(result["isError"], false);
    let text = text_of(&result);
    assert!(
        text.starts_with("[result] 'xxx") && text.contains("[cut]"),
        "{}",
        &text[..100]
    );
    let rich = "class A:\n    def __repr__(self): return 'short'\n    def _repr_html_(self): return '<b>' + 'x' * 2_000_000\n    def _repr_markdown_(self): return '# small'\ndisplay(A())\nA()";
    let result = agent.call(json!({"code": rich}));
    let forms = json!({"text/plain": "short", "text/markdown": "# small"});
    let record = &result["structuredContent"];
    assert_eq!(record["displays"], json!([forms]));
    assert_eq!(record["result"], forms);
    assert!(text_of(&result).contains("[cut]"), "{result}");
    let small = agent.call(json!({"code": "'x' * 10"}));
    assert_eq!(text_of(&small), "[result] 'xxxxxxxxxx'");
}

#[test]
fn a_whole_number_may_have_a_fraction_of_zero() {
    let mut agent = Agent::start(&[]);
    let result = agent.call(json!({"code": "print(1)", "memory_mib": 256.0}));
    assert_eq!(text_of(&result), "1\n");
    for wrong in [
        json!(256.5),
        json!(-256.0),
        json!(1e300),
        json!("256"),
        Value::Null,
    ] {
        let result = agent.call(json!({"code": "print(1)", "memory_mib": wrong}));
        failed(&result, "error");
        assert!(text_of(&result).contains("memory_mib"), "{result}");
    }
}

#[test]
fn a_notebook_that_a_model_writes_runs_over_mcp() {
    let mut agent = Agent::start(&[]);
    let code = "    import asyncio\n    from IPython.display import HTML, display\n    display(HTML('<b>x</b>'))\n    await asyncio.sleep(0)\n    6 * 7";
    let result = agent.call(json!({"code": code}));
    assert_eq!(result["isError"], false, "{result}");
    assert_eq!(text_of(&result).lines().last(), Some("[result] 42"));
    let result = agent.call(json!({"code": "!pip install numpy"}));
    assert!(
        text_of(&result).contains("nothing can be installed here"),
        "{result}"
    );
    let output = finish(&mut sandbox(&["run", "-c", "%time"]), b"");
    assert!(!text(&output.stderr).contains("IPython"));
}

#[test]
fn who_wants_to_know_hears_what_a_run_has_printed() {
    let mut agent = Agent::start(&[]);
    let code = "import time\nfor step in range(300):\n    print('step', step, 'x' * 50)\nprint('\\x1b')\ntime.sleep(600)";
    let mut params = call(json!({"code": code}));
    params["_meta"] = json!({"progressToken": "t"});
    let id = agent.request("tools/call", params);
    let told = agent.next(|message| {
        let told = message["params"]["message"].as_str();
        told.is_some_and(|told| told.contains("step 299"))
    });
    let told = told["params"]["message"].as_str().unwrap();
    assert!(
        told.starts_with("it runs; the end of what it has printed:\n"),
        "{told}"
    );
    assert!(told.len() < 3000 && !told.contains("step 0 "), "{told}");
    agent.tell("notifications/cancelled", json!({"requestId": id}));
}
