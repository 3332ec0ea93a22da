//! What is taken as it is written, and is told of: roles that only look like others, and keys that say nothing.

use super::messages::warnings;

/// A route for these, behind what else stands in the file.
fn file(more: &str, allow: &str) -> String {
    format!("{more}upstreams: {{ a: {{ builtin: echo }} }}\nroutes:\n  - {{ path: /a, allow: {allow}, to: a }}\n")
}

#[test]
fn a_role_with_a_character_that_nobody_sees_is_told() {
    for (letter, shown) in [
        ('\u{ad}', "U+00AD"),
        ('\u{200b}', "U+200B"),
        ('\u{200d}', "U+200D"),
        ('\u{202e}', "U+202E"),
        ('\u{2060}', "U+2060"),
        ('\u{3164}', "U+3164"),
        ('\u{fe0f}', "U+FE0F"),
        ('\u{feff}', "U+FEFF"),
        ('\u{e0041}', "U+E0041"),
        ('\u{a0}', "U+00A0"),
        ('\u{2003}', "U+2003"),
        ('\u{202f}', "U+202F"),
        ('\u{3000}', "U+3000"),
        ('\u{2800}', "U+2800"),
    ] {
        let what =
            if letter.is_whitespace() || letter == '\u{2800}' { "a blank other than a space" } else { "not seen" };
        let told = warnings(&file("", &format!("[user, 'adm{letter}in']")));
        let expected = format!(
            "3:31: {shown} in the role `adm<{shown}>in` is {what}; without it, it is another role, which may be the one that is meant"
        );
        assert_eq!(told, [expected], "{shown}");
    }
    let odd = "'ad\u{200b}min'";
    let says = |line: usize, column: usize| {
        format!(
            "{line}:{column}: U+200B in the role `ad<U+200B>min` is not seen; without it, it is another role, which may be the one that is meant"
        )
    };
    for (more, place) in [
        (format!("bootstrap: {{ users: [{{ name: u, roles: [{odd}] }}] }}\n"), says(1, 41)),
        (format!("bootstrap: {{ clients: [{{ id: u, roles: [{odd}] }}] }}\n"), says(1, 41)),
        (format!("tokens: {{ default_role: {odd} }}\n"), says(1, 25)),
        (format!("expect: [{{ request: GET /a, as: {{ roles: [{odd}] }}, is: 403 }}]\n"), says(1, 43)),
    ] {
        let told = warnings(&file(&more, "[admin]"));
        assert!(told.contains(&place), "{more}{told:#?}");
    }
    // a word that is written with them every day
    assert_eq!(warnings(&file("", "[prüfer, 管理者, 'admin-2_x.y:z@w', Ärztin]")), Vec::<String>::new());
    let told = warnings(&file("", "['${ODD}']")).join("\n");
    assert!(
        told.starts_with("3:25: a character in the value of this variable is not seen; ") && !told.contains("U+"),
        "{told}"
    );
}

#[test]
fn a_role_that_mixes_letters_that_look_alike_is_told() {
    for (role, script, letter) in [
        ("\u{430}dmin", "Cyrillic", "U+0430"),
        ("admi\u{43f}", "Cyrillic", "U+043F"),
        ("us\u{3b5}r", "Greek", "U+03B5"),
        ("p\u{3c1}\u{fc}fer", "Greek", "U+03C1"),
        ("\u{456}ntern", "Cyrillic", "U+0456"),
    ] {
        let expected = format!(
            "3:25: the role `{role}` mixes Latin letters with {script} ones: {letter}; it is another role than the one that looks like it"
        );
        assert_eq!(warnings(&file("", &format!("[{role}, {role}]"))), [expected]);
    }
    let of_one = "[администратор, 'админ-2', διαχειριστής, 'β_1', Prüfer]";
    assert_eq!(warnings(&file("", of_one)), Vec::<String>::new());
}

#[test]
fn what_says_nothing_beside_anyone_is_told() {
    let counts = "`by: principal` with `allow: anyone`: nobody is known here, and each address is counted; write `by: address`, or say who may pass";
    let offers = "`schemes` with `allow: anyone`: no credential is looked at; leave it out, or say who may pass";
    for (route, expected) in [
        ("anyone, rate: { rate: 1/s, burst: 1, by: principal }", vec![format!("3:65: {counts}")]),
        ("anyone, rate: { rate: 1/s, burst: 1, by: address }", vec![]),
        ("anyone, rate: { rate: 1/s, burst: 1 }", vec![]),
        ("authenticated, rate: { rate: 1/s, burst: 1, by: principal }", vec![]),
        ("[r], rate: { rate: 1/s, burst: 1, by: principal }", vec![]),
        ("anyone, schemes: [basic]", vec![format!("3:41: {offers}")]),
        ("authenticated, schemes: [basic]", vec![]),
        (
            "anyone, schemes: [basic], rate: { rate: 1/s, burst: 1, by: principal }",
            vec![format!("3:41: {offers}"), format!("3:83: {counts}")],
        ),
    ] {
        assert_eq!(warnings(&file("", route)), expected, "{route}");
    }
}
