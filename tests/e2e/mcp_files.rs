//! Files and images of calls: those that go in, those that come out, and those that are kept for
//! the caller.

use super::agent::*;
use super::mcp::failed;
use serde_json::json;
use std::fs;

#[test]
fn files_go_in_and_come_out() {
    let mut agent = Agent::start(&[]);
    let code = "
data = open('in.bin', 'rb').read() + open('/tmp/deep/in.txt', 'rb').read()
open('out.txt', 'w').write(repr(data))
open('/tmp/big.bin', 'wb').write(bytes(range(256)) * 1024)
";
    let result = agent.call(json!({"code": code, "files": [
        {"path": "in.bin", "content": "AP8=", "encoding": "base64"},
        {"path": "/tmp/deep/in.txt", "content": "text\n"},
        {"path": "out.txt"}, {"path": "/tmp/big.bin"},
    ]}));
    assert_eq!(result["isError"], false, "{result}");
    let blocks = result["content"].as_array().unwrap();
    let text = blocks
        .iter()
        .find(|block| block["type"] == "resource")
        .unwrap();
    assert_eq!(text["resource"]["text"], r"b'\x00\xfftext\n'");
    let link = blocks
        .iter()
        .find(|block| block["type"] == "resource_link")
        .unwrap();
    assert_eq!(
        (&link["name"], &link["size"]),
        (&json!("/tmp/big.bin"), &json!(256 << 10))
    );
    let files = result["structuredContent"]["files"].as_array().unwrap();
    assert_eq!(files[1]["host"], link["uri"]);
    assert!(
        !result.to_string().contains("sandbox-mcp-"),
        "no path of the host"
    );

    let listed = agent.ask("resources/list", json!({}))["result"]["resources"].clone();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    let read = agent.ask("resources/read", json!({"uri": link["uri"]}));
    let blob = read["result"]["contents"][0]["blob"].as_str().unwrap();
    assert!(blob.starts_with("AAECAwQF"), "{}", &blob[..20]);
    let none = agent.ask("resources/read", json!({"uri": "sandbox://file/none"}));
    assert!(none["error"]["code"].is_number());
    let missing = agent.call(json!({"code": "pass", "files": [{"path": "none.txt"}]}));
    assert_eq!(missing["isError"], true);
    assert!(text_of(&missing).contains("none.txt"));
}

#[test]
fn only_so_many_files_are_kept_and_the_oldest_go_first() {
    let mut agent = Agent::start(&[]);
    let mut uris = Vec::new();
    for _ in 0..6 {
        let code = "open('big', 'wb').write(bytes(15 << 20))";
        let result = agent.call(json!({"code": code, "files": [{"path": "big"}]}));
        uris.push(result["structuredContent"]["files"][0]["host"].clone());
    }
    let listed = agent.ask("resources/list", json!({}))["result"]["resources"].clone();
    let kept: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["uri"].clone())
        .collect();
    assert_eq!(kept, uris[2..]);
}

#[test]
fn images_are_images() {
    let mut agent = Agent::start(&[]);
    let code = "
class Picture:
    def _repr_png_(self): return b'\\x89PNG'
display(Picture())
Picture()
";
    let result = agent.call(json!({"code": code}));
    let blocks = result["content"].as_array().unwrap();
    let images: Vec<_> = blocks
        .iter()
        .filter(|block| block["type"] == "image")
        .collect();
    assert_eq!(images.len(), 2, "{result}");
    assert_eq!(
        (&images[0]["data"], &images[0]["mimeType"]),
        (&json!("iVBORw=="), &json!("image/png"))
    );
}

#[test]
fn what_is_hidden_in_files_and_markup_comes_in_base64() {
    let mut agent = Agent::start(&[]);
    let code = "
class Page:
    def _repr_html_(self): return 'a\\x1b[2J\\u202eb'
for name, text in {'plain.csv': 'a,b\\r\\n', 'moves.txt': 'a\\x1b[2J', 'tags.txt': 'a\\U000e0041'}.items():
    open(name, 'w', newline='').write(text)
Page()";
    let files = ["plain.csv", "moves.txt", "tags.txt"].map(|path| json!({"path": path}));
    let result = agent.call(json!({"code": code, "files": files}));
    let blocks = result["content"].as_array().unwrap();
    let embedded = blocks.iter().map(|block| &block["resource"]);
    let embedded: Vec<_> = embedded.filter(|resource| resource.is_object()).collect();
    assert_eq!(embedded.len(), 2, "{blocks:?}");
    assert_eq!(embedded[0]["blob"], "YRtbMkrigK5i");
    assert_eq!(embedded[1]["text"], "a,b\r\n");
    let links: Vec<_> = blocks
        .iter()
        .filter(|block| block["type"] == "resource_link")
        .collect();
    assert_eq!(links.len(), 2, "{blocks:?}");
    let read = agent.ask("resources/read", json!({"uri": links[0]["uri"]}));
    assert_eq!(read["result"]["contents"][0]["blob"], "YRtbMko=");
}

#[test]
fn files_over_what_a_client_may_keep_take_no_place_of_others_of_their_run() {
    let mut agent = Agent::start(&[]);
    let code =
        "import os\nos.mkdir('out')\nfor n in range(1000): open(f'out/{n}', 'w').write(str(n))";
    let result = agent.call(json!({"code": code, "files": [{"path": "out"}]}));
    assert!(
        text_of(&result).contains("744 files are not kept"),
        "{}",
        text_of(&result)
    );
    let kept: Vec<_> = result["structuredContent"]["files"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|file| file["host"].as_str().filter(|uri| !uri.is_empty()))
        .collect();
    assert_eq!(kept.len(), 256);
    for uri in kept {
        let read = agent.ask("resources/read", json!({"uri": uri}));
        assert!(read["result"]["contents"].is_array(), "{read}");
    }
}

#[test]
fn files_that_are_fetched_are_held_to_the_policy() {
    let policy = tempfile::NamedTempFile::new().unwrap();
    fs::write(policy.path(), "[run]\nfiles = {size = '1M'}\n").unwrap();
    let mut agent = Agent::start(&["--policy", policy.path().to_str().unwrap()]);
    let mut fetch = |size: u64| {
        let code = format!("open('-a', 'w').write('x' * {size})");
        agent.call(json!({"code": code, "files": [{"path": "-a"}]}))
    };
    let within = fetch(1000);
    assert_eq!(within["structuredContent"]["files"][0]["size"], 1000);
    let over = fetch((1 << 20) + 1);
    failed(&over, "error");
    let record = &over["structuredContent"];
    assert_eq!(record["limits_hit"], json!(["files"]), "{record}");
    assert_eq!(record["files_count"], 0);
}

#[test]
fn files_count_by_what_they_hold_and_not_by_how_they_are_encoded() {
    let policy = tempfile::NamedTempFile::new().unwrap();
    fs::write(policy.path(), "[run]\nfiles = {size = 3000}\n").unwrap();
    let mut agent = Agent::start(&["--policy", policy.path().to_str().unwrap()]);
    let mut put = |content: String| {
        let file = json!({"path": "a", "content": content, "encoding": "base64"});
        agent.call(json!({"code": "print(len(open('a').read()))", "files": [file]}))
    };
    assert_eq!(text_of(&put("AAAA".repeat(1000))), "3000\n");
    let over = put("AAAA".repeat(1000) + "AA==");
    failed(&over, "error");
    assert_eq!(
        over["_meta"]["sandbox/refusal"],
        json!({"what": "files.size", "asked": "3001 bytes", "allowed": "at most 3000 bytes", "retry_after_s": null})
    );
}
