//! `klamm configs`.

use klamm_tests::wait::eventually;
use serde_json::{Value, json};

use crate::{json, klamm, refused, topic};

/// A config's value and source, if it is among these.
fn find(configs: &Value, name: &str) -> Option<(Value, Value)> {
    let found = configs.as_array()?.iter().find(|c| c["name"] == json!(name))?;
    Some((found["value"].clone(), found["source"].clone()))
}

/// Asks until a config of a resource has this value and source: brokers show a change a moment after it was made.
#[track_caller]
fn until(whose: &[&str], name: &str, expected: (&str, &str)) {
    eventually(&format!("{whose:?} {name} = {expected:?}"), 10, || {
        let asked = [&["configs", "describe"], whose, &["--key", name]].concat();
        (find(&json(&asked), name)? == (json!(expected.0), json!(expected.1))).then_some(())
    });
}

#[test]
fn topic_configs_are_set_and_unset() {
    let name = topic("cli-configs", 1);
    let whose = ["topic", name.as_str()];
    let alter = |arguments: &[&str]| klamm(&["configs", "alter", "topic", &name]).args(arguments).ok();
    alter(&["--set", "cleanup.policy=compact", "--set", "retention.ms=5"]).expect("2 configs changed");
    until(&whose, "cleanup.policy", ("compact", "topic"));
    alter(&["--append", "cleanup.policy=delete", "--delete", "retention.ms"]);
    until(&whose, "cleanup.policy", ("compact,delete", "topic"));
    let set = json(&["configs", "describe", "topic", &name]);
    assert_eq!(find(&set, "retention.ms"), None, "defaults are not shown");
    alter(&["--subtract", "cleanup.policy=compact"]);
    until(&whose, "cleanup.policy", ("delete", "topic"));
    let all = json(&["configs", "describe", "topic", &name, "--all"]);
    assert_eq!(find(&all, "retention.ms").map(|c| c.1), Some(json!("default")));
}

#[test]
fn a_broker_and_the_default_of_all_brokers_are_resources_too() {
    klamm(&["configs", "alter", "brokers", "--set", "log.cleaner.threads=2"]).ok();
    until(&["brokers"], "log.cleaner.threads", ("2", "broker-default"));
    klamm(&["configs", "alter", "brokers", "--delete", "log.cleaner.threads"]).ok();
    let leader = json(&["topics", "describe", &topic("cli-broker", 1)])[0]["partitions"][0]["leader"].to_string();
    let configs = json(&["configs", "describe", "broker", &leader]);
    assert_eq!(find(&configs, "listeners").map(|c| c.1), Some(json!("static")));
    klamm(&["configs", "describe", "broker", &leader]).ok().expect("CHANGEABLE");
}

#[test]
fn refusals_say_what_to_do() {
    let name = topic("cli-config-errors", 1);
    let unknown = klamm(&["configs", "alter", "topic", &name, "--set", "no.such=1"]).run();
    refused(&unknown, 1, "INVALID_CONFIG");
    refused(&unknown, 1, "hint: `klamm configs describe");
    refused(&klamm(&["configs", "describe", "broker", "4711"]).run(), 1, "no live broker with id 4711");
    refused(&klamm(&["configs", "describe", "brokers", "1"]).run(), 2, "takes no name");
    refused(&klamm(&["configs", "describe", "broker", "one"]).run(), 2, "not a broker id");
    refused(&klamm(&["configs", "alter", "topic", &name]).run(), 2, "--set");
}
