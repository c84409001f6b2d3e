"""All that knows how processes work together: MPI, torch.distributed, launchers and signals."""
