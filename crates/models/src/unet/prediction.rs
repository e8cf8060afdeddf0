//! One forward of the UNet: its inputs, the way through all blocks, and the prediction.

use super::UNet;
use super::block_inputs::BlockInputs;
use super::computation::Computation;
use super::cross_attn_kv::{InputKv, added_of_rows};
use super::input::UNetInput;
use super::row_map::{Merging, RowMap, images_of_rows};
use super::time_embedding::timestep_embedding;
use crate::layers::{
    ConvFusion, HostTensor, IndexPlace, InputList, Inputs, ProgramMemory, Result, Tensor, TensorPlace,
    channels_first, channels_last,
};

/// Where a forward finds its inputs.
struct Places {
    sample: TensorPlace,
    time: TensorPlace,
    guidance: Option<TensorPlace>,
    images: Option<IndexPlace>,
    added: Option<TensorPlace>,
    kv: InputKv,
}

impl UNet {
    /// One prediction for every row of an input that fits: (B, out, h, w).
    pub(super) fn predict(&self, input: UNetInput<'_>) -> Result<HostTensor> {
        let mut given = InputList::default();
        let (places, merging, key) = self.give(input, &mut given)?;
        let predicted = self.programs.run_one(key, given, |inputs| {
            self.predict_on_device(&places, merging, inputs)
        })?;
        predicted.into_host()
    }

    /// What that would take of the device's memory.
    pub(super) fn measure_prediction(&self, input: UNetInput<'_>) -> Result<Option<ProgramMemory>> {
        let mut given = InputList::default();
        let (places, merging, key) = self.give(input, &mut given)?;
        self.programs.measure(key, &given, |inputs| {
            Ok(vec![self.predict_on_device(&places, merging, inputs)?])
        })
    }

    fn give<'a>(
        &self,
        input: UNetInput<'a>,
        given: &mut InputList<'a>,
    ) -> Result<(Places, Merging, Computation)> {
        let merging = Merging::new(input.timesteps.len(), input.rows, input.merging);
        let places = Places {
            sample: given.host(input.sample.clone()),
            time: given.host(timestep_embedding(input.timesteps, &self.config)?),
            guidance: input
                .guidance_embedding
                .map(|guidance| given.host(guidance.clone())),
            images: images_of_rows(input.rows).map(|rows| given.index(rows)),
            added: match self.config.text_time {
                Some(_) => Some(given.rows(added_of_rows(input.conditioning)?)),
                None => None,
            },
            kv: InputKv::new(input.conditioning, self.cross_attns, given)?,
        };
        let key = Computation::Predict {
            merging: merging.clone(),
            image_runs: places.kv.image_runs(),
        };
        Ok((places, merging, key))
    }

    fn predict_on_device(
        &self,
        places: &Places,
        merging: Merging,
        inputs: &mut Inputs<'_>,
    ) -> Result<Tensor> {
        let sample = inputs.take(places.sample)?;
        // The time embedding's length is the first width, whatever the other sizes are.
        let time = inputs.take(places.time)?;
        let guidance = places.guidance.map(|guidance| inputs.take(guidance));
        let guidance = guidance.transpose()?;
        let added = places.added.map(|added| inputs.take(added)).transpose()?;
        let image_of_row = places.images.map(|images| inputs.index(images));
        let rows = RowMap::new(image_of_row.transpose()?, merging);
        // (P, 1, width) or (B, 1, width), already through the activation that every block applies first.
        let time = self
            .time
            .forward_activated(&time, guidance.as_ref(), (added.as_ref(), &rows))?;
        let inputs = BlockInputs {
            time: &time,
            kv: &places.kv,
            inputs,
            rows: &rows,
        };
        let mut x = self
            .conv_in
            .forward(&channels_last(&sample)?, ConvFusion::default())?;
        if self.config.text_time.is_some() {
            // Rows of an image differ from the first block on, by what their texts add to the time embedding.
            x = rows.expand(&x)?;
        }
        let mut skips = vec![x.clone()];
        for block in &self.down {
            x = block.forward(x, inputs, &mut skips)?;
        }
        x = self.mid.forward(x, inputs)?;
        // Some were kept before the first cross-attention, one for all rows of an image.
        for skip in &mut skips {
            *skip = inputs.rows.expand(skip)?;
        }
        for block in &self.up {
            x = block.forward(x, inputs, &mut skips)?;
        }
        let fusion = ConvFusion {
            norm: Some(&self.norm_out),
            ..ConvFusion::default()
        };
        channels_first(&self.conv_out.forward(&x, fusion)?)
    }
}
