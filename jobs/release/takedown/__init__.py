"""Take-down: rows that a release leaves out, with all rows made from them."""
