//! Address translation as kube-proxy sets it up in iptables mode (kubernetes, `pkg/proxy/iptables`), in the
//! network namespace of the calling thread.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// One Service port.
pub(crate) struct Service<'a> {
    pub(crate) cluster_ip: IpAddr,
    pub(crate) port: u16,
    pub(crate) node_port: Option<u16>,
    pub(crate) backends: &'a [SocketAddr],
}

/// Translates what is sent to a Service from pods, from the host and from outside. What comes in by a node port, and
/// what a backend sends to itself, gets an address of the host as its source.
pub(crate) fn serve(service: &Service<'_>) {
    let v6 = service.cluster_ip.is_ipv6();
    let nat = |rule: &str| iptables(v6, &format!("-t nat {rule}"));
    for chain in ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-MARK-MASQ", "KUBE-SVC", "KUBE-EXT"] {
        nat(&format!("-N {chain}"));
    }
    nat("-A PREROUTING -j KUBE-SERVICES");
    nat("-A OUTPUT -j KUBE-SERVICES");
    nat("-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000");
    nat("-A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE");
    nat(&format!("-A KUBE-SERVICES -d {} -p tcp --dport {} -j KUBE-SVC", service.cluster_ip, service.port));
    nat(&format!("-A KUBE-SERVICES -d {} -p udp --dport {} -j KUBE-SVC", service.cluster_ip, service.port));
    nat("-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS");
    if let Some(port) = service.node_port {
        nat(&format!("-A KUBE-NODEPORTS -p tcp --dport {port} -j KUBE-EXT"));
        nat("-A KUBE-EXT -j KUBE-MARK-MASQ");
        nat("-A KUBE-EXT -j KUBE-SVC");
    }
    for (at, backend) in service.backends.iter().enumerate() {
        let left = service.backends.len() - at;
        let chain = format!("KUBE-SEP-{at}");
        nat(&format!("-N {chain}"));
        nat(&format!("-A {chain} -s {} -j KUBE-MARK-MASQ", backend.ip()));
        for protocol in ["tcp", "udp"] {
            nat(&format!("-A {chain} -p {protocol} -j DNAT --to-destination {backend}"));
        }
        // kube-proxy draws lots; in turn, so that every backend is sure to get its share.
        nat(&format!("-A KUBE-SVC -m statistic --mode nth --every {left} --packet 0 -j {chain}"));
    }
}

/// Leaves what is sent to an address untranslated and untracked, as NodeLocal DNSCache does for its own.
pub(crate) fn notrack(address: IpAddr) {
    for rule in [format!("-A PREROUTING -d {address}"), format!("-A OUTPUT -s {address}")] {
        iptables(address.is_ipv6(), &format!("-t raw {rule} -j CT --notrack"));
    }
}

/// Has what is sent to one address of a host go to another, whatever the port.
pub(crate) fn redirect(from: IpAddr, to: IpAddr) {
    iptables(from.is_ipv6(), &format!("-t nat -A PREROUTING -d {from} -j DNAT --to-destination {to}"));
}

fn iptables(v6: bool, rule: &str) {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    let name = if v6 { "ip6tables" } else { "iptables" };
    INSTALLED.get_or_init(|| {
        if find("iptables").is_none() {
            install();
        }
    });
    let command = find(name).unwrap_or_else(|| panic!("{name} is missing: install the package iptables"));
    let output = Command::new(command).arg("-w").args(rule.split_whitespace()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {rule}: {said}");
}

/// On Debian and its relatives; elsewhere the command must be there.
fn install() {
    let Some(apt) = find("apt-get") else { return };
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&apt);
        command.args(["-qq", "-o", "DPkg::Lock::Timeout=300"]).args(arguments);
        command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).status().unwrap().success()
    };
    let install = || run(&["install", "--yes", "--no-install-recommends", "iptables"]);
    // A fresh machine has no lists of packages yet.
    assert!(install() || (run(&["update"]) && install()), "apt-get cannot install the package iptables");
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}
