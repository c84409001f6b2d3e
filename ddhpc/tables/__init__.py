"""What the terminal shows of plans, runs and packed files."""
