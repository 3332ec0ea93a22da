//! JSON with placeholders such as `{access}` in its texts: compiled once when a configuration is read, so that a misspelt
//! placeholder is found then. `{{` and `}}` stand for the braces themselves.
//!
//! What placeholders there are, and what they stand for, is said by whoever uses it: [`crate::endpoint::template`] for
//! replies, [`crate::rejection::texts`] for refusals.

use std::fmt;

use serde_json::{Map, Value};

/// Members of a JSON object, with placeholders `P`.
pub type Members<P> = Vec<(Text<P>, Node<P>)>;

/// A value, with placeholders `P`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node<P> {
    /// Holds no placeholder anywhere.
    Constant(Value),
    /// One placeholder and nothing else: a number stays a number, a list a list.
    Whole(P),
    /// Written out.
    Text(Text<P>),
    /// A list.
    List(Vec<Node<P>>),
    /// An object.
    Object(Members<P>),
}

/// A text, with placeholders `P`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text<P>(Vec<Piece<P>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece<P> {
    Literal(Box<str>),
    Placeholder(P),
}

/// A kind of placeholder.
pub trait Placeholder: Copy + Sized + 'static {
    /// All of them, by their names.
    const ALL: &'static [(&'static str, Self)];

    /// The one of this name.
    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, placeholder)| *placeholder)
    }
}

/// Whether the names of members are templates too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// They stand for themselves.
    Verbatim,
    /// They are.
    Templates,
}

/// A text that is no template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// What stands between the braces; the whole text where they are unbalanced.
    pub placeholder: String,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nobody knows this placeholder; those that are known.
    Unknown(Vec<&'static str>),
    /// A brace without its other one.
    Unbalanced,
    /// A placeholder that has no meaning at this place; where it has one.
    OnlyIn(&'static str),
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fault {
            Fault::Unknown(_) => write!(f, "unknown placeholder `{{{}}}`", self.placeholder),
            Fault::Unbalanced => {
                write!(f, "unbalanced brace in `{}`; a brace itself is written twice", self.placeholder)
            }
            Fault::OnlyIn(place) => write!(f, "`{{{}}}` can stand in {place} only", self.placeholder),
        }
    }
}

impl std::error::Error for TemplateError {}

impl<P> Text<P> {
    /// A text that stands for itself.
    pub fn verbatim(text: &str) -> Self {
        Self(vec![Piece::Literal(text.into())])
    }

    /// The text, where it holds no placeholder.
    pub fn literal(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            [..] => None,
        }
    }

    /// The text with its values.
    pub fn render(&self, value: &impl Fn(&P) -> Value) -> String {
        self.0.iter().map(|piece| written(piece, value)).collect()
    }

    fn each(&self, visit: &mut impl FnMut(&P)) {
        for piece in &self.0 {
            match piece {
                Piece::Literal(_) => {}
                Piece::Placeholder(placeholder) => visit(placeholder),
            }
        }
    }
}

/// Compiles members.
///
/// # Errors
/// A placeholder that nobody knows, or braces that do not match.
pub fn compile<P: Placeholder>(members: Map<String, Value>, names: Names) -> Result<Members<P>, TemplateError> {
    let name = |name: String| match names {
        Names::Verbatim => Ok(Text::verbatim(&name)),
        Names::Templates => compile_text(&name),
    };
    members.into_iter().map(|(key, value)| Ok((name(key)?, compile_value(value, names)?))).collect()
}

fn compile_value<P: Placeholder>(value: Value, names: Names) -> Result<Node<P>, TemplateError> {
    Ok(match value {
        Value::String(text) => {
            let text = compile_text(&text)?;
            match (text.literal(), text.0.as_slice()) {
                (Some(literal), _) => Node::Constant(literal.into()),
                (None, [Piece::Placeholder(placeholder)]) => Node::Whole(*placeholder),
                (None, _) => Node::Text(text),
            }
        }
        Value::Array(items) => {
            Node::List(items.into_iter().map(|item| compile_value(item, names)).collect::<Result<_, _>>()?)
        }
        Value::Object(members) => Node::Object(compile(members, names)?),
        constant @ (Value::Null | Value::Bool(_) | Value::Number(_)) => Node::Constant(constant),
    })
}

fn compile_text<P: Placeholder>(text: &str) -> Result<Text<P>, TemplateError> {
    let unbalanced = || TemplateError { placeholder: text.to_owned(), fault: Fault::Unbalanced };
    let (mut pieces, mut literal, mut rest) = (Vec::new(), String::new(), text);
    while let Some((before, brace, after)) = split_at_brace(rest) {
        literal.push_str(before);
        if let Some(after) = after.strip_prefix(brace) {
            literal.push(brace);
            rest = after;
            continue;
        }
        if brace == '}' {
            return Err(unbalanced());
        }
        let (name, after) = after.split_once('}').ok_or_else(unbalanced)?;
        if !literal.is_empty() {
            pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
        }
        let known = || P::ALL.iter().map(|(name, _)| *name).collect();
        let unknown = || TemplateError { placeholder: name.to_owned(), fault: Fault::Unknown(known()) };
        pieces.push(Piece::Placeholder(P::from_name(name).ok_or_else(unknown)?));
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal.into()));
    }
    Ok(Text(pieces))
}

/// What stands before the first brace, the brace, and what follows.
fn split_at_brace(text: &str) -> Option<(&str, char, &str)> {
    let at = text.find(['{', '}'])?;
    let (before, from) = text.split_at_checked(at)?;
    let mut chars = from.chars();
    let brace = chars.next()?;
    Some((before, brace, chars.as_str()))
}

/// Shows every placeholder of `members`.
pub fn each_placeholder<P>(members: &Members<P>, visit: &mut impl FnMut(&P)) {
    fn node<P>(of: &Node<P>, visit: &mut impl FnMut(&P)) {
        match of {
            Node::Constant(_) => {}
            Node::Whole(placeholder) => visit(placeholder),
            Node::Text(text) => text.each(visit),
            Node::List(items) => items.iter().for_each(|item| node(item, visit)),
            Node::Object(members) => each_placeholder(members, visit),
        }
    }
    for (name, member) in members {
        name.each(visit);
        node(member, visit);
    }
}

/// The members with their values.
pub fn render<P>(members: &Members<P>, value: &impl Fn(&P) -> Value) -> Map<String, Value> {
    members.iter().map(|(name, node)| (name.render(value), render_value(node, value))).collect()
}

fn render_value<P>(node: &Node<P>, value: &impl Fn(&P) -> Value) -> Value {
    match node {
        Node::Constant(constant) => constant.clone(),
        Node::Whole(placeholder) => value(placeholder),
        Node::Text(text) => text.render(value).into(),
        Node::List(items) => items.iter().map(|item| render_value(item, value)).collect(),
        Node::Object(members) => Value::Object(render(members, value)),
    }
}

/// A piece as part of a longer text; a list is comma separated, as roles are in identity headers.
fn written<P>(piece: &Piece<P>, value: &impl Fn(&P) -> Value) -> String {
    let value = match piece {
        Piece::Literal(literal) => return literal.to_string(),
        Piece::Placeholder(placeholder) => value(placeholder),
    };
    match value {
        Value::Null => String::new(),
        Value::String(text) => text,
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Object(_)) => other.to_string(),
    }
}
