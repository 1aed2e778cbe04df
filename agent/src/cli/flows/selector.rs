//! Label selectors as kubectl takes them: `app=web,tier!=db,env in (a,b),!old`.

use crate::model::selector::{Operator, Requirement, Selector, check_key, check_value};

/// Reads a selector.
///
/// # Errors
/// Which requirement of it is none, and why.
pub(super) fn parse(text: &str) -> Result<Selector, String> {
    let mut requirements = Vec::new();
    for part in parts(text) {
        let part = part.trim();
        let requirement =
            requirement(part).map_err(|problem| format!("\"{part}\" in \"{text}\": {problem}"))?;
        requirements.push(requirement);
    }
    Ok(Selector::from_requirements(requirements))
}

/// Split at commas that are not within parentheses.
fn parts(text: &str) -> Vec<&str> {
    let mut depth = 0_u32;
    text.split(|c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

fn requirement(part: &str) -> Result<Requirement, String> {
    let (key, operator) = if let Some(key) = part.strip_prefix('!') {
        (key, Operator::DoesNotExist)
    } else if let Some((key, value)) = part.split_once("!=") {
        (key, Operator::NotIn(one(value)?))
    } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        (key, Operator::In(one(value)?))
    } else if let Some((key, values)) = part.split_once(" notin ") {
        (key, Operator::NotIn(several(values)?))
    } else if let Some((key, values)) = part.split_once(" in ") {
        (key, Operator::In(several(values)?))
    } else {
        (part, Operator::Exists)
    };
    let key = key.trim();
    check_key(key)?;
    Ok(Requirement { key: key.into(), operator })
}

fn one(value: &str) -> Result<Vec<std::sync::Arc<str>>, String> {
    let value = value.trim();
    check_value(value)?;
    Ok(vec![value.into()])
}

fn several(values: &str) -> Result<Vec<std::sync::Arc<str>>, String> {
    let inner = values.trim().strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    let inner = inner.ok_or("the values must stand in parentheses: (a,b)")?;
    let mut all = Vec::new();
    for value in inner.split(',') {
        all.extend(one(value)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read_as_kubectl_reads_them() {
        for (text, shown) in [
            ("app=web", "app=web"),
            ("app==web,tier!=db", "app=web,tier notin (db)"),
            ("env in (a, b),!old", "env in (a,b),!old"),
            ("env notin (a),app", "env notin (a),app"),
            ("app=", "app="),
        ] {
            let selector = parse(text).unwrap();
            assert_eq!(selector.to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_named() {
        for text in ["", "app=web,", "=web", "app=a b", "env in a", "env in (a", "-app", "a=b=c"] {
            let problem = parse(text).unwrap_err();
            assert!(problem.contains(&format!("in \"{text}\": ")), "{problem}");
        }
    }
}
