//! What a pickle holds, as data: values in one arena that name each other by number.
//!
//! Numbers instead of references, so that a value which holds itself a million times costs a million numbers, and letting
//! go of a deep one is no recursion.

/// The number of a value in its [`Arena`].
pub(super) type Id = usize;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits, in the order of the file: least significant byte first.
    BigInt(Vec<u8>),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    /// In the order of insertion; a key that was set twice stands twice, and the last one counts.
    Dict(Vec<(Id, Id)>),
    /// A class or a function by its full name, which is only named.
    Global(String),
    /// An object of a known class, and the state that was given to it.
    Object(Option<Id>),
    Storage(Storage),
    Tensor(Tensor),
    /// Something whose content is of no interest here: a set, a numpy scalar, a device.
    Opaque,
}

impl Value {
    /// What it holds outside of itself.
    fn bytes_beside(&self) -> usize {
        match self {
            Self::BigInt(bytes) | Self::Bytes(bytes) => bytes.len(),
            Self::Text(text) | Self::Global(text) => text.len(),
            Self::Tuple(items) | Self::List(items) => items.len() * size_of::<Id>(),
            Self::Dict(members) => members.len() * size_of::<(Id, Id)>(),
            Self::Storage(storage) => storage.bytes_beside(),
            Self::Tensor(tensor) => {
                let sizes = tensor.shape.len() + tensor.strides.len();
                tensor.storage.bytes_beside() + sizes * size_of::<u64>()
            }
            Self::None | Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Object(_) | Self::Opaque => 0,
        }
    }

    /// What it is, for a message.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a bool",
            Self::Int(_) | Self::BigInt(_) => "an int",
            Self::Float(_) => "a float",
            Self::Text(_) => "a str",
            Self::Bytes(_) => "bytes",
            Self::Tuple(_) => "a tuple",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dict",
            Self::Global(_) => "a class or function",
            Self::Object(_) | Self::Opaque => "an object",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
        }
    }
}

/// Numbers of one kind in a row, which tensors are views of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Storage {
    /// PyTorch's name of the kind: `FloatStorage`, `float16`.
    pub(super) kind: String,
    /// Which storage of the file.
    pub(super) key: String,
    /// Where it is a view of another storage, the element at which it begins there.
    pub(super) first: u64,
}

impl Storage {
    fn bytes_beside(&self) -> usize {
        self.kind.len() + self.key.len()
    }
}

/// A view of a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tensor {
    pub(super) storage: Storage,
    /// In elements, as are the strides.
    pub(super) offset: u64,
    pub(super) shape: Vec<u64>,
    pub(super) strides: Vec<u64>,
}

/// All values of one pickle.
#[derive(Debug, Default)]
pub(super) struct Arena {
    values: Vec<Value>,
    bytes: usize,
}

impl Arena {
    pub(super) fn add(&mut self, value: Value) -> Id {
        self.bytes += size_of::<Value>() + value.bytes_beside();
        self.values.push(value);
        self.values.len() - 1
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// About what all values took when they were added. What is put into lists afterwards is bounded by the pickle's bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&self, id: Id) -> &Value {
        &self.values[id]
    }

    pub(super) fn get_mut(&mut self, id: Id) -> &mut Value {
        &mut self.values[id]
    }

    pub(super) fn text(&self, id: Id) -> Option<&str> {
        if let Value::Text(text) = self.get(id) {
            Some(text)
        } else {
            None
        }
    }

    /// The members of a tuple or a list.
    pub(super) fn items(&self, id: Id) -> Option<&[Id]> {
        if let Value::Tuple(items) | Value::List(items) = self.get(id) {
            Some(items)
        } else {
            None
        }
    }

    /// The value under a key of a dictionary.
    pub(super) fn member(&self, id: Id, name: &str) -> Option<Id> {
        let Value::Dict(members) = self.get(id) else {
            return None;
        };
        let found = members
            .iter()
            .rev()
            .find(|(key, _)| self.text(*key) == Some(name));
        found.map(|(_, value)| *value)
    }

    /// A whole number that is not negative.
    pub(super) fn count(&self, id: Id) -> Option<u64> {
        if let Value::Int(number) = self.get(id) {
            u64::try_from(*number).ok()
        } else {
            None
        }
    }

    /// Several of them.
    pub(super) fn counts(&self, id: Id) -> Option<Vec<u64>> {
        self.items(id)?.iter().map(|item| self.count(*item)).collect()
    }
}
