//! The progress of an examination, for its caller to show.

/// A step of an examination.
pub enum Stage<'a> {
    /// The model is being packed.
    Packing {
        /// Bytes packed so far.
        done: u64,
        /// Bytes of the whole model.
        total: u64,
    },
    /// The built-in texts run through the model with this change, such as "with scales inverted".
    Running(&'a str),
}

/// Receives the steps of an examination.
pub type OnProgress<'a> = &'a mut dyn FnMut(Stage);
