//! Which engine computes a layer: the first of cuDNN's list that cuts its sums the same way for every number of rows.
//!
//! The heuristics' own answer differs from one number of rows to the next, so they are asked once, for four rows. Nothing is
//! timed: two starts must agree.

use cudarc::cudnn::sys::cudnnBackendHeurMode_t as Heuristic;

use super::conv::{ConvKey, graph};
use super::descriptor::{Descriptor, Kind, Name};
use super::{Card, Plan, Why};
use crate::data::DType;

/// Rows for which the heuristics are asked.
const ASKED: usize = 4;

/// Rows for which an engine has to need the same workspace. One that needs more at some cuts its sums differently there.
const ROWS: [usize; 7] = [1, 2, 3, 4, 8, 16, 32];

/// Configurations that are looked at, in the heuristics' order.
const CONFIGURATIONS: usize = 64;

/// Most knobs that an engine has.
const KNOBS: usize = 64;

/// Workspace of an engine, at most, in bytes: in f16 what is needed is small, in f32 without tensor cores it is not.
const fn most_workspace(dtype: DType) -> usize {
    match dtype {
        DType::F16 => 1 << 20,
        DType::F32 | DType::I32 | DType::Address => 256 << 20,
    }
}

/// Numbers of `cudnnBackendNumericalNote_t`.
const TENSOR_CORE: u32 = 0;
const DOWN_CONVERT_INPUTS: u32 = 1;
const REDUCED_PRECISION_REDUCTION: u32 = 2;
const FFT: u32 = 3;
const NONDETERMINISTIC: u32 = 4;
const WINOGRAD: u32 = 5;

/// An engine with its knobs, which is the same for every number of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pinned {
    engine: i64,
    /// Number and value of each knob.
    knobs: Vec<(u32, i64)>,
    /// Whether rows are computed one by one, since no engine computes all numbers of them the same way.
    pub(super) by_row: bool,
}

/// The engine of a layer.
pub(super) fn pin(card: &Card, key: ConvKey) -> Result<Pinned, Why> {
    match among(card, key, ASKED, |pinned| same_for_all_rows(card, key, pinned)) {
        Ok(pinned) => Ok(pinned),
        // A row by itself has no company to depend on.
        Err(_) => {
            let fits = |pinned: &Pinned| {
                let plan = pinned.plan(card, key, 1);
                plan.is_ok_and(|plan| plan.workspace_bytes <= most_workspace(key.dtype))
            };
            among(card, key, 1, fits).map(|pinned| Pinned {
                by_row: true,
                ..pinned
            })
        }
    }
}

/// The first of cuDNN's configurations for so many rows that will do.
fn among(card: &Card, key: ConvKey, rows: usize, will_do: impl Fn(&Pinned) -> bool) -> Result<Pinned, Why> {
    let (graph, _held) = graph(card, key, rows)?;
    let mut count = 0;
    // The second list is of engines that compute everything, and slower.
    for mode in [Heuristic::CUDNN_HEUR_MODE_A, Heuristic::CUDNN_HEUR_MODE_FALLBACK] {
        let configurations = asked(card, &graph, mode)?;
        count += configurations.len();
        for configuration in configurations {
            if let Some(pinned) = read(&configuration, key.dtype)?
                && will_do(&pinned)
            {
                return Ok(pinned);
            }
        }
    }
    Err(format!(
        "none of cuDNN's {count} configurations for {rows} rows will do for {key:?}"
    ))
}

/// The configurations that cuDNN offers for a graph, the best first.
fn asked(card: &Card, graph: &Descriptor, mode: Heuristic) -> Result<Vec<Descriptor>, Why> {
    let asked = Descriptor::new(Kind::CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)?
        .child(Name::CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph)?
        .heuristic(Name::CUDNN_ATTR_ENGINEHEUR_MODE, mode)?;
    match card {
        Card::Present(_) => asked,
        Card::Described(card) => asked.child(Name::CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, card)?,
    }
    .finished()?
    .descriptors(
        Name::CUDNN_ATTR_ENGINEHEUR_RESULTS,
        Kind::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR,
        CONFIGURATIONS,
    )
}

/// The engine and the knobs of a configuration; None where its results may differ from one run or one number of rows to the
/// next, or where it computes with fewer digits than `dtype` has.
fn read(configuration: &Descriptor, dtype: DType) -> Result<Option<Pinned>, Why> {
    let engines = configuration.descriptors(
        Name::CUDNN_ATTR_ENGINECFG_ENGINE,
        Kind::CUDNN_BACKEND_ENGINE_DESCRIPTOR,
        1,
    )?;
    let Some(engine) = engines.first() else {
        return Ok(None);
    };
    let notes = engine.notes(Name::CUDNN_ATTR_ENGINE_NUMERICAL_NOTE)?;
    let never = [REDUCED_PRECISION_REDUCTION, FFT, NONDETERMINISTIC, WINOGRAD];
    // With f32 operands tensor cores multiply TF32, which has 10 bits.
    let rounds = dtype == DType::F32
        && [TENSOR_CORE, DOWN_CONVERT_INPUTS]
            .iter()
            .any(|note| notes.contains(note));
    if rounds || never.iter().any(|note| notes.contains(note)) {
        return Ok(None);
    }
    let choices = configuration.descriptors(
        Name::CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
        Kind::CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR,
        KNOBS,
    )?;
    let knobs = choices
        .iter()
        .map(|choice| {
            Ok((
                choice.knob_number(Name::CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE)?,
                choice.int(Name::CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE)?,
            ))
        })
        .collect::<Result<Vec<_>, Why>>()?;
    if knobs.iter().any(|(knob, value)| splits(*knob, *value)) {
        return Ok(None);
    }
    Ok(Some(Pinned {
        engine: engine.int(Name::CUDNN_ATTR_ENGINE_GLOBAL_INDEX)?,
        knobs,
        by_row: false,
    }))
}

/// Whether a knob cuts a sum into parts: SPLIT_K, SPLIT_K_BUF, SPLIT_K_SLC and STREAM_K, by their numbers in cuDNN.
fn splits(knob: u32, value: i64) -> bool {
    match knob {
        0 | 17 => value > 1,
        12 => value != 0 && value != -1,
        38 => value > 0,
        _ => false,
    }
}

fn same_for_all_rows(card: &Card, key: ConvKey, pinned: &Pinned) -> bool {
    let mut first = None;
    ROWS.iter().all(|rows| {
        pinned.plan(card, key, *rows).is_ok_and(|plan| {
            plan.workspace_bytes <= most_workspace(key.dtype)
                && *first.get_or_insert(plan.workspace_bytes) == plan.workspace_bytes
        })
    })
}

impl Pinned {
    /// Its plan for a number of rows.
    pub(super) fn plan(&self, card: &Card, key: ConvKey, rows: usize) -> Result<Plan, Why> {
        let (graph, mut held) = graph(card, key, rows)?;
        let engine = Descriptor::new(Kind::CUDNN_BACKEND_ENGINE_DESCRIPTOR)?
            .child(Name::CUDNN_ATTR_ENGINE_OPERATION_GRAPH, &graph)?
            .ints(Name::CUDNN_ATTR_ENGINE_GLOBAL_INDEX, &[self.engine])?;
        let engine = match card {
            Card::Present(_) => engine,
            Card::Described(card) => engine.child(Name::CUDNN_ATTR_ENGINE_DEVICEPROP, card)?,
        }
        .finished()?;
        let knobs = self
            .knobs
            .iter()
            .map(|(knob, value)| {
                Descriptor::new(Kind::CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR)?
                    .knob(Name::CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, *knob)?
                    .ints(Name::CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, &[*value])?
                    .finished()
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut configuration = Descriptor::new(Kind::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)?
            .child(Name::CUDNN_ATTR_ENGINECFG_ENGINE, &engine)?;
        if !knobs.is_empty() {
            let all: Vec<&Descriptor> = knobs.iter().collect();
            configuration = configuration.children(Name::CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, &all)?;
        }
        let configuration = configuration.finished()?;
        let plan = Descriptor::new(Kind::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)?
            .child(Name::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, &configuration)?;
        let plan = match card {
            Card::Present(handle) => plan.handle(Name::CUDNN_ATTR_EXECUTION_PLAN_HANDLE, handle)?,
            Card::Described(card) => plan.child(Name::CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, card)?,
        }
        .finished()?;
        let workspace = plan.int(Name::CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE)?;
        held.extend(knobs);
        held.extend([configuration, engine, graph]);
        Ok(Plan {
            plan,
            workspace_bytes: usize::try_from(workspace).unwrap_or(0),
            has_bias: key.bias,
            by_row: self.by_row,
            _held: held,
        })
    }
}
