"""From stores to batches: the order of the examples, and reading them."""
