//! Compiles the protobuf files with protox, so that nobody has to install protoc.

use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["proto/inference.proto"], ["proto"])?;
    // Reflection and the text form of configurations are read by these.
    let descriptors = PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(descriptors, files.encode_to_vec())?;
    // `bytes` keeps raw tensor contents as slices of the received message instead of copies.
    tonic_prost_build::configure()
        .generate_default_stubs(true)
        .codec_path("crate::codec::Codec")
        .bytes(".inference.ModelInferRequest.raw_input_contents")
        .bytes(".inference.ModelInferResponse.raw_output_contents")
        .bytes(".inference.InferTensorContents.bytes_contents")
        .bytes(".inference.ModelRepositoryParameter.bytes_param")
        .compile_fds(files)?;
    Ok(())
}
