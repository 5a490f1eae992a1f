//! The keyspace of one partition: table, entries, expiry, memory accounting.

