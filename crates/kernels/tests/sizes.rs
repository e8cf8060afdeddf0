//! What a layer says it holds is what it has allocated.

#![expect(unsafe_code, reason = "counting allocations takes an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{DType, Device, Tensor};
use pentimento_kernels::Padding;
use pentimento_kernels::cpu::{Conv2d, GroupNorm, LayerNorm, Linear};

/// The system's allocator, and the bytes that it has given out and not got back.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: passed on from the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: passed on from the caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// That what `make` builds allocates as many bytes as `size` says, within 2 %.
#[track_caller]
fn assert_size<T>(what: &str, make: impl Fn() -> T, size: impl Fn(&T) -> usize) {
    // The first time also makes the threads' own memory.
    drop(make());
    let before = LIVE.load(Ordering::SeqCst);
    let made = make();
    let allocated = LIVE.load(Ordering::SeqCst) - before;
    let stated = size(&made);
    assert!(
        stated.abs_diff(allocated) * 50 <= allocated,
        "{what} states {stated} bytes and has allocated {allocated}"
    );
}

/// One test, because another one's allocations would be counted too.
#[test]
fn layers_state_the_bytes_that_they_have_allocated() {
    let zeros = |dims: &[usize], dtype| Tensor::zeros(dims, dtype, &Device::Cpu).unwrap();
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        for (outputs, inputs) in [(320, 768), (4, 320), (1000, 40)] {
            let what = format!("{dtype:?} {inputs} to {outputs}");
            let (weight, bias) = (zeros(&[outputs, inputs], dtype), zeros(&[outputs], dtype));
            let linear = || Linear::new(&weight, Some(&bias)).unwrap();
            assert_size(&format!("linear, {what}"), linear, Linear::size_bytes);
            let plain = || Linear::new(&weight, None).unwrap();
            assert_size(&format!("no bias, {what}"), plain, Linear::size_bytes);
            let geglu = || Linear::geglu(&weight, Some(&bias)).unwrap();
            assert_size(&format!("geglu, {what}"), geglu, Linear::size_bytes);
            let kernel = zeros(&[outputs, inputs, 3, 3], dtype);
            let conv = || Conv2d::new(&kernel, Some(&bias), 1, Padding::SAME).unwrap();
            assert_size(&format!("convolution, {what}"), conv, Conv2d::size_bytes);
        }
        let vector = zeros(&[1280], dtype);
        let norm = || GroupNorm::new(&vector, &vector, 32, 1e-5).unwrap();
        assert_size("group norm", norm, GroupNorm::size_bytes);
        let norm = || LayerNorm::new(&vector, &vector, 1e-5).unwrap();
        assert_size("layer norm", norm, LayerNorm::size_bytes);
    }
}
