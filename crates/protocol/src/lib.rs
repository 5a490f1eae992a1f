//! RESP2, RESP3 and inline requests to borrowed arguments, replies to bytes, the hash-slot rule.
#![forbid(unsafe_code)]
