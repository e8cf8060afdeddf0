//! Low-rank products beside a layer: for all rows, and for rows that have other ones or none.

use std::sync::Arc;

use half::f16;

use crate::testing::{FLOATS, assert_close, device, distance, each_way, emulated, numbers};
use crate::{
    DType, Error, Gpu, HostData, Input, InputShape, LayerOfSets, LowRank, LowRankSet, Program, Result,
    Tensor, ThreadOrder, add_low_rank,
};

/// Rows, lines of a row, inputs and outputs.
type Sizes = [usize; 4];

const SIZES: [Sizes; 4] = [[2, 70, 33, 66], [3, 1, 8, 5], [1, 5, 40, 130], [2, 17, 64, 16]];

/// The matrices of rank `rank`, as numbers and on the device.
struct Product {
    rank: usize,
    down: Vec<f32>,
    up: Vec<f32>,
    low: Arc<LowRank>,
}

fn product(gpu: &Gpu, seed: u32, [_, _, inputs, outputs]: Sizes, rank: usize, dtype: DType) -> Product {
    let (down, up) = (
        numbers(seed, rank * inputs, dtype),
        numbers(seed + 1, outputs * rank, dtype),
    );
    let data = (HostData::F32(&down), HostData::F32(&up));
    let low = LowRank::new(gpu, (outputs, inputs, rank), data, dtype).unwrap();
    assert_eq!((low.rank(), low.sides()), (rank, (inputs, outputs)));
    assert_eq!(low.size_bytes(), rank * (inputs + outputs) * dtype.size_bytes());
    let low = Arc::new(low);
    Product { rank, down, up, low }
}

/// y + up (down x), where what is between both is rounded as it is on a device.
fn reference(
    [_, lines, inputs, outputs]: Sizes,
    [x, y]: [&[f32]; 2],
    of_row: &[Option<&Product>],
    dtype: DType,
) -> Vec<f64> {
    let rounded = |number: f64| match dtype {
        DType::F16 => f16::from_f64(number).to_f64(),
        DType::F32 | DType::I32 | DType::Address => number,
    };
    let mut all = Vec::with_capacity(y.len());
    for (line, y) in y.chunks(outputs).enumerate() {
        let x = &x[line * inputs..][..inputs];
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let between: Vec<f64> = match of_row[line / lines] {
            Some(product) => product.down.chunks(inputs).map(|d| rounded(dot(d, x))).collect(),
            None => Vec::new(),
        };
        for (output, y) in y.iter().enumerate() {
            let sum: f64 = (between.iter().enumerate())
                .map(|(j, t)| t * of_row[line / lines].map_or(0.0, |p| f64::from(p.up[output * p.rank + j])))
                .sum();
            all.push(f64::from(*y) + sum);
        }
    }
    all
}

fn halves(numbers: &[f32]) -> Vec<f16> {
    numbers.iter().map(|x| f16::from_f32(*x)).collect()
}

/// A program that adds what the sets have beside `of.layer`, or `own` has, to a copy of its second input.
fn recorded(
    gpu: &Gpu,
    [rows, lines, inputs, outputs]: Sizes,
    dtype: DType,
    (own, of): (Option<&LowRank>, LayerOfSets),
) -> Result<Program> {
    let shapes = [
        InputShape::new(&[rows, lines, inputs], dtype),
        InputShape::new(&[rows, lines, outputs], dtype),
        InputShape::new(&[rows], DType::Address),
    ];
    Program::record(gpu, &shapes, |x| {
        let y = match own {
            Some(own) => own.add(&x[0], x[1].clone())?,
            None => add_low_rank(&x[0], x[1].clone(), &x[2], of)?,
        };
        Ok(vec![y])
    })
}

fn run(
    program: &mut Program,
    dtype: DType,
    [x, y]: [&[f32]; 2],
    sets: &[Option<&LowRankSet>],
) -> Result<Vec<f32>> {
    let (x16, y16) = (halves(x), halves(y));
    let data = match dtype {
        DType::F16 => [HostData::F16(&x16), HostData::F16(&y16)],
        DType::F32 | DType::I32 | DType::Address => [HostData::F32(x), HostData::F32(y)],
    };
    let inputs = [Input::Host(data[0]), Input::Host(data[1]), Input::Sets(sets)];
    program.run(&inputs)?[0].download()
}

fn given([rows, lines, inputs, outputs]: Sizes, dtype: DType) -> (Vec<f32>, Vec<f32>) {
    let x = numbers(1, rows * lines * inputs, dtype);
    (x, numbers(2, rows * lines * outputs, dtype))
}

/// The second of two layers, beside the first of which there is something else.
const SECOND: LayerOfSets = LayerOfSets { layer: 1, room: 0 };

fn set_of(gpu: &Gpu, dtype: DType, layers: Vec<Option<Arc<LowRank>>>) -> LowRankSet {
    LowRankSet::new(gpu, layers, dtype).unwrap()
}

#[test]
fn products_beside_a_layer_are_their_definition() {
    for sizes in SIZES {
        for rank in [1, 16, 35] {
            each_way(|gpu, dtype| {
                let (x, y) = given(sizes, dtype);
                let product = product(gpu, 5, sizes, rank, dtype);
                let own = (Some(&*product.low), SECOND);
                let mut program = recorded(gpu, sizes, dtype, own).unwrap();
                let got = run(&mut program, dtype, [&x, &y], &vec![None; sizes[0]]).unwrap();
                let want = reference(sizes, [&x, &y], &vec![Some(&product); sizes[0]], dtype);
                assert_close(&format!("rank {rank} beside {sizes:?}"), dtype, &got, &want);
            });
        }
    }
}

/// Rows of three ranks and one with nothing in one program, each the same to the last bit as alone, whoever has recorded it.
#[test]
fn a_row_has_its_own_products_and_no_other_ones() {
    let sizes @ [rows, lines, inputs, outputs] = [5, 19, 24, 70];
    each_way(|gpu, dtype| {
        let (x, y) = given(sizes, dtype);
        let products = [(5, 3), (7, 80), (9, 16)].map(|(seed, rank)| product(gpu, seed, sizes, rank, dtype));
        let [few, many, some] = &products;
        let with = |product: &Product| {
            let other = Some(Arc::clone(&few.low));
            set_of(gpu, dtype, vec![other, Some(Arc::clone(&product.low))])
        };
        let sets = [
            with(few),
            with(many),
            with(some),
            set_of(gpu, dtype, vec![None, None]),
        ];
        let of_row = [Some(few), Some(many), None, Some(some), None];
        let its_set = [
            Some(&sets[0]),
            Some(&sets[1]),
            None,
            Some(&sets[2]),
            Some(&sets[3]),
        ];
        let room = |room| (None, LayerOfSets { room, ..SECOND });
        let mut program = recorded(gpu, sizes, dtype, room(96)).unwrap();
        let together = run(&mut program, dtype, [&x, &y], &its_set).unwrap();
        assert_close(
            "rows",
            dtype,
            &together,
            &reference(sizes, [&x, &y], &of_row, dtype),
        );
        let (in_x, in_y) = (lines * inputs, lines * outputs);
        for row in 0..rows {
            let alone = [1, lines, inputs, outputs];
            let (x, y) = (&x[row * in_x..][..in_x], &y[row * in_y..][..in_y]);
            let rank = of_row[row].map_or(0, |product| product.rank);
            let want = &together[row * in_y..][..in_y];
            let mut program = recorded(gpu, alone, dtype, room(rank.max(1))).unwrap();
            let found = run(&mut program, dtype, [x, y], &its_set[row..=row]).unwrap();
            assert_eq!(found, want, "row {row} in {dtype:?}, in a program of its own");
            if let Some(product) = of_row[row] {
                let mut program = recorded(gpu, alone, dtype, (Some(&product.low), SECOND)).unwrap();
                let found = run(&mut program, dtype, [x, y], &[None]).unwrap();
                assert_eq!(found, want, "row {row} in {dtype:?}, by its own matrices");
            } else {
                assert_eq!(want, y, "nothing is added to row {row}");
            }
        }
        // The same program with the sets of other rows, as a graph by now.
        let turned = [its_set[3], its_set[0], its_set[1], its_set[4], its_set[2]];
        let of_turned = [of_row[3], of_row[0], of_row[1], of_row[4], of_row[2]];
        for _ in 0..2 {
            let found = run(&mut program, dtype, [&x, &y], &turned).unwrap();
            assert_close(
                "turned",
                dtype,
                &found,
                &reference(sizes, [&x, &y], &of_turned, dtype),
            );
        }
    });
}

/// Kernels follow addresses, so a set that has something else than the program expects is not let in.
#[test]
fn a_set_that_does_not_fit_the_program_is_refused() {
    let sizes @ [rows, _, inputs, outputs] = [2, 3, 8, 16];
    let gpu = emulated(ThreadOrder::Ascending);
    let (x, y) = given(sizes, DType::F32);
    let room = LayerOfSets { room: 4, ..SECOND };
    let mut program = recorded(&gpu, sizes, DType::F32, (None, room)).unwrap();
    let fits = product(&gpu, 5, sizes, 4, DType::F32);
    let beside = |low: &Arc<LowRank>| vec![None, Some(Arc::clone(low))];
    let good = set_of(&gpu, DType::F32, beside(&fits.low));
    let mut tried = |set: &LowRankSet| run(&mut program, DType::F32, [&x, &y], &[None, Some(set)]);
    assert!(tried(&good).is_ok());
    let rank = product(&gpu, 5, sizes, 5, DType::F32);
    let wide = product(&gpu, 5, [rows, 3, inputs + 1, outputs], 4, DType::F32);
    let half = product(&gpu, 5, sizes, 4, DType::F16);
    let other = emulated(ThreadOrder::Ascending);
    let elsewhere = product(&other, 5, sizes, 4, DType::F32);
    for (what, set) in [
        (
            "a rank beyond the room",
            set_of(&gpu, DType::F32, beside(&rank.low)),
        ),
        ("other sides", set_of(&gpu, DType::F32, beside(&wide.low))),
        ("other numbers", set_of(&gpu, DType::F16, beside(&half.low))),
        ("fewer layers", set_of(&gpu, DType::F32, vec![None])),
        (
            "another device",
            set_of(&other, DType::F32, beside(&elsewhere.low)),
        ),
    ] {
        let error = tried(&set).unwrap_err();
        assert!(matches!(error, Error::Operands { .. }), "{what}: {error}");
    }
    assert!(LowRankSet::new(&gpu, beside(&elsewhere.low), DType::F32).is_err());
    assert!(LowRankSet::new(&gpu, beside(&half.low), DType::F32).is_err());
    // Nor addresses of whatever origin.
    let shape = [InputShape::new(&[rows], DType::Address)];
    let mut copy = Program::record(&gpu, &shape, Ok::<_, Error>).unwrap();
    let addresses = copy.run(&[Input::Sets(&[Some(&good), None])]).unwrap();
    assert!(copy.run(&[Input::Kept(&addresses[0])]).is_err());
    assert!(copy.run(&[Input::Joined(&[&addresses[0]])]).is_err());
    assert!(addresses[0].download().unwrap().is_empty(), "they are no numbers");
}

#[test]
fn matrices_that_do_not_fit_are_refused() {
    let gpu = emulated(ThreadOrder::Ascending);
    let matrices = |down: usize, up: usize, sides: (usize, usize, usize), dtype| {
        let (down, up) = (vec![0.0; down], vec![0.0; up]);
        LowRank::new(&gpu, sides, (HostData::F32(&down), HostData::F32(&up)), dtype).is_ok()
    };
    assert!(matrices(16, 8, (4, 8, 2), DType::F32));
    assert!(!matrices(15, 8, (4, 8, 2), DType::F32));
    assert!(!matrices(16, 9, (4, 8, 2), DType::F32));
    assert!(!matrices(0, 0, (4, 8, 0), DType::F32));
    assert!(!matrices(16, 8, (4, 8, 2), DType::I32));
    let product = product(&gpu, 1, [1, 1, 8, 4], 2, DType::F32);
    let kept = Tensor::upload(&gpu, &[1, 4], HostData::F32(&[0.0; 4])).unwrap();
    for (x, y) in [(7, 4), (8, 5)] {
        let shapes = [
            InputShape::new(&[1, x], DType::F32),
            InputShape::new(&[1, y], DType::F32),
        ];
        let refused = Program::record(&gpu, &shapes, |x| Ok(vec![product.low.add(&x[0], x[1].clone())?]));
        assert!(matches!(refused, Err(Error::Operands { .. })));
    }
    let shape = [InputShape::new(&[1, 8], DType::F32)];
    let refused = Program::record(&gpu, &shape, |x| Ok(vec![product.low.add(&x[0], kept.clone())?]));
    assert!(
        matches!(refused, Err(Error::Operands { .. })),
        "what is kept stays as it is"
    );
}

/// For the planted faults: how far rows of two sets are from their definition.
pub(super) fn far_from_reference(gpu: &Gpu, dtype: DType) -> f64 {
    let sizes = [2, 70, 40, 66];
    let (x, y) = given(sizes, dtype);
    let products = [(5, 20), (7, 33)].map(|(seed, rank)| product(gpu, seed, sizes, rank, dtype));
    let sets = products
        .each_ref()
        .map(|product| set_of(gpu, dtype, vec![Some(Arc::clone(&product.low))]));
    let of = LayerOfSets { layer: 0, room: 33 };
    let mut program = recorded(gpu, sizes, dtype, (None, of)).unwrap();
    let got = run(&mut program, dtype, [&x, &y], &sets.each_ref().map(Some)).unwrap();
    distance(
        &got,
        &reference(sizes, [&x, &y], &products.each_ref().map(Some), dtype),
    )
}

/// Sets of all ranks on a card, where `PENTIMENTO_TEST_GPU` names one, and few in the emulator.
#[test]
fn what_a_row_becomes_does_not_depend_on_the_ranks_beside_it() {
    let gpu = device(ThreadOrder::WarpsRandom);
    let sizes = [2, 33, 40, 72];
    for dtype in FLOATS {
        let (x, y) = given(sizes, dtype);
        let its = product(&gpu, 5, sizes, 8, dtype);
        let its_set = set_of(&gpu, dtype, vec![Some(Arc::clone(&its.low))]);
        let mut seen: Option<Vec<f32>> = None;
        for rank in [1, 8, 64, 160] {
            let beside = product(&gpu, 11, sizes, rank, dtype);
            let beside = set_of(&gpu, dtype, vec![Some(beside.low)]);
            let of = LayerOfSets { layer: 0, room: 160 };
            let mut program = recorded(&gpu, sizes, dtype, (None, of)).unwrap();
            let found = run(&mut program, dtype, [&x, &y], &[Some(&its_set), Some(&beside)]).unwrap();
            let first = found[..found.len() / 2].to_vec();
            assert_eq!(
                seen.get_or_insert_with(|| first.clone()),
                &first,
                "rank {rank} in {dtype:?}"
            );
        }
    }
}
