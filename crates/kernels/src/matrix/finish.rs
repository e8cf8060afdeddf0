//! What happens to a block of sums on its way from the cache to the result.

use super::Activation;
use crate::simd::{PANEL, Simd, math};

/// How many rows before its turn a row's residual is asked for.
const AHEAD: usize = 4;

/// Where a block of rows goes and what is added to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// The first row of the block.
    pub(crate) out: *mut f32,
    /// Numbers to add to the result, laid out as `out`; null for none.
    pub(crate) residual: *const f32,
    /// From one row to the next, in both.
    pub(crate) stride: usize,
    pub(crate) rows: usize,
}

impl Target {
    /// `rows` rows from row `start` on.
    ///
    /// # Safety
    /// They exist.
    pub(crate) unsafe fn part(self, start: usize, rows: usize) -> Self {
        let offset = start * self.stride;
        // SAFETY: vouched for by the caller.
        let out = unsafe { self.out.add(offset) };
        let residual = if self.residual.is_null() {
            self.residual
        } else {
            // SAFETY: laid out as `out`.
            unsafe { self.residual.add(offset) }
        };
        Self {
            out,
            residual,
            rows,
            ..self
        }
    }
}

/// The steps after the sums: bias, activation, residual.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finish {
    /// One number for each packed column; null for none.
    pub(crate) bias: *const f32,
    pub(crate) activation: Activation,
    /// Columns of the result; the last panel may have fewer than 16.
    pub(crate) columns: usize,
}

impl Finish {
    /// Finishes `panels` output panels from panel `first` on, whose sums are in `c` as \[panel\]\[row\]\[16\]; under GEGLU,
    /// `gated`, hidden and gate panels take turns there. Row after row, so that result and residual are walked over as
    /// they lie in memory.
    ///
    /// # Safety
    /// `c` holds `target.rows` rows of these panels, and the target's rows exist.
    #[inline(always)]
    pub(crate) unsafe fn block<S: Simd>(
        &self,
        s: S,
        (first, panels, gated): (usize, usize, bool),
        c: *const f32,
        target: Target,
    ) {
        let each = if gated { 2 } else { 1 };
        let block = target.rows * PANEL;
        for row in 0..target.rows {
            for panel in 0..panels {
                // SAFETY: among the rows and panels that the caller vouches for.
                unsafe {
                    let at = row * target.stride + (first + panel) * PANEL;
                    let residual = if target.residual.is_null() {
                        target.residual
                    } else {
                        let residual = target.residual.add(at);
                        s.prefetch(residual.wrapping_add(AHEAD * target.stride).cast());
                        residual
                    };
                    let c = c.add(panel * each * block + row * PANEL);
                    let gate = if gated { c.add(block) } else { std::ptr::null() };
                    self.line(s, first + panel, (c, gate), (target.out.add(at), residual));
                }
            }
        }
    }

    /// Finishes one row of output panel `panel`.
    ///
    /// # Safety
    /// Sums, and where they are not null gates and residual, have 16 numbers; `out` those that the result has there.
    #[inline(always)]
    unsafe fn line<S: Simd>(
        &self,
        s: S,
        panel: usize,
        (c, gate): (*const f32, *const f32),
        (out, mut residual): (*mut f32, *const f32),
    ) {
        let column = panel * PANEL;
        let width = PANEL.min(self.columns - column);
        // Under GEGLU hidden and gate panels take turns.
        let packed = if gate.is_null() { column } else { 2 * column };
        let mut edge = [0.0_f32; PANEL];
        // SAFETY: within the block, the bias and the target, for which the caller vouches.
        unsafe {
            if width < PANEL && !residual.is_null() {
                std::ptr::copy_nonoverlapping(residual, edge.as_mut_ptr(), width);
                residual = edge.as_ptr();
            }
            let mut values = [0.0_f32; PANEL];
            let to = if width < PANEL { values.as_mut_ptr() } else { out };
            for lane in (0..PANEL).step_by(S::LANES) {
                let mut y = s.load(c.add(lane));
                if !self.bias.is_null() {
                    y = s.add(y, s.load(self.bias.add(packed + lane)));
                }
                y = match self.activation {
                    Activation::None => y,
                    Activation::Silu => math::swish(s, y, 1.0),
                    Activation::QuickGelu => math::swish(s, y, 1.702),
                    Activation::Gelu => math::gelu(s, y),
                };
                if !gate.is_null() {
                    let mut g = s.load(gate.add(lane));
                    if !self.bias.is_null() {
                        g = s.add(g, s.load(self.bias.add(packed + PANEL + lane)));
                    }
                    y = s.mul(y, math::gelu(s, g));
                }
                if !residual.is_null() {
                    y = s.add(y, s.load(residual.add(lane)));
                }
                s.store(to.add(lane), y);
            }
            if width < PANEL {
                std::ptr::copy_nonoverlapping(values.as_ptr(), out, width);
            }
        }
    }
}
