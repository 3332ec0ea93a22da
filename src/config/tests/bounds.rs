//! Files that would take long to read, or to serve by.

use std::fmt::Write as _;

use super::*;

/// A list of so many items in brackets.
fn list(count: usize, item: &str) -> String {
    let items: Vec<String> = (0..count).map(|n| item.replace('#', &n.to_string())).collect();
    format!("[{}]", items.join(", "))
}

#[test]
fn a_route_has_a_hundred_methods_at_most() {
    let of = |count| with_route(&format!("    allow: [x]\n    methods: {}\n", list(count, "M#")));
    assert!(of(100).is_ok());
    let printed = of(101).unwrap_err().to_string();
    assert!(printed.starts_with("gateway.yaml:6:505: this list has 100 items at most\n"), "{printed}");
}

#[test]
fn there_are_a_thousand_listeners_at_most() {
    let of = |count| {
        let listeners: Vec<String> = (0..count).map(|n| format!("{{ address: '127.0.0.1:{}' }}", 1024 + n)).collect();
        load(&format!("listeners: [{}]\n{LEAST}", listeners.join(", ")))
    };
    assert!(of(1_000).is_ok());
    assert!(of(1_001).unwrap_err().to_string().contains("this list has 1000 items at most"));
}

#[test]
fn what_stands_twice_is_told_however_long_a_list_is() {
    let hosts = list(20_000, "h#").replace("h19999", "h7");
    let printed = with_route(&format!("    allow: [x]\n    hosts: {hosts}\n")).unwrap_err().to_string();
    assert!(printed.contains("this stands in the list already"), "{printed}");
    let mut fields = String::new();
    for n in 0..20_000 {
        write!(fields, "x-{}: a, ", n % 19_999).unwrap();
    }
    let text = format!("    allow: [x]\n    request_headers: {{ set: {{ {fields} X-7: b }} }}\n");
    let printed = with_route(&text).unwrap_err().to_string();
    assert!(printed.contains("`x-7` is set twice"), "{printed}");
}
