//! The tests of the tests: a barrier that is left out, a shuffle over too few lanes and swapped fragments are found by what
//! the other tests compare, in at least one order of threads. A kernel whose faults are not found is not tested.

use std::collections::BTreeSet;

use super::attention::on_fragments;
use super::{attention, low_rank, norm, token_merge};
use crate::kernels::FILES;
use crate::testing::{compute, distance, numbers};
use crate::{
    AttnMask, DType, Emulation, Error, Gpu, GroupNorm, HostData, Input, InputShape, LayerNorm, Program,
    ThreadOrder, attend,
};

/// How far a result is from the reference in f64.
type Check = fn(&Gpu) -> f64;

/// Every fault that can be planted, and a computation that has to go wrong with it.
const FAULTS: &[(&str, Check)] = &[
    ("moments_are_there", group_norm),
    ("coefficients_are_there", group_norm),
    ("keys_were_read", attention),
    ("keys_are_there", attention),
    ("weights_are_there", attention),
    ("tiles_were_read", tiles),
    ("tiles_are_there", tiles),
    ("slices_were_read", token_merge),
    ("slices_are_there", token_merge),
    ("scores_were_read", token_merge),
    ("scores_are_there", token_merge),
    ("stretches_are_counted", token_merge),
    ("stretches_are_summed", token_merge),
    ("places_are_there", token_merge),
    ("shuffle", token_merge),
    ("shuffle", layer_norm),
    ("shuffle", attention),
    ("shuffle", tiles),
    ("fragments", tiles),
    ("factors_were_read", low_rank_f32),
    ("factors_are_there", low_rank_f32),
    ("slabs_were_read", low_rank_f16),
    ("slabs_are_there", low_rank_f16),
    ("fragments", low_rank_f16),
];

fn group_norm(gpu: &Gpu) -> f64 {
    let shape @ [rows, pixels, channels, groups] = [2, 63, 40, 8];
    let (weight, bias) = norm::weights(channels);
    let x = numbers(1, rows * pixels * channels, DType::F32);
    let layer = GroupNorm::new(gpu, &weight, &bias, groups, 1e-5).unwrap();
    let got = compute(gpu, DType::F32, &[(&[rows, pixels, channels], &x)], |x| {
        Ok(vec![layer.forward(&x[0], true)?])
    });
    distance(
        &got[0],
        &norm::reference(&norm::wide(&x), shape, (&weight, &bias), true),
    )
}

fn layer_norm(gpu: &Gpu) -> f64 {
    let (weight, bias) = norm::weights(77);
    let x = numbers(2, 13 * 77, DType::F32);
    let layer = LayerNorm::new(gpu, &weight, &bias, 1e-5).unwrap();
    let got = compute(gpu, DType::F32, &[(&[13, 77], &x)], |x| {
        Ok(vec![layer.forward(&x[0])?])
    });
    distance(
        &got[0],
        &norm::reference(&norm::wide(&x), [13, 1, 77, 1], (&weight, &bias), false),
    )
}

fn attention(gpu: &Gpu) -> f64 {
    let sizes @ [rows, queries, keys, heads, d] = [1, 70, 77, 2, 40];
    let [q, k, v] = [(1, queries), (2, keys), (3, keys)]
        .map(|(seed, tokens)| numbers(seed, rows * tokens * heads * d, DType::F32));
    let given: [(&[usize], &[f32]); 3] = [
        (&[rows, queries, heads * d], &q),
        (&[rows, keys, heads * d], &k),
        (&[rows, keys, heads * d], &v),
    ];
    let got = compute(gpu, DType::F32, &given, |x| {
        Ok(vec![attend(&x[0], &x[1], &x[2], heads, AttnMask::None)?])
    });
    distance(
        &got[0],
        &attention::reference(sizes, [&q, &k, &v], AttnMask::None),
    )
}

fn tiles(gpu: &Gpu) -> f64 {
    let (got, want) = on_fragments(gpu, [1, 70, 77, 2, 40]);
    distance(&got, &want)
}

fn token_merge(gpu: &Gpu) -> f64 {
    token_merge::far_from_reference(gpu, [1, 20, 17, 70, 100])
}

fn low_rank_f32(gpu: &Gpu) -> f64 {
    low_rank::far_from_reference(gpu, DType::F32)
}

fn low_rank_f16(gpu: &Gpu) -> f64 {
    low_rank::far_from_reference(gpu, DType::F16)
}

/// The orders in which the fault shows.
fn found(planted: Option<&'static str>, check: Check) -> Vec<ThreadOrder> {
    let wrong = |order: &ThreadOrder| {
        let gpu = Gpu::emulated(Emulation {
            order: *order,
            planted,
            ..Emulation::default()
        });
        let far = check(&gpu);
        far.is_nan() || far > 1e-3
    };
    ThreadOrder::ALL.into_iter().filter(wrong).collect()
}

#[test]
fn every_planted_fault_is_found() {
    for (fault, check) in FAULTS {
        assert_eq!(found(None, *check), [], "nothing is wrong without {fault}");
        let orders = found(Some(fault), *check);
        assert!(!orders.is_empty(), "{fault} was not found");
        println!("{fault}: {orders:?}");
    }
}

#[test]
fn every_barrier_of_the_kernels_can_be_planted() {
    let mut named = BTreeSet::new();
    for (_, source) in FILES {
        assert!(!source.contains("__sync"), "a barrier without a name");
        assert!(
            !source.contains("atomic"),
            "the order of a sum would depend on the grid"
        );
        for (at, _) in source.match_indices("BARRIER(") {
            let rest = &source[at + "BARRIER(".len()..];
            named.insert(&rest[..rest.find(')').unwrap()]);
        }
    }
    let planted: BTreeSet<&str> = FAULTS
        .iter()
        .map(|(fault, _)| *fault)
        .filter(|fault| !["shuffle", "fragments"].contains(fault))
        .collect();
    assert_eq!(named, planted);
}

/// Threads that wait at different barriers stop the kernel, which would hang a card.
#[test]
fn divergence_is_told() {
    let gpu = Gpu::emulated(Emulation {
        planted: Some("divergence"),
        ..Emulation::default()
    });
    let (weight, bias) = norm::weights(8);
    let layer = GroupNorm::new(&gpu, &weight, &bias, 2, 1e-5).unwrap();
    let shape = [InputShape::new(&[1, 2, 8], DType::F32)];
    let mut program = Program::record(&gpu, &shape, |x| {
        Ok::<_, Error>(vec![layer.forward(&x[0], false)?])
    })
    .unwrap();
    let run = program.run(&[Input::Host(HostData::F32(&[1.0; 16]))]);
    let said = run.unwrap_err().to_string();
    assert!(
        said.contains("divergence") && said.contains("group_norm_sums_f32"),
        "{said}"
    );
}
