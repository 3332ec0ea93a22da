//! One key of the file with its value, and what becomes of it from one file to another.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use ipnet::IpNet;

use crate::config::report::is_unseen;

/// What a key that is left out and has no default is shown as.
pub(super) const NONE: &str = "none";

/// One key with its value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fact {
    /// By which two are compared.
    id: String,
    /// The key as the file has it.
    key: String,
    shown: String,
    /// What is compared; another text than what is shown where that is a secret, or means nothing by itself.
    full: String,
    /// Whether it is told only where the other side has it too.
    is_detail: bool,
    gives: Gives,
    stops: Option<Stops>,
}

/// A field that the other end cannot say while a fact is there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stops {
    /// The field.
    pub(super) name: String,
    /// The key of the fact that gives all fields but those that are stopped, by whatever fact.
    pub(super) by: &'static str,
    /// What passes where nothing stops it any more.
    pub(super) passes: &'static str,
}

/// What callers have by a value. It says which of two values gives somebody what he did not have by the other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Gives {
    /// Nothing: it says how fast, how much or where to, or how an answer looks.
    Nothing,
    /// Something that cannot be compared with what another value gives; so that gives something new.
    Something,
    /// Each of these.
    These(BTreeSet<String>),
    /// All but these.
    AllBut(BTreeSet<String>),
    /// What is in each of these networks.
    Within(Vec<IpNet>),
    /// The more, the greater each of the numbers is.
    UpTo(Vec<u128>),
    /// All that there could be.
    Everything,
}

impl Gives {
    /// Each of these.
    pub(super) fn these<T: Into<String>>(items: impl IntoIterator<Item = T>) -> Self {
        Self::These(items.into_iter().map(Into::into).collect())
    }

    /// This, where it is so.
    pub(super) fn this_if(so: bool, what: &str) -> Self {
        Self::these(so.then_some(what))
    }

    /// The more, the greater the number is.
    pub(super) fn up_to(number: impl Into<u128>) -> Self {
        Self::UpTo(vec![number.into()])
    }

    /// Whether somebody has something by it that he had not by `old`, which is another value of the same key; `None`: the
    /// key was not there. What cannot be compared gives something.
    fn exceeds(&self, old: Option<&Self>) -> bool {
        match (self, old) {
            (Self::Nothing, _) | (_, Some(Self::Everything)) | (Self::AllBut(_), None) => false,
            (Self::These(new), Some(Self::These(old))) => !new.is_subset(old),
            (Self::These(new), None | Some(Self::Nothing)) => !new.is_empty(),
            (Self::AllBut(new), Some(Self::AllBut(old))) => !old.is_subset(new),
            (Self::Within(new), Some(Self::Within(old))) => {
                new.iter().any(|new| !old.iter().any(|old| old.contains(new)))
            }
            (Self::Within(new), None | Some(Self::Nothing)) => !new.is_empty(),
            (Self::UpTo(new), Some(Self::UpTo(old))) => new.iter().zip(old).any(|(new, old)| new > old),
            (
                Self::Something | Self::Everything | Self::These(_) | Self::AllBut(_) | Self::Within(_) | Self::UpTo(_),
                _,
            ) => true,
        }
    }
}

impl Fact {
    pub(super) fn new(key: impl Into<String>, shown: impl Into<String>) -> Self {
        let (key, shown) = (key.into(), shown.into());
        Self { id: key.clone(), full: shown.clone(), key, shown, is_detail: false, gives: Gives::Nothing, stops: None }
    }

    /// A list whose order means nothing.
    pub(super) fn list<T: Into<String>>(key: impl Into<String>, items: impl Iterator<Item = T>) -> Self {
        let items: BTreeSet<String> = items.map(Into::into).collect();
        // one item may read like two
        Self::new(key, set(items.iter())).comparing(format!("{items:?}"))
    }

    pub(super) fn optional(key: impl Into<String>, value: Option<impl Into<String>>) -> Self {
        Self::new(key, value.map_or_else(|| NONE.to_owned(), Into::into))
    }

    pub(super) fn word(key: impl Into<String>, value: bool) -> Self {
        Self::new(key, value.to_string())
    }

    pub(super) fn comparing(self, full: impl Into<String>) -> Self {
        Self { full: full.into(), ..self }
    }

    pub(super) fn giving(self, gives: Gives) -> Self {
        Self { gives, ..self }
    }

    /// While it is there, the other end's own field does not pass.
    pub(super) fn stopping(self, stops: Stops) -> Self {
        Self { stops: Some(stops), ..self }
    }

    pub(super) fn detail(self) -> Self {
        Self { is_detail: true, ..self }
    }

    /// Compared with what stands under `id` on the other side.
    pub(super) fn called(self, id: &str) -> Self {
        Self { id: id.to_owned(), ..self }
    }

    /// A member of what `section` names.
    pub(super) fn within(self, section: &str) -> Self {
        Self { key: format!("{section}.{}", self.key), ..self }
    }

    /// About how many bytes it takes.
    pub(super) fn size(&self) -> usize {
        size_of::<Self>() + self.id.len() + self.key.len() + self.shown.len() + 2 * self.full.len()
    }

    /// What is compared.
    pub(super) fn compared(&self) -> (&str, &str) {
        (&self.id, &self.full)
    }
}

/// One key whose value is another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// On one line: `timeout: 5s -> 10s`.
    pub text: String,
    /// Whether somebody has something by it that he had not: more is believed, handed out or let through.
    pub widens: bool,
}

impl Change {
    /// How many bytes it takes.
    pub(super) fn size(&self) -> usize {
        size_of::<Self>() + self.text.len()
    }

    /// One by which nobody has more than before.
    pub(super) fn besides(text: String) -> Self {
        Self { text, widens: false }
    }
}

/// Changes that are told in one line of a log; of the others it is said how many there are.
const JOINED_MAX: usize = 200;

/// The texts, one behind the other, for a line of a log.
pub fn joined<'c>(changes: impl IntoIterator<Item = &'c Change>) -> String {
    let mut changes = changes.into_iter().map(|change| &*change.text);
    let mut text = changes.by_ref().take(JOINED_MAX).collect::<Vec<_>>().join("; ");
    let more = changes.count();
    if more > 0 {
        // writing to a text cannot fail
        write!(text, "; and {more} more").ok();
    }
    text
}

/// Each difference.
pub(super) fn changes(old: &[Fact], new: &[Fact]) -> Vec<Change> {
    let (olds, news) = (by_id(old), by_id(new));
    let to = |facts: &HashMap<&str, &Fact>| facts.get("to").map(|fact| fact.shown.clone());
    let another_upstream = to(&olds) != to(&news);
    let gone = old.iter().filter(|fact| !news.contains_key(&*fact.id));
    let ids = new.iter().chain(gone).map(|fact| &*fact.id);
    ids.filter_map(|id| {
        let (old, new) = (olds.get(id).copied(), news.get(id).copied());
        if let (Some(fact), None) | (None, Some(fact)) = (old, new)
            && fact.is_detail
        {
            return None;
        }
        let key = match (old, new) {
            (Some(old), Some(new)) if old.key != new.key => id,
            (Some(fact), None) | (None, Some(fact)) if another_upstream && fact.key.starts_with("upstreams.") => id,
            (_, Some(fact)) | (Some(fact), None) => &fact.key,
            (None, None) => id,
        };
        let mut text = difference(key, old, new)?;
        let exceeds = new.is_some_and(|new| new.gives.exceeds(old.map(|old| &old.gives)));
        let is_stopped = |stops: &&Stops| {
            news.get(stops.by)
                .is_some_and(|fact| matches!(&fact.gives, Gives::AllBut(all) if all.contains(&stops.name)))
        };
        let passes = old.and_then(|old| old.stops.as_ref()).filter(|stops| !is_stopped(stops));
        if let Some(Stops { passes, .. }) = passes {
            // writing to a text cannot fail
            write!(text, " ({passes} passes now)").ok();
        }
        Some(Change { text, widens: exceeds || passes.is_some() })
    })
    .collect()
}

fn by_id(facts: &[Fact]) -> HashMap<&str, &Fact> {
    facts.iter().map(|fact| (&*fact.id, fact)).collect()
}

/// What is another value, in words.
fn difference(key: &str, old: Option<&Fact>, new: Option<&Fact>) -> Option<String> {
    let value = |fact: Option<&'_ Fact>| {
        fact.map_or((NONE.to_owned(), NONE.to_owned()), |fact| (fact.full.clone(), fact.shown.clone()))
    };
    let ((old_full, old), (new_full, new)) = (value(old), value(new));
    if old_full == new_full {
        None
    } else if old == new {
        Some(on_one_line(&format!("{key}: another value (not shown)")))
    } else {
        Some(on_one_line(&format!("{key}: {old} -> {new}")))
    }
}

/// No text of a file can end its line: what stood on the next one would be read as another difference.
pub(super) fn on_one_line(text: &str) -> String {
    text.chars().map(|c| if is_unseen(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// Sorted, each once, as a list of YAML.
pub(super) fn set<T: Into<String>>(items: impl Iterator<Item = T>) -> String {
    let items: BTreeSet<String> = items.map(Into::into).collect();
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_item_that_reads_like_two_is_another_value() {
        let list =
            |items: &[&str]| [Fact::list("k", items.iter().copied()).giving(Gives::these(items.iter().copied()))];
        let another = |widens| [Change { text: "k: another value (not shown)".to_owned(), widens }];
        assert_eq!(changes(&list(&["a, b"]), &list(&["a", "b"])), another(true));
        assert_eq!(changes(&list(&["b", "a"]), &list(&["a", "b"])), []);
    }

    #[test]
    fn a_line_of_a_log_is_bounded() {
        let changes = |count: usize| vec![Change::besides("a: 1 -> 2".to_owned()); count];
        assert_eq!(joined(&changes(2)), "a: 1 -> 2; a: 1 -> 2");
        assert!(joined(&changes(JOINED_MAX)).ends_with("; a: 1 -> 2"));
        let text = joined(&changes(JOINED_MAX + 3));
        assert_eq!((text.matches("a: ").count(), text.ends_with("; and 3 more")), (JOINED_MAX, true));
    }

    #[test]
    fn a_value_widens_where_it_gives_what_the_other_did_not() {
        let these = |items: &str| Gives::these(items.split_whitespace());
        let within = |nets: &str| Gives::Within(nets.split_whitespace().map(|net| net.parse().unwrap()).collect());
        for (old, new, forth, back) in [
            (Gives::Nothing, Gives::Nothing, false, false),
            (Gives::Something, Gives::Something, true, true),
            (Gives::Nothing, Gives::Something, true, false),
            (these("a"), these("a b"), true, false),
            (these("a"), these("b"), true, true),
            (these(""), these(""), false, false),
            (these(""), Gives::Nothing, false, false),
            (these("a"), Gives::Everything, true, false),
            (within("10.0.0.0/8"), within("10.1.0.0/16 10.2.0.0/16"), false, true),
            (within("10.0.0.0/8"), within("10.1.0.0/16 fd00::/8"), true, true),
            (within(""), within("0.0.0.0/0"), true, false),
            (Gives::UpTo(vec![2, 5]), Gives::UpTo(vec![3, 4]), true, true),
            (Gives::UpTo(vec![2, 5]), Gives::UpTo(vec![2, 4]), false, true),
            (Gives::UpTo(vec![2]), Gives::Everything, true, false),
            (Gives::UpTo(vec![2]), these("a"), true, true),
        ] {
            assert_eq!(new.exceeds(Some(&old)), forth, "{old:?} -> {new:?}");
            assert_eq!(old.exceeds(Some(&new)), back, "{new:?} -> {old:?}");
        }
        for (gives, expected) in [
            (Gives::Nothing, false),
            (these(""), false),
            (within(""), false),
            (these("a"), true),
            (within("::/0"), true),
            (Gives::Something, true),
            (Gives::up_to(1_u8), true),
        ] {
            assert_eq!(gives.exceeds(None), expected, "{gives:?} where the key was not there");
        }
    }
}
