//! Published shapes of models, by name.

/// Names and their config.json.
const SHAPES: [(&str, &str); 6] = [
    (
        "bitnet-2b4t",
        include_str!("../../../configs/shapes/bitnet-2b4t.json"),
    ),
    (
        "falcon-e-1b",
        include_str!("../../../configs/shapes/falcon-e-1b.json"),
    ),
    (
        "falcon3-1b",
        include_str!("../../../configs/shapes/falcon3-1b.json"),
    ),
    (
        "falcon3-7b",
        include_str!("../../../configs/shapes/falcon3-7b.json"),
    ),
    (
        "llama3-8b",
        include_str!("../../../configs/shapes/llama3-8b.json"),
    ),
    (
        "bitnet-100b",
        include_str!("../../../configs/shapes/bitnet-100b.json"),
    ),
];

/// The config.json of a shape, or of the file with this path.
///
/// # Errors
/// What was expected, if it is neither.
pub fn read(name: &str) -> Result<Vec<u8>, String> {
    if let Some((_, json)) = SHAPES.iter().find(|(known, _)| *known == name) {
        return Ok(json.as_bytes().to_vec());
    }
    let known = SHAPES.map(|(name, _)| name).join(", ");
    std::fs::read(name)
        .map_err(|e| format!("{name}: not a shape and not a config.json ({e}); shapes: {known}"))
}
