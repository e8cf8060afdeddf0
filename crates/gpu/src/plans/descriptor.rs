//! cuDNN's backend descriptors: made, given attributes, finished, dropped.

use std::ffi::c_void;

pub(super) use cudarc::cudnn::sys::cudnnBackendAttributeName_t as Name;
pub(super) use cudarc::cudnn::sys::cudnnBackendDescriptorType_t as Kind;
use cudarc::cudnn::sys::{self, cudnnBackendAttributeType_t as Type, cudnnBackendDescriptor_t as Raw};

use super::{Why, pointer};

/// What a call has answered, with cuDNN's own words where it has any.
pub(super) fn checked(what: &str, status: sys::cudnnStatus_t) -> Result<(), Why> {
    if status == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS {
        return Ok(());
    }
    let mut text = [0_u8; 1024];
    // SAFETY: there is room for as many bytes as are said.
    unsafe { sys::cudnnGetLastErrorString(text.as_mut_ptr().cast(), text.len()) };
    let words: Vec<u8> = text.into_iter().take_while(|byte| *byte != 0).collect();
    Err(format!("{what}: {status:?} {}", String::from_utf8_lossy(&words)))
}

/// A descriptor.
#[derive(Debug)]
pub(super) struct Descriptor(Raw);

// SAFETY: a descriptor belongs to whoever holds it, and cuDNN ties none to a thread.
unsafe impl Send for Descriptor {}

impl Descriptor {
    pub(super) fn new(kind: Kind) -> Result<Self, Why> {
        let mut raw: Raw = std::ptr::null_mut();
        // SAFETY: the place is valid.
        checked("create", unsafe {
            sys::cudnnBackendCreateDescriptor(kind, &raw mut raw)
        })?;
        Ok(Self(raw))
    }

    pub(super) fn raw(&self) -> Raw {
        self.0
    }

    /// # Safety
    /// `values` are of the Rust type that cuDNN reads for `kind`.
    unsafe fn set<T>(self, name: Name, kind: Type, values: &[T]) -> Result<Self, Why> {
        let count = i64::try_from(values.len()).unwrap_or(i64::MAX);
        let from = values.as_ptr().cast::<c_void>();
        // SAFETY: as many values of this type lie there; cuDNN copies them.
        let status = unsafe { sys::cudnnBackendSetAttribute(self.0, name, kind, count, from) };
        checked(&format!("{name:?}"), status)?;
        Ok(self)
    }

    pub(super) fn ints(self, name: Name, values: &[i64]) -> Result<Self, Why> {
        // SAFETY: 64-bit integers.
        unsafe { self.set(name, Type::CUDNN_TYPE_INT64, values) }
    }

    pub(super) fn floats(self, name: Name, values: &[f32]) -> Result<Self, Why> {
        // SAFETY: 32-bit floats.
        unsafe { self.set(name, Type::CUDNN_TYPE_FLOAT, values) }
    }

    pub(super) fn flag(self, name: Name, value: bool) -> Result<Self, Why> {
        // SAFETY: cuDNN's booleans are of one byte.
        unsafe { self.set(name, Type::CUDNN_TYPE_BOOLEAN, &[u8::from(value)]) }
    }

    #[cfg(test)]
    pub(super) fn text(self, name: Name, value: &str) -> Result<Self, Why> {
        // SAFETY: bytes are characters.
        unsafe { self.set(name, Type::CUDNN_TYPE_CHAR, value.as_bytes()) }
    }

    pub(super) fn number_type(self, name: Name, value: sys::cudnnDataType_t) -> Result<Self, Why> {
        // SAFETY: its own enum.
        unsafe { self.set(name, Type::CUDNN_TYPE_DATA_TYPE, &[value]) }
    }

    pub(super) fn pointwise(self, name: Name, value: sys::cudnnPointwiseMode_t) -> Result<Self, Why> {
        // SAFETY: its own enum.
        unsafe { self.set(name, Type::CUDNN_TYPE_POINTWISE_MODE, &[value]) }
    }

    pub(super) fn convolution(self, name: Name, value: sys::cudnnConvolutionMode_t) -> Result<Self, Why> {
        // SAFETY: its own enum.
        unsafe { self.set(name, Type::CUDNN_TYPE_CONVOLUTION_MODE, &[value]) }
    }

    pub(super) fn heuristic(self, name: Name, value: sys::cudnnBackendHeurMode_t) -> Result<Self, Why> {
        // SAFETY: its own enum.
        unsafe { self.set(name, Type::CUDNN_TYPE_HEUR_MODE, &[value]) }
    }

    /// A knob by its number, which a newer cuDNN may have more of than its enum here.
    pub(super) fn knob(self, name: Name, value: u32) -> Result<Self, Why> {
        // SAFETY: cuDNN's enums are of 32 bits.
        unsafe { self.set(name, Type::CUDNN_TYPE_KNOB_TYPE, &[value]) }
    }

    pub(super) fn child(self, name: Name, value: &Self) -> Result<Self, Why> {
        self.children(name, &[value])
    }

    pub(super) fn children(self, name: Name, values: &[&Self]) -> Result<Self, Why> {
        let raw: Vec<Raw> = values.iter().map(|value| value.0).collect();
        // SAFETY: descriptors.
        unsafe { self.set(name, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &raw) }
    }

    pub(super) fn handle(self, name: Name, value: &Handle) -> Result<Self, Why> {
        // SAFETY: a handle.
        unsafe { self.set(name, Type::CUDNN_TYPE_HANDLE, &[value.0]) }
    }

    pub(super) fn pointers(self, name: Name, addresses: &[u64]) -> Result<Self, Why> {
        let pointers: Vec<*mut c_void> = addresses.iter().map(|address| pointer(*address)).collect();
        // SAFETY: pointers, which nobody follows here.
        unsafe { self.set(name, Type::CUDNN_TYPE_VOID_PTR, &pointers) }
    }

    /// No further attributes follow.
    pub(super) fn finished(self) -> Result<Self, Why> {
        // SAFETY: the descriptor is there.
        checked("finalize", unsafe { sys::cudnnBackendFinalize(self.0) })?;
        Ok(self)
    }

    /// At most `values.len()` values of an attribute; how many there are.
    ///
    /// # Safety
    /// `T` is the type that cuDNN writes for `kind`.
    unsafe fn get<T>(&self, name: Name, kind: Type, values: &mut [T]) -> Result<usize, Why> {
        let room = i64::try_from(values.len()).unwrap_or(i64::MAX);
        let (mut found, to) = (0, values.as_mut_ptr().cast::<c_void>());
        // SAFETY: there is room for as many values of this type.
        let status = unsafe { sys::cudnnBackendGetAttribute(self.0, name, kind, room, &raw mut found, to) };
        checked(&format!("{name:?}"), status)?;
        Ok(usize::try_from(found).unwrap_or(0).min(values.len()))
    }

    pub(super) fn int(&self, name: Name) -> Result<i64, Why> {
        let mut value = [0_i64];
        // SAFETY: 64-bit integers.
        unsafe { self.get(name, Type::CUDNN_TYPE_INT64, &mut value)? };
        Ok(value[0])
    }

    /// The numbers of an engine's numerical notes.
    pub(super) fn notes(&self, name: Name) -> Result<Vec<u32>, Why> {
        let mut values = vec![0_u32; 64];
        // SAFETY: cuDNN's enums are of 32 bits.
        let count = unsafe { self.get(name, Type::CUDNN_TYPE_NUMERICAL_NOTE, &mut values)? };
        values.truncate(count);
        Ok(values)
    }

    /// The number of a knob.
    pub(super) fn knob_number(&self, name: Name) -> Result<u32, Why> {
        let mut value = [0_u32];
        // SAFETY: cuDNN's enums are of 32 bits.
        unsafe { self.get(name, Type::CUDNN_TYPE_KNOB_TYPE, &mut value)? };
        Ok(value[0])
    }

    /// At most `most` descriptors of an attribute.
    pub(super) fn descriptors(&self, name: Name, kind: Kind, most: usize) -> Result<Vec<Self>, Why> {
        let mut all = (0..most)
            .map(|_| Self::new(kind))
            .collect::<Result<Vec<_>, _>>()?;
        let mut raw: Vec<Raw> = all.iter().map(|one| one.0).collect();
        // SAFETY: cuDNN fills descriptors that have been made for it.
        let count = unsafe { self.get(name, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &mut raw)? };
        all.truncate(count);
        Ok(all)
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: nobody else destroys it.
        let _ = unsafe { sys::cudnnBackendDestroyDescriptor(self.0) };
    }
}

/// cuDNN's handle for a card that is there.
#[derive(Debug)]
pub(super) struct Handle(sys::cudnnHandle_t);

// SAFETY: cuDNN's handles may be used by any thread, one at a time.
unsafe impl Send for Handle {}

impl Handle {
    /// For the card whose context is this thread's, on this stream.
    pub(super) fn new(stream: sys::cudaStream_t) -> Result<Self, Why> {
        let mut raw: sys::cudnnHandle_t = std::ptr::null_mut();
        // SAFETY: the place is valid.
        checked("cudnnCreate", unsafe { sys::cudnnCreate(&raw mut raw) })?;
        let handle = Self(raw);
        // SAFETY: handle and stream are there.
        checked("cudnnSetStream", unsafe { sys::cudnnSetStream(raw, stream) })?;
        Ok(handle)
    }

    pub(super) fn raw(&self) -> sys::cudnnHandle_t {
        self.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: nobody else destroys it.
        let _ = unsafe { sys::cudnnDestroy(self.0) };
    }
}
