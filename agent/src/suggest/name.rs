//! Names of suggested policies: DNS-1123 labels that stay the same from run to run.

use crate::model::object::WorkloadRef;

/// The longest DNS-1123 label (RFC 1123). A NetworkPolicy's name may be longer, but tools put names into labels.
const LONGEST: usize = 63;
/// What is left of a name that is cut: room for "-" and sixteen hexadecimal digits.
const CUT: usize = LONGEST - 17;

/// `allow-<kind>-<name>`. The kind is always in it: whether a namesake of another kind exists must not change it.
///
/// A name that does not fit a DNS-1123 label is fitted and gets a hash of the whole, so that two workloads
/// never share a name.
pub(super) fn of_workload(workload: &WorkloadRef) -> String {
    let wanted = format!("allow-{}-{}", workload.kind.to_lowercase(), workload.name);
    let mut fitted: String =
        wanted.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }).collect();
    let ends_well = fitted.ends_with(|c: char| c.is_ascii_alphanumeric());
    if fitted == wanted && fitted.len() <= LONGEST && ends_well {
        return wanted;
    }
    fitted.truncate(CUT);
    let kept = fitted.trim_end_matches('-');
    format!("{kept}-{:016x}", hash(&format!("{}/{}", workload.kind, workload.name)))
}

/// FNV-1a, 64 bits, with its published offset and prime: names must not change with a hasher's version.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::selector::check_value;

    fn mk_name(kind: &str, name: &str) -> String {
        of_workload(&WorkloadRef::new(kind, "shop", name))
    }

    #[test]
    fn a_name_says_kind_and_name_whether_or_not_a_namesake_exists() {
        assert_eq!(mk_name("Deployment", "web"), "allow-deployment-web");
        assert_eq!(mk_name("StatefulSet", "web"), "allow-statefulset-web");
    }

    #[test]
    fn a_name_is_a_dns_label_of_at_most_63_characters_and_no_two_workloads_share_one() {
        let long = "a".repeat(253);
        let longer = format!("{}b", "a".repeat(252));
        let edge = format!("{}-x", "a".repeat(37));
        let names = [
            mk_name("Deployment", &long),
            mk_name("Deployment", &longer),
            mk_name("Pod", "a.b"),
            mk_name("Pod", "a-b"),
            mk_name("Deployment", &edge),
            mk_name("Pod", "a-b-"),
        ];
        for (at, name) in names.iter().enumerate() {
            assert!(name.len() <= 63 && check_value(name).is_ok(), "{name}");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{name}");
            assert!(!names[..at].contains(name), "{name} twice");
        }
    }

    #[test]
    fn the_hash_is_fnv_1a_as_published() {
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash("foobar"), 0x8594_4171_f739_67e8);
    }
}
