//! PyTorch's part of a pickle: which calls are data, and how storages and tensors are written down.
//!
//! Upstream: `torch/serialization.py` (persistent ids) and `torch/_utils.py` (`_rebuild_*`) of PyTorch 2.

use super::error::PickleProblem;
use super::value::{Arena, Id, Storage, Tensor, Value};

/// More dimensions than any tensor has.
const MAX_DIMENSIONS: usize = 16;
/// Longer than any key of a storage.
const MAX_KEY: usize = 64;

/// What a call of a known name gives. Everything else is refused, because a pickle may name any function of Python.
///
/// Nothing long is copied: a few bytes can call with the same long argument again and again.
pub(super) fn call(arena: &mut Arena, callee: Id, arguments: Id) -> Result<Id, PickleProblem> {
    let name = name_of(arena, callee)?;
    let items = arena
        .items(arguments)
        .ok_or(PickleProblem::Malformed("a call has no arguments"))?;
    let value = match name {
        // A parameter is its tensor, here with a flag and hooks, there with a state; a size is its numbers.
        "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state" | "torch.Size" => {
            let of = items.first().copied();
            return of.ok_or(PickleProblem::Malformed("a parameter has no tensor"));
        }
        "torch._tensor._rebuild_from_type_v2" => {
            let (function, inner) = items
                .first()
                .zip(items.get(2))
                .ok_or(PickleProblem::Malformed("a tensor's type has no arguments"))?;
            let inner = arena.items(*inner).unwrap_or_default();
            match name_of(arena, *function)? {
                function if TENSOR.contains(&function) => Value::Tensor(tensor(arena, inner)?),
                function => return Err(refused(function)),
            }
        }
        name if TENSOR.contains(&name) => Value::Tensor(tensor(arena, items)?),
        "collections.OrderedDict" | "collections.defaultdict" | "builtins.dict" | "__builtin__.dict" => {
            Value::Dict(dict(arena, items)?)
        }
        "torch.nn.parameter.Parameter"
        | "torch.nn.modules.container.ParameterDict"
        | "torch.nn.modules.container.ParameterList" => Value::Object(None),
        name if PLAIN.contains(&name) => Value::Opaque,
        name => return Err(refused(name)),
    };
    Ok(arena.add(value))
}

/// The name of what is called.
fn name_of(arena: &Arena, callee: Id) -> Result<&str, PickleProblem> {
    if let Value::Global(name) = arena.get(callee) {
        Ok(name)
    } else {
        Err(refused(arena.get(callee).kind()))
    }
}

fn refused(name: &str) -> PickleProblem {
    PickleProblem::Call {
        name: name.to_owned(),
    }
}

/// The forms in which a tensor is written down.
const TENSOR: [&str; 3] = [
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
];

/// Constructors of plain data that no weight is made of; their values are passed over.
const PLAIN: [&str; 20] = [
    "__builtin__.set",
    "__builtin__.frozenset",
    "__builtin__.bytearray",
    "__builtin__.complex",
    "builtins.set",
    "builtins.frozenset",
    "builtins.bytearray",
    "builtins.complex",
    "_codecs.encode",
    "numpy.dtype",
    "numpy.ndarray",
    "numpy.core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "torch.device",
    "torch.torch_version.TorchVersion",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "datetime.datetime",
];

/// An ordered dictionary is called without arguments, or, by protocol 0 and 1, with a list of pairs of which each is a list.
fn dict(arena: &Arena, arguments: &[Id]) -> Result<Vec<(Id, Id)>, PickleProblem> {
    /// PyTorch itself fills its dictionaries afterwards, whatever the protocol.
    const MAX_PAIRS: usize = 64;
    let pairs = arguments
        .iter()
        .take(2)
        .find_map(|of| arena.items(*of))
        .unwrap_or_default();
    let pairs = pairs
        .iter()
        .take(MAX_PAIRS + 1)
        .map(|pair| match arena.items(*pair) {
            Some([key, value]) => Some((*key, *value)),
            _ => None,
        });
    let pairs: Option<Vec<_>> = pairs.collect();
    pairs
        .filter(|pairs| pairs.len() <= MAX_PAIRS)
        .ok_or(PickleProblem::Malformed("a dict is not made of pairs"))
}

/// `(storage, offset, size, strides, …)`.
fn tensor(arena: &Arena, arguments: &[Id]) -> Result<Tensor, PickleProblem> {
    let wrong = PickleProblem::Malformed("a tensor is not described as PyTorch does");
    let [storage, offset, shape, strides, ..] = arguments else {
        return Err(wrong);
    };
    let Value::Storage(storage) = arena.get(*storage) else {
        return Err(wrong);
    };
    let mut storage = storage.clone();
    // The third form names the type of the elements instead of that of the storage.
    if let Some(Value::Global(kind)) = arguments.get(6).map(|kind| arena.get(*kind)) {
        storage.kind = last_name(kind).to_owned();
    }
    let dimensions = arena.items(*shape).map_or(0, <[Id]>::len);
    if dimensions > MAX_DIMENSIONS || arena.items(*strides).map_or(0, <[Id]>::len) != dimensions {
        return Err(wrong);
    }
    let counts = arena
        .count(*offset)
        .zip(arena.counts(*shape))
        .zip(arena.counts(*strides));
    let Some(((offset, shape), strides)) = counts else {
        return Err(wrong);
    };
    Ok(Tensor {
        storage,
        offset,
        shape,
        strides,
    })
}

/// What a persistent id stands for: a storage, or, in old files, `("module", class, file, source)` for a class.
pub(super) fn persistent(arena: &mut Arena, id: Id) -> Result<Id, PickleProblem> {
    match arena.items(id) {
        Some([tag, class, ..]) if arena.text(*tag) == Some("module") => Ok(*class),
        _ => {
            let storage = storage(arena, id)?;
            Ok(arena.add(Value::Storage(storage)))
        }
    }
}

/// `("storage", type, key, device, elements[, view])`, where a view is `(key, first element, elements)`.
fn storage(arena: &Arena, persistent_id: Id) -> Result<Storage, PickleProblem> {
    let wrong = PickleProblem::Malformed("it refers to an object that is no storage");
    let Some([tag, kind, key, _device, elements, rest @ ..]) = arena.items(persistent_id) else {
        return Err(wrong);
    };
    let key = if let Value::Int(number) = arena.get(*key) {
        Some(number.to_string())
    } else {
        arena
            .text(*key)
            .filter(|key| key.len() <= MAX_KEY)
            .map(str::to_owned)
    };
    // How many elements there are is taken from the file and not from here.
    let (Some("storage"), Value::Global(kind), Some(key), Some(_)) =
        (arena.text(*tag), arena.get(*kind), key, arena.count(*elements))
    else {
        return Err(wrong);
    };
    let view = rest.first().and_then(|view| arena.items(*view));
    let first = match view {
        None => 0,
        Some([_, first, _]) => arena.count(*first).ok_or(wrong)?,
        Some(_) => return Err(wrong),
    };
    Ok(Storage {
        kind: last_name(kind).to_owned(),
        key,
        first,
    })
}

fn last_name(full: &str) -> &str {
    full.rsplit('.').next().unwrap_or(full)
}
