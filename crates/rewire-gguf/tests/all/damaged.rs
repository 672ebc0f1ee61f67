//! Damaged files are refused with one error that names the file, and the key or the tensor.

use crate::writer::{Entry, File};
use crate::{fixture, read};

/// Returns the message for a file.
fn refused(bytes: &[u8]) -> String {
    match read(bytes) {
        Ok(_) => panic!("a damaged file was read"),
        Err(error) => error.to_string(),
    }
}

/// A file with a key, a tensor and an array of texts.
fn whole() -> File {
    File::of("llama").with_texts("tokens", &["a", "b"]).with_tensor("first", &[4, 2]).with_tensor("second", &[3])
}

fn entry(name: &str, sizes: &[u64], kind: u32, offset: u64) -> Entry {
    Entry { name: name.into(), sizes: sizes.to_vec(), kind, offset }
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let bytes = whole().bytes();
    let file = read(&bytes).unwrap();
    assert_eq!(file.tensors().len(), 2);
    assert_eq!(file.tensor("first").unwrap().shape, [2, 4]);
    // The values of the last tensor end 20 bytes before the file does.
    for length in 0..bytes.len() - 20 {
        let message = refused(&bytes[..length]);
        assert!(message.starts_with("model.gguf"), "{message}");
    }
    read(&bytes[..bytes.len() - 20]).unwrap();
}

#[test]
fn each_section_that_is_cut_off_is_named() {
    let bytes = whole().bytes();
    let position = |text: &str| bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    let cases = [
        (10, "model.gguf: the file is cut off: 8 bytes should follow byte 8, and 2 do"),
        (position("general"), "model.gguf: key 1 of 2: the file is cut off"),
        (position("llama"), "model.gguf, key `general.architecture`: the file is cut off"),
        (position("tokens") + 30, "model.gguf, key `tokens`: the file is cut off"),
        (position("first"), "model.gguf: tensor 1 of 2: the file is cut off"),
        (position("second") + 10, "model.gguf, tensor `second`: the file is cut off"),
        (
            bytes.len() - 24,
            "model.gguf, tensor `second`: its 12 bytes begin at byte 32 of the data, and the data has 40 bytes",
        ),
    ];
    for (length, message) in cases {
        let refused = refused(&bytes[..length]);
        assert!(refused.starts_with(message), "{refused}");
    }
}

#[test]
fn other_files_and_versions_are_refused_by_name() {
    let changed = |at: usize, with: &[u8]| {
        let mut bytes = whole().bytes();
        bytes[at..at + with.len()].copy_from_slice(with);
        refused(&bytes)
    };
    assert_eq!(changed(0, b"PK\x03\x04"), "model.gguf: it is not a GGUF file: it does not begin with GGUF");
    assert!(changed(0, b"tjgg").contains("it is a GGML file, the format before GGUF"));
    assert!(changed(4, &[1, 0, 0, 0]).contains("it has version 1 of GGUF; Rewire reads versions 2 and 3"));
    assert!(changed(4, &[4, 0, 0, 0]).contains("version 4"));
    assert!(changed(4, &[0, 0, 0, 3]).contains("it is a big-endian GGUF file"));
    let mut second = whole().bytes();
    second[4] = 2;
    assert_eq!(read(&second).unwrap().tensors().len(), 2);
}

#[test]
fn huge_counts_are_refused_without_memory_for_them() {
    let huge = u64::MAX;
    let counts = |at: usize| {
        let mut bytes = whole().bytes();
        bytes[at..at + 8].copy_from_slice(&huge.to_le_bytes());
        refused(&bytes)
    };
    assert!(counts(8).contains(&format!("it claims {huge} tensors; at most 65536 are allowed")));
    assert!(counts(16).contains(&format!("it claims {huge} keys; at most 65536 are allowed")));
    let array = |kind, length| refused(&File::of("llama").with_array("x", kind, length, &[0; 40]).bytes());
    for kind in 0..=12 {
        for length in [huge, huge / 8, 1 << 40, 1000] {
            let message = array(kind, length);
            assert!(message.starts_with("model.gguf, key `x`: "), "{kind}, {length}: {message}");
        }
    }
    let tensor = |sizes: &[u64]| refused(&whole().with_entry(entry("third", sizes, 0, 64), &[]).bytes());
    assert!(tensor(&[huge, huge]).contains("tensor `third`: its shape"));
    assert!(tensor(&[1 << 40]).contains("tensor `third`: its 4398046511104 bytes begin at byte 64"));
    assert!(tensor(&[huge]).contains("has more values than a file can hold"));
    let key = File::default().with(vec![b'k'; 8], 8, &huge.to_le_bytes()).bytes();
    assert!(refused(&key).contains("key `kkkkkkkk`: the file is cut off"));
}

#[test]
fn wrong_entries_of_tensors_are_refused_by_name() {
    let message = |entry: Entry| refused(&whole().with_entry(entry, &[0; 64]).bytes());
    let cases = [
        (entry("x", &[4], 16, 64), "tensor `x`: it has the type IQ2_XXS, and Rewire reads F32, F16, BF16, Q4_0, Q4_1"),
        (entry("x", &[4], 99, 64), "it has the type number 99"),
        (entry("x", &[4], 0, 96 + 64), "tensor `x`: its 16 bytes begin at byte 160 of the data"),
        (entry("x", &[4], 0, u64::MAX - 31), "tensor `x`: its 16 bytes begin at byte 18446744073709551584"),
        (entry("x", &[4], 0, 65), "tensor `x`: its values begin at byte 65, not at a multiple of 32"),
        (entry("x", &[4], 0, 0), "its values overlap those of the tensor `"),
        (entry("x", &[], 0, 64), "tensor `x`: it has 0 dimensions"),
        (entry("x", &[1, 1, 1, 1, 1], 0, 64), "tensor `x`: it has 5 dimensions"),
        (entry("x", &[4, 0], 0, 64), "tensor `x`: its shape [4, 0] has no values"),
        (entry("x", &[40], 2, 64), "tensor `x`: its rows have 40 values, and the type Q4_0 needs a multiple of 32"),
        (entry("first", &[4], 0, 64), "tensor `first`: the file has it twice; keep one"),
    ];
    for (entry, expected) in cases {
        let message = message(entry);
        assert!(message.contains(expected), "{message}");
    }
    let unreadable = Entry { name: b"bad\xff".to_vec(), ..entry("", &[4], 0, 64) };
    assert!(message(unreadable).contains("tensor 3 of 3: the text after \"bad\" is not UTF-8"));
}

#[test]
fn wrong_keys_are_refused_by_name() {
    let nested: Vec<u8> = [9_u32.to_le_bytes().to_vec(), 1_u64.to_le_bytes().to_vec()].concat().repeat(20);
    let cases = [
        (File::of("a").with_text("general.architecture", "b"), "key `general.architecture`: the metadata has it twice"),
        (File::of("a").with(b"k\xff", 4, &[0; 4]), "key 2 of 2: the text after \"k\" is not UTF-8"),
        (File::of("a").with("k", 8, &[1, 0, 0, 0, 0, 0, 0, 0, 0xff]), "key `k`: the text after \"\" is not UTF-8"),
        (File::of("a").with("k", 13, &[0; 8]), "key `k`: the type 13 of a value is unknown"),
        (File::of("a").with("k", 7, &[2]), "key `k`: 2 is neither false (0) nor true (1)"),
        (File::of("a").with_array("k", 9, 1, &nested), "key `k`: arrays are nested more than 4 deep"),
        (File::of("a").with_u32("general.alignment", 0), "key `general.alignment`: it is 0, not a power of two"),
        (File::of("a").with_u32("general.alignment", 24), "key `general.alignment`: it is 24, not a power of two"),
        (File::of("a").with_u32("general.alignment", 1 << 30), "key `general.alignment`: it is 1073741824"),
        (File::of("a").with_text("general.alignment", "32"), "it is a text, and must be a whole number"),
    ];
    for (file, expected) in cases {
        let message = refused(&file.bytes());
        assert!(message.starts_with("model.gguf") && message.contains(expected), "{message}");
    }
}

#[test]
fn long_names_are_cut_in_messages() {
    let name = "n".repeat(5000);
    let message = refused(&whole().with_entry(entry(&name, &[4], 16, 64), &[]).bytes());
    assert!(message.len() < 600 && message.contains("(5000 characters)"), "{message}");
}

#[test]
fn no_changed_byte_of_a_file_panics() {
    let path = fixture("qwen3.gguf");
    let whole = std::fs::read(path).unwrap();
    // The metadata and the entries of the tensors.
    for at in 0..2500 {
        for value in [0, 1, 0x7f, 0x80, 0xff, whole[at] ^ 1] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            let Ok(file) = read(&bytes) else { continue };
            let _ = rewire_gguf::config_json(&file).map_err(|error| error.to_string());
            let _ = rewire_gguf::tokenizer_json(&file).map_err(|error| error.to_string());
            let named = rewire_gguf::named_tensors(&file).unwrap_or_default();
            assert!(named.iter().all(|tensor| tensor.to_f32().len() == tensor.shape.iter().product::<usize>()));
        }
    }
}
