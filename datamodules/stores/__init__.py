"""What is converted once and read ever after: regions and texts in HDF5."""
