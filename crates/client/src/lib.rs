//! A small RESP client for the command line, the load generator and the tests.
#![forbid(unsafe_code)]
