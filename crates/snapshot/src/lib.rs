//! Root file systems stacked from layers.
