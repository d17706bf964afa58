use serde_json::json;

use super::*;
use crate::doctor::Level;

/// A ruleset with one input chain.
fn input(policy: &str, rules: &[Value]) -> Value {
    let chain = json!({"chain": {"family": "inet", "table": "filter", "name": "input", "type": "filter", "hook": "input", "prio": 0, "policy": policy}});
    let rule = |expr: &Value| json!({"rule": {"family": "inet", "table": "filter", "chain": "input", "expr": expr}});
    let all: Vec<Value> = std::iter::once(chain)
        .chain(rules.iter().map(rule))
        .collect();
    json!({"nftables": all})
}

fn dport(protocol: &str, right: Value) -> Value {
    json!({"match": {"op": "==", "left": {"payload": {"protocol": protocol, "field": "dport"}}, "right": right}})
}

fn levels(ruleset: &Value) -> Vec<(Level, String)> {
    let found = judge(ruleset, 7400);
    found.into_iter().map(|f| (f.level, f.found)).collect()
}

#[test]
fn without_rules_everything_comes_in() {
    assert_eq!(levels(&json!({"nftables": []}))[0].0, Level::Fine);
    assert_eq!(levels(&input("accept", &[]))[0].0, Level::Fine);
}

#[test]
fn a_policy_that_drops_is_said_for_each_protocol() {
    let established = json!([{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}, {"accept": null}]);
    let lo = json!([{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lo"}}, {"accept": null}]);
    let found = levels(&input("drop", &[established.clone(), lo.clone()]));
    let kinds: Vec<Level> = found.iter().map(|f| f.0).collect();
    assert_eq!(kinds, [Level::Problem, Level::Problem, Level::Warning]);
    assert!(
        found[0].1.contains("tcp dport 7400")
            && found[0].1.contains("policy of chain inet filter input"),
        "{found:?}"
    );
    // Opened for TCP by a set, for UDP by a range, and for VRRP by its number.
    let tcp =
        json!([dport("tcp", json!({"set": [22, 7400]})), {"counter": null}, {"accept": null}]);
    let udp = json!([dport("udp", json!({"range": [7000, 7999]})), {"accept": null}]);
    let vrrp = json!([{"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": 112}}, {"accept": null}]);
    let open = input("drop", &[established, lo, tcp, udp, vrrp]);
    assert_eq!(
        levels(&open).iter().map(|f| f.0).collect::<Vec<_>>(),
        [Level::Fine]
    );
}

#[test]
fn what_is_not_understood_is_not_guessed() {
    let limit = json!([{"limit": {"rate": 10, "per": "second"}}, {"accept": null}]);
    let found = levels(&input("drop", std::slice::from_ref(&limit)));
    assert_eq!(found[0].0, Level::Warning);
    assert!(found[0].1.contains("cannot be told"), "{found:?}");
    // It makes no difference where everything is accepted anyway.
    assert_eq!(levels(&input("accept", &[limit]))[0].0, Level::Fine);
    let xt = json!([{"xt": null}]);
    assert!(
        levels(&input("accept", &[xt]))[0]
            .1
            .contains("cannot be told")
    );
    let map = json!([{"vmap": {"key": {"ct": {"key": "state"}}, "data": "@states"}}]);
    assert!(
        levels(&input("accept", &[map]))[0]
            .1
            .contains("cannot be told")
    );
}

#[test]
fn jumps_are_followed() {
    let mut ruleset = input("accept", &[json!([{"jump": {"target": "cluster"}}])]);
    let all = ruleset["nftables"].as_array_mut().unwrap();
    all.push(json!({"chain": {"family": "inet", "table": "filter", "name": "cluster"}}));
    all.push(json!({"rule": {"family": "inet", "table": "filter", "chain": "cluster", "expr": [dport("tcp", json!(7400)), {"reject": null}]}}));
    let found = levels(&ruleset);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].1.contains("a rule of chain inet filter cluster"),
        "{found:?}"
    );
    // A chain that jumps to itself ends.
    let round = input("accept", &[json!([{"jump": {"target": "input"}}])]);
    assert_eq!(levels(&round).len(), 1);
}

#[test]
fn conditions_can_be_negated() {
    let not = json!([{"match": {"op": "!=", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 7400}}, {"drop": null}]);
    let found = levels(&input("accept", &[not]));
    assert_eq!(found[0].0, Level::Fine, "{found:?}");
}
