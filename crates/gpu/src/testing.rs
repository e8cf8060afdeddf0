//! What the tests of this crate share: emulated devices in all orders of threads, numbers, and how results are compared.

use half::f16;

use crate::{DType, Emulation, Error, Gpu, HostData, Input, InputShape, Program, Tensor, ThreadOrder};

/// The float types.
pub(crate) const FLOATS: [DType; 2] = [DType::F32, DType::F16];

/// The card that `PENTIMENTO_TEST_GPU` names by its number, if it is set: the same checks on the day that there is one.
pub(crate) fn card() -> Option<Gpu> {
    static CARD: std::sync::OnceLock<Option<Gpu>> = std::sync::OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "a test that is gated by its variable")]
    let open = || {
        let number = std::env::var("PENTIMENTO_TEST_GPU").ok()?;
        Some(Gpu::open(number.parse().unwrap(), None).unwrap())
    };
    CARD.get_or_init(open).clone()
}

/// The card, or an emulated device whose threads run in this order.
pub(crate) fn device(order: ThreadOrder) -> Gpu {
    card().unwrap_or_else(|| emulated(order))
}

/// An emulated device whose threads run in this order, whatever else there is.
pub(crate) fn emulated(order: ThreadOrder) -> Gpu {
    Gpu::emulated(Emulation {
        order,
        ..Emulation::default()
    })
}

/// `count` numbers between -2 and 2, others for each seed, and representable in `dtype`.
pub(crate) fn numbers(seed: u32, count: usize, dtype: DType) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            round(f64::from(state) / f64::from(u32::MAX) * 4.0 - 2.0, dtype)
        })
        .collect()
}

#[expect(clippy::cast_possible_truncation, reason = "rounding is what it is for")]
fn round(number: f64, dtype: DType) -> f32 {
    match dtype {
        DType::F16 => f16::from_f64(number).to_f32(),
        DType::F32 | DType::I32 | DType::Address => number as f32,
    }
}

/// An input of a program: its shape and its numbers.
pub(crate) type Given<'a> = (&'a [usize], &'a [f32]);

/// Records `body` on inputs of type `dtype`, runs it, and returns its outputs.
pub(crate) fn compute(
    gpu: &Gpu,
    dtype: DType,
    given: &[Given<'_>],
    body: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>, Error>,
) -> Vec<Vec<f32>> {
    let shapes: Vec<InputShape> = given
        .iter()
        .map(|(shape, _)| InputShape::new(shape, dtype))
        .collect();
    let mut program = Program::record(gpu, &shapes, |inputs| body(&inputs)).unwrap();
    let halves: Vec<Vec<f16>> = given
        .iter()
        .map(|(_, numbers)| numbers.iter().map(|number| f16::from_f32(*number)).collect())
        .collect();
    let inputs: Vec<Input<'_>> = given
        .iter()
        .zip(&halves)
        .map(|((_, floats), halves)| {
            Input::Host(if dtype == DType::F16 {
                HostData::F16(halves)
            } else {
                HostData::F32(floats)
            })
        })
        .collect();
    let outputs = program.run(&inputs).unwrap();
    outputs.iter().map(|output| output.download().unwrap()).collect()
}

/// Runs `test` on a device for each order of threads and each float type.
pub(crate) fn each_way(test: impl Fn(&Gpu, DType)) {
    for order in ThreadOrder::ALL {
        for dtype in FLOATS {
            test(&device(order), dtype);
        }
    }
}

/// How far a result is from what it should be: the rms of the differences beside that of the numbers. NaN counts as far.
pub(crate) fn distance(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let square = |sum: f64, x: f64| sum + x * x;
    let differences = got.iter().zip(want).map(|(got, want)| f64::from(*got) - want);
    let (error, size) = (
        differences.fold(0.0, square),
        want.iter().copied().fold(0.0, square),
    );
    if error == 0.0 { 0.0 } else { (error / size).sqrt() }
}

/// The result is that of the f64 reference, up to the rounding of its type.
pub(crate) fn assert_close(what: &str, dtype: DType, got: &[f32], want: &[f64]) {
    let limit = match dtype {
        DType::F32 => 2e-6,
        DType::F16 | DType::I32 | DType::Address => 5e-4,
    };
    let found = distance(got, want);
    assert!(found < limit, "{what} in {dtype:?}: relative rms {found:e}");
}

/// The folders with the wheels' libraries, if a person or a script has put them somewhere.
#[cfg(feature = "cuda")]
#[expect(clippy::disallowed_methods, reason = "a test that is gated by its variable")]
pub(crate) fn libraries() -> Option<std::ffi::OsString> {
    std::env::var_os("PENTIMENTO_CUDA_LIBS")
}

/// What a test says that is run with those libraries in front, and before them the stub of a driver without a device. The
/// loader reads its path when a process starts, so this starts the tests again.
#[cfg(feature = "cuda")]
pub(crate) fn with_libraries(test: &str) -> String {
    let folder = std::env::temp_dir().join(format!(
        "pentimento-stub-{}-{}",
        std::process::id(),
        test.replace(':', "-")
    ));
    fs_err::create_dir_all(&folder).unwrap();
    let built = std::process::Command::new("cc")
        .args(["-w", "-shared", "-fPIC", "-o"])
        .arg(folder.join("libcuda.so.1"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/stub_libcuda.c"))
        .status();
    assert!(
        built.unwrap().success(),
        "the stub of the driver does not compile"
    );
    let mut path = folder.clone().into_os_string();
    path.push(":");
    path.push(libraries().unwrap_or_default());
    let run = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("LD_LIBRARY_PATH", path)
        .output()
        .unwrap();
    fs_err::remove_dir_all(folder).unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(
        run.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&run.stderr)
    );
    said
}
