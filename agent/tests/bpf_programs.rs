use dryfence::capture::{Settings, programs::Programs};
#[test]
fn loads() {
    let p = Programs::load(&Settings::default());
    if let Err(e) = &p {
        let mut e: Option<&dyn std::error::Error> = Some(e);
        while let Some(x) = e {
            println!("{x}");
            e = x.source();
        }
        panic!()
    }
}
