//! Archives as tools make them, and as nobody should.
