"""The mathematics of the two-level method: geometry, local problems, coarse problem. No MPI."""
