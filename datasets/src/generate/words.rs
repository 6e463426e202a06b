//! The words of stories and facts: common, and short, so that a tokenizer of a few hundred entries
//! holds most of them whole.

/// Names: the first half of women, the second half of men.
pub(super) const NAMES: [&str; 24] = [
    "Amy", "Ann", "Eva", "Ivy", "Kim", "Liz", "Meg", "Mia", "Pam", "Pat", "Sue", "Zoe", //
    "Ben", "Bob", "Dan", "Jim", "Ken", "Leo", "Max", "Ned", "Roy", "Sam", "Tim", "Tom",
];

/// Things that can be found, carried and dropped.
pub(super) const THINGS: [&str; 24] = [
    "bag", "ball", "bell", "book", "box", "coin", "cup", "doll", "drum", "fan", "flag",
    "hat", //
    "jar", "key", "kite", "lamp", "map", "mug", "net", "pen", "pot", "ring", "rope", "toy",
];

/// Colours of things; none begins with a vowel, so that "a" fits all.
pub(super) const COLOURS: [&str; 12] = [
    "black", "blue", "brown", "gold", "grey", "green", "lime", "pink", "red", "tan", "teal",
    "white",
];

/// Places to be in.
pub(super) const PLACES: [&str; 12] = [
    "barn", "camp", "cave", "farm", "hall", "mill", "park", "room", "shop", "tent", "yard", "zoo",
];

/// How somebody felt.
pub(super) const MOODS: [&str; 12] = [
    "bored", "calm", "cold", "glad", "happy", "hungry", "late", "proud", "sad", "sleepy", "tired",
    "warm",
];

/// The pronoun that replaces a name at the start of a sentence.
pub(super) fn pronoun(name: usize) -> &'static str {
    if name < NAMES.len() / 2 { "She" } else { "He" }
}
