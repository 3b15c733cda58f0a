//! Image store: load, save, import, export, unpack.
