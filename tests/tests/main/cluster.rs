//! Clusters of real processes: they form, serve through the loss of a node, and lose nothing.

use hypercache_tests::binary;
use hypercache_tests::cluster::{Nodes, Plan, ask};
use hypercache_tests::faults::{Run, run};
use std::process::Command;

#[test]
fn nodes_form_a_cluster_that_tells_about_itself() {
    let nodes = Nodes::start(Plan::default());
    for i in 0..nodes.len() {
        let port = nodes.port(i);
        let info = ask(port, &["CLUSTER", "INFO"]).expect("an answer");
        let info = info.as_text().expect("text").into_owned();
        assert!(info.starts_with("cluster_state:ok\r\n"), "{info}");
        assert!(info.contains("cluster_known_nodes:3\r\n"), "{info}");
        let id = ask(port, &["CLUSTER", "MYID"]).expect("an answer");
        let id = id.as_text().expect("text").into_owned();
        let lines = ask(port, &["CLUSTER", "NODES"]).expect("an answer");
        let lines = lines.as_text().expect("text").into_owned();
        assert!(lines.lines().any(|line| line.starts_with(&id) && line.contains("myself")));
        assert_eq!(lines.lines().count(), 3, "{lines}");
    }
    let tool = |words: &[&str]| {
        let port = nodes.port(1).to_string();
        let output = Command::new(binary()).arg("cluster").args(words).args(["-p", &port]).output();
        let output = output.expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, text) = tool(&["status"]);
    assert_eq!((code, text.starts_with("The cluster is ok\n")), (Some(0), true), "{text}");
    let (code, text) = tool(&["nodes"]);
    assert_eq!((code, text.lines().count()), (Some(0), 4), "{text}");
    let (code, text) = tool(&["nodes", "--json"]);
    assert_eq!((code, text.matches("\"primaries\":").count()), (Some(0), 3), "{text}");
    assert_eq!(tool(&["drain", "nobody"]).0, Some(1));
}

#[test]
fn what_is_wrong_is_told() {
    let mut nodes = Nodes::start(Plan::default());
    nodes.kill(2);
    let port = nodes.port(0).to_string();
    let status = || {
        let words = ["cluster", "status", "-p", &port];
        let output = Command::new(binary()).args(words).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let said = hypercache_tests::wait_for("a complaint", || {
        let (code, text) = status();
        let is_told = code == Some(1) && text.contains("does not answer");
        (is_told && text.contains("The cluster is degraded")).then_some(text)
    });
    assert!(said.contains("fewer copies in sync than wanted"), "{said}");
    nodes.start_node(2);
    nodes.wait_until_well();
    assert_eq!(status().0, Some(0));
}

/// The same with more nodes, more kinds of faults and for longer: `cargo xtask faults`.
#[test]
fn nothing_acknowledged_is_lost() {
    let report = run(&Run { seconds: 20, ..Run::default() });
    assert!(report.is_good(), "{}", report.line());
    let faults: u32 = report.faults.values().sum();
    assert!(faults >= 4 && report.verdict.acked > 1000, "{}", report.line());
}

#[test]
fn the_demo_loses_nothing() {
    let words = ["cluster", "demo", "--seconds", "12", "--kill-every", "4"];
    let output = Command::new(binary()).args(words).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{stderr}");
    assert!(
        said.contains("is killed (SIGKILL)") && said.contains("  lost             0\n"),
        "{said}"
    );
}
