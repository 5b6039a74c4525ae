//! Between our tensors and ONNX Runtime's values: inputs are borrowed, outputs copied once.

use half::slice::HalfBitsSliceExt;
use ort::session::SessionInputValue;
use ort::value::{DynValue, PrimitiveTensorElementType, TensorElementType, TensorRef};
use sluice_protocol::{Datatype, Tensor, TensorData};

use crate::EngineError;
use crate::onnx::one_line;

/// Our name for ONNX Runtime's element type, if we serve it.
pub(crate) const fn datatype(element: TensorElementType) -> Option<Datatype> {
    Some(match element {
        TensorElementType::Bool => Datatype::Bool,
        TensorElementType::Uint8 => Datatype::Uint8,
        TensorElementType::Uint16 => Datatype::Uint16,
        TensorElementType::Uint32 => Datatype::Uint32,
        TensorElementType::Uint64 => Datatype::Uint64,
        TensorElementType::Int8 => Datatype::Int8,
        TensorElementType::Int16 => Datatype::Int16,
        TensorElementType::Int32 => Datatype::Int32,
        TensorElementType::Int64 => Datatype::Int64,
        TensorElementType::Float16 => Datatype::Fp16,
        TensorElementType::Bfloat16 => Datatype::Bf16,
        TensorElementType::Float32 => Datatype::Fp32,
        TensorElementType::Float64 => Datatype::Fp64,
        TensorElementType::String => Datatype::Bytes,
        _ => return None,
    })
}

/// A view of `tensor` for a run. Strings are the exception: ONNX Runtime copies them.
pub(crate) fn borrow<'t>(
    tensor: &'t Tensor,
    name: &str,
) -> Result<SessionInputValue<'t>, EngineError> {
    fn view<'t, T: PrimitiveTensorElementType + std::fmt::Debug + Clone + 'static>(
        shape: &[i64],
        elements: &'t [T],
    ) -> ort::Result<SessionInputValue<'t>> {
        Ok(TensorRef::from_array_view((shape.to_vec(), elements))?.into())
    }
    let shape = tensor.shape();
    let value = match tensor.data() {
        TensorData::Bool(v) => view(shape, v),
        TensorData::Uint8(v) => view(shape, v),
        TensorData::Uint16(v) => view(shape, v),
        TensorData::Uint32(v) => view(shape, v),
        TensorData::Uint64(v) => view(shape, v),
        TensorData::Int8(v) => view(shape, v),
        TensorData::Int16(v) => view(shape, v),
        TensorData::Int32(v) => view(shape, v),
        TensorData::Int64(v) => view(shape, v),
        TensorData::Fp16(v) => view(shape, v.reinterpret_cast::<half::f16>()),
        TensorData::Bf16(v) => view(shape, v.reinterpret_cast::<half::bf16>()),
        TensorData::Fp32(v) => view(shape, v),
        TensorData::Fp64(v) => view(shape, v),
        TensorData::Bytes(v) => {
            let texts = v.iter().map(|bytes| text(bytes)).collect::<Result<Vec<_>, _>>();
            let texts =
                texts.map_err(|reason| EngineError::Input { name: name.to_owned(), reason })?;
            ort::value::Tensor::from_string_array((shape.to_vec(), texts.as_slice()))
                .map(Into::into)
        }
    };
    value.map_err(|error| EngineError::Input { name: name.to_owned(), reason: one_line(&error) })
}

/// A copy of an output.
pub(crate) fn copy(value: &DynValue, name: &str) -> Result<Tensor, EngineError> {
    let failed =
        |error: ort::Error| EngineError::Run(format!("output {name:?}: {}", one_line(&error)));
    let element = value
        .dtype()
        .tensor_type()
        .ok_or_else(|| EngineError::Run(format!("output {name:?} is no tensor")))?;
    macro_rules! elements {
        ($variant:ident, $t:ty) => {{
            let (shape, data) = value.try_extract_tensor::<$t>().map_err(failed)?;
            (shape.to_vec(), TensorData::$variant(data.to_vec()))
        }};
    }
    let (shape, data) = match datatype(element) {
        Some(Datatype::Bool) => elements!(Bool, bool),
        Some(Datatype::Uint8) => elements!(Uint8, u8),
        Some(Datatype::Uint16) => elements!(Uint16, u16),
        Some(Datatype::Uint32) => elements!(Uint32, u32),
        Some(Datatype::Uint64) => elements!(Uint64, u64),
        Some(Datatype::Int8) => elements!(Int8, i8),
        Some(Datatype::Int16) => elements!(Int16, i16),
        Some(Datatype::Int32) => elements!(Int32, i32),
        Some(Datatype::Int64) => elements!(Int64, i64),
        Some(Datatype::Fp32) => elements!(Fp32, f32),
        Some(Datatype::Fp64) => elements!(Fp64, f64),
        Some(Datatype::Fp16) => {
            let (shape, data) = value.try_extract_tensor::<half::f16>().map_err(failed)?;
            (shape.to_vec(), TensorData::Fp16(data.iter().map(|x| x.to_bits()).collect()))
        }
        Some(Datatype::Bf16) => {
            let (shape, data) = value.try_extract_tensor::<half::bf16>().map_err(failed)?;
            (shape.to_vec(), TensorData::Bf16(data.iter().map(|x| x.to_bits()).collect()))
        }
        Some(Datatype::Bytes) => {
            let (shape, texts) = value.try_extract_strings().map_err(failed)?;
            (shape.to_vec(), TensorData::Bytes(texts.into_iter().map(Into::into).collect()))
        }
        None => return Err(EngineError::Run(format!("output {name:?} is a tensor of {element}"))),
    };
    Tensor::new(shape, data).map_err(|error| EngineError::Run(format!("output {name:?}: {error}")))
}

/// A string element. ONNX Runtime takes C strings, so a NUL would cut it short.
fn text(bytes: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "string element is not UTF-8")?;
    if text.contains('\0') {
        return Err("string element contains a NUL".to_owned());
    }
    Ok(text.to_owned())
}
