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
    if let Some(cubin) = kept.as_deref().and_then(read_kept) {
        return Ok(cubin);
    }
    let bytes = compile(&format!("sm_{major}{minor}"))?;
    if let Some(path) = kept {
        keep(&path, &bytes);
    }
    Ok(bytes)
}

/// A kept cubin that is whole. The driver is given an address and no length, so it must not see half of one.
fn read_kept(path: &Path) -> Option<Vec<u8>> {
    let length = fs_err::metadata(path).ok()?.len();
    if length > LARGEST_KEPT {
        return None;
    }
    unsealed(fs_err::read(path).ok()?)
}

/// What a kept cubin begins with, and then its length and its checksum, little-endian.
const SEAL: &[u8; 8] = b"PENTCUB1";

/// Bytes before a kept cubin.
const SEAL_BYTES: usize = 24;

/// Ours take about a megabyte.
const LARGEST_KEPT: u64 = 64 << 20;

fn sealed(cubin: &[u8]) -> Vec<u8> {
    let length = cubin.len() as u64;
    let seal = SEAL.iter().copied().chain(length.to_le_bytes());
    let seal = seal.chain(hash(cubin.iter().copied()).to_le_bytes());
    seal.chain(cubin.iter().copied()).collect()
}

fn unsealed(mut file: Vec<u8>) -> Option<Vec<u8>> {
    let cubin = file.get(SEAL_BYTES..)?;
    if sealed(cubin).get(..SEAL_BYTES) != file.get(..SEAL_BYTES) || !cubin.starts_with(b"\x7fELF") {
        return None;
    }
    file.drain(..SEAL_BYTES);
    Some(file)
}

/// FNV-1a (Fowler, Noll and Vo), which is the same in every build.
fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// Everything that the result depends on is in the name: card, compiler and sources.
fn kept_at(folder: &Path, (major, minor): (u32, u32), (nvrtc, update): (i32, i32)) -> PathBuf {
    let sources = std::iter::once(&DEVICE).chain(FILES);
    let hash = hash(sources.flat_map(|(_, text)| text.bytes()));
    folder.join(format!(
        "kernels-sm_{major}{minor}-nvrtc{nvrtc}.{update}-{hash:016x}.cubin"
    ))
}

/// Written beside its place and then moved there, so that no start reads half a file. What cannot be kept is compiled again.
fn keep(path: &Path, bytes: &[u8]) {
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    let folder = path.parent().map_or(Ok(()), fs_err::create_dir_all);
    let written = folder.and_then(|()| fs_err::write(&partial, sealed(bytes)));
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
    use crate::testing::{libraries, with_libraries};

    #[test]
    fn a_damaged_cubin_is_compiled_again() {
        let cubin = b"\x7fELF and more".to_vec();
        let file = sealed(&cubin);
        assert_eq!(unsealed(file.clone()), Some(cubin.clone()));
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 4;
            assert_eq!(unsealed(damaged), None, "byte {at}");
            assert_eq!(unsealed(file[..at].to_vec()), None, "{at} bytes");
        }
        let longer = [&file[..], b"x"].concat();
        assert_eq!(unsealed(longer), None);
        assert_eq!(unsealed(cubin), None, "one without a seal");
        assert_eq!(unsealed(sealed(b"no cubin")), None);
    }

    /// The compute capabilities of the cards that the kernels are meant for: A100, RTX 40, H100, B200, RTX 50.
    const CARDS: [(u32, u32); 5] = [(8, 0), (8, 9), (9, 0), (10, 0), (12, 0)];

    #[test]
    fn nvrtc_compiles_every_kernel_for_every_card() {
        if libraries().is_none() {
            println!("left out: PENTIMENTO_CUDA_LIBS names no folder with libnvrtc.so.13");
            return;
        }
        let said = with_libraries("driver::compile::tests::kernels_compile_where_nvrtc_is");
        println!("{said}");
        assert!(said.contains("sm_120"), "no libnvrtc.so.13 there");
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
                "low_rank_up_f16",
                "upsample_f16",
                "geglu_f32",
            ] {
                assert!(has(name), "{name} for {card:?}");
            }
            let kept = kept_at(&folder, card, version().unwrap());
            assert_eq!(read_kept(&kept).unwrap(), bytes);
            println!("sm_{}{}: {} bytes", card.0, card.1, bytes.len());
        }
        fs_err::remove_dir_all(folder).unwrap();
    }
}
