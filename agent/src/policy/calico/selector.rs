//! Calico's selector language (Calico docs, NetworkPolicy, Selector; the behaviour of its parser), parsed once into
//! conditions.

use std::sync::Arc;

use super::tokens::{Token, tokens};
use crate::model::intern;
use crate::policy::condition::{Condition, Key, Test};
use crate::policy::fault::Field;

/// How deep parentheses may be nested.
const DEPTH: usize = 64;

/// A parsed selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    /// `all()`, and nothing at all.
    All,
    Global,
    Label(Arc<str>, Test),
    Not(Box<Self>),
    And(Vec<Self>),
    Or(Vec<Self>),
}

/// Which labels a selector's keys are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// An endpoint's own, those that Calico adds, and with prefixes its namespace's and its service account's.
    Endpoint,
    Namespace,
    ServiceAccount,
}

/// What a selector is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Pod,
    /// A NetworkSet or GlobalNetworkSet.
    Set,
}

/// Labels that Calico adds to every endpoint, and the prefixes of those that endpoints inherit (Calico docs,
/// Calico automatic labels).
const NAMESPACE: &str = "projectcalico.org/namespace";
const ORCHESTRATOR: &str = "projectcalico.org/orchestrator";
const SERVICE_ACCOUNT: &str = "projectcalico.org/serviceaccount";
const NAME: &str = "projectcalico.org/name";
const OF_NAMESPACE: &str = "pcns.";
const OF_SERVICE_ACCOUNT: &str = "pcsa.";
/// What the orchestrator is called.
const KUBERNETES: &str = "k8s";

/// Parses a selector; blank selects everything.
///
/// # Errors
/// If it is not in the language: what was expected, in words.
pub(super) fn parse(text: &str) -> Result<Expression, String> {
    let tokens = tokens(text)?;
    if tokens.is_empty() {
        return Ok(Expression::All);
    }
    let mut parser = Parser { tokens: &tokens, depth: 0 };
    let expression = parser.any()?;
    match parser.tokens.first() {
        None => Ok(expression),
        Some(token) => Err(format!("{token} is more than one expression: expected && or ||")),
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    depth: usize,
}

impl<'a> Parser<'a> {
    fn next(&mut self) -> Option<&'a Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first)
    }

    fn take(&mut self, wanted: &Token) -> bool {
        let found = self.tokens.first() == Some(wanted);
        if found {
            self.next();
        }
        found
    }

    /// Terms joined by `||`, which binds least.
    fn any(&mut self) -> Result<Expression, String> {
        let mut terms = vec![self.all()?];
        while self.take(&Token::Or) {
            terms.push(self.all()?);
        }
        Ok(one_or(terms, Expression::Or))
    }

    fn all(&mut self) -> Result<Expression, String> {
        let mut terms = vec![self.term()?];
        while self.take(&Token::And) {
            terms.push(self.term()?);
        }
        Ok(one_or(terms, Expression::And))
    }

    /// One comparison, call or parenthesis, with any number of `!` before it.
    fn term(&mut self) -> Result<Expression, String> {
        let mut negated = false;
        while self.take(&Token::Not) {
            negated = !negated;
        }
        let term = match self.next() {
            Some(Token::All) => Expression::All,
            Some(Token::Global) => Expression::Global,
            Some(Token::Has(key)) => Expression::Label(intern::string(key), Test::Exists),
            Some(Token::Label(key)) => self.comparison(key)?,
            Some(Token::Open) => self.parenthesis()?,
            Some(token) => return Err(format!("{token} is no expression")),
            None => return Err("ends where an expression was expected".to_owned()),
        };
        Ok(if negated { not(term) } else { term })
    }

    fn parenthesis(&mut self) -> Result<Expression, String> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(format!("has more than {DEPTH} parentheses inside each other"));
        }
        let inner = self.any()?;
        self.depth -= 1;
        if self.take(&Token::Close) { Ok(inner) } else { Err("has a ( without its )".to_owned()) }
    }

    fn comparison(&mut self, key: &str) -> Result<Expression, String> {
        let operator = self.next();
        let label = |test| Expression::Label(intern::string(key), test);
        Ok(match operator {
            Some(Token::Equal) => label(Test::In(vec![self.text(key)?])),
            Some(Token::Unequal) => not(label(Test::In(vec![self.text(key)?]))),
            Some(Token::Contains) => label(Test::Contains(self.text(key)?)),
            Some(Token::StartsWith) => label(Test::StartsWith(self.text(key)?)),
            Some(Token::EndsWith) => label(Test::EndsWith(self.text(key)?)),
            Some(Token::In) => label(Test::In(self.texts(key)?)),
            Some(Token::NotIn) => not(label(Test::In(self.texts(key)?))),
            _ => return Err(format!("label {key} has no operator such as == or in behind it")),
        })
    }

    fn text(&mut self, key: &str) -> Result<Arc<str>, String> {
        match self.next() {
            Some(Token::Text(text)) => Ok(intern::string(text)),
            _ => Err(format!("label {key} is compared with something that is not a text in quotes")),
        }
    }

    /// `{"a", "b"}`, sorted. A comma at the end means nothing.
    fn texts(&mut self, key: &str) -> Result<Vec<Arc<str>>, String> {
        if !self.take(&Token::OpenSet) {
            return Err(format!("label {key} has no set such as {{\"a\", \"b\"}} behind in or not in"));
        }
        let mut texts = Vec::new();
        while let Some(Token::Text(text)) = self.tokens.first() {
            self.next();
            texts.push(intern::string(text));
            if !self.take(&Token::Comma) {
                break;
            }
        }
        if !self.take(&Token::CloseSet) {
            return Err(format!("the set of label {key} has no }} behind its texts"));
        }
        texts.sort();
        texts.dedup();
        Ok(texts)
    }
}

fn one_or(mut terms: Vec<Expression>, many: fn(Vec<Expression>) -> Expression) -> Expression {
    match terms.pop() {
        Some(only) if terms.is_empty() => only,
        last => many(terms.into_iter().chain(last).collect()),
    }
}

fn not(expression: Expression) -> Expression {
    Expression::Not(Box::new(expression))
}

impl Expression {
    /// Whether `global()` is in it.
    pub(super) fn names_global(&self) -> bool {
        match self {
            Self::Global => true,
            Self::All | Self::Label(..) => false,
            Self::Not(inner) => inner.names_global(),
            Self::And(terms) | Self::Or(terms) => terms.iter().any(Self::names_global),
        }
    }

    /// What it asks of a pod, or of an address set.
    pub(super) fn condition(&self, view: View, of: Of, path: &str) -> Condition {
        let each = |terms: &[Self]| terms.iter().map(|term| term.condition(view, of, path)).collect();
        match self {
            // Of namespaces, they mean what is in one and what is in none.
            Self::All if (view, of) == (View::Namespace, Of::Set) => in_a_namespace(),
            Self::Global if view == View::Namespace => match of {
                Of::Pod => constant(false),
                Of::Set => Condition::Not(Box::new(in_a_namespace())),
            },
            Self::All | Self::Global => Condition::everything(),
            Self::Label(key, test) => label(key, test, view, of, path),
            Self::Not(inner) => Condition::Not(Box::new(inner.condition(view, of, path))),
            Self::And(terms) => Condition::All(each(terms)),
            Self::Or(terms) => Condition::Any(each(terms)),
        }
    }
}

const fn in_a_namespace() -> Condition {
    Condition::Value(Key::NamespaceName, Test::Exists)
}

const fn constant(holds: bool) -> Condition {
    if holds { Condition::everything() } else { Condition::Any(Vec::new()) }
}

/// What one key and its test ask.
fn label(key: &Arc<str>, test: &Test, view: View, of: Of, path: &str) -> Condition {
    let value = |key| Condition::Value(key, test.clone());
    let of_namespace = |key: &str| match key {
        NAME => value(Key::NamespaceName),
        key => value(Key::NamespaceLabel(intern::string(key))),
    };
    // Address sets have no service account.
    let of_account = |key: &str| match (key, of) {
        (_, Of::Set) => constant(test.holds(None)),
        (NAME, Of::Pod) => value(Key::ServiceAccount),
        (key, Of::Pod) => value(Key::ServiceAccountLabel(intern::string(key), Field::from(path))),
    };
    match view {
        View::Namespace => of_namespace(key),
        View::ServiceAccount => of_account(key),
        View::Endpoint => match &**key {
            NAMESPACE => value(Key::NamespaceName),
            ORCHESTRATOR => constant(test.holds(Some(KUBERNETES).filter(|_| of == Of::Pod))),
            SERVICE_ACCOUNT => of_account(NAME),
            other => match (other.strip_prefix(OF_NAMESPACE), other.strip_prefix(OF_SERVICE_ACCOUNT)) {
                (Some(key), _) => of_namespace(key),
                (_, Some(key)) => of_account(key),
                (None, None) => value(Key::Label(Arc::clone(key))),
            },
        },
    }
}

#[cfg(test)]
mod tests;
