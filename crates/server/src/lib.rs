//! The machine room: event loops, input and output back ends, connections, wiring.
