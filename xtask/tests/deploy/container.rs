//! The image: what it is made from is pinned, there, and asks nothing.

use xtask::tools;

fn lines() -> Vec<String> {
    let text = std::fs::read_to_string(tools::root().join("deploy/Containerfile")).unwrap();
    let joined = text.replace("\\\n", " ");
    joined
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

fn of(instruction: &str) -> Vec<String> {
    let lines = lines().into_iter();
    lines.filter_map(|line| Some(line.strip_prefix(&format!("{instruction} "))?.to_owned())).collect()
}

#[test]
fn it_is_built_by_the_compiler_that_the_project_pins() {
    let pinned = std::fs::read_to_string(tools::root().join("rust-toolchain.toml")).unwrap();
    let channel = pinned.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap().trim_matches('"');
    let minor = channel.rsplit_once('.').unwrap().0;
    let from = of("FROM");
    assert_eq!(from.len(), 2);
    assert!(from[0].contains(&format!("rust:{minor}-")), "{}", from[0]);
    assert_eq!(from[1], "scratch");
}

#[test]
fn it_holds_one_binary_and_runs_as_nobody() {
    assert_eq!(of("ENTRYPOINT"), ["[\"/dryfence\"]"]);
    assert_eq!(of("USER"), ["65532:65532"]);
    assert_eq!(of("ADD"), [""; 0]);
    let copies = of("COPY");
    for file in copies.iter().filter(|copy| !copy.starts_with("--from") && *copy != ". .") {
        let (sources, _) = file.rsplit_once(' ').unwrap();
        for source in sources.split(' ') {
            assert!(tools::root().join(source).exists(), "{source} is not there");
        }
    }
    let installs = of("RUN").into_iter().find(|run| run.contains("apt-get install")).unwrap();
    assert!(installs.contains("--yes") && installs.contains("DEBIAN_FRONTEND=noninteractive"));
}
