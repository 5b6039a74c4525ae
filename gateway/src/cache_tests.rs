//! What is found again, what is not, and how much is kept.

use sluice_protocol::{Datatype, NamedTensor, RequestedOutput, Tensor, TensorData};

use super::{ENTRY, Key, ResponseCache};
use crate::deployment::{Deployment, Output, idle};

/// A version with outputs y and z.
fn deployment() -> Deployment {
    let output = |name: &str, index| Output {
        name: name.to_owned(),
        datatype: Datatype::Fp32,
        shape: vec![-1],
        reshape: None,
        index,
        labels: None,
    };
    let outputs = vec![output("y", 0), output("z", 1)];
    Deployment { outputs, cached: true, ..idle::deployment(&"m".parse().unwrap(), &[]) }
}

fn key(deployment: &Deployment, wanted: &[RequestedOutput], inputs: &[Tensor]) -> Key {
    Key::new(deployment, wanted, inputs, &[])
}

fn tensor(shape: &[i64], data: TensorData) -> Tensor {
    Tensor::new(shape.to_vec(), data).unwrap()
}

fn floats(shape: &[i64], values: &[f32]) -> Tensor {
    tensor(shape, TensorData::Fp32(values.to_vec()))
}

fn outputs(values: &[f32]) -> Vec<NamedTensor> {
    let shape = [i64::try_from(values.len()).unwrap()];
    vec![NamedTensor { name: "y".to_owned(), tensor: floats(&shape, values) }]
}

#[test]
fn what_was_kept_is_found_with_the_same_bits() {
    let (cache, deployment) = (ResponseCache::new(1 << 20).unwrap(), deployment());
    let key = key(&deployment, &[], &[floats(&[1], &[1.0])]);
    assert!(cache.find(&key).is_none());
    let nan = f32::from_bits(0x7fc0_1234);
    cache.keep(key, &outputs(&[nan, -0.0, 1.5]));
    let found = cache.find(&key).unwrap();
    let TensorData::Fp32(values) = found[0].tensor.data() else { panic!("{found:?}") };
    let bits: Vec<_> = values.iter().map(|value| value.to_bits()).collect();
    assert_eq!(bits, [nan, -0.0, 1.5].map(f32::to_bits));
}

#[test]
fn whatever_an_answer_depends_on_is_part_of_the_key() {
    let deployment = deployment();
    let wanted = |names: &[&str]| -> Vec<_> {
        names
            .iter()
            .map(|name| RequestedOutput { name: (*name).to_owned(), classes: None, region: None })
            .collect()
    };
    let text = |parts: &[&'static str]| {
        let parts: Vec<_> = parts.iter().map(|part| part.as_bytes().into()).collect();
        tensor(&[i64::try_from(parts.len()).unwrap()], TensorData::Bytes(parts))
    };
    let x = || vec![floats(&[2, 2], &[0.0, 1.0, 2.0, 3.0])];
    let different = [
        (wanted(&[]), x()),
        (wanted(&["y"]), x()),
        (wanted(&["z"]), x()),
        (wanted(&[]), vec![floats(&[4, 1], &[0.0, 1.0, 2.0, 3.0])]),
        (wanted(&[]), vec![floats(&[2, 2], &[-0.0, 1.0, 2.0, 3.0])]),
        (wanted(&[]), vec![tensor(&[1], TensorData::Int32(vec![0]))]),
        (wanted(&[]), vec![tensor(&[1], TensorData::Uint32(vec![0]))]),
        (wanted(&[]), vec![text(&["ab", "c"])]),
        (wanted(&[]), vec![text(&["a", "bc"])]),
        (wanted(&[]), vec![floats(&[1], &[1.0]), floats(&[2], &[1.0, 1.0])]),
        (wanted(&[]), vec![floats(&[2], &[1.0, 1.0]), floats(&[1], &[1.0])]),
    ];
    let keys: Vec<_> =
        different.iter().map(|(wanted, inputs)| key(&deployment, wanted, inputs)).collect();
    for (index, own) in keys.iter().enumerate() {
        let (wanted, inputs) = &different[index];
        assert_eq!(*own, key(&deployment, wanted, inputs), "{index} is not the same again");
        assert!(!keys[..index].contains(own), "{index} is the key of another question");
    }
    // What the graph need not be given makes another question, by its name too.
    let optional = |name: &str| {
        let named = NamedTensor { name: name.to_owned(), tensor: floats(&[1], &[1.0]) };
        Key::new(&deployment, &[], &x(), &[named])
    };
    let keys_of_optional = [optional("a"), optional("b"), keys[0]];
    assert!((0..3).all(|one| !keys_of_optional[..one].contains(&keys_of_optional[one])));
    // All outputs, named in any order, are all outputs.
    assert_eq!(key(&deployment, &wanted(&["z", "y"]), &x()), keys[0]);
}

#[test]
fn a_version_that_is_loaded_again_finds_nothing_of_the_old_one() {
    let inputs = [floats(&[1], &[1.0])];
    assert_ne!(key(&deployment(), &[], &inputs), key(&deployment(), &[], &inputs));
}

#[test]
fn many_questions_do_not_take_more_than_the_bound() {
    let bound = 1 << 20;
    let (cache, deployment) = (ResponseCache::new(bound).unwrap(), deployment());
    let mut most = 0;
    for question in 0..20_000u16 {
        let key = key(&deployment, &[], &[floats(&[1], &[f32::from(question)])]);
        cache.keep(key, &outputs(&vec![0.0; usize::from(question) % 500]));
        most = most.max(cache.bytes());
    }
    assert!(most <= bound as u64 && most > bound as u64 / 2, "{most}");
    // Beside the elements an entry weighs what it takes in memory.
    let entries = cache.0.len();
    assert!(entries * ENTRY < bound, "{entries}");
}

#[test]
fn an_answer_that_is_too_large_is_not_kept_and_makes_no_room() {
    let (cache, deployment) = (ResponseCache::new(1 << 16).unwrap(), deployment());
    let [small, large] = [1.0, 2.0].map(|value| key(&deployment, &[], &[floats(&[1], &[value])]));
    cache.keep(small, &outputs(&[1.0]));
    cache.keep(large, &outputs(&vec![0.0; 1 << 16]));
    assert!(cache.find(&large).is_none());
    assert!(cache.find(&small).is_some());
}

#[test]
fn a_cache_of_no_bytes_is_none() {
    assert!(ResponseCache::new(0).is_none());
}
