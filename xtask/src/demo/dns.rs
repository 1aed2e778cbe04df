//! The least of DNS (RFC 1035): one question for an address, and its answer.

use std::net::Ipv4Addr;

/// Type A, class IN.
const ADDRESS_IN: [u8; 4] = [0, 1, 0, 1];
const HEADER: usize = 12;

/// A query for the address of `name`, with recursion desired.
pub fn query(id: u16, name: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + name.len() + 6);
    message.extend(id.to_be_bytes());
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        // Labels of the demo are short; a longer one is cut at the protocol's limit.
        let label = &label.as_bytes()[..label.len().min(63)];
        message.push(u8::try_from(label.len()).unwrap_or(63));
        message.extend(label);
    }
    message.push(0);
    message.extend(ADDRESS_IN);
    message
}

/// The answer to a query: the address by `lookup`, else NXDOMAIN; `None` if it is no query of one question.
pub fn answer(query: &[u8], lookup: impl Fn(&str) -> Option<Ipv4Addr>) -> Option<Vec<u8>> {
    let is_query = query.get(2)? & 0x80 == 0;
    if !is_query || query.get(4..6)? != [0, 1] {
        return None;
    }
    let (name, end) = read_name(query)?;
    let question = query.get(HEADER..end + 4)?;
    let address = lookup(&name).filter(|_| question.ends_with(&ADDRESS_IN));
    let known = lookup(&name).is_some();
    let mut message = query.get(..2)?.to_vec();
    // A response with authority, recursion desired and available; NXDOMAIN is 3.
    message.extend([0x85, if known { 0x80 } else { 0x83 }]);
    message.extend([0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
    message.extend(question);
    if let Some(address) = address {
        message.extend([0xc0, 12]);
        message.extend(ADDRESS_IN);
        message.extend(30_u32.to_be_bytes());
        message.extend([0, 4]);
        message.extend(address.octets());
    }
    Some(message)
}

/// Whether `message` answers the query `id` without an error.
pub fn is_answer(message: &[u8], id: u16) -> bool {
    message.len() >= HEADER
        && message[..2] == id.to_be_bytes()
        && message[2] & 0x80 != 0
        && message[3] & 0x0f == 0
        && message[6..8] != [0, 0]
}

/// The question's name, and where it ends.
fn read_name(message: &[u8]) -> Option<(String, usize)> {
    let (mut name, mut at) = (String::new(), HEADER);
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            return Some((name, at));
        }
        if length > 63 {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(std::str::from_utf8(message.get(at..at + length)?).ok()?);
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<Ipv4Addr> {
        (name == "kube-dns.kube-system.svc.cluster.local").then_some(Ipv4Addr::new(10, 96, 0, 10))
    }

    #[test]
    fn a_known_name_gets_its_address_and_an_unknown_one_nxdomain() {
        let known = query(7, "kube-dns.kube-system.svc.cluster.local");
        let reply = answer(&known, lookup).unwrap();
        assert!(is_answer(&reply, 7));
        assert!(!is_answer(&reply, 8));
        assert_eq!(reply[reply.len() - 4..], [10, 96, 0, 10]);
        let reply = answer(&query(7, "no.such.name"), lookup).unwrap();
        assert_eq!(reply[3] & 0x0f, 3);
        assert!(!is_answer(&reply, 7));
    }

    #[test]
    fn what_is_no_query_gets_no_answer() {
        let whole = query(7, "a.b");
        for cut in 0..whole.len() {
            assert_eq!(answer(&whole[..cut], lookup), None, "cut at {cut}");
        }
        assert_eq!(answer(&answer(&whole, lookup).unwrap(), lookup), None);
        assert!(!is_answer(&whole, 7));
    }
}
