//! Programs: recorded once, run often, in memory that is known beforehand; and what faults of a device come to.

use crate::driver::emulated::WORKSPACE;
use crate::testing::{assert_close, emulated, numbers};
use crate::{
    Activation, DType, Emulation, Error, Fault, Gpu, HostData, Input, InputShape, Linear, PlannedFault,
    Program, Result, Tensor, ThreadOrder, activate, add,
};

const SHAPE: [usize; 2] = [3, 64];

/// Two linear layers with SiLU between them, and a residual: several tensors that live for a while.
fn block(gpu: &Gpu) -> Result<Program> {
    let weight = numbers(1, 64 * 64, DType::F32);
    let first = Linear::new(gpu, (64, 64), HostData::F32(&weight), None, DType::F32)?;
    let second = Linear::new(gpu, (64, 64), HostData::F32(&weight), None, DType::F32)?;
    Program::record(gpu, &[InputShape::new(&SHAPE, DType::F32)], |x| {
        let mut y = x[0].clone();
        for _ in 0..4 {
            y = second.forward(&activate(&first.forward(&y, None)?, Activation::Silu)?, Some(&y))?;
        }
        Ok(vec![y])
    })
}

fn run(program: &mut Program, x: &[f32]) -> Result<Vec<f32>> {
    program.run(&[Input::Host(HostData::F32(x))])?[0].download()
}

#[test]
fn a_program_runs_again_with_other_numbers_and_keeps_its_weights() {
    let gpu = emulated(ThreadOrder::Ascending);
    let mut program = block(&gpu).unwrap();
    let (a, b) = (numbers(2, 192, DType::F32), numbers(3, 192, DType::F32));
    let first = run(&mut program, &a).unwrap();
    let other = run(&mut program, &b).unwrap();
    assert_ne!(first, other);
    assert!(
        first.iter().chain(&other).all(|x| x.is_finite()),
        "nothing reads what was freed"
    );
    assert_eq!(run(&mut program, &a).unwrap(), first);
    let used = gpu.used_bytes();
    let on_host = program.run_to_host(&[Input::Host(HostData::F32(&b))]).unwrap();
    assert_eq!(on_host, [other]);
    assert_eq!(gpu.used_bytes(), used, "a run to the host keeps nothing");
    let bound = program.bound.as_ref().unwrap();
    assert!(bound.graph.is_some(), "from the second time on it runs as one");
}

#[test]
fn the_arena_holds_what_is_alive_at_a_time_and_no_more() {
    let gpu = emulated(ThreadOrder::Ascending);
    let mut program = block(&gpu).unwrap();
    // The input, the state, two between the layers and what comes out: five tensors at a time, of the thirteen in all; and
    // what the library works in.
    let tensor = 3 * 64 * 4;
    assert!(
        program.arena_bytes() <= 5 * tensor + WORKSPACE,
        "{}",
        program.arena_bytes()
    );
    assert_eq!(program.arena_bytes() % tensor, WORKSPACE, "it is counted");
    let weights = gpu.used_bytes();
    assert_eq!(weights, 2 * 64 * 64 * 4, "recording takes no memory");
    run(&mut program, &numbers(2, 192, DType::F32)).unwrap();
    assert_eq!(gpu.used_bytes(), weights + program.arena_bytes());
    gpu.release_arena();
    assert_eq!(gpu.used_bytes(), weights);
    drop(program);
    assert_eq!(
        gpu.used_bytes(),
        0,
        "its weights go with the last program that names them"
    );
}

/// A larger program moves the arena; a smaller one that was bound to the old place has to notice.
#[test]
fn programs_share_an_arena_that_grows() {
    let gpu = emulated(ThreadOrder::Ascending);
    let mut small = block(&gpu).unwrap();
    let x = numbers(2, 192, DType::F32);
    let before = run(&mut small, &x).unwrap();
    let shape = [InputShape::new(&[1 << 16], DType::F32)];
    let mut large = Program::record(&gpu, &shape, |x| Ok::<_, Error>(vec![add(&x[0], &x[0])?])).unwrap();
    let y = numbers(3, 1 << 16, DType::F32);
    let doubled: Vec<f64> = y.iter().map(|y| 2.0 * f64::from(*y)).collect();
    assert_close("sum", DType::F32, &run(&mut large, &y).unwrap(), &doubled);
    assert_eq!(run(&mut small, &x).unwrap(), before);
}

#[test]
fn inputs_are_numbers_kept_tensors_or_rows_of_several() {
    let gpu = emulated(ThreadOrder::Ascending);
    let shape = [InputShape::new(&SHAPE, DType::F32)];
    let mut program = Program::record(&gpu, &shape, |x| {
        Ok::<_, Error>(vec![activate(&x[0], Activation::Relu)?])
    })
    .unwrap();
    let x = numbers(4, 192, DType::F32);
    let want: Vec<f32> = x.iter().map(|x| x.max(0.0)).collect();
    let all = Tensor::upload(&gpu, &SHAPE, HostData::F32(&x)).unwrap();
    let (first, rest) = (all.narrow_rows(0, 1).unwrap(), all.narrow_rows(1, 2).unwrap());
    let inputs = [
        Input::Host(HostData::F32(&x)),
        Input::Kept(&all),
        Input::Joined(&[&first, &rest]),
    ];
    for input in inputs {
        assert_eq!(program.run(&[input]).unwrap()[0].download().unwrap(), want);
    }
    let ids = [0; 192];
    for wrong in [
        Input::Host(HostData::F32(&x[1..])),
        Input::Host(HostData::I32(&ids)),
        Input::Kept(&first),
        Input::Joined(&[&first, &first]),
        Input::Joined(&[]),
    ] {
        assert!(
            matches!(program.run(&[wrong]), Err(Error::Operands { .. })),
            "{wrong:?}"
        );
    }
    assert!(program.run(&[]).is_err());
}

#[test]
fn a_budget_is_a_limit_and_nothing_is_lost_at_it() {
    let gpu = emulated(ThreadOrder::Ascending);
    let mut program = block(&gpu).unwrap();
    let x = numbers(2, 192, DType::F32);
    let weights = gpu.used_bytes();
    gpu.set_budget(weights + program.arena_bytes() - 1);
    assert!(matches!(run(&mut program, &x), Err(Error::OutOfMemory { .. })));
    assert_eq!(gpu.used_bytes(), weights);
    gpu.set_budget(weights + program.arena_bytes() + 3 * 64 * 4);
    assert!(run(&mut program, &x).is_ok());
}

/// A device that meets this fault.
fn faulty(fault: Fault, at: usize) -> Gpu {
    Gpu::emulated(Emulation {
        fault: Some(PlannedFault { fault, at }),
        ..Emulation::default()
    })
}

#[test]
fn out_of_memory_at_any_allocation_is_an_error_after_which_all_goes_on() {
    let x = numbers(2, 192, DType::F32);
    let want = run(&mut block(&emulated(ThreadOrder::Ascending)).unwrap(), &x).unwrap();
    let mut met = 0;
    for at in 1.. {
        let gpu = faulty(Fault::OutOfMemory, at);
        let first = block(&gpu).and_then(|mut program| run(&mut program, &x));
        let Err(error) = first else { break };
        assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
        assert_eq!(error.kind(), pentimento_types::ErrorKind::OutOfDeviceMemory);
        assert_eq!(run(&mut block(&gpu).unwrap(), &x).unwrap(), want);
        met += 1;
    }
    assert_eq!(met, 4, "two weights, the output and the arena");
}

#[test]
fn a_failed_launch_or_a_lost_device_stays_failed() {
    let x = numbers(2, 192, DType::F32);
    for fault in [Fault::LaunchFailure, Fault::DeviceLost] {
        let mut met = 0;
        for at in 1.. {
            let gpu = faulty(fault, at);
            let mut program = match block(&gpu) {
                Ok(program) => program,
                Err(error) => {
                    assert!(matches!(error, Error::Lost { .. }), "{error}");
                    met += 1;
                    continue;
                }
            };
            if run(&mut program, &x).is_ok() {
                break;
            }
            for _ in 0..2 {
                assert!(matches!(run(&mut program, &x), Err(Error::Lost { .. })));
            }
            assert!(matches!(gpu.synchronize(), Err(Error::Lost { .. })));
            met += 1;
        }
        assert!(met >= 12, "{fault:?} was met {met} times");
    }
}

/// While a program becomes a graph, other threads load weights and look at results.
#[test]
fn nothing_is_told_a_device_while_a_graph_is_made() {
    let gpu = emulated(ThreadOrder::Ascending);
    let x = numbers(2, 192, DType::F32);
    let ended = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                let tensor = Tensor::upload(&gpu, &SHAPE, HostData::F32(&x)).unwrap();
                assert_eq!(tensor.download().unwrap(), x);
                gpu.free_bytes().unwrap();
            }
        });
        for _ in 0..50 {
            let results = block(&gpu).and_then(|mut program| run(&mut program, &x));
            ended.store(results.is_err(), std::sync::atomic::Ordering::Relaxed);
            results.unwrap();
        }
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_program_that_cannot_be_a_graph_runs_command_by_command() {
    let gpu = faulty(Fault::CaptureFailure, 1);
    let mut program = block(&gpu).unwrap();
    let x = numbers(2, 192, DType::F32);
    let first = run(&mut program, &x).unwrap();
    assert_eq!(run(&mut program, &x).unwrap(), first);
    let bound = program.bound.as_ref().unwrap();
    assert!(bound.graph.is_none() && bound.stays_apart, "it is tried once");
    // The next one can.
    let mut other = block(&gpu).unwrap();
    assert_eq!(run(&mut other, &x).unwrap(), first);
    assert!(other.bound.as_ref().is_some_and(|bound| bound.graph.is_some()));
}

/// A graph that outlives its device is found by the emulated one.
#[test]
fn a_program_may_be_the_last_to_hold_its_device() {
    let gpu = emulated(ThreadOrder::Ascending);
    let mut program = block(&gpu).unwrap();
    drop(gpu);
    run(&mut program, &numbers(2, 192, DType::F32)).unwrap();
    assert!(program.bound.as_ref().is_some_and(|bound| bound.graph.is_some()));
    drop(program);
}

/// Whatever is there or not, each library is named and nothing ends the process.
#[test]
fn every_library_is_named() {
    let names: Vec<&str> = Gpu::libraries().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["NVIDIA driver", "NVRTC", "cuDNN"]);
    for (name, found) in Gpu::libraries() {
        println!("{name}: {found:?}");
    }
}

/// On a machine without a driver; on one with a card there is nothing to say.
#[test]
fn a_device_that_is_not_there_says_what_is_missing() {
    match Gpu::open(0, None) {
        Ok(gpu) => println!("left out: {:?} is there", gpu.description()),
        Err(Error::Unavailable { why }) => println!("{why}"),
        Err(error) => panic!("{error}"),
    }
}
