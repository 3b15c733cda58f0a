//! The command line: verbs, flags, formats.
