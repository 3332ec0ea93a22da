//! Roles that only look like others: with characters that nobody sees, or with letters of another script.

use std::collections::HashSet;

use super::super::decode;
use super::super::report::{Report, quoted};
use super::super::tree::Node;
use super::word;

/// Warns of each role once, where it stands first.
pub(super) fn told<'n>(roles: impl Iterator<Item = &'n Node>, report: &mut Report) {
    let mut seen = HashSet::new();
    for node in roles {
        let Some(role) = word(node).filter(|role| !role.is_ascii() && seen.insert(*role)) else { continue };
        unseen(node, role, report);
        look_alikes(node, role, report);
    }
}

/// `adm<U+200B>in`, which is printed like `admin`.
fn unseen(node: &Node, role: &str, report: &mut Report) {
    let Some(first) = role.chars().find(|&letter| is_unseen(letter) || is_blank(letter)) else { return };
    let named = |letter: char| format!("U+{:04X}", u32::from(letter));
    let place = if decode::is_expanded(node) {
        format!("a character in {}", decode::shown_node(node))
    } else {
        let mark = |letter: char| {
            if is_unseen(letter) || is_blank(letter) { format!("<{}>", named(letter)) } else { letter.to_string() }
        };
        format!("{} in the role {}", named(first), quoted(&role.chars().map(mark).collect::<String>()))
    };
    let what = if is_blank(first) { "a blank other than a space" } else { "not seen" };
    let hint = "without it, it is another role, which may be the one that is meant";
    report.warn(node.place, format!("{place} is {what}"), hint);
}

/// `аdmin`, whose first letter is a Cyrillic one.
fn look_alikes(node: &Node, role: &str, report: &mut Report) {
    if !role.chars().any(is_latin) {
        return;
    }
    for (script, is_of_it) in [("Cyrillic", is_cyrillic as fn(char) -> bool), ("Greek", is_greek)] {
        let Some(letter) = role.chars().find(|&letter| is_of_it(letter)) else { continue };
        let which = if decode::is_expanded(node) { String::new() } else { format!(": U+{:04X}", u32::from(letter)) };
        let message = format!("the role {} mixes Latin letters with {script} ones{which}", decode::shown_node(node));
        report.warn(node.place, message, "it is another role than the one that looks like it");
    }
}

/// Format characters (category Cf of Unicode 16), and others that are not drawn by themselves (`Default_Ignorable_Code_Point`).
const fn is_unseen(letter: char) -> bool {
    matches!(
        letter,
        '\u{ad}'
            | '\u{34f}'
            | '\u{600}'..='\u{605}'
            | '\u{61c}'
            | '\u{6dd}'
            | '\u{70f}'
            | '\u{890}'..='\u{891}'
            | '\u{8e2}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{110bd}'
            | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// A blank that is no space: also the one of Braille, which is no white space to Unicode.
const fn is_blank(letter: char) -> bool {
    !letter.is_ascii() && letter.is_whitespace() || letter == '\u{2800}'
}

fn is_latin(letter: char) -> bool {
    letter.is_alphabetic()
        && matches!(letter, 'A'..='Z' | 'a'..='z' | '\u{c0}'..='\u{2af}' | '\u{1e00}'..='\u{1eff}' | '\u{ff21}'..='\u{ff5a}')
}

fn is_cyrillic(letter: char) -> bool {
    letter.is_alphabetic()
        && matches!(letter, '\u{400}'..='\u{52f}' | '\u{1c80}'..='\u{1c8f}' | '\u{2de0}'..='\u{2dff}' | '\u{a640}'..='\u{a69f}')
}

fn is_greek(letter: char) -> bool {
    letter.is_alphabetic() && matches!(letter, '\u{370}'..='\u{3ff}' | '\u{1f00}'..='\u{1fff}')
}
