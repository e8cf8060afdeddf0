//! Operands that do not fit are refused while a program is recorded, before anything reaches a device.

use crate::testing::device;
use crate::{
    AttnMask, DType, Error, Gpu, GroupNorm, HostData, InputShape, Linear, Program, Tensor, ThreadOrder,
    activate, add, attend, cat_rows, channels_first, convert, gather, geglu, join_channels,
};

/// The error of an operation on inputs of these shapes.
fn refused(
    shapes: &[(&[usize], DType)],
    operation: impl FnOnce(&Gpu, &[Tensor]) -> Result<Tensor, Error>,
) -> String {
    let gpu = device(ThreadOrder::Ascending);
    let shapes: Vec<InputShape> = shapes
        .iter()
        .map(|(shape, dtype)| InputShape::new(shape, *dtype))
        .collect();
    let recorded = Program::record(&gpu, &shapes, |x| Ok::<_, Error>(vec![operation(&gpu, &x)?]));
    let error = recorded.unwrap_err();
    assert!(matches!(error, Error::Operands { .. }), "{error}");
    error.to_string()
}

fn f32s(shape: &[usize]) -> (&[usize], DType) {
    (shape, DType::F32)
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let said = refused(&[f32s(&[2, 3]), f32s(&[2, 4])], |_, x| add(&x[0], &x[1]));
    assert!(said.contains("[2, 3]") && said.contains("[2, 4]"), "{said}");
    refused(&[f32s(&[2, 3])], |_, x| geglu(&x[0]));
    refused(&[f32s(&[2, 3])], |_, x| channels_first(&x[0]));
    refused(&[f32s(&[2, 3]), f32s(&[3, 3])], |_, x| {
        join_channels(&x[0], &x[1])
    });
    refused(&[f32s(&[2, 3]), f32s(&[2])], |_, x| gather(&x[0], &x[1]));
    refused(&[f32s(&[2, 3]), f32s(&[2, 4])], |_, x| cat_rows(&[&x[0], &x[1]]));
    refused(&[f32s(&[2, 3, 8]), f32s(&[1, 3, 8])], |_, x| {
        attend(&x[0], &x[1], &x[1], 2, AttnMask::None)
    });
    refused(&[f32s(&[1, 3, 1026]), f32s(&[1, 3, 1026])], |_, x| {
        attend(&x[0], &x[1], &x[1], 1, AttnMask::None)
    });
    refused(&[f32s(&[2, 9, 8])], |gpu, x| {
        GroupNorm::new(gpu, &[0.0; 6], &[0.0; 6], 2, 1e-5)?.forward(&x[0], false)
    });
    refused(&[f32s(&[2, 9])], |gpu, x| {
        Linear::new(gpu, (3, 8), HostData::F32(&[0.0; 24]), None, DType::F32)?.forward(&x[0], None)
    });
    refused(&[f32s(&[2, 3])], |_, x| x[0].reshape(&[7]));
    refused(&[f32s(&[2, 3])], |_, x| x[0].narrow_rows(1, 2));
    refused(&[f32s(&[2, 3])], |_, x| x[0].narrow_rows(usize::MAX, 2));
}

#[test]
fn types_that_do_not_fit_are_refused() {
    refused(&[(&[3], DType::F32), (&[3], DType::F16)], |_, x| {
        add(&x[0], &x[1])
    });
    refused(&[(&[3], DType::I32)], |_, x| {
        activate(&x[0], crate::Activation::Silu)
    });
    refused(&[(&[3], DType::F32)], |_, x| convert(&x[0], DType::I32));
}

#[test]
fn an_operation_needs_the_program_that_is_recorded() {
    let gpu = device(ThreadOrder::Ascending);
    let kept = Tensor::upload(&gpu, &[2], HostData::F32(&[1.0, 2.0])).unwrap();
    assert!(matches!(add(&kept, &kept), Err(Error::Operands { .. })));
    let mut leaked = None;
    let shape = [InputShape::new(&[2], DType::F32)];
    Program::record(&gpu, &shape, |x| {
        leaked = Some(x[0].clone());
        Ok::<_, Error>(vec![add(&x[0], &kept)?])
    })
    .unwrap();
    let leaked = leaked.unwrap();
    assert!(add(&leaked, &kept).is_err(), "its recording has ended");
    let elsewhere = device(ThreadOrder::Ascending);
    let other = Tensor::upload(&elsewhere, &[2], HostData::F32(&[1.0, 2.0])).unwrap();
    let mixed = Program::record(&gpu, &shape, |x| Ok::<_, Error>(vec![add(&x[0], &other)?]));
    assert!(mixed.unwrap_err().to_string().contains("two devices"));
    let outside = Program::record(&gpu, &shape, |_| Ok::<_, Error>(vec![kept.clone()]));
    assert!(outside.is_err());
}
