//! Dequantized values equal those of the format's reference, bit for bit.

use rewire_gguf::{Gguf, TensorType};
use safetensors::SafeTensors;

use crate::fixture;

#[test]
fn every_type_is_dequantized_as_the_reference_does() {
    let path = fixture("types.gguf");
    let bytes = std::fs::read(&path).unwrap();
    let file = Gguf::read(&bytes, &path).unwrap();
    let reference = std::fs::read(fixture("types.safetensors")).unwrap();
    let reference = SafeTensors::deserialize(&reference).unwrap();
    assert_eq!(file.tensors().len(), TensorType::all().count());
    for kind in TensorType::all() {
        let tensor = file.tensor(&format!("of.{kind}")).unwrap_or_else(|| panic!("no tensor of the type {kind}"));
        let expected = reference.tensor(tensor.name).unwrap();
        assert_eq!(tensor.kind, kind);
        assert_eq!(tensor.shape, expected.shape(), "{kind}");
        let bits = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes);
        let expected: Vec<u32> = expected.data().as_chunks().0.iter().map(bits).collect();
        let found: Vec<u32> = tensor.to_f32().into_iter().map(f32::to_bits).collect();
        assert_eq!(found.len(), expected.len(), "{kind}");
        for (index, (found, expected)) in found.into_iter().zip(expected).enumerate() {
            let [ours, theirs] = [found, expected].map(f32::from_bits);
            assert_eq!(found, expected, "{kind}, value {index}: {ours} and {theirs}");
        }
    }
}

#[test]
fn the_odd_scales_of_the_fixture_reach_the_extremes() {
    let path = fixture("types.gguf");
    let bytes = std::fs::read(&path).unwrap();
    let file = Gguf::read(&bytes, &path).unwrap();
    for kind in TensorType::all() {
        let values = file.tensor(&format!("of.{kind}")).unwrap().to_f32();
        let has = |what: &str, property: fn(&f32) -> bool| {
            assert!(values.iter().any(property), "{kind} has no value that is {what}");
        };
        has("zero", |value| *value == 0.0);
        has("below -60000", |value| *value < -60_000.0);
        has("above 60000", |value| *value > 60_000.0);
        has("tiny", |value| *value != 0.0 && value.abs() < 1e-4);
    }
}
