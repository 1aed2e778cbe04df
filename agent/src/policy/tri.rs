//! Three-valued logic: a `Maybe` carries what we lacked.

use crate::model::verdict::UnknownReason;

use super::fault::{Content, Field};

/// Why something may hold or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Why {
    /// The content of a field of the policy is unknown.
    Field(Field),
    /// Something outside the policy is unknown.
    Reason(UnknownReason),
}

/// Yes, no, or either of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tri {
    Yes,
    No,
    Maybe(Why),
}

impl Tri {
    /// What a field says about a case, if its content is known.
    pub(crate) fn of<T>(content: &Content<T>, holds: impl FnOnce(&T) -> bool) -> Self {
        match content {
            Ok(content) => holds(content).into(),
            Err(field) => Self::Maybe(Why::Field(Field::clone(field))),
        }
    }

    pub(crate) fn field(field: &Field) -> Self {
        Self::Maybe(Why::Field(Field::clone(field)))
    }

    pub(crate) fn reason(reason: &UnknownReason) -> Self {
        Self::Maybe(Why::Reason(reason.clone()))
    }

    /// Both hold. `other` is not asked where `self` already says no.
    pub(crate) fn and(self, other: impl FnOnce() -> Self) -> Self {
        match self {
            Self::No => Self::No,
            Self::Yes => other(),
            Self::Maybe(why) => match other() {
                Self::No => Self::No,
                Self::Yes | Self::Maybe(_) => Self::Maybe(why),
            },
        }
    }
}

impl Tri {
    /// Either holds. `other` is not asked where `self` already says yes.
    pub(crate) fn or(self, other: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Yes => Self::Yes,
            Self::No => other(),
            Self::Maybe(why) => match other() {
                Self::Yes => Self::Yes,
                Self::No | Self::Maybe(_) => Self::Maybe(why),
            },
        }
    }

    /// All hold; none of nothing fails.
    pub(crate) fn all<T>(items: impl IntoIterator<Item = T>, mut holds: impl FnMut(T) -> Self) -> Self {
        let mut so_far = Self::Yes;
        for item in items {
            so_far = so_far.and(|| holds(item));
            if so_far == Self::No {
                break;
            }
        }
        so_far
    }

    /// One holds; none of nothing does.
    pub(crate) fn any<T>(items: impl IntoIterator<Item = T>, mut holds: impl FnMut(T) -> Self) -> Self {
        let mut so_far = Self::No;
        for item in items {
            so_far = so_far.or(|| holds(item));
            if so_far == Self::Yes {
                break;
            }
        }
        so_far
    }
}

impl std::ops::Not for Tri {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            maybe @ Self::Maybe(_) => maybe,
        }
    }
}

impl From<bool> for Tri {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_no_is_no_and_one_doubt_is_doubt() {
        let maybe = || Tri::field(&Field::from("a"));
        for (a, b, both) in [
            (Tri::Yes, Tri::Yes, Tri::Yes),
            (Tri::Yes, Tri::No, Tri::No),
            (Tri::Yes, maybe(), maybe()),
            (Tri::No, maybe(), Tri::No),
            (maybe(), maybe(), maybe()),
        ] {
            assert_eq!(a.clone().and(|| b.clone()), both, "{a:?} and {b:?}");
            assert_eq!(b.clone().and(|| a.clone()), both, "{b:?} and {a:?}");
            let either = (!a.clone()).or(|| !b.clone());
            assert_eq!(either, !both, "not {a:?} or not {b:?}");
        }
        assert_eq!(Tri::all([], |(): ()| Tri::No), Tri::Yes);
        assert_eq!(Tri::any([], |(): ()| Tri::Yes), Tri::No);
    }
}
