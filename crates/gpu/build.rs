//! Compiles the kernels for the emulated device, where the feature `emulated` asks for it, and nothing otherwise.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "emulated")]
    emulated::build();
}

#[cfg(feature = "emulated")]
mod emulated {
    //! One C++ file that includes all kernels, with the name by which Rust calls them.

    const SOURCES: &[&str] = &["src/kernels", "src/emulator"];

    #[expect(
        clippy::disallowed_methods,
        reason = "how Cargo tells a build script what it builds for"
    )]
    pub(super) fn build() {
        for folder in SOURCES {
            println!("cargo::rerun-if-changed={folder}");
        }
        let mut build = cc::Build::new();
        build
            .cpp(true)
            .std("c++20")
            .includes(SOURCES)
            // A shared tile is read as what it holds now, whatever it held before.
            .flag("-fno-strict-aliasing")
            .warnings(false)
            .opt_level(2)
            .file("src/emulator/entry.cc");
        // Elsewhere fibers are ucontexts, which are slower and need no assembly.
        if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") {
            build.file("src/emulator/switch.S");
        }
        build.compile("pentimento_gpu_emulator");
    }
}
