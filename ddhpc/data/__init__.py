"""From raw data to packed files, and reading these by window."""
