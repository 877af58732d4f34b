"""Files to batches: stores, samplers and one data module per data set."""
