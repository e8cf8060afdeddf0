//! What one forward of the UNet takes, and whether it fits the network.

use super::config::UNetConfig;
use super::cross_attn_kv::PreparedConditioning;
use super::row_network::RowNetwork;
use crate::ModelError;
use crate::layers::HostTensor;

/// P images of one forward, in main memory, which may differ in everything but their shapes, and their B rows.
#[derive(Clone, Copy, Debug)]
pub struct UNetInput<'a> {
    /// (P, C, h, w), any h and w.
    pub sample: &'a HostTensor,
    /// One for each image.
    pub timesteps: &'a [f32],
    /// One for each of B rows, all of one shape, from [`super::UNet::prepare`].
    pub conditioning: &'a [PreparedConditioning],
    /// How many of these rows each image has, B in all, image by image; empty stands for one each. What comes before the
    /// first cross-attention is computed once for all rows of an image.
    pub rows: &'a [usize],
    /// (P, E) from [`super::guidance_embedding`], for a network whose configuration has `time_cond_proj_dim` E; without it such
    /// a network sees no guidance.
    pub guidance_embedding: Option<&'a HostTensor>,
    /// Whether each image merges half of its tokens before self-attention on the outermost level, which is faster for
    /// large images and changes them a little; empty stands for no image.
    pub merging: &'a [bool],
    /// The network of each image, which has to have the programs of the one that predicts; empty stands for that one.
    pub networks: &'a [RowNetwork],
}

impl UNetInput<'_> {
    /// Whether every input fits a network of this configuration with so many cross-attentions.
    pub(super) fn check(&self, config: &UNetConfig, cross_attns: usize) -> Result<(), ModelError> {
        let p = self.sample.dims().first().copied().unwrap_or(0);
        let c = config.in_channels;
        let fits = matches!(*self.sample.dims(), [p, found, h, w] if p * h * w > 0 && found == c);
        check(fits, "latent", self.sample.dims(), || format!("(P, {c}, h, w)"))?;
        let count = self.timesteps.len();
        check(count == p, "timesteps", &[count], || format!("({p})"))?;
        let fits = self.rows.is_empty() || self.rows.len() == p && !self.rows.contains(&0);
        check(fits, "rows of each image", self.rows, || {
            format!("{p} numbers from 1 on")
        })?;
        let b = if self.rows.is_empty() {
            p
        } else {
            self.rows.iter().sum()
        };
        self.check_conditioning(b, cross_attns)?;
        let count = self.merging.len();
        check(count == 0 || count == p, "merging flags", &[count], || {
            format!("({p})")
        })?;
        match (self.guidance_embedding, config.time_cond_proj_dim) {
            (None, _) => Ok(()),
            (Some(found), Some(e)) => {
                let found = found.dims();
                check(*found == [p, e], "guidance embedding", found, || {
                    format!("({p}, {e})")
                })
            }
            (Some(_), None) => Err(ModelError::NotTaken {
                network: "UNet",
                input: "guidance embedding",
            }),
        }
    }

    /// As many rows as expected, of one shape, prepared by a network with as many cross-attentions.
    fn check_conditioning(&self, count: usize, cross_attns: usize) -> Result<(), ModelError> {
        let rows = self.conditioning;
        let shape = rows.first().map(PreparedConditioning::shape).unwrap_or_default();
        let fits = |row: &&PreparedConditioning| row.layers() == cross_attns && row.shape() == shape;
        let odd = rows.iter().find(|row| !fits(row)).or(rows.first());
        let found = odd.map_or((0, 0), |row| (row.layers(), row.shape().tokens));
        check(
            rows.len() == count && rows.iter().all(|row| fits(&row)),
            "conditioning",
            &[rows.len(), found.0, found.1],
            || {
                format!(
                    "{count} rows for {cross_attns} layers, all of {} tokens",
                    shape.tokens
                )
            },
        )
    }
}

fn check(
    fits: bool,
    tensor: &'static str,
    found: &[usize],
    expected: impl FnOnce() -> String,
) -> Result<(), ModelError> {
    if fits {
        return Ok(());
    }
    Err(ModelError::Shape {
        tensor,
        found: found.to_vec(),
        expected: expected(),
    })
}
