//! One path pattern: whole segments, `{name}`, a last `/**`; and which of two is more specific.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use crate::wire::target::{PathPolicy, TargetError, canonical_path};

/// The most segments a pattern may have; also how deep a look-up can go.
pub const SEGMENTS_MAX: usize = 128;

/// One segment of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Exactly this, in its canonical spelling. Empty only at the end, behind a trailing slash.
    Literal(Arc<str>),
    /// `{name}`: any one segment that is not empty.
    Any(Arc<str>),
}

/// A path pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    segments: Box<[Segment]>,
    /// Whether a last `/**` stands behind the segments.
    below: bool,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It does not begin with `/`.
    #[error("a path begins with `/`")]
    NoLeadingSlash,
    /// `//`.
    #[error("a path has no empty segments")]
    EmptySegment,
    /// `**` within a segment, or before the end.
    #[error("`**` is only allowed as the whole last segment")]
    MisplacedRest,
    /// `{` or `}` beside other text, or around nothing that is a name.
    #[error("`{0}` is not a placeholder; one is a whole segment such as `{{id}}`, of letters, digits and `_`")]
    BadPlaceholder(Box<str>),
    /// The same name twice.
    #[error("`{{{0}}}` stands here twice")]
    RepeatedName(Box<str>),
    /// No request's path can have this segment.
    #[error("no request can match the segment `{0}`: {1}")]
    Unmatchable(Box<str>, TargetError),
    /// More than [`SEGMENTS_MAX`].
    #[error("a path has at most {SEGMENTS_MAX} segments")]
    TooManySegments,
}

impl Pattern {
    /// Reads a pattern. Literals may be written with escapes; they are brought to the spelling in which requests are
    /// matched.
    ///
    /// # Errors
    /// Where it is none, or could never match.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let Some(mut rest) = text.strip_prefix('/') else { return Err(PatternError::NoLeadingSlash) };
        let below = rest == "**" || rest.ends_with("/**");
        if below {
            rest = rest.trim_end_matches("**");
            rest = rest.strip_suffix('/').unwrap_or(rest);
        }
        // `/**` has no segment before it, but `/` has one that is empty
        let mut texts = if below && rest.is_empty() && text == "/**" { None } else { Some(rest.split('/')) };
        let mut segments: Vec<Segment> = Vec::new();
        let mut texts = texts.iter_mut().flatten().peekable();
        while let Some(text) = texts.next() {
            if segments.len() == SEGMENTS_MAX {
                return Err(PatternError::TooManySegments);
            }
            let last = texts.peek().is_none() && !below;
            let segment = segment(text, last)?;
            if let Segment::Any(name) = &segment
                && segments.contains(&segment)
            {
                return Err(PatternError::RepeatedName((&**name).into()));
            }
            segments.push(segment);
        }
        Ok(Self { segments: segments.into(), below })
    }

    /// The pattern of one path and nothing else, in its canonical spelling.
    pub fn exact(path: &str) -> Self {
        let segments = path.strip_prefix('/').unwrap_or(path).split('/');
        Self { segments: segments.map(|text| Segment::Literal(text.into())).collect(), below: false }
    }

    /// Its segments, without a last `**`.
    pub const fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether it ends in `/**`, and so matches everything below its segments as well.
    pub const fn is_prefix(&self) -> bool {
        self.below
    }

    /// Whether it matches a canonical path. The table answers this for all patterns at once.
    pub fn matches(&self, path: &str) -> bool {
        let Some(path) = path.strip_prefix('/') else { return false };
        // `/` itself is what is below nothing
        let mut texts = path.split('/');
        for segment in &self.segments {
            let fits = match (segment, texts.next()) {
                (Segment::Literal(literal), Some(text)) => **literal == *text,
                (Segment::Any(_), Some(text)) => !text.is_empty(),
                (_, None) => false,
            };
            if !fits {
                return false;
            }
        }
        self.below || texts.next().is_none()
    }

    /// `Less` where this one is the more specific: by segments from the left, a literal or the end before `{name}` before
    /// `**`. `Equal` says that nothing chooses between the two where both match.
    pub fn compare(&self, other: &Self) -> Ordering {
        (0..=self.segments.len().max(other.segments.len()))
            .map(|index| self.rank(index).cmp(&other.rank(index)))
            .find(|ordering| ordering.is_ne())
            .unwrap_or(Ordering::Equal)
    }

    /// Itself without the names of its placeholders: the same text for patterns that match the same paths, and for no others,
    /// whatever an exact path spells. Not to be shown.
    pub fn shape(&self) -> String {
        const USUAL_BYTES: usize = 12;
        let mut shape = String::with_capacity(self.segments.len() * USUAL_BYTES);
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => shape.extend(["/=", text]),
                Segment::Any(_) => shape.push_str("/{}"),
            }
        }
        if self.below {
            shape.push_str("/**");
        }
        shape
    }

    /// The pattern of the paths that all of `patterns` match, of which there is at least one. Where one of them is that
    /// already, it is taken as it is written; the last such one.
    pub fn common<'p>(patterns: impl Iterator<Item = &'p Self> + Clone) -> Self {
        let everything = Self { segments: Box::default(), below: true };
        let mut common = patterns.clone().fold(everything, |common, pattern| {
            if pattern.covers(&common) { common } else { common.meet(pattern).unwrap_or(common) }
        });
        if let Some(written) = patterns.filter(|pattern| common.covers(pattern)).last() {
            return written.clone();
        }
        common.rename_twins();
        common
    }

    /// The pattern of the paths that both match, where there are any. Its placeholders may bear a name twice.
    pub fn meet(&self, other: &Self) -> Option<Self> {
        let length = self.segments.len().max(other.segments.len());
        let segment = |index| match (self.segments.get(index), other.segments.get(index)) {
            (Some(Segment::Literal(own)), Some(Segment::Literal(other))) if own != other => None,
            (Some(Segment::Literal(text)), Some(Segment::Any(_)))
            | (Some(Segment::Any(_)), Some(Segment::Literal(text)))
                if text.is_empty() =>
            {
                None
            }
            (Some(own @ Segment::Literal(_)), Some(_)) | (Some(own), Some(Segment::Any(_))) => Some(own.clone()),
            (Some(Segment::Any(_)), Some(other)) => Some(other.clone()),
            (Some(own), None) => other.below.then(|| own.clone()),
            (None, other) => other.filter(|_| self.below).cloned(),
        };
        let segments = (0..length).map(segment).collect::<Option<_>>()?;
        Some(Self { segments, below: self.below && other.below })
    }

    /// Whether it matches every path that `other` matches.
    pub fn covers(&self, other: &Self) -> bool {
        let fits = |(own, other): (&Segment, &Segment)| match (own, other) {
            (Segment::Literal(own), Segment::Literal(other)) => own == other,
            (Segment::Literal(_), Segment::Any(_)) => false,
            (Segment::Any(_), Segment::Literal(other)) => !other.is_empty(),
            (Segment::Any(_), Segment::Any(_)) => true,
        };
        let length = self.segments.len();
        let is_as_long = length == other.segments.len() && !other.below;
        (is_as_long || self.below && length <= other.segments.len())
            && self.segments.iter().zip(&other.segments).all(fits)
    }

    /// Gives each placeholder a name of its own.
    fn rename_twins(&mut self) {
        let mut seen: Vec<Arc<str>> = Vec::new();
        for segment in &mut self.segments {
            let Segment::Any(name) = segment else { continue };
            let numbered = (2_usize..).map(|number| format!("{name}{number}").into());
            let free = std::iter::once(name.clone()).chain(numbered).find(|name| !seen.contains(name));
            *name = free.unwrap_or_default();
            seen.push(name.clone());
        }
    }

    fn rank(&self, index: usize) -> u8 {
        match self.segments.get(index) {
            Some(Segment::Literal(_)) => 0,
            Some(Segment::Any(_)) => 1,
            None => 2 * u8::from(self.below),
        }
    }
}

fn segment(text: &str, last: bool) -> Result<Segment, PatternError> {
    if text.contains("**") {
        return Err(PatternError::MisplacedRest);
    }
    if text.contains(['{', '}']) {
        let name = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
        let identifier = |name: &&str| {
            name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        return name
            .filter(identifier)
            .map(|name| Segment::Any(name.into()))
            .ok_or_else(|| PatternError::BadPlaceholder(text.into()));
    }
    if text.is_empty() {
        return if last { Ok(Segment::Literal(text.into())) } else { Err(PatternError::EmptySegment) };
    }
    let path = format!("/{text}");
    let canonical =
        canonical_path(&path, &PathPolicy::KEEP_ALL).map_err(|error| PatternError::Unmatchable(text.into(), error))?;
    Ok(Segment::Literal(canonical.trim_start_matches('/').into()))
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::Any(name) => write!(f, "/{{{name}}}")?,
            }
        }
        if self.below { f.write_str("/**") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_of_no_other_pattern() {
        for (exact, pattern) in [("/a/**", "/a/**"), ("/{}", "/{x}")] {
            let (exact, pattern) = (Pattern::exact(exact), Pattern::parse(pattern).unwrap());
            assert_ne!(exact.shape(), pattern.shape());
        }
    }

    #[test]
    fn a_pattern_is_whole_segments() {
        use PatternError as E;
        for (text, expected) in [
            ("/", Ok("/")),
            ("/a/b", Ok("/a/b")),
            ("/a/", Ok("/a/")),
            ("/**", Ok("/**")),
            ("/a/**", Ok("/a/**")),
            ("/a/{id}/b", Ok("/a/{id}/b")),
            ("/{a}/{_b2}", Ok("/{a}/{_b2}")),
            ("/{id}/", Ok("/{id}/")),
            ("/a*b/*", Ok("/a*b/*")),
            ("/%61%c3%a9", Ok("/a%C3%A9")),
            ("/a;b/c%2fd", Ok("/a;b/c%2Fd")),
            ("/.well-known/x", Ok("/.well-known/x")),
            ("", Err(E::NoLeadingSlash)),
            ("a", Err(E::NoLeadingSlash)),
            ("**", Err(E::NoLeadingSlash)),
            ("//", Err(E::EmptySegment)),
            ("/a//b", Err(E::EmptySegment)),
            ("/a//**", Err(E::EmptySegment)),
            ("//**", Err(E::EmptySegment)),
            ("/**/a", Err(E::MisplacedRest)),
            ("/**/", Err(E::MisplacedRest)),
            ("/**/**", Err(E::MisplacedRest)),
            ("/a**", Err(E::MisplacedRest)),
            ("/***", Err(E::MisplacedRest)),
            ("/a/***", Err(E::MisplacedRest)),
            ("/a{id}", Err(E::BadPlaceholder("a{id}".into()))),
            ("/{}", Err(E::BadPlaceholder("{}".into()))),
            ("/{1}", Err(E::BadPlaceholder("{1}".into()))),
            ("/{a-b}", Err(E::BadPlaceholder("{a-b}".into()))),
            ("/{a", Err(E::BadPlaceholder("{a".into()))),
            ("/{*rest}", Err(E::BadPlaceholder("{*rest}".into()))),
            ("/{a}/x/{a}", Err(E::RepeatedName("a".into()))),
            ("/a/../b", Err(E::Unmatchable("..".into(), TargetError::DotSegment))),
            ("/%2e", Err(E::Unmatchable("%2e".into(), TargetError::DotSegment))),
            ("/é", Err(E::Unmatchable("é".into(), TargetError::InvalidByte))),
            ("/a?b", Err(E::Unmatchable("a?b".into(), TargetError::InvalidByte))),
            ("/a%5cb", Err(E::Unmatchable("a%5cb".into(), TargetError::Backslash))),
            ("/a b", Err(E::Unmatchable("a b".into(), TargetError::InvalidByte))),
        ] {
            let parsed = Pattern::parse(text).map(|pattern| pattern.to_string());
            assert_eq!(parsed.as_deref(), expected.as_ref().copied(), "{text}");
        }
    }

    #[test]
    fn a_pattern_has_so_many_segments() {
        assert!(Pattern::parse(&"/a".repeat(SEGMENTS_MAX)).is_ok());
        assert_eq!(Pattern::parse(&"/a".repeat(SEGMENTS_MAX + 1)), Err(PatternError::TooManySegments));
    }

    #[test]
    fn messages_say_what_is_allowed() {
        let bad = |text| Pattern::parse(text).unwrap_err().to_string();
        assert_eq!(
            bad("/a{id}"),
            "`a{id}` is not a placeholder; one is a whole segment such as `{id}`, of letters, digits and `_`"
        );
        assert_eq!(bad("/{a}/{a}"), "`{a}` stands here twice");
        assert_eq!(bad("/a/.."), "no request can match the segment `..`: path has a dot segment");
    }

    #[test]
    fn a_pattern_matches_whole_paths() {
        for (pattern, matching, others) in [
            ("/", &["/"][..], &["/a"][..]),
            ("/a/b", &["/a/b"], &["/a", "/a/b/", "/a/b/c", "/a/bc", "/A/b"]),
            ("/a/", &["/a/"], &["/a", "/a/b"]),
            ("/a/{id}", &["/a/7", "/a/%2F"], &["/a", "/a/", "/a/7/", "/a/7/b"]),
            ("/a/**", &["/a", "/a/", "/a/b", "/a/b/c/"], &["/", "/ab", "/ab/c"]),
            ("/**", &["/", "/a", "/a/b/"], &[]),
            ("/{a}/**", &["/a", "/a/", "/a/b"], &["/"]),
        ] {
            let parsed = Pattern::parse(pattern).unwrap();
            for path in matching {
                assert!(parsed.matches(path), "{pattern} {path}");
            }
            for path in others {
                assert!(!parsed.matches(path), "{pattern} {path}");
            }
        }
    }

    #[test]
    fn the_more_specific_is_found_from_the_left() {
        let order = ["/a/b", "/a/{x}", "/a/**", "/{x}/b", "/{x}/{y}", "/{x}/**", "/**"];
        for pair in order.windows(2) {
            let [first, second] = pair else { unreachable!() };
            let (first, second) = (Pattern::parse(first).unwrap(), Pattern::parse(second).unwrap());
            assert_eq!(first.compare(&second), Ordering::Less, "{first} {second}");
            assert_eq!(second.compare(&first), Ordering::Greater, "{second} {first}");
        }
        for (first, second, expected) in [
            ("/a", "/a/**", Ordering::Less),
            ("/a/", "/a/**", Ordering::Less),
            ("/{x}", "/{y}", Ordering::Equal),
            ("/a/{x}/c", "/a/{y}/{z}", Ordering::Less),
            ("/{x}/c/**", "/{y}/c/**", Ordering::Equal),
        ] {
            assert_eq!(Pattern::parse(first).unwrap().compare(&Pattern::parse(second).unwrap()), expected, "{first}");
        }
    }

    #[test]
    fn what_several_match_is_a_pattern() {
        for (patterns, expected) in [
            (&["/a/**", "/{x}"][..], "/a"),
            (&["/a/{x}", "/{y}/b"], "/a/b"),
            (&["/{x}/b/**", "/a/{y}/{z}"], "/a/b/{z}"),
            (&["/{x}/**", "/a/**"], "/a/**"),
            (&["/**", "/{x}/{y}"], "/{x}/{y}"),
            (&["/{x}/{y}", "/{a}/{b}"], "/{a}/{b}"),
            (&["/{x}/**", "/**", "/a/{x}/"], "/a/{x}/"),
            (&["/{x}/a/**", "/{y}/{x}/{z}/**", "/{z}/{x}/b/{y}"], "/{x}/a/b/{y}"),
            (&["/{a}/{b}/x/**", "/{a}/{c}/{d}/**"], "/{a}/{b}/x/**"),
            (&["/{a}/y/**", "/{b}/{c}/{a}"], "/{a}/y/{a2}"),
        ] {
            let parsed: Vec<Pattern> = patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect();
            assert_eq!(Pattern::common(parsed.iter()).to_string(), expected, "{patterns:?}");
        }
    }
}
