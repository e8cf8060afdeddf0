//! AMX with its bfloat16 instruction: Intel's servers since Sapphire Rapids. Eight tiles of sixteen lines of 64 bytes each.
//!
//! Stable Rust has no intrinsics for it, so it is written in assembly. Every tile has its full size; a row of tiles that the
//! operands do not fill goes through a buffer.

use std::arch::asm;

use super::{PAIRS, PairProduct, ROWS};
use crate::simd::avx512bf16::Avx512Bf16;
use crate::simd::{Accumulate, LINE, PANEL, Product};

/// Proof that the machine has AMX for bfloat16 beside AVX-512 for it, and that this process may use it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amx(Avx512Bf16);

impl Amx {
    /// Asks the operating system for the tiles' registers, for all threads that the process will have.
    pub(crate) fn detect() -> Option<Self> {
        let avx512 = Avx512Bf16::detect()?;
        (has_instructions() && is_permitted()).then_some(Self(avx512))
    }

    /// The instructions of AVX-512 for bfloat16, which come along.
    pub(super) fn avx512(self) -> Avx512Bf16 {
        self.0
    }
}

/// Whether the processor has tiles and their product of bfloat16.
fn has_instructions() -> bool {
    const TILES: u32 = 1 << 24;
    const BF16: u32 = 1 << 22;
    let wanted = TILES | BF16;
    let leaf = std::arch::x86_64::__cpuid_count(7, 0);
    leaf.edx & wanted == wanted
}

/// Linux keeps the tiles' registers for processes only that have asked (`ARCH_REQ_XCOMP_PERM`).
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const REQUEST: u64 = 0x1023;
    const TILE_DATA: u64 = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: a call of the kernel with two numbers, which changes nothing but this process's own permission.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") result,
            in("rdi") REQUEST,
            in("rsi") TILE_DATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Nobody has tried it elsewhere.
#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// The tiles of this thread, ready for products. They are released when this is dropped, so that the system need not keep
/// them.
#[derive(Debug)]
pub(crate) struct Tiles(Amx, std::marker::PhantomData<*const ()>);

/// Palette 1; for each of the eight tiles that there are 64 bytes a line, and sixteen lines.
#[repr(C, align(64))]
struct Shapes([u8; 64]);

static SHAPES: Shapes = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        bytes[16 + 2 * tile] = 64;
        bytes[48 + tile] = 16;
        tile += 1;
    }
    Shapes(bytes)
};

impl Tiles {
    pub(super) fn new(amx: Amx) -> Self {
        // SAFETY: the token proves the instructions; the shapes are valid ones.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const SHAPES, options(nostack)) };
        Self(amx, std::marker::PhantomData)
    }

    /// As [`Amx::avx512`].
    pub(super) fn avx512(&self) -> Avx512Bf16 {
        self.0.avx512()
    }

    /// # Safety
    /// As [`PairProduct::run`].
    #[expect(
        clippy::unused_self,
        reason = "the token proves that the machine has the instructions"
    )]
    pub(super) unsafe fn run(&self, pairs: PairProduct) {
        let Product { a, panels, .. } = pairs.product;
        debug_assert!(a.step == 1 && pairs.product.k.is_multiple_of(PAIRS));
        let through_buffer = pairs.product.accumulate == Accumulate::Add;
        for panel in (0..panels).step_by(2) {
            for row in (0..a.count).step_by(2 * ROWS) {
                let place = Place { pairs, row, panel };
                let (rows, wide) = (a.count - row, panels - panel);
                // SAFETY: these rows and panels are among those that the caller vouches for.
                unsafe {
                    if rows >= 2 * ROWS && wide >= 2 && !through_buffer {
                        place.multiply_four();
                        continue;
                    }
                    for (i, j) in [(0, 0), (0, 1), (ROWS, 0), (ROWS, 1)] {
                        if i < rows && j < wide {
                            let place = Place {
                                row: row + i,
                                panel: panel + j,
                                ..place
                            };
                            place.multiply_one(ROWS.min(rows - i));
                        }
                    }
                }
            }
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: tiles were configured on this thread, which this type does not leave.
        unsafe { asm!("tilerelease", options(nomem, nostack)) };
    }
}

/// Where the tiles of a product begin.
#[derive(Clone, Copy)]
struct Place {
    pairs: PairProduct,
    row: usize,
    panel: usize,
}

/// What the assembly reads; distances are in bytes.
#[repr(C)]
struct Operands {
    /// Sums: two rows of tiles of two panels each.
    c: [*mut f32; 4],
    next_c: usize,
    a: [*const f32; 2],
    w: [*const f32; 2],
    /// From the high parts to the low ones.
    low_a: isize,
    low_w: isize,
    /// Whether the sums go on from what is in memory.
    go_on: usize,
}

impl Place {
    /// The left operand's row of tiles number `i` of the place, the right operand's panel number `j`, and their sums.
    ///
    /// # Safety
    /// They exist.
    unsafe fn at(self, i: usize, j: usize) -> (*const f32, *const f32, *mut f32) {
        let Product {
            a,
            w,
            next_w,
            c,
            stride,
            next_c,
            ..
        } = self.pairs.product;
        let (row, panel) = (self.row + i * ROWS, self.panel + j);
        // SAFETY: vouched for by the caller.
        unsafe {
            (
                a.first.add(row * a.stride),
                w.add(panel * next_w),
                c.add(panel * next_c + row * stride),
            )
        }
    }

    /// The distances from the high parts to the low ones, in bytes.
    fn low(self) -> Option<(isize, isize)> {
        let Product { a, w, .. } = self.pairs.product;
        let (low_a, low_w) = self.pairs.low?;
        let distance = |low: *const f32, high: *const f32| low.addr().wrapping_sub(high.addr()).cast_signed();
        Some((distance(low_a, a.first), distance(low_w, w)))
    }

    /// Thirty-two rows by two panels.
    ///
    /// # Safety
    /// They exist.
    unsafe fn multiply_four(self) {
        let product = self.pairs.product;
        // SAFETY: vouched for by the caller.
        let [(a, w, c), (_, w2, c2), (a2, _, c3), (_, _, c4)] =
            unsafe { [self.at(0, 0), self.at(0, 1), self.at(1, 0), self.at(1, 1)] };
        let (low_a, low_w) = self.low().unwrap_or_default();
        let operands = Operands {
            c: [c, c2, c3, c4],
            next_c: product.stride * size_of::<f32>(),
            a: [a, a2],
            w: [w, w2],
            low_a,
            low_w,
            go_on: usize::from(product.accumulate == Accumulate::Continue),
        };
        let (steps, next_a) = (product.k / PAIRS, product.a.stride * size_of::<f32>());
        // SAFETY: vouched for by the caller; `Tiles` proves the configuration.
        unsafe {
            match self.low() {
                None => four_tiles(&operands, next_a, steps),
                Some(_) => four_split_tiles(&operands, next_a, steps),
            }
        }
    }

    /// `rows` rows, up to sixteen, by one panel, through a buffer.
    ///
    /// # Safety
    /// They exist.
    unsafe fn multiply_one(self, rows: usize) {
        let product = self.pairs.product;
        let mut sums = [0.0_f32; ROWS * PANEL];
        // SAFETY: vouched for by the caller.
        unsafe {
            let (a, w, c) = self.at(0, 0);
            if product.accumulate == Accumulate::Continue {
                for row in 0..rows {
                    let to = sums.as_mut_ptr().add(row * PANEL);
                    std::ptr::copy_nonoverlapping(c.add(row * product.stride), to, PANEL);
                }
            }
            let next_a = product.a.stride * size_of::<f32>();
            one_tile(sums.as_mut_ptr(), (a, next_a, w), self.low(), product.k / PAIRS);
            for (row, sums) in sums.chunks_exact(PANEL).enumerate().take(rows) {
                for (column, sum) in sums.iter().enumerate() {
                    let c = c.add(row * product.stride + column);
                    match product.accumulate {
                        Accumulate::Add => *c += sum,
                        Accumulate::Overwrite | Accumulate::Continue => *c = *sum,
                    }
                }
            }
        }
    }
}

/// From one line of a tile of weights to the next, and from one tile to the next.
const NEXT_LINE: usize = LINE;
const NEXT_TILE: usize = PAIRS * LINE;

/// The sums of four tiles, which stay in registers while the inner dimension passes.
macro_rules! multiplied {
    ($operands:ident, $next_a:ident, $steps:ident, $($step:literal,)+) => {
        asm!(
            "mov {t}, qword ptr [{p} + 88]",
            "test {t}, {t}",
            "mov {u}, qword ptr [{p} + 32]",
            "jz 2f",
            "mov {t}, qword ptr [{p}]",
            "tileloadd tmm0, [{t} + {u}*1]",
            "mov {t}, qword ptr [{p} + 8]",
            "tileloadd tmm1, [{t} + {u}*1]",
            "mov {t}, qword ptr [{p} + 16]",
            "tileloadd tmm2, [{t} + {u}*1]",
            "mov {t}, qword ptr [{p} + 24]",
            "tileloadd tmm3, [{t} + {u}*1]",
            "jmp 3f",
            "2:",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "3:",
            "mov {a}, qword ptr [{p} + 40]",
            "mov {a2}, qword ptr [{p} + 48]",
            "mov {w}, qword ptr [{p} + 56]",
            "mov {w2}, qword ptr [{p} + 64]",
            "4:",
            $($step,)+
            "add {a}, 64",
            "add {a2}, 64",
            "add {w}, 1024",
            "add {w2}, 1024",
            "dec {n}",
            "jnz 4b",
            "mov {u}, qword ptr [{p} + 32]",
            "mov {t}, qword ptr [{p}]",
            "tilestored [{t} + {u}*1], tmm0",
            "mov {t}, qword ptr [{p} + 8]",
            "tilestored [{t} + {u}*1], tmm1",
            "mov {t}, qword ptr [{p} + 16]",
            "tilestored [{t} + {u}*1], tmm2",
            "mov {t}, qword ptr [{p} + 24]",
            "tilestored [{t} + {u}*1], tmm3",
            p = in(reg) std::ptr::from_ref($operands),
            na = in(reg) $next_a,
            nw = in(reg) NEXT_LINE,
            n = inout(reg) $steps => _,
            a = out(reg) _,
            a2 = out(reg) _,
            w = out(reg) _,
            w2 = out(reg) _,
            t = out(reg) _,
            u = out(reg) _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

/// # Safety
/// The operands exist for `steps` steps, 1 or more, and the tiles are configured.
unsafe fn four_tiles(operands: &Operands, next_a: usize, steps: usize) {
    // SAFETY: vouched for by the caller.
    unsafe {
        multiplied!(
            operands,
            next_a,
            steps,
            "tileloadd tmm4, [{a} + {na}*1]",
            "tileloadd tmm6, [{w} + {nw}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{w2} + {nw}*1]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a2} + {na}*1]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
        );
    }
}

/// High · low, high · high, low · high.
///
/// # Safety
/// As above, for both parts.
unsafe fn four_split_tiles(operands: &Operands, next_a: usize, steps: usize) {
    // SAFETY: vouched for by the caller.
    unsafe {
        multiplied!(
            operands,
            next_a,
            steps,
            "mov {u}, qword ptr [{p} + 80]",
            "lea {t}, [{w} + {u}*1]",
            "tileloadd tmm6, [{t} + {nw}*1]",
            "lea {t}, [{w2} + {u}*1]",
            "tileloadd tmm7, [{t} + {nw}*1]",
            "tileloadd tmm4, [{a} + {na}*1]",
            "tileloadd tmm5, [{a2} + {na}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm6, [{w} + {nw}*1]",
            "tileloadd tmm7, [{w2} + {nw}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "mov {u}, qword ptr [{p} + 72]",
            "lea {t}, [{a} + {u}*1]",
            "tileloadd tmm4, [{t} + {na}*1]",
            "lea {t}, [{a2} + {u}*1]",
            "tileloadd tmm5, [{t} + {na}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
        );
    }
}

/// One tile's sums of `steps` steps, added to those at `c`.
///
/// # Safety
/// As above.
unsafe fn one_tile(
    c: *mut f32,
    (a, next_a, w): (*const f32, usize, *const f32),
    low: Option<(isize, isize)>,
    steps: usize,
) {
    let (a, w) = (a.cast::<u8>(), w.cast::<u8>());
    let (low_a, low_w) = low.unwrap_or_default();
    // SAFETY: vouched for by the caller.
    unsafe {
        asm!(
            "tileloadd tmm0, [{c} + {nw}*1]",
            "4:",
            "test {is_split}, {is_split}",
            "jz 2f",
            "tileloadd tmm4, [{a} + {na}*1]",
            "tileloadd tmm6, [{wl} + {nw}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm6, [{w} + {nw}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm4, [{al} + {na}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "jmp 3f",
            "2:",
            "tileloadd tmm4, [{a} + {na}*1]",
            "tileloadd tmm6, [{w} + {nw}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "3:",
            "add {a}, 64",
            "add {al}, 64",
            "add {w}, {next}",
            "add {wl}, {next}",
            "dec {n}",
            "jnz 4b",
            "tilestored [{c} + {nw}*1], tmm0",
            next = const NEXT_TILE,
            c = in(reg) c,
            na = in(reg) next_a,
            nw = in(reg) NEXT_LINE,
            is_split = in(reg) usize::from(low.is_some()),
            n = inout(reg) steps => _,
            a = inout(reg) a => _,
            al = inout(reg) a.wrapping_offset(low_a) => _,
            w = inout(reg) w => _,
            wl = inout(reg) w.wrapping_offset(low_w) => _,
            out("tmm0") _, out("tmm4") _, out("tmm6") _,
            options(nostack),
        );
    }
}

const _: () = assert!(NEXT_LINE == 64 && NEXT_TILE == 1024);
