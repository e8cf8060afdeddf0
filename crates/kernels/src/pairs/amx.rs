//! AMX with its bfloat16 instruction: Intel's servers since Sapphire Rapids. Eight tiles of sixteen lines of 64 bytes each.
//!
//! Stable Rust has no intrinsics for it, so it is written in assembly. Every tile has its full size; a row of tiles that the
//! operands do not fill goes through a buffer.

use std::arch::asm;
use std::sync::OnceLock;

use super::{PAIRS, PairProduct, ROWS};
use crate::simd::avx512bf16::Avx512Bf16;
use crate::simd::{Accumulate, LINE, PANEL, Product};

/// Proof that the machine has AMX for bfloat16 beside AVX-512 for it, and that its system gives the tiles' registers to processes
/// that ask for them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amx(Avx512Bf16);

impl Amx {
    /// Looks, and asks for nothing: what the registers cost, larger frames for signals, only a process should pay that uses them.
    pub(crate) fn detect() -> Option<Self> {
        let avx512 = Avx512Bf16::detect()?;
        (has_instructions() && system_knows_tiles()).then_some(Self(avx512))
    }

    /// Asks the operating system for the tiles' registers, once, for all threads that the process will have. Says whether it has
    /// them.
    #[expect(
        clippy::unused_self,
        reason = "the token proves that there are registers to ask for"
    )]
    pub(crate) fn permit(self) -> bool {
        static PERMITTED: OnceLock<bool> = OnceLock::new();
        *PERMITTED.get_or_init(is_permitted)
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

/// The number of the tiles' registers among what a processor saves of a thread.
#[cfg(target_os = "linux")]
const TILE_DATA: u64 = 18;

/// Whether this kernel can keep the tiles' registers of a process (`ARCH_GET_XCOMP_SUPP`).
#[cfg(target_os = "linux")]
fn system_knows_tiles() -> bool {
    const SUPPORTED: u64 = 0x1021;
    let mut known = 0_u64;
    // SAFETY: the kernel writes one number, for which there is room.
    let result = unsafe { arch_prctl(SUPPORTED, (&raw mut known).expose_provenance() as u64) };
    result == 0 && known >> TILE_DATA & 1 == 1
}

/// Linux keeps the tiles' registers for processes only that have asked (`ARCH_REQ_XCOMP_PERM`).
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const REQUEST: u64 = 0x1023;
    // SAFETY: it changes nothing but this process's own permission.
    unsafe { arch_prctl(REQUEST, TILE_DATA) == 0 }
}

/// A call of the kernel about the processor's state of this process.
///
/// # Safety
/// Where `option` writes through its argument, that is the address of what may be written.
#[cfg(target_os = "linux")]
unsafe fn arch_prctl(option: u64, argument: u64) -> i64 {
    const ARCH_PRCTL: i64 = 158;
    let mut result = ARCH_PRCTL;
    // SAFETY: vouched for by the caller; the kernel keeps all registers but these.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") result,
            in("rdi") option,
            in("rsi") argument,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Nobody has tried it elsewhere.
#[cfg(not(target_os = "linux"))]
fn system_knows_tiles() -> bool {
    false
}

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
    /// # Panics
    /// Where the system refuses the registers after all; [`Isa::choose`](crate::Isa::choose) asks before anything is computed.
    pub(super) fn new(amx: Amx) -> Self {
        assert!(
            amx.permit(),
            "the system gives this process no registers for tiles"
        );
        // SAFETY: the token proves the instructions, and the process has their registers; the shapes are valid ones.
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

impl Tiles {
    /// `rounds` products of whole tiles in each of four sums, between registers. Returns the operations, a product and its sum
    /// being two, and one of the sums.
    #[expect(
        clippy::unused_self,
        reason = "the token proves that the machine has the instructions"
    )]
    pub(crate) fn products(&self, rounds: usize) -> (usize, f32) {
        const OPERATIONS: usize = 2 * ROWS * PANEL * 2 * PAIRS;
        let mut sums = [0.0_f32; ROWS * PANEL];
        let rounds = rounds.max(1);
        // SAFETY: the tiles are configured, and the sums have room for one.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "tilezero tmm4",
                "tilezero tmm5",
                "tilezero tmm6",
                "tilezero tmm7",
                "4:",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "dec {n}",
                "jnz 4b",
                "tilestored [{c} + {nw}*1], tmm0",
                n = inout(reg) rounds => _,
                c = in(reg) sums.as_mut_ptr(),
                nw = in(reg) NEXT_LINE,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
        (4 * OPERATIONS * rounds, sums[0])
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
