//! Tensors in the protocol's binary form, as bodies, messages and shared memory bring them. What
//! there is of them is held against their shape and the room before memory is taken for it.

use bytes::Bytes;
use sluice_protocol::{Datatype, RegionSlice, ShapeError, Tensor, TensorData, element_count};

use crate::control::shared_memory::Regions;
use crate::error::GatewayError;
use crate::room::Room;

/// The tensor of `raw`. `input` is told of in errors.
pub(crate) fn tensor(
    input: &str,
    datatype: Datatype,
    shape: Vec<i64>,
    raw: &Bytes,
    room: &Room,
) -> Result<Tensor, GatewayError> {
    let refuse = |error: ShapeError| GatewayError::shape(input, &error);
    let expected = element_count(&shape).map_err(refuse)?;
    let found = TensorData::raw_count(datatype, raw);
    // Too few of them, or one that is cut off, is found below.
    if found > expected {
        return Err(refuse(ShapeError::Count { shape, expected, found }));
    }
    room.take_elements(datatype, found)?;
    let data = TensorData::from_raw(datatype, raw).map_err(refuse)?;
    Tensor::new(shape, data).map_err(refuse)
}

/// The tensor in a part of a region, which is as long as the shape needs it. So little memory is
/// taken for what a caller only says that it has there. `input` is told of in errors.
pub(crate) fn tensor_in_region(
    input: &str,
    datatype: Datatype,
    shape: Vec<i64>,
    slice: &RegionSlice,
    regions: &Regions,
    room: &Room,
) -> Result<Tensor, GatewayError> {
    let refuse = |error: ShapeError| GatewayError::shape(input, &error);
    let expected = element_count(&shape).map_err(refuse)?;
    let bytes = usize::try_from(slice.byte_size).unwrap_or(usize::MAX);
    // Texts stay in the buffer that they are read into, numbers are copied out of it.
    let _buffer = match datatype.size() {
        None => {
            room.take(bytes)?;
            None
        }
        Some(size) if bytes % size != 0 => {
            return Err(refuse(ShapeError::PartialElement { datatype, bytes }));
        }
        Some(size) if bytes / size != expected => {
            return Err(refuse(ShapeError::Count { shape, expected, found: bytes / size }));
        }
        Some(_) => Some(room.lend(bytes)?),
    };
    tensor(input, datatype, shape, &regions.read(slice, input)?.into(), room)
}

#[cfg(test)]
mod tests {
    use sluice_protocol::{Code, Datatype};

    use super::tensor;
    use crate::error::GatewayError;
    use crate::room::Room;

    fn read(
        datatype: Datatype,
        shape: &[i64],
        raw: &'static [u8],
        room: usize,
    ) -> Result<usize, GatewayError> {
        let room = Room::of_bytes(room);
        tensor("x", datatype, shape.to_vec(), &raw.into(), &room).map(|read| read.data().len())
    }

    #[test]
    fn elements_fill_the_shape_and_take_their_room() {
        assert_eq!(read(Datatype::Fp32, &[1, 2], &[0; 8], 8).unwrap(), 2);
        assert_eq!(read(Datatype::Bytes, &[2], &[0; 8], 64).unwrap(), 2);
        for (datatype, room) in [(Datatype::Fp32, 7), (Datatype::Bytes, 63)] {
            let error = read(datatype, &[2], &[0; 8], room).unwrap_err();
            assert_eq!(error.code(), Code::TooLarge, "{error}");
        }
        for (datatype, shape, raw, says) in [
            (Datatype::Fp32, [2], &[0; 12][..], "needs 2 elements, got 3"),
            (Datatype::Fp32, [2], &[0; 4], "needs 2 elements, got 1"),
            (Datatype::Fp32, [2], &[0; 7], "no whole number of FP32"),
            (Datatype::Fp32, [-1], &[0; 4], "negative dimension"),
            (Datatype::Bytes, [2], &[0; 4], "needs 2 elements, got 1"),
            (Datatype::Bytes, [2], &[0; 6], "element 1 is cut off"),
            // Refused for their number, before there is room for them.
            (Datatype::Bytes, [2], &[0; 4000], "needs 2 elements, got 1000"),
        ] {
            let error = read(datatype, &shape, raw, 100).unwrap_err().to_string();
            assert!(error.contains(says), "{datatype} {}: {error}", raw.len());
        }
    }
}
