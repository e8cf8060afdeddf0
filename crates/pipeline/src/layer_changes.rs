//! From the changes that LoRAs make to the layers of one network to what becomes of each layer: a branch beside its
//! weights, or other weights.
//!
//! Which of the two is decided by the LoRAs and the layer alone, so that the same request gives the same bytes whatever
//! else the server does (`docs/adr/0009-loras-beside-the-weights.md`).

use std::collections::HashMap;

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use pentimento_models::{LayerKind, LayerName, LayerPatch, LayerShape, ModelError};
use pentimento_weights::{LayerChange, LoraNetwork, LowRank, ResolvedLora, WeightsError};

/// A layer's LoRAs become a branch up to this rank, all of them together, and other weights beyond it. Measured at
/// Stable Diffusion 1.5's shapes, see the ADR.
const MOST_RANK: usize = 160;

/// The changes of one network's layers, by name, in the order of the LoRAs.
#[derive(Debug, Default)]
pub(crate) struct LayerChanges<'a>(HashMap<&'a str, Vec<Scaled<'a>>>);

/// A change with the strength that it is applied with.
type Scaled<'a> = (&'a LayerChange, f64);

/// Why a layer could not be changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    /// A LoRA or the layer's stored weight.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The network.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A tensor operation.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl<'a> LayerChanges<'a> {
    /// What `loras` change in `network`.
    pub(crate) fn of(network: LoraNetwork, loras: impl IntoIterator<Item = (&'a ResolvedLora, f64)>) -> Self {
        let mut layers: HashMap<&str, Vec<Scaled<'_>>> = HashMap::new();
        for (lora, strength) in loras {
            for (of, layer, change) in &lora.changes {
                if *of == network {
                    layers.entry(layer).or_default().push((change, strength));
                }
            }
        }
        Self(layers)
    }

    fn get(&self, layer: &str) -> &[Scaled<'a>] {
        self.0.get(layer).map_or(&[], Vec::as_slice)
    }

    /// What becomes of a layer; None leaves it as it is. `merged` are changes that the network has in its weights already;
    /// `stored` answers for the checkpoint's own tensors.
    pub(crate) fn patch(
        &self,
        (name, shape): (&LayerName, LayerShape),
        merged: &LayerChanges<'_>,
        stored: &VarBuilder<'_>,
    ) -> Result<Option<LayerPatch>, ChangeError> {
        let changes = self.get(name.as_str());
        if changes.is_empty() {
            return Ok(None);
        }
        if let Some(branch) = branch(shape, changes)? {
            return Ok(Some(branch));
        }
        let all = [merged.get(name.as_str()), changes].concat();
        let weight = stored.get(shape.weight_dims(), &format!("{name}.weight"))?;
        let bias = || stored.get(shape.outputs, &format!("{name}.bias"));
        let bias = shape.bias.then(bias).transpose()?;
        Ok(Some(LayerPatch::Weights {
            weight: changed_weight(&weight, &all)?,
            bias: bias.map(|bias| changed_bias(&bias, &all)).transpose()?,
        }))
    }
}

/// How the numbers of a changed layer are held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holding {
    /// Bytes of one.
    number_bytes: usize,
    /// What a matrix takes is a multiple of this.
    unit: usize,
    /// Whether the matrices of branches are packed, as a processor's are.
    is_packed: bool,
}

impl Holding {
    /// As changed layers are on this device.
    pub(crate) const fn on(device: &pentimento_models::Device) -> Self {
        let unit = match device.gpu() {
            Some(_) => 256,
            None => 1,
        };
        Self {
            // What a processor merges stays in f32, in which branches are, too.
            number_bytes: device.number_bytes(),
            unit,
            is_packed: device.gpu().is_none(),
        }
    }

    fn bytes(self, numbers: usize) -> u64 {
        let bytes = numbers.saturating_mul(self.number_bytes);
        bytes.checked_next_multiple_of(self.unit).unwrap_or(bytes) as u64
    }

    /// About what a branch of this rank takes beside a weight (outputs, inputs, …).
    fn bytes_of_branch(self, rank: usize, dims: &[usize]) -> u64 {
        if self.is_packed {
            return self.bytes(numbers_of_packed_branch(rank, dims));
        }
        let sides = dims.iter().take(2);
        sides.map(|side| self.bytes(rank * side)).sum()
    }
}

/// About how many bytes a network holds beyond the one that it is a copy of, when layers of these shapes are changed by
/// LoRAs of these ranks; no rank is that of a change that is no branch but other weights.
pub(crate) fn expected_bytes<'a>(
    layers: impl IntoIterator<Item = (&'a str, &'a [usize], Option<usize>)>,
    holding: Holding,
) -> u64 {
    let mut ranks: HashMap<&str, (&[usize], Option<usize>)> = HashMap::new();
    for (layer, dims, rank) in layers {
        let (_, sum) = ranks.entry(layer).or_insert((dims, Some(0)));
        *sum = sum.zip(rank).map(|(sum, rank)| sum.saturating_add(rank));
    }
    let bytes = |(dims, rank): &(&[usize], Option<usize>)| -> u64 {
        match rank {
            Some(rank) if *rank <= MOST_RANK => holding.bytes_of_branch(*rank, dims),
            _ => holding.bytes(dims.iter().product()),
        }
    };
    ranks.values().map(bytes).sum()
}

/// About how many numbers of f32 a branch of this rank takes beside a weight (outputs, inputs, …). Packed weights are filled up: the
/// columns of each matrix to sixteen, and in bfloat16, of which two take the place of one, the terms of its sums to 32.
fn numbers_of_packed_branch(rank: usize, dims: &[usize]) -> usize {
    const COLUMNS: usize = 16;
    const TERMS: usize = 32;
    let side = |at: usize| dims.get(at).copied().unwrap_or(1);
    let terms = rank.max(rank.next_multiple_of(TERMS) / 2);
    let inputs = side(1).max(side(1).next_multiple_of(TERMS) / 2);
    rank.next_multiple_of(COLUMNS) * inputs + side(0).next_multiple_of(COLUMNS) * terms
}

fn rank((change, _): &Scaled<'_>) -> Option<usize> {
    change.low_rank()?.down.dims().first().copied()
}

/// All changes as one branch of their ranks together. None where one of them is of another form, or they are too many.
fn branch(shape: LayerShape, changes: &[Scaled<'_>]) -> Result<Option<LayerPatch>, ChangeError> {
    if !matches!(shape.kind, LayerKind::Linear | LayerKind::Pointwise) {
        return Ok(None);
    }
    let Some(ranks) = changes.iter().map(rank).collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    if ranks.iter().sum::<usize>() > MOST_RANK {
        return Ok(None);
    }
    let low_rank: Vec<_> = changes
        .iter()
        .filter_map(|(change, strength)| Some((change.low_rank()?, *strength)))
        .collect();
    let downs: Vec<&Tensor> = low_rank.iter().map(|(change, _)| change.down).collect();
    Ok(Some(LayerPatch::Branch {
        down: Tensor::cat(&downs, 0)?,
        up: scaled_side_by_side(&low_rank)?,
    }))
}

/// The matrices (outputs, rank) of all changes in one of their ranks together, each scaled. Row by row, since candle's
/// concatenation along the second dimension transposes everything twice: most of what a set of five LoRAs took.
fn scaled_side_by_side(changes: &[(LowRank<'_>, f64)]) -> Result<Tensor, ChangeError> {
    let mut columns = Vec::with_capacity(changes.len());
    for (change, strength) in changes {
        let up = change.up.to_dtype(DType::F32)?;
        let (outputs, rank) = up.dims2()?;
        let numbers = up.flatten_all()?.to_vec1::<f32>()?;
        columns.push((outputs, rank, numbers, (change.scale * strength) as f32));
    }
    let outputs = columns.first().map_or(0, |(outputs, ..)| *outputs);
    let ranks: usize = columns.iter().map(|(_, rank, ..)| rank).sum();
    let mut all = Vec::with_capacity(outputs * ranks);
    for output in 0..outputs {
        for (_, rank, numbers, scale) in &columns {
            all.extend(
                numbers[output * rank..][..*rank]
                    .iter()
                    .map(|number| number * scale),
            );
        }
    }
    Ok(Tensor::from_vec(all, (outputs, ranks), &Device::Cpu)?)
}

/// W + Σ delta, in f32; each delta is computed from W.
fn changed_weight(stored: &Tensor, changes: &[Scaled<'_>]) -> Result<Tensor, ChangeError> {
    let stored = stored.to_dtype(DType::F32)?;
    let mut weight = stored.clone();
    for (change, strength) in changes {
        // A 1x1 convolution may be stored as a matrix, and the other way round.
        let delta = change.weight_delta(&stored.reshape(change.weight_dims())?, *strength)?;
        weight = (weight + delta.reshape(stored.shape())?)?;
    }
    Ok(weight)
}

/// The same for a bias.
fn changed_bias(stored: &Tensor, changes: &[Scaled<'_>]) -> Result<Tensor, ChangeError> {
    let stored = stored.to_dtype(DType::F32)?;
    let mut bias = stored.clone();
    for (change, strength) in changes {
        if let Some(delta) = change.bias_delta(Some(&stored), *strength)? {
            bias = (bias + delta)?;
        }
    }
    Ok(bias)
}

/// The tensors of a checkpoint with `changes` merged into them, for a network's constructor. What is changed is f32.
pub(crate) fn merged_into<'a>(stored: VarBuilder<'a>, changes: LayerChanges<'a>) -> VarBuilder<'a> {
    let backend: Box<dyn SimpleBackend + 'a> = Box::new(Merged { stored, changes });
    VarBuilder::from_backend(backend, DType::F32, Device::Cpu)
}

struct Merged<'a> {
    stored: VarBuilder<'a>,
    changes: LayerChanges<'a>,
}

impl Merged<'_> {
    fn changed(&self, name: &str, stored: Tensor) -> candle_core::Result<Tensor> {
        let changed = if let Some(layer) = name.strip_suffix(".weight") {
            match self.changes.get(layer) {
                [] => return Ok(stored),
                changes => changed_weight(&stored, changes),
            }
        } else if let Some(layer) = name.strip_suffix(".bias") {
            match self.changes.get(layer) {
                [] => return Ok(stored),
                changes => changed_bias(&stored, changes),
            }
        } else {
            return Ok(stored);
        };
        changed.map_err(candle_core::Error::wrap)
    }
}

impl SimpleBackend for Merged<'_> {
    fn get(&self, s: Shape, name: &str, init: Init, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        self.changed(name, self.stored.get_with_hints(s, name, init)?)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, _: &Device) -> candle_core::Result<Tensor> {
        self.changed(name, self.stored.get_unchecked_dtype(name, dtype)?)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.stored.contains_tensor(name)
    }
}

#[cfg(test)]
mod tests {
    use pentimento_models::Device as Place;

    use super::*;

    /// A branch of rank 1 takes sixteen columns.
    #[test]
    fn a_branch_takes_no_more_than_expected_and_not_much_less() {
        let numbers = |dims: (usize, usize)| Tensor::ones(dims, DType::F32, &Device::Cpu).unwrap();
        for device in [Place::Cpu, Place::CpuInBf16] {
            for (outputs, inputs) in [(320, 768), (33, 50)] {
                let layer =
                    pentimento_kernels::Linear::new(&numbers((outputs, inputs)), None, &device).unwrap();
                for rank in [1, 4, 16, 20, 33, MOST_RANK] {
                    let branch = layer.branch(&numbers((rank, inputs)), &numbers((outputs, rank)));
                    let held = branch.unwrap().size_bytes() as u64;
                    let dims = [outputs, inputs];
                    let expected = expected_bytes([("layer", &dims[..], Some(rank))], Holding::on(&device));
                    let range = held..=2 * held;
                    let what = format!("{outputs} x {inputs}, rank {rank}, {}", device.precision());
                    assert!(
                        range.contains(&expected),
                        "{what}: {held} held, {expected} expected"
                    );
                }
            }
        }
    }
}
