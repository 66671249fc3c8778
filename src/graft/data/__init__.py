"""Source and target data: domains, splits, sampling, transforms and the data module that joins them."""
