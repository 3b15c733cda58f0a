//! The use-cases of the engine.
