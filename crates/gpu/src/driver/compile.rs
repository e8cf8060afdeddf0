//! Our kernels for the card that is there: compiled by NVRTC, and kept on disk for the next start.
//!
//! A cubin and not PTX: the PTX of an NVRTC that is newer than the driver does not load in it.

use std::ffi::{CStr, CString, c_char};
use std::path::{Path, PathBuf};

use cudarc::nvrtc::{result, sys};

use crate::kernels::{DEVICE, FILES};

/// Symbols of NVRTC that are used; a library without one of them is another one.
const SYMBOLS: &[&str] = &[
    "nvrtcCompileProgram",
    "nvrtcCreateProgram",
    "nvrtcDestroyProgram",
    "nvrtcGetCUBIN",
    "nvrtcGetCUBINSize",
    "nvrtcGetProgramLog",
    "nvrtcGetProgramLogSize",
    "nvrtcVersion",
];

/// The version of NVRTC, or why it cannot be used.
pub(super) fn version() -> Result<(i32, i32), String> {
    // SAFETY: opening a library runs its initialisation, which NVIDIA's survive.
    if !unsafe { sys::is_culib_present() } {
        return Err(
            "libnvrtc.so.13 was not found (CUDA's runtime compiler; the package nvidia-cuda-nvrtc has it)"
                .to_owned(),
        );
    }
    // SAFETY: the library has just been opened.
    let library = unsafe { sys::culib() };
    for symbol in SYMBOLS {
        // SAFETY: the symbol is looked up and not used.
        if unsafe { library.get::<*const c_char>(symbol.as_bytes()) }.is_err() {
            return Err(format!("libnvrtc has no `{symbol}`; it is too old or broken"));
        }
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both places are valid.
    unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) }
        .result()
        .map_err(|error| error.to_string())?;
    Ok((major, minor))
}

/// All kernels for cards of this compute capability, from `cache` if they are there.
pub(super) fn cubin((major, minor): (u32, u32), cache: Option<&Path>) -> Result<Vec<u8>, String> {
    let nvrtc = version()?;
    let kept = cache.map(|folder| kept_at(folder, (major, minor), nvrtc));
    if let Some(bytes) = kept.as_deref().and_then(|path| fs_err::read(path).ok())
        && bytes.starts_with(b"\x7fELF")
    {
        return Ok(bytes);
    }
    let bytes = compile(&format!("sm_{major}{minor}"))?;
    if let Some(path) = kept {
        keep(&path, &bytes);
    }
    Ok(bytes)
}

/// Everything that the result depends on is in the name: card, compiler and sources.
fn kept_at(folder: &Path, (major, minor): (u32, u32), (nvrtc, update): (i32, i32)) -> PathBuf {
    // FNV-1a (Fowler, Noll and Vo), which is the same in every build.
    let hash = std::iter::once(&DEVICE)
        .chain(FILES)
        .flat_map(|(_, text)| text.bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
    folder.join(format!(
        "kernels-sm_{major}{minor}-nvrtc{nvrtc}.{update}-{hash:016x}.cubin"
    ))
}

/// Written beside its place and then moved there, so that no start reads half a file. What cannot be kept is compiled again.
fn keep(path: &Path, bytes: &[u8]) {
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    let folder = path.parent().map_or(Ok(()), fs_err::create_dir_all);
    let written = folder.and_then(|()| fs_err::write(&partial, bytes));
    if written.and_then(|()| fs_err::rename(&partial, path)).is_err() {
        let _ = fs_err::remove_file(&partial);
    }
}

fn compile(arch: &str) -> Result<Vec<u8>, String> {
    let text = |text: &str| CString::new(text).map_err(|error| error.to_string());
    let includes: String = FILES
        .iter()
        .map(|(name, _)| format!("#include \"{name}\"\n"))
        .collect();
    let source = text(&includes)?;
    let all: Vec<_> = std::iter::once(&DEVICE).chain(FILES).collect();
    let names = all
        .iter()
        .map(|(name, _)| text(name))
        .collect::<Result<Vec<_>, _>>()?;
    let texts = all
        .iter()
        .map(|(_, file)| text(file))
        .collect::<Result<Vec<_>, _>>()?;
    let program = Source::new(&source, &names, &texts)?;
    let options = [format!("--gpu-architecture={arch}"), "--std=c++17".to_owned()];
    // SAFETY: the program lives until the end of this function.
    if let Err(error) = unsafe { result::compile_program(program.0, &options) } {
        return Err(format!("{error} for {arch}: {}", program.log()));
    }
    program.cubin().map_err(|error| error.to_string())
}

/// A program of NVRTC.
struct Source(sys::nvrtcProgram);

impl Source {
    fn new(source: &CStr, names: &[CString], texts: &[CString]) -> Result<Self, String> {
        let pointers = |all: &[CString]| all.iter().map(|text| text.as_ptr()).collect::<Vec<_>>();
        let (names, texts) = (pointers(names), pointers(texts));
        let count = i32::try_from(names.len()).map_err(|error| error.to_string())?;
        let mut program = std::ptr::null_mut();
        // SAFETY: every text ends with 0, and NVRTC copies what it is given.
        unsafe {
            sys::nvrtcCreateProgram(
                &raw mut program,
                source.as_ptr(),
                c"kernels.cu".as_ptr(),
                count,
                texts.as_ptr(),
                names.as_ptr(),
            )
        }
        .result()
        .map_err(|error| error.to_string())?;
        Ok(Self(program))
    }

    fn cubin(&self) -> Result<Vec<u8>, result::NvrtcError> {
        let mut bytes = 0;
        // SAFETY: the program is there, and it has been compiled.
        unsafe { sys::nvrtcGetCUBINSize(self.0, &raw mut bytes) }.result()?;
        let mut cubin = vec![0_u8; bytes];
        // SAFETY: there is room for as many bytes as NVRTC has said.
        unsafe { sys::nvrtcGetCUBIN(self.0, cubin.as_mut_ptr().cast()) }.result()?;
        Ok(cubin)
    }

    fn log(&self) -> String {
        // SAFETY: the program is there.
        let log = unsafe { result::get_program_log(self.0) }.unwrap_or_default();
        let bytes: Vec<u8> = log
            .into_iter()
            .map(c_char::cast_unsigned)
            .take_while(|byte| *byte != 0)
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // SAFETY: nobody else has the program.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The compute capabilities of the cards that the kernels are meant for: A100, RTX 40, H100, B200, RTX 50.
    const CARDS: [(u32, u32); 5] = [(8, 0), (8, 9), (9, 0), (10, 0), (12, 0)];

    /// Where the wheels' libraries are, if a person or a script has put them somewhere.
    #[expect(clippy::disallowed_methods, reason = "a test that is gated by its variable")]
    fn libraries() -> Option<std::ffi::OsString> {
        std::env::var_os("PENTIMENTO_CUDA_LIBS")
    }

    /// The loader reads its path when a process starts, so the test starts itself again with the libraries in front.
    #[test]
    fn nvrtc_compiles_every_kernel_for_every_card() {
        let Some(folder) = libraries() else {
            println!("left out: PENTIMENTO_CUDA_LIBS names no folder with libnvrtc.so.13");
            return;
        };
        let itself = std::env::current_exe().unwrap();
        let run = std::process::Command::new(itself)
            .args([
                "--exact",
                "driver::compile::tests::kernels_compile_where_nvrtc_is",
                "--nocapture",
            ])
            .env("LD_LIBRARY_PATH", &folder)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stdout);
        println!("{said}");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        assert!(
            said.contains("sm_120"),
            "no libnvrtc.so.13 in {}",
            folder.display()
        );
    }

    #[test]
    fn kernels_compile_where_nvrtc_is() {
        if let Err(why) = version() {
            println!("left out: {why}");
            return;
        }
        let folder = std::env::temp_dir().join(format!("pentimento-cubins-{}", std::process::id()));
        for card in CARDS {
            let bytes = cubin(card, Some(&folder)).unwrap();
            let has = |name: &str| bytes.windows(name.len()).any(|part| part == name.as_bytes());
            for name in [
                "group_norm_apply_f16",
                "attend_16_f32",
                "attend_tiles_160",
                "upsample_f16",
                "geglu_f32",
            ] {
                assert!(has(name), "{name} for {card:?}");
            }
            let kept = kept_at(&folder, card, version().unwrap());
            assert_eq!(fs_err::read(&kept).unwrap(), bytes);
            println!("sm_{}{}: {} bytes", card.0, card.1, bytes.len());
        }
        fs_err::remove_dir_all(folder).unwrap();
    }
}
