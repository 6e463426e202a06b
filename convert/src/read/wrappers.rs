//! Names of tensors without the parts that PyTorch's wrappers of modules put into them.
//!
//! A model that is saved from within `torch.compile`, `DistributedDataParallel`, FSDP or a module
//! of the user's own has longer names than transformers gives them. What remains without these
//! parts is the same.

use sterna_ternary::layout::EMBEDDING;

/// Parts between dots that wrappers add anywhere in a name: `torch.compile`,
/// `DistributedDataParallel`, FSDP, checkpoints of activations.
const ANYWHERE: [&str; 4] = [
    "_orig_mod",
    "module",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
];

/// Beginnings that a module around the whole model adds: one with an attribute `model`, such as
/// those of Lightning, and that of peft.
const AROUND: [&str; 2] = ["model.", "base_model.model."];

/// The names in the order given, without the parts of wrappers.
pub(super) fn unwrapped<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let is_own = |part: &&str| !ANYWHERE.contains(part);
    let without = |name: &str| name.split('.').filter(is_own).collect::<Vec<_>>().join(".");
    let mut names: Vec<String> = names.map(without).collect();
    for around in AROUND {
        let embedding = format!("{around}{EMBEDDING}");
        let is_around = names.iter().all(|name| name.starts_with(around));
        if is_around && names.contains(&embedding) {
            for name in &mut names {
                name.drain(..around.len());
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: [&str; 3]) -> Vec<String> {
        unwrapped(names.into_iter())
    }

    #[test]
    fn wrappers_leave_the_names_of_transformers() {
        let plain = [
            EMBEDDING,
            "model.layers.0.mlp.up_proj.weight",
            "lm_head.weight",
        ];
        assert_eq!(check(plain), plain);
        for around in [
            "_orig_mod.",
            "module.",
            "module._orig_mod.",
            "model.",
            "base_model.model.",
        ] {
            let wrapped = plain.map(|name| format!("{around}{name}"));
            assert_eq!(
                check([&wrapped[0], &wrapped[1], &wrapped[2]]),
                plain,
                "{around}"
            );
        }
        let inside = "model.layers.0._fsdp_wrapped_module.mlp._orig_mod.up_proj.weight";
        assert_eq!(check([EMBEDDING, inside, "lm_head.weight"]), plain);
    }

    #[test]
    fn a_body_without_a_head_keeps_its_prefix() {
        // Every name of such a checkpoint begins with `model.`.
        let body = [
            EMBEDDING,
            "model.norm.weight",
            "model.layers.0.mlp.up_proj.weight",
        ];
        assert_eq!(check(body), body);
    }
}
