//! A whole matrix product, cut into tasks for all threads.

use super::product::{Operands, Panels, product, room};
use super::{Epilogue, Target};
use crate::buffer::{SharedPtr, with_scratch};
use crate::isa::Isa;
use crate::pieces::{self, Cut};
use crate::pool::{for_each, threads};
use crate::simd::{Kernel, PANEL, Simd};

/// About the most rows of a task. With 320 of their columns, 240 KiB, they stay in the L2 cache while one panel of
/// weights after the other is multiplied.
const ROWS: usize = 192;

/// The most output panels of a task: 320 and 640 columns, the narrowest and commonest layers, divide into equal groups.
const PANELS: usize = 10;

/// Rows times packed weights, with an epilogue, into a target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Multiply<'a> {
    pub(crate) main: Operands<'a>,
    /// What is added to the sums before the epilogue: as many rows, by weights of as many columns in the same order.
    pub(crate) branch: Option<Operands<'a>>,
    /// Whether packed panels alternate between hidden columns and their gates, as GEGLU needs them.
    pub(crate) gated: bool,
    pub(crate) epilogue: Epilogue,
    pub(crate) target: Target,
}

impl Multiply<'_> {
    /// Computes all rows. Cutting into tasks does not change a result.
    ///
    /// # Safety
    /// Rows and target are as large as they say, weights as deep as their rows, and no two rows of the target overlap.
    pub(crate) unsafe fn run(self, isa: Isa) {
        let whole = SharedPtr::new(self);
        let panels = self.epilogue.columns.div_ceil(PANEL);
        let most = pieces::even(self.main.rows.count, ROWS, isa.rows());
        let blocks = self.main.rows.count.div_ceil(most);
        let cut = Cut {
            most: PANELS,
            unit: 2,
            // The rows are read for every group.
            overhead: 1,
        };
        let wide = pieces::shared(threads(), panels, cut, blocks);
        let groups = panels.div_ceil(wide);
        for_each(blocks * groups, |task| {
            let whole = whole.get();
            let (row, panel) = (task / groups * most, task % groups * wide);
            let count = most.min(whole.main.rows.count - row);
            // SAFETY: the rows exist in all of them, as the caller vouches.
            let (main, branch, target) = unsafe {
                let branch = whole.branch.map(|branch| branch.part(row, count));
                (whole.main.part(row, count), branch, whole.target.part(row, count))
            };
            let each = if whole.gated { 2 } else { 1 };
            let block = Block {
                operands: (main, branch),
                panels: Panels {
                    first: panel * each,
                    count: wide.min(panels - panel) * each,
                    each,
                },
                epilogue: whole.epilogue,
                target,
                scratch: std::ptr::null_mut(),
            };
            with_scratch(room(count, block.panels.count), |scratch| {
                isa.run(Block { scratch, ..block });
            });
        });
    }
}

/// One task: a block of rows times a group of output panels.
#[derive(Clone, Copy)]
struct Block<'a> {
    operands: (Operands<'a>, Option<Operands<'a>>),
    panels: Panels,
    epilogue: Epilogue,
    target: Target,
    scratch: *mut f32,
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            operands,
            panels,
            epilogue,
            target,
            scratch,
        } = self;
        // SAFETY: the buffer has the size that it was asked for; rows, panels and target are those of a checked product.
        unsafe { product(s, operands, panels, (epilogue, target), scratch) }
    }
}
