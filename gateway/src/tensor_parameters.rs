//! Parameters of requests, inputs and outputs that mean the same over HTTP and gRPC.

use sluice_protocol::{Parameter, Parameters, RegionSlice};

use crate::error::{GatewayError, clip};

/// The region of shared memory in which a tensor's elements are, or are to be put.
pub(crate) const REGION: &str = "shared_memory_region";
/// How many bytes of it.
pub(crate) const REGION_SIZE: &str = "shared_memory_byte_size";
/// Where they begin, 0 when nobody says.
pub(crate) const REGION_OFFSET: &str = "shared_memory_offset";
/// How many of an output's classes are wanted in its place.
const CLASSES: &str = "classification";
/// What a server's own parameters begin with.
const RESERVED: &str = "triton_";
/// A name that Triton keeps for itself.
const HEADERS: &str = "headers";
/// Those of a request that the protocol knows.
const KNOWN: [&str; 7] = [
    "sequence_id",
    "sequence_start",
    "sequence_end",
    "priority",
    "timeout",
    "binary_data_output",
    HEADERS,
];

/// Refuses the first of `names` that is a server's own. Those of sequences pass: a model without
/// sequences answers each request by itself, as Triton lets it.
pub(crate) fn check<'n>(mut names: impl Iterator<Item = &'n String>) -> Result<(), GatewayError> {
    let is_reserved = |name: &&String| name.starts_with(RESERVED) || *name == HEADERS;
    let Some(name) = names.find(is_reserved) else { return Ok(()) };
    let name = clip(name);
    Err(GatewayError::Invalid(format!(
        "parameter {name:?}: '{HEADERS}' and parameter keys starting with '{RESERVED}' are reserved and should not be specified"
    )))
}

/// Whether a request's parameter of this name means something to a server, so that no header may
/// pass for it.
pub(crate) fn has_meaning(name: &str) -> bool {
    name.starts_with(RESERVED) || KNOWN.contains(&name)
}

/// The part of a region that a tensor's parameters name.
pub(crate) fn region(parameters: &Parameters) -> Result<Option<RegionSlice>, GatewayError> {
    let Some(region) = parameters.get(REGION) else {
        return match [REGION_SIZE, REGION_OFFSET].iter().find(|n| parameters.contains_key(**n)) {
            None => Ok(None),
            Some(name) => Err(wrong(name, &format!("beside {REGION:?}, which is not there"))),
        };
    };
    let Parameter::String(region) = region else { return Err(wrong(REGION, "a string")) };
    let byte_size = whole(parameters, REGION_SIZE)?;
    let byte_size = byte_size.ok_or_else(|| wrong(REGION_SIZE, &format!("beside {REGION:?}")))?;
    let offset = whole(parameters, REGION_OFFSET)?.unwrap_or(0);
    Ok(Some(RegionSlice { region: region.clone(), offset, byte_size }))
}

/// How many classes an output's parameters ask for; none of them is the output itself.
pub(crate) fn classes(parameters: &Parameters) -> Result<Option<usize>, GatewayError> {
    let classes = whole(parameters, CLASSES)?.filter(|&classes| classes > 0);
    Ok(classes.map(|classes| usize::try_from(classes).unwrap_or(usize::MAX)))
}

/// A whole number that is not negative.
pub(crate) fn whole(parameters: &Parameters, name: &str) -> Result<Option<u64>, GatewayError> {
    match parameters.get(name) {
        None => Ok(None),
        Some(Parameter::Uint64(value)) => Ok(Some(*value)),
        Some(Parameter::Int64(value)) if *value >= 0 => Ok(Some(value.unsigned_abs())),
        Some(_) => Err(wrong(name, "a whole number that is not negative")),
    }
}

/// True or false.
pub(crate) fn truth(parameters: &Parameters, name: &str) -> Result<Option<bool>, GatewayError> {
    match parameters.get(name) {
        None => Ok(None),
        Some(Parameter::Bool(value)) => Ok(Some(*value)),
        Some(_) => Err(wrong(name, "true or false")),
    }
}

/// A parameter that is not what it must be.
pub(crate) fn wrong(name: &str, expected: &str) -> GatewayError {
    GatewayError::Invalid(format!("parameter {:?} must be {expected}", clip(name)))
}

#[cfg(test)]
mod tests {
    use sluice_protocol::{Parameter, Parameters, RegionSlice};

    use super::{classes, region};

    fn parameters(list: &[(&str, Parameter)]) -> Parameters {
        list.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    #[test]
    fn a_region_is_named_with_its_size() {
        let text = |text: &str| Parameter::String(text.to_owned());
        let (name, size) = (("shared_memory_region", text("r")), "shared_memory_byte_size");
        let whole = parameters(&[name.clone(), (size, Parameter::Uint64(8))]);
        let slice = RegionSlice { region: "r".to_owned(), offset: 0, byte_size: 8 };
        assert_eq!(region(&whole).unwrap(), Some(slice));
        assert_eq!(region(&Parameters::new()).unwrap(), None);
        for (list, says) in [
            (vec![name.clone()], "byte_size\" must be beside"),
            (vec![name.clone(), (size, Parameter::Int64(-1))], "not negative"),
            (vec![name.clone(), (size, Parameter::Double(1.0))], "not negative"),
            (vec![("shared_memory_region", Parameter::Bool(true))], "must be a string"),
            (vec![(size, Parameter::Int64(1))], "which is not there"),
        ] {
            let error = region(&parameters(&list)).unwrap_err().to_string();
            assert!(error.contains(says), "{list:?}: {error}");
        }
    }

    #[test]
    fn classes_are_counted() {
        let of = |value| classes(&parameters(&[("classification", value)]));
        assert_eq!(of(Parameter::Int64(3)).unwrap(), Some(3));
        assert_eq!(of(Parameter::Uint64(0)).unwrap(), None);
        assert!(of(Parameter::Int64(-1)).is_err() && of(Parameter::Bool(true)).is_err());
    }
}
