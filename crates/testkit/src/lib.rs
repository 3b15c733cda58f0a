//! Roots, fixtures and daemons for tests.
