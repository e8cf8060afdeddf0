//! What follows the sums of a matrix product while they are in the cache: bias, activation, residual, store.

use crate::simd::{PANEL, Simd, math};

/// What a linear layer applies to its sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// x · sigmoid(x)
    Silu,
    /// x · sigmoid(1.702 x), CLIP's.
    QuickGelu,
    /// With the error function, PyTorch's default.
    Gelu,
}

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
pub(crate) struct Epilogue {
    /// One number for each packed column; null for none.
    pub(crate) bias: *const f32,
    pub(crate) activation: Activation,
    /// Columns of the result; the last panel may have fewer than 16.
    pub(crate) columns: usize,
}

/// The activation of a sum and, with GEGLU, of its gate. A type for each, so that the choice is made outside of the loops.
trait Function {
    /// Panels of sums that make one panel of the result.
    const EACH: usize = 1;
    fn apply<S: Simd>(s: S, sum: S::V, gate: S::V) -> S::V;
}

struct Identity;
struct Silu;
struct QuickGelu;
struct Gelu;
struct Geglu;

impl Function for Identity {
    #[inline(always)]
    fn apply<S: Simd>(_: S, sum: S::V, _: S::V) -> S::V {
        sum
    }
}

impl Function for Silu {
    #[inline(always)]
    fn apply<S: Simd>(s: S, sum: S::V, _: S::V) -> S::V {
        math::swish(s, sum, 1.0)
    }
}

impl Function for QuickGelu {
    #[inline(always)]
    fn apply<S: Simd>(s: S, sum: S::V, _: S::V) -> S::V {
        math::swish(s, sum, 1.702)
    }
}

impl Function for Gelu {
    #[inline(always)]
    fn apply<S: Simd>(s: S, sum: S::V, _: S::V) -> S::V {
        math::gelu(s, sum)
    }
}

impl Function for Geglu {
    const EACH: usize = 2;

    #[inline(always)]
    fn apply<S: Simd>(s: S, sum: S::V, gate: S::V) -> S::V {
        s.mul(sum, math::gelu(s, gate))
    }
}

impl Epilogue {
    /// Writes `panels` output panels from panel `first` on, each made of `each` panels of sums: with GEGLU two, hidden and
    /// gate. Sums begin at `c` as \[panel\]\[row\]\[16\], `next` numbers from panel to panel.
    ///
    /// # Safety
    /// `c` holds `target.rows` rows of these panels, and the target's rows exist.
    #[inline(always)]
    pub(crate) unsafe fn apply<S: Simd>(
        &self,
        s: S,
        (first, panels, each): (usize, usize, usize),
        sums: (*const f32, usize),
        target: Target,
    ) {
        let panels = (first, panels);
        // SAFETY: passed on from the caller.
        unsafe {
            match (self.activation, each) {
                (_, 2) => self.rows::<S, Geglu>(s, panels, sums, target),
                (Activation::None, _) => self.rows::<S, Identity>(s, panels, sums, target),
                (Activation::Silu, _) => self.rows::<S, Silu>(s, panels, sums, target),
                (Activation::QuickGelu, _) => self.rows::<S, QuickGelu>(s, panels, sums, target),
                (Activation::Gelu, _) => self.rows::<S, Gelu>(s, panels, sums, target),
            }
        }
    }

    /// [`Epilogue::apply`] for one function.
    ///
    /// # Safety
    /// As above.
    #[inline(always)]
    unsafe fn rows<S: Simd, F: Function>(
        &self,
        s: S,
        (first, panels): (usize, usize),
        (c, next): (*const f32, usize),
        target: Target,
    ) {
        let whole = (self.columns / PANEL).saturating_sub(first).min(panels);
        for row in 0..target.rows {
            // SAFETY: among the rows and panels that the caller vouches for.
            unsafe {
                let at = row * target.stride + first * PANEL;
                let (c, out) = (c.add(row * PANEL), target.out.add(at));
                let residual = (!target.residual.is_null()).then(|| target.residual.add(at));
                // The same row of the next tile: a line has to be read before a part of it is written.
                for panel in 0..panels {
                    let ahead = S::ROWS * target.stride + panel * PANEL;
                    s.prefetch_near(out.wrapping_add(ahead).cast_const().cast());
                    if let Some(residual) = residual {
                        s.prefetch_near(residual.wrapping_add(ahead).cast());
                    }
                }
                if let Some(residual) = residual {
                    for panel in 0..whole {
                        for lane in (panel * PANEL..(panel + 1) * PANEL).step_by(S::LANES) {
                            let y = self.vector::<S, F>(s, first, lane, (c, next));
                            s.store(out.add(lane), s.add(y, s.load(residual.add(lane))));
                        }
                    }
                } else {
                    for panel in 0..whole {
                        for lane in (panel * PANEL..(panel + 1) * PANEL).step_by(S::LANES) {
                            let y = self.vector::<S, F>(s, first, lane, (c, next));
                            s.store(out.add(lane), y);
                        }
                    }
                }
                // A last panel that the result does not fill.
                for panel in whole..panels {
                    let width = self.columns - (first + panel) * PANEL;
                    let mut values = [0.0_f32; PANEL];
                    for lane in (0..PANEL).step_by(S::LANES) {
                        let y = self.vector::<S, F>(s, first, panel * PANEL + lane, (c, next));
                        s.store(values.as_mut_ptr().add(lane), y);
                    }
                    for (i, value) in values.into_iter().take(width).enumerate() {
                        let i = panel * PANEL + i;
                        *out.add(i) = value + residual.map_or(0.0, |residual| *residual.add(i));
                    }
                }
            }
        }
    }

    /// A vector of results before the residual: `at` columns after output panel `first`, whose row of sums begins at `c`.
    ///
    /// # Safety
    /// As above.
    #[inline(always)]
    unsafe fn vector<S: Simd, F: Function>(
        &self,
        s: S,
        first: usize,
        at: usize,
        (c, next): (*const f32, usize),
    ) -> S::V {
        let (panel, lane) = (at / PANEL, at % PANEL);
        // SAFETY: vouched for by the caller; the bias has a number for each packed column.
        unsafe {
            let c = c.add(F::EACH * panel * next + lane);
            let bias = self.bias.wrapping_add(F::EACH * (first + panel) * PANEL + lane);
            let (mut sum, mut gate) = (s.load(c), s.splat(0.0));
            if F::EACH > 1 {
                gate = s.load(c.add(next));
            }
            if !self.bias.is_null() {
                sum = s.add(sum, s.load(bias));
                if F::EACH > 1 {
                    gate = s.add(gate, s.load(bias.add(PANEL)));
                }
            }
            F::apply(s, sum, gate)
        }
    }
}
