//! A whole matrix product, cut into tasks for all threads.

use rayon::prelude::*;

use super::product::{product, room};
use super::{Finish, Target};
use crate::buffer::{Shared, with_scratch};
use crate::isa::Isa;
use crate::packed::Packed;
use crate::pieces;
use crate::simd::{Kernel, PANEL, Rows, Simd};

/// The most rows of a task, or a few more. With 320 of their columns, 240 KiB, they stay in the second cache while panel after panel
/// passes.
const ROWS: usize = 192;

/// The most output panels of a task: 320 and 640 columns, the narrowest and commonest layers, divide into equal groups.
const PANELS: usize = 10;

/// Rows times packed weights, finished into a target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Multiply<'a> {
    pub(crate) packed: &'a Packed,
    /// Whether packed panels are hidden and gate in turn, as GEGLU wants them.
    pub(crate) gated: bool,
    pub(crate) rows: Rows,
    pub(crate) finish: Finish,
    pub(crate) target: Target,
}

impl Multiply<'_> {
    /// Computes all rows. Cutting into tasks does not change a result.
    ///
    /// # Safety
    /// Rows and target are as large as they say, the weights as deep as the rows, and no two rows of the target overlap.
    pub(crate) unsafe fn run(self, isa: Isa) {
        let whole = Shared::new(self);
        let panels = self.finish.columns.div_ceil(PANEL);
        let wide = pieces::even(panels, PANELS, 2);
        let groups = panels.div_ceil(wide);
        let most = pieces::even(self.rows.count, ROWS, isa.rows());
        let blocks = self.rows.count.div_ceil(most);
        (0..blocks * groups).into_par_iter().for_each(|task| {
            let whole = whole.get();
            let (row, panel) = (task / groups * most, task % groups * wide);
            let count = most.min(whole.rows.count - row);
            // SAFETY: the rows exist, as the caller vouches.
            let (rows, target) = unsafe { (whole.rows.part(row, count), whole.target.part(row, count)) };
            let mut block = Block {
                whole: Multiply {
                    rows,
                    target,
                    ..whole
                },
                first: panel,
                panels: wide.min(panels - panel),
                sums: std::ptr::null_mut(),
            };
            with_scratch(block.sums_size() + room(count), |sums| {
                block.sums = sums;
                isa.run(block);
            });
        });
    }
}

/// One task: a block of rows times a group of output panels.
struct Block<'a> {
    whole: Multiply<'a>,
    first: usize,
    panels: usize,
    /// Room for the sums and then for the product's scratch memory.
    sums: *mut f32,
}

impl Block<'_> {
    /// Packed panels for one of the result.
    fn each(&self) -> usize {
        if self.whole.gated { 2 } else { 1 }
    }

    fn sums_size(&self) -> usize {
        self.panels * self.each() * self.whole.rows.count * PANEL
    }
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Multiply {
            packed,
            gated,
            rows,
            finish,
            target,
        } = self.whole;
        let each = self.each();
        // SAFETY: the buffer has the size that it was asked for; rows, panels and target are those of a checked product.
        unsafe {
            let scratch = self.sums.add(self.sums_size());
            product(
                s,
                rows,
                (packed, self.first * each, self.panels * each),
                self.sums,
                scratch,
            );
            finish.block(s, (self.first, self.panels, gated), self.sums, target);
        }
    }
}
