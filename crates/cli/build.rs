//! How the program is linked when it is released: functions of the same machine code are kept once. In an image the addresses that a
//! loader corrects are a bit map as well. Both make it smaller and leave nothing out.

#[expect(
    clippy::disallowed_methods,
    reason = "how Cargo tells a build script what it builds for"
)]
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=PENTIMENTO_FOR_IMAGE");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    // Where rustc links by LLD; GNU's linker folds nothing.
    if !is("TARGET", "x86_64-unknown-linux-gnu") || !is("PROFILE", "release") {
        return;
    }
    println!("cargo::rustc-link-arg-bin=pentimento=-Wl,--icf=all");
    // A loader older than glibc 2.36 does not read these, and an image brings its own.
    if is("PENTIMENTO_FOR_IMAGE", "1") {
        println!("cargo::rustc-link-arg-bin=pentimento=-Wl,-z,pack-relative-relocs");
    }
}
