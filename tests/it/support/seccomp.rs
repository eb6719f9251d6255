//! Processes that the kernel refuses system calls to, as container runtimes have it.

use std::collections::BTreeSet;
use std::thread;

use seccompiler::{BpfProgram, apply_filter, compile_from_json};
use serde_json::{Value, json};

/// Runs `start` under filters, the last one first. A filter holds for the thread that sets it and for
/// the processes that the thread starts.
pub(crate) fn under<T: Send>(filters: &[BpfProgram], start: impl FnOnce() -> T + Send) -> T {
    let filtered = || {
        filters.iter().for_each(|filter| apply_filter(filter).expect("filters"));
        start()
    };
    thread::scope(|scope| scope.spawn(filtered).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Refuses one system call with this error.
pub(crate) fn refusing(call: &str, errno: i32) -> BpfProgram {
    compile(&json!("allow"), &json!({ "errno": errno }), &[json!({ "syscall": call })])
}

/// The filters of a profile in Docker's format that allows what it names, without some of its names.
/// Names that this machine's kernel does not have mean nothing to it.
pub(crate) fn of_profile(profile: &Value, without: &[&str]) -> Vec<BpfProgram> {
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let refusal = |errno: &Value| json!({ "errno": errno.as_u64().expect("an error number") });
    let (mut allowed, mut refused, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
    for entry in profile["syscalls"].as_array().expect("a list") {
        let names = entry["names"].as_array().expect("a list").iter().map(|name| name.as_str().expect("a name"));
        for name in names.filter(|name| !without.contains(name)) {
            assert!(seen.insert(name.to_owned()), "{name} stands twice");
            let rule = match entry["args"].as_array() {
                None => json!({ "syscall": name }),
                Some(conditions) => {
                    json!({ "syscall": name, "args": conditions.iter().map(condition).collect::<Vec<_>>() })
                }
            };
            if !is_known(&rule) {
                continue;
            }
            // What is refused in a way of its own passes the first filter, for the second to refuse.
            allowed.push(rule.clone());
            if entry["action"] == "SCMP_ACT_ERRNO" {
                refused.push(compile(&json!("allow"), &refusal(&entry["errnoRet"]), &[rule]));
            } else {
                assert_eq!(entry["action"], "SCMP_ACT_ALLOW", "{name}");
            }
        }
    }
    assert!(allowed.len() > 100, "only {} calls were read", allowed.len());
    // This one last: it allows no further filter.
    refused.push(compile(&refusal(&profile["defaultErrnoRet"]), &json!("allow"), &allowed));
    refused
}

fn condition(condition: &Value) -> Value {
    assert_eq!(condition["op"], "SCMP_CMP_MASKED_EQ");
    json!({
        "index": condition["index"],
        "type": "qword",
        "op": { "masked_eq": condition["value"] },
        "val": condition["valueTwo"],
    })
}

fn is_known(rule: &Value) -> bool {
    try_compile(&json!("allow"), &json!({ "errno": 1 }), std::slice::from_ref(rule)).is_ok()
}

fn compile(mismatch: &Value, on_match: &Value, rules: &[Value]) -> BpfProgram {
    try_compile(mismatch, on_match, rules).expect("a filter")
}

fn try_compile(mismatch: &Value, on_match: &Value, rules: &[Value]) -> Result<BpfProgram, seccompiler::Error> {
    let text = json!({ "all": { "mismatch_action": mismatch, "match_action": on_match, "filter": rules } }).to_string();
    let arch = std::env::consts::ARCH.try_into().expect("an architecture that has filters");
    compile_from_json(text.as_bytes(), arch).map(|mut filters| filters.remove("all").expect("the only one"))
}
