//! The command table, one file per family, and all state that commands share; no sockets.
#![forbid(unsafe_code)]
