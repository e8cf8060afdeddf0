//! From the values of a pickle to named tensors, each checked against the bytes that are there.

use std::collections::BTreeMap;

use safetensors::Dtype;

use super::Content;
use super::error::PickleProblem;
use super::value::{Arena, Id, Tensor, Value};
use crate::container::stored_tensor::StoredTensor;

/// How deep dictionaries with tensors are nested.
const MAX_DEPTH: usize = 8;
/// How many members of dictionaries are looked at on the way to the tensors.
const MAX_LOOKS: usize = 4 << 20;
/// How long all names may be together, in bytes.
const MAX_NAMES: usize = 64 << 20;

/// The kind of an element, by the name of PyTorch's storage class or dtype.
pub(super) fn dtype_of(kind: &str) -> Option<Dtype> {
    Some(match kind {
        "DoubleStorage" | "float64" => Dtype::F64,
        "FloatStorage" | "float32" => Dtype::F32,
        "HalfStorage" | "float16" => Dtype::F16,
        "BFloat16Storage" | "bfloat16" => Dtype::BF16,
        "LongStorage" | "int64" => Dtype::I64,
        "IntStorage" | "int32" => Dtype::I32,
        "ShortStorage" | "int16" => Dtype::I16,
        "CharStorage" | "int8" => Dtype::I8,
        "ByteStorage" | "uint8" | "UntypedStorage" => Dtype::U8,
        "BoolStorage" | "bool" => Dtype::BOOL,
        _ => return None,
    })
}

/// The bytes of one element; all kinds above have whole ones.
pub(super) fn size_bytes(dtype: Dtype) -> u64 {
    dtype.bitsize() as u64 / 8
}

/// The tensors of a file by name.
pub(super) fn collect(content: &Content) -> Result<BTreeMap<String, StoredTensor>, PickleProblem> {
    let mut walk = Walk {
        content,
        found: BTreeMap::new(),
        looked_at: 0,
        name_bytes: 0,
    };
    let root = unwrapped(&content.arena, content.root);
    walk.visit(root, String::new(), 0)?;
    Ok(walk.found)
}

/// Trainers put `state_dict` beside their own state.
fn unwrapped(arena: &Arena, root: Id) -> Id {
    let wrapped = arena.member(root, "state_dict");
    wrapped
        .filter(|inner| matches!(arena.get(*inner), Value::Dict(_)))
        .unwrap_or(root)
}

struct Walk<'a> {
    content: &'a Content,
    found: BTreeMap<String, StoredTensor>,
    looked_at: usize,
    name_bytes: usize,
}

impl Walk<'_> {
    /// Members that are looked at on the way, whatever they are: the same long dictionary may be met again and again.
    fn look_at(&mut self, members: usize) -> Result<(), PickleProblem> {
        self.looked_at = self.looked_at.saturating_add(members);
        if self.looked_at > MAX_LOOKS {
            return Err(PickleProblem::TooMany { limit: MAX_LOOKS });
        }
        Ok(())
    }

    fn visit(&mut self, id: Id, name: String, depth: usize) -> Result<(), PickleProblem> {
        self.look_at(1)?;
        self.name_bytes += name.len();
        if self.name_bytes > MAX_NAMES {
            return Err(PickleProblem::TooLarge {
                limit: MAX_NAMES as u64,
            });
        }
        // What is nested deeper is some framework's own state, or a dictionary that holds itself.
        if depth > MAX_DEPTH {
            return Ok(());
        }
        let content = self.content;
        if let Value::Tensor(tensor) = content.arena.get(id) {
            let checked = located(content, tensor).map_err(|detail| PickleProblem::Tensor {
                tensor: name.clone(),
                detail,
            })?;
            self.found.insert(name, checked);
        } else if let Value::Dict(members) = content.arena.get(id) {
            self.look_at(members.len())?;
            for (key, value) in members {
                // Other keys, numbers mostly, belong to the state of optimisers.
                if let Some(key) = content.arena.text(*key) {
                    self.visit(*value, joined(&name, key), depth + 1)?;
                }
            }
        } else if let Value::Object(Some(state)) = content.arena.get(id) {
            // A module keeps its parameters beside much of its own.
            if let Value::Dict(members) = content.arena.get(*state) {
                self.look_at(members.len())?;
            }
            if let Some(parameters) = content.arena.member(*state, "_parameters") {
                self.visit(parameters, name, depth + 1)?;
            }
        }
        Ok(())
    }
}

fn joined(outer: &str, key: &str) -> String {
    if outer.is_empty() {
        key.to_owned()
    } else {
        format!("{outer}.{key}")
    }
}

/// Finds the bytes of a tensor; the error says what is wrong.
fn located(content: &Content, tensor: &Tensor) -> Result<StoredTensor, String> {
    let storage = &tensor.storage;
    let dtype = dtype_of(&storage.kind)
        .ok_or_else(|| format!("has elements of the unknown kind {:?}", storage.kind))?;
    let bytes = content
        .storages
        .get(&storage.key)
        .ok_or_else(|| format!("lies in storage {:?}, which the file does not have", storage.key))?;
    let size = size_bytes(dtype);
    let available = bytes.length / size;
    let beyond = || {
        let needed = &tensor.shape;
        format!("of shape {needed:?} does not lie in its storage, which has {available} elements")
    };
    let elements = product(&tensor.shape).ok_or_else(beyond)?;
    // Views that repeat their elements would be a way to claim any size.
    let first = storage.first.checked_add(tensor.offset).ok_or_else(beyond)?;
    let span = span(tensor).ok_or_else(beyond)?;
    let end = first.checked_add(span).ok_or_else(beyond)?;
    if elements > available || end > available {
        return Err(beyond());
    }
    let dimensions = |sizes: &[u64]| {
        sizes
            .iter()
            .map(|size| usize::try_from(*size).ok())
            .collect::<Option<Vec<_>>>()
    };
    let contiguous = elements <= 1 || is_contiguous(tensor);
    Ok(StoredTensor {
        dtype,
        shape: dimensions(&tensor.shape).ok_or_else(beyond)?,
        start: bytes.start + first * size,
        end: bytes.start + end * size,
        strides: if contiguous {
            None
        } else {
            Some(dimensions(&tensor.strides).ok_or_else(beyond)?)
        },
    })
}

fn product(sizes: &[u64]) -> Option<u64> {
    sizes
        .iter()
        .try_fold(1_u64, |product, size| product.checked_mul(*size))
}

/// Elements from the first to the last, both included; 0 for a tensor without any.
fn span(tensor: &Tensor) -> Option<u64> {
    if tensor.shape.contains(&0) {
        return Some(0);
    }
    let mut last = 0_u64;
    for (size, stride) in tensor.shape.iter().zip(&tensor.strides) {
        last = last.checked_add((size - 1).checked_mul(*stride)?)?;
    }
    last.checked_add(1)
}

fn is_contiguous(tensor: &Tensor) -> bool {
    let mut expected = 1_u64;
    for (size, stride) in tensor.shape.iter().zip(&tensor.strides).rev() {
        if *size != 1 && *stride != expected {
            return false;
        }
        expected = expected.saturating_mul(*size);
    }
    true
}
