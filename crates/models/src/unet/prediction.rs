//! One forward of the UNet: its inputs, the way through all blocks, and the prediction.

use super::UNet;
use super::block_inputs::BlockInputs;
use super::computation::Prediction;
use super::cross_attn_kv::{InputKv, added_of_rows};
use super::input::UNetInput;
use super::row_map::{Merging, RowMap, images_of_rows};
use super::time_embedding::timestep_embedding;
use crate::layers::{
    BranchSet, ConvFusion, HostTensor, IndexPlace, InputList, Inputs, ProgramMemory, Result, SetsPlace,
    Tensor, TensorPlace, channels_first, channels_last, give_branches_of_rows,
};

/// Where a forward finds its inputs.
struct Places {
    sample: TensorPlace,
    time: TensorPlace,
    guidance: Option<TensorPlace>,
    images: Option<IndexPlace>,
    added: Option<TensorPlace>,
    kv: InputKv,
    /// Of the images, and of the rows where those are others.
    sets: Vec<SetsPlace>,
}

impl UNet {
    /// One prediction for every row of an input that fits: (B, out, h, w).
    pub(super) fn predict(&self, input: UNetInput<'_>) -> Result<HostTensor> {
        let mut given = InputList::default();
        let (places, key) = self.give(input, &mut given)?;
        let predicted = self.predictions.run_one(key.clone(), given, |inputs| {
            self.predict_on_device(&places, key, inputs)
        })?;
        predicted.into_host()
    }

    /// What that would take of the device's memory.
    pub(super) fn measure_prediction(&self, input: UNetInput<'_>) -> Result<Option<ProgramMemory>> {
        let mut given = InputList::default();
        let (places, key) = self.give(input, &mut given)?;
        self.predictions.measure(key.clone(), &given, |inputs| {
            Ok(vec![self.predict_on_device(&places, key, inputs)?])
        })
    }

    fn give<'a>(&'a self, input: UNetInput<'a>, given: &mut InputList<'a>) -> Result<(Places, Prediction)> {
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
            sets: Vec::new(),
        };
        let (rooms, sets) = self.give_sets(input, given);
        let key = Prediction {
            merging,
            image_runs: places.kv.image_runs(),
            rooms,
        };
        Ok((Places { sets, ..places }, key))
    }

    /// Gives the images' sets of branches, and those of their rows where these are more, to a computation; and says the room that
    /// their ranks need. Nothing is given where no set has any.
    fn give_sets<'a>(
        &'a self,
        input: UNetInput<'a>,
        given: &mut InputList<'a>,
    ) -> (Vec<usize>, Vec<SetsPlace>) {
        let of_images: Vec<Option<&BranchSet>> = match input.networks {
            [] => vec![self.branches.as_deref(); input.timesteps.len()],
            networks => networks
                .iter()
                .map(|network| network.branches.as_deref())
                .collect(),
        };
        let rooms = BranchSet::rooms(&of_images);
        if rooms.is_empty() {
            return (rooms, Vec::new());
        }
        let of_rows = images_of_rows(input.rows).map(|images| {
            let sets = images.into_iter().map(|image| of_images[image as usize]);
            sets.collect::<Vec<_>>()
        });
        let sets = std::iter::once(of_images).chain(of_rows);
        (rooms, sets.map(|sets| given.sets(sets)).collect())
    }

    /// The network as a program for rows of several sets sees it, whatever set it has itself.
    fn for_sets(&self, places: &[SetsPlace], rooms: &[usize], inputs: &Inputs<'_>) -> Result<Option<Self>> {
        if self.branches.is_none() && places.is_empty() {
            return Ok(None);
        }
        let sets = places.iter().map(|place| inputs.sets(*place));
        let sets = sets.collect::<Result<Vec<_>>>()?;
        let mut network = self.clone();
        give_branches_of_rows(|visit| network.walk(visit), &sets, rooms);
        Ok(Some(network))
    }

    fn predict_on_device(&self, places: &Places, key: Prediction, inputs: &mut Inputs<'_>) -> Result<Tensor> {
        let Prediction { merging, rooms, .. } = key;
        match self.for_sets(&places.sets, &rooms, inputs)? {
            Some(network) => network.predict_rows(places, merging, inputs),
            None => self.predict_rows(places, merging, inputs),
        }
    }

    fn predict_rows(&self, places: &Places, merging: Merging, inputs: &mut Inputs<'_>) -> Result<Tensor> {
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
